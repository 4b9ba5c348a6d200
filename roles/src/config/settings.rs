//! The one table of settings: type, default, range, unit, cost and meaning of every key.
//!
//! The structs below, the reader, `adit check`, the example and the reference in `docs/configuration.md` all come from
//! this table, so that none can say what another does not.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use adit_engine::EngineLimits;

use crate::nodes::synthetic::TRANSACTIONS_MAX;

use super::setting::{Cpus, Kind, Secret, Setting, Value, choice};

/// Whether a key must stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has a default.
    Default,
    /// It must be set; here is an example, as TOML.
    Required(&'static str),
    /// It may be left out; here is an example, as TOML.
    Optional(&'static str),
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The section.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// What it accepts.
    pub kind: Kind,
    /// Whether it must be set.
    pub presence: Presence,
    /// Unit of the value.
    pub unit: &'static str,
    /// What it means, line by line.
    pub what: &'static [&'static str],
    /// What a larger value, or a use of it, costs.
    pub cost: &'static str,
    /// The template sources that have this setting, by their `kind`; empty for a setting that all of its section have.
    pub only_for: &'static [&'static str],
    /// Stores a value that `kind` has checked in the section's table of this number, counted from 0.
    pub set: fn(&mut Settings, usize, Value) -> Result<(), String>,
    /// The value in the section's table of this number as TOML; none if it is unset or there is no such table.
    pub show: fn(&Settings, usize) -> Option<Value>,
}

impl Field {
    /// Whether a template source of this kind has the setting.
    pub fn is_for(&self, kind: SourceKind) -> bool {
        self.only_for.is_empty() || self.only_for.contains(&kind.as_str())
    }
}

/// What reads a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `adit pool`.
    Pool,
    /// `adit tp`.
    Tp,
}

impl Program {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Pool, Self::Tp];

    /// Its command, which is also the section that only its files have.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Tp => "tp",
        }
    }

    /// What it is, for a person.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Tp => "template provider",
        }
    }

    /// The sections of its files, in the order of the reference.
    pub fn sections(self) -> impl Iterator<Item = &'static Section> {
        SECTIONS.iter().filter(move |section| section.programs.contains(&self))
    }

    /// The keys of its files, in the order of the reference.
    pub fn fields(self) -> impl Iterator<Item = &'static Field> {
        self.sections().flat_map(|section| FIELDS.iter().filter(|field| field.section == section.name))
    }
}

/// A section of the file.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// Whose files have it.
    pub programs: &'static [Program],
    /// What it is about, line by line.
    pub what: &'static [&'static str],
    /// How many tables of this name a file may have: `[NAME]` once, or `[[NAME]]` before each of several.
    pub tables_max: usize,
    /// Makes the table of this number, counted from 0, with defaults, if there is none.
    pub open: fn(&mut Settings, usize),
    /// How many tables there are.
    pub count: fn(&Settings) -> usize,
}

/// A section's tables, numbered from 0: one, or as many as a list holds.
trait Tables {
    type Table;
    fn count(&self) -> usize;
    fn table(&self, number: usize) -> Option<&Self::Table>;
    /// The table of this number; a list grows to hold it.
    fn table_mut(&mut self, number: usize) -> &mut Self::Table;
}

impl<T: Default> Tables for Vec<T> {
    type Table = T;

    fn count(&self) -> usize {
        self.len()
    }

    fn table(&self, number: usize) -> Option<&T> {
        self.get(number)
    }

    fn table_mut(&mut self, number: usize) -> &mut T {
        while self.len() <= number {
            self.push(T::default());
        }
        &mut self[number]
    }
}

macro_rules! settings {
    (@type $Struct:ident) => { $Struct };
    (@type $Struct:ident $max:expr) => { Vec<$Struct> };
    (@default $Struct:ident) => { $Struct::default() };
    (@default $Struct:ident $max:expr) => { vec![$Struct::default()] };
    (@programs) => { &Program::ALL };
    (@programs $program:ident) => { &[Program::$program] };
    (@max) => { 1 };
    (@max $max:expr) => { $max };
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Struct:ident $([up to $max:expr])? $(in $program:ident)? {
            $(
                $(#[doc = $what:literal])+
                $key:ident: $ty:ty = $default:expr, $kind:expr, $presence:expr, unit $unit:literal, cost $cost:literal
                    $(, only for $($for:literal)+)?;
            )+
        }
    )+) => {
        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug, PartialEq)]
            pub struct $Struct {
                $(
                    $(#[doc = $what])+
                    #[doc = concat!("\n\nUnit: ", $unit, ". Cost: ", $cost)]
                    pub $key: $ty,
                )+
            }

            impl Default for $Struct {
                fn default() -> Self {
                    Self { $($key: $default),+ }
                }
            }

            impl Tables for $Struct {
                type Table = Self;

                fn count(&self) -> usize {
                    1
                }

                fn table(&self, _: usize) -> Option<&Self> {
                    Some(self)
                }

                fn table_mut(&mut self, _: usize) -> &mut Self {
                    self
                }
            }
        )+

        /// Every setting, as the file gives it or by default. What belongs together is checked by
        /// [`PoolConfig`](super::PoolConfig).
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings {
            $(
                $(#[doc = $section_doc])+
                pub $section: settings!(@type $Struct $($max)?),
            )+
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($section: settings!(@default $Struct $($max)?)),+ }
            }
        }

        /// The sections, in the order of the reference.
        pub const SECTIONS: &[Section] = &[$(Section {
            name: stringify!($section),
            programs: settings!(@programs $($program)?),
            what: &[$($section_doc),+],
            tables_max: settings!(@max $($max)?),
            open: |settings, number| {
                settings.$section.table_mut(number);
            },
            count: |settings| settings.$section.count(),
        }),+];

        /// Every key, in the order of the reference.
        pub const FIELDS: &[Field] = &[$($(Field {
            section: stringify!($section),
            key: stringify!($key),
            kind: $kind,
            presence: $presence,
            unit: $unit,
            what: &[$($what),+],
            cost: $cost,
            only_for: &[$($($for),+)?],
            set: |settings, number, value| {
                settings.$section.table_mut(number).$key = Setting::from_value(value)?;
                Ok(())
            },
            show: |settings, number| settings.$section.table(number)?.$key.to_value(),
        }),+),+];
    };
}

choice! {
    /// Where templates come from.
    SourceKind:
    /// A node in this process.
    Embedded = "embedded",
    /// A Bitcoin Core on this machine, over its mining interface.
    CoreIpc = "core-ipc",
    /// A Bitcoin Core anywhere, over JSON-RPC.
    CoreRpc = "core-rpc",
    /// A template provider that speaks the Template Distribution Protocol.
    Sv2 = "sv2",
    /// Work that looks like mainnet's, with no node behind it.
    Synthetic = "synthetic",
}

choice! {
    /// Which chain the pool mines.
    Chain:
    /// The chain whose coins are worth something.
    Main = "main",
    /// The fourth public chain for tests.
    Testnet4 = "testnet4",
    /// The public chain for tests whose blocks are signed; with the embedded node, a private signet whose blocks anyone may
    /// make (challenge OP_TRUE) and which cost about four million hashes.
    Signet = "signet",
    /// A private chain with the easiest target: blocks cost two hashes.
    Regtest = "regtest",
}

choice! {
    /// How the log looks.
    LogFormat:
    /// A line of text for each event.
    Human = "human",
    /// A JSON object on a line for each event.
    Json = "json",
}

choice! {
    /// The least severe events that are logged.
    LogLevel:
    /// What the operator must act on.
    Error = "error",
    /// What the operator should look at.
    Warn = "warn",
    /// What happened.
    Info = "info",
    /// Also single connections and channels.
    Debug = "debug",
    /// Everything.
    Trace = "trace",
}

choice! {
    /// What hashes shares.
    HasherChoice:
    /// The fastest that the CPU has, measured at start.
    Auto = "auto",
    /// Plain Rust.
    Portable = "portable",
    /// The SHA instructions of x86-64.
    ShaNi = "sha-ni",
    /// Eight lanes.
    Avx2 = "avx2",
    /// Sixteen lanes.
    Avx512 = "avx-512",
}

choice! {
    /// What encrypts small frames.
    AeadChoice:
    /// The fastest that the CPU has, measured at start.
    Auto = "auto",
    /// The library `ring`.
    Ring = "ring",
    /// A frame's four blocks in two sets of vectors.
    Avx2 = "avx2",
    /// A frame's four blocks in one set of vectors, and eight frames at once with IFMA.
    Avx512 = "avx-512",
}

/// Template sources at most.
pub const SOURCES_MAX: usize = 8;

/// The longest time that a setting takes, in seconds: a day.
const DAY_S: i64 = 86_400;

settings! {
    /// What the pool is: where it listens and whom it pays.
    pool: PoolSettings in Pool {
        /// Address on which miners are accepted.
        listen: SocketAddr = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 34254), Kind::Address, Presence::Default,
            unit "IP:port", cost "none";
        /// Host name or IP address under which miners reach the pool. It only appears in the line that tells how to point
        /// a miner at the pool.
        public_host: Option<String> = None, Kind::Text { len_max: 253 }, Presence::Optional("\"pool.example.org\""),
            unit "host", cost "none";
        /// Who gets the reward of a block: an address, or an output descriptor that names one script, such as `addr(...)`,
        /// `wpkh(...)`, `tr(...)`, `sh(...)`, `raw(...)`. It must belong to the chain that is mined.
        payout: String = String::new(), Kind::Text { len_max: 4096 },
            Presence::Required("\"addr(bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080)\""),
            unit "descriptor", cost "none";
        /// ASCII text that names the pool in its blocks.
        pool_tag: String = "/Adit/".to_owned(), Kind::Text { len_max: 50 }, Presence::Default,
            unit "text", cost "a byte of every coinbase for each character";
        /// Which machine of the pool this is. Machines of one pool need different numbers: the number is in the extranonce
        /// and keeps their search spaces apart.
        node_id: u16 = 0, Kind::Integer { min: 0, max: 65_535 }, Presence::Default,
            unit "number", cost "none";
        /// Extensions that a client must support to be served.
        required_extensions: Vec<u16> = Vec::new(), Kind::Integers { max: 65_535, len_max: 16 }, Presence::Default,
            unit "extension types", cost "clients without them are refused";
        /// How long connections may take to end when the pool is stopped. They are served for another second, or half of this if
        /// that is less; then they are told, and what arrives until they close is still judged.
        shutdown_grace_s: f64 = 5.0, Kind::Number { min: 0.0, max: 60.0 }, Presence::Default,
            unit "seconds", cost "a stop takes up to this long";
    }

    /// The threads that serve miners.
    engine: EngineSettings in Pool {
        /// CPUs that serve miners, one shard (a pinned thread) each. `auto` takes every CPU that the process may use, but
        /// leaves one to the node and the rest of the program if there are more than two.
        cpus: Cpus = Cpus::Auto, Kind::Cpus, Presence::Default,
            unit "CPU numbers", cost "a thread and its buffers for each shard";
        /// What hashes shares. `auto` measures at start what is fastest; the others are for tests and comparisons.
        hasher: HasherChoice = HasherChoice::Auto, Kind::Choice(HasherChoice::CHOICES), Presence::Default,
            unit "name", cost "anything but `auto` can be slower by an order of magnitude";
        /// What encrypts small frames on connections with miners. `auto` measures at start what is fastest; the others are for
        /// tests and comparisons. Long frames are `ring`'s in any case.
        aead: AeadChoice = AeadChoice::Auto, Kind::Choice(AeadChoice::CHOICES), Presence::Default,
            unit "name", cost "anything but `auto` can take several times the CPU for each frame";
        /// How long what arrives may gather on a busy shard before it is read. A shard to which more than 32 messages come within this time
        /// (64,000 a second by default) reads larger portions that way, which cost less CPU; others never wait. New work waits for
        /// 0.2 ms at most.
        gather_s: f64 = EngineLimits::default().gather_max.as_secs_f64(), Kind::Number { min: 0.0, max: 0.002 }, Presence::Default,
            unit "seconds", cost "answers of a busy shard are later by up to this, rarely twice; with 0 its shares can cost twice the CPU";
    }

    /// What the template provider is: where it listens.
    tp: TpSettings in Tp {
        /// Address on which pools and job declarators are accepted.
        listen: SocketAddr = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 8442), Kind::Address, Presence::Default,
            unit "IP:port", cost "none";
        /// Host name or IP address under which clients reach the provider. It only appears in the line that tells how to
        /// point a client at it.
        public_host: Option<String> = None, Kind::Text { len_max: 253 }, Presence::Optional("\"tp.example.org\""),
            unit "host", cost "none";
        /// How long connections may take to end when the provider is stopped. They are served for another second, or half of
        /// this if that is less; then they are told, and what arrives until they close is still judged.
        shutdown_grace_s: f64 = 5.0, Kind::Number { min: 0.0, max: 60.0 }, Presence::Default,
            unit "seconds", cost "a stop takes up to this long";
    }

    /// What strangers and clients can make the template provider do or keep.
    clients: ClientsSettings in Tp {
        /// Clients: pools and job declarators.
        clients_max: u32 = 256, Kind::Integer { min: 1, max: 10_000 }, Presence::Default,
            unit "connections", cost "CPU for each template, and what `send_buffer_bytes_max` says";
        /// Connections from one IPv4 address, or from one /64 of IPv6.
        clients_per_address_max: u32 = 64, Kind::Integer { min: 1, max: 10_000 }, Presence::Default,
            unit "connections", cost "one address can take this share of `clients_max`";
        /// Handshakes in a second, in all. Others wait; addresses take turns.
        handshakes_per_second_max: u32 = 200, Kind::Integer { min: 1, max: 1_000_000 }, Presence::Default,
            unit "handshakes per second", cost "each takes about 90 us of a CPU, so this is what strangers can take";
        /// From the connection to the last byte of the client's part of the handshake.
        handshake_timeout_s: f64 = EngineLimits::default().handshake_timeout.as_secs_f64(), Kind::Number { min: 0.1, max: 300.0 }, Presence::Default,
            unit "seconds", cost "strangers hold a place for this long";
        /// From the handshake to SetupConnection.
        setup_timeout_s: f64 = 10.0, Kind::Number { min: 0.1, max: 300.0 }, Presence::Default,
            unit "seconds", cost "a silent peer holds a place for this long";
        /// From SetupConnection to CoinbaseOutputConstraints. A client that has sent them may be silent for good.
        constraints_timeout_s: f64 = 10.0, Kind::Number { min: 0.1, max: 300.0 }, Presence::Default,
            unit "seconds", cost "a peer that wants no templates holds a place for this long";
        /// Constraint classes: clients whose templates leave the same room. More clients with other constraints get the
        /// templates of the smallest class that leaves enough; the last class is kept for one that leaves all that may be
        /// asked for.
        classes_max: usize = 16, Kind::Integer { min: 1, max: 64 }, Presence::Default,
            unit "classes", cost "a template of the node for each, again with every change";
        /// Bytes of outputs that a client may ask room for.
        max_additional_size_max: u32 = 100_000, Kind::Integer { min: 100, max: 900_000 }, Presence::Default,
            unit "bytes", cost "fees: room that is left free holds no transactions";
        /// Signature operations of these outputs that a client may ask room for.
        max_additional_sigops_max: u16 = 16_000, Kind::Integer { min: 1, max: 60_000 }, Presence::Default,
            unit "signature operations", cost "fees: what is left free of a block's 80,000 is for no transaction";
        /// Classes that may begin within a minute. Whoever comes then gets the templates of a class that leaves enough.
        classes_begun_max: u32 = 32, Kind::Integer { min: 1, max: 10_000 }, Presence::Default,
            unit "classes per minute", cost "a template of the node for each, so this is what strangers can take of it";
        /// How long a class lives without clients, unless another needs its place: who comes back finds its templates.
        class_linger_s: f64 = 60.0, Kind::Number { min: 0.0, max: 3_600.0 }, Presence::Default,
            unit "seconds", cost "a template of the node with every tip";
        /// How long templates of a tip are kept after the next.
        stale_retention_s: f64 = 10.0, Kind::Number { min: 0.0, max: 600.0 }, Presence::Default,
            unit "seconds", cost "memory for the transactions of old templates";
        /// Requests for a template's transactions of one client that wait for an answer. More are refused.
        requests_max: usize = 3, Kind::Integer { min: 1, max: 256 }, Presence::Default,
            unit "requests per connection", cost "up to four megabytes for each, within `send_buffer_bytes_max`";
        /// How long such a request may wait for the node.
        request_timeout_s: f64 = 30.0, Kind::Number { min: 0.1, max: 600.0 }, Presence::Default,
            unit "seconds", cost "none";
        /// Errors and changed constraints of one client within `errors_window_s` before it is closed.
        errors_max: u32 = 32, Kind::Integer { min: 1, max: 1_000_000 }, Presence::Default,
            unit "errors per connection", cost "CPU spent on a faulty peer; templates for constraints that change";
        /// See `errors_max`.
        errors_window_s: f64 = 60.0, Kind::Number { min: 1.0, max: 86_400.0 }, Presence::Default,
            unit "seconds", cost "none";
        /// Bytes that may wait for one slow reader before it is closed. A template's transactions are up to four million.
        send_buffer_bytes_max: usize = 16 << 20, Kind::Integer { min: 4 << 20, max: 1 << 30 }, Presence::Default,
            unit "bytes per connection", cost "memory, for each reader that is slow";
        /// Bytes that may wait for all clients. If more do, those for whom most waits are closed.
        send_buffer_bytes_in_all_max: usize = 256 << 20, Kind::Integer { min: 4 << 20, max: 1 << 40 }, Presence::Default,
            unit "bytes", cost "up to twice as much memory, if many readers are slow at once";
        /// How long a connection that is being closed may take to read what was left for it.
        close_timeout_s: f64 = EngineLimits::default().close_timeout.as_secs_f64(), Kind::Number { min: 0.1, max: 300.0 }, Presence::Default,
            unit "seconds", cost "a peer that does not read holds a place for this long";
        /// How long the kernel tries to deliver what a peer does not acknowledge.
        delivery_timeout_s: f64 = EngineLimits::default().delivery_timeout.as_secs_f64(), Kind::Number { min: 1.0, max: 3_600.0 }, Presence::Default,
            unit "seconds", cost "a peer that is gone holds a place for this long";
        /// Lines in the log for one kind of event. More are counted and summed up in one line.
        log_lines_per_second_max: u32 = EngineLimits::default().log_lines_per_second_max, Kind::Integer { min: 1, max: 100_000 }, Presence::Default,
            unit "lines per second and kind", cost "disk, if something goes wrong often";
    }

    /// The key that proves to clients that this is the server they mean, and the certificate that it shows.
    ///
    /// Either give the authority's secret (`secret_key_file` or `secret_key`): certificates are then made and renewed here. Or keep the secret on another machine and give `public_key`, `static_key_file` and `certificate_file`: the
    /// certificate is made there with `adit key certify` and picked up here without a restart.
    authority: AuthoritySettings {
        /// The authority's public key, as clients write it. Needed without a secret; beside a secret it is compared with it.
        public_key: Option<String> = None, Kind::Text { len_max: 96 },
            Presence::Optional("\"9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72\""),
            unit "base58check", cost "none";
        /// File with the authority's secret key, made by `adit key generate`; readable by its owner only.
        secret_key_file: Option<PathBuf> = None, Kind::Path, Presence::Optional("\"authority.key\""),
            unit "path", cost "whoever breaks into this machine can pose as this server for good";
        /// The authority's secret key itself. The configuration file must then be readable by its owner only.
        secret_key: Option<Secret> = None, Kind::Secret { len_max: 96 },
            Presence::Optional("\"mkD...\""),
            unit "base58check", cost "as `secret_key_file`, and the secret is wherever this file is copied";
        /// File with the server's static key, made by `adit key generate --static`; readable by its owner only. Needed without
        /// a secret; beside a secret a new key is made at each start unless this is given.
        static_key_file: Option<PathBuf> = None, Kind::Path, Presence::Optional("\"static.key\""),
            unit "path", cost "none";
        /// File with the certificate of the static key, made by `adit key certify`. Read again every few seconds, and at
        /// once on SIGHUP.
        certificate_file: Option<PathBuf> = None, Kind::Path, Presence::Optional("\"pool.cert\""),
            unit "path", cost "the certificate must be renewed by hand before it expires";
        /// How long certificates made here are valid. They are renewed after half of it.
        certificate_validity_s: u32 = 86_400, Kind::Integer { min: 60, max: 365 * DAY_S }, Presence::Default,
            unit "seconds", cost "a static key that was stolen can be used for this long";
    }

    /// How hard shares are.
    vardiff: VardiffSettings in Pool {
        /// Shares that a channel shall find.
        shares_per_minute: f64 = 6.0, Kind::Number { min: 0.01, max: 1e9 }, Presence::Default,
            unit "shares per minute and channel", cost "bandwidth and CPU in proportion; more makes hash rates known sooner";
        /// Hash rate assumed of a channel that announces none.
        hash_rate_default: f64 = 1e12, Kind::Number { min: 1.0, max: 1e21 }, Presence::Default,
            unit "hashes per second", cost "too high: a small miner waits long for its first share; too low: a burst of shares";
        /// The smallest difficulty of a share, whatever hash rate a miner announces. A share takes 2^32 times as many hashes: at
        /// 0.001 a CPU of 1 MH/s finds 14 in a minute, and 1 TH/s that lies about itself 230,000 in a second until its target
        /// follows. 0 for none, on test chains only.
        difficulty_min: f64 = 0.001, Kind::Number { min: 0.0, max: 1e12 }, Presence::Default,
            unit "difficulty", cost "too high: the smallest miners find a share seldom; too low: strangers send shares that cost them nothing";
        /// Whether targets follow the shares that arrive. Without it a channel keeps the target of its announced hash rate.
        adjust: bool = true, Kind::Boolean, Presence::Default,
            unit "truth value", cost "a SetTarget now and then";
    }

    /// When accepted shares are acknowledged.
    acknowledgement: AcknowledgementSettings in Pool {
        /// How many of a channel's accepted shares gather before they are acknowledged with one message. 1 acknowledges them at once.
        shares: u32 = 1, Kind::Integer { min: 1, max: 1_000_000 }, Presence::Default,
            unit "shares", cost "1: a message for each share; more: a miner waits for its answer, and a pool of busy proxies has a fraction of the messages to send";
        /// The longest that an accepted share waits for others.
        delay_s: f64 = 1.0, Kind::Number { min: 0.0, max: 10.0 }, Presence::Default,
            unit "seconds", cost "too long: some miners take a share without an answer for lost";
    }

    /// What miners work on.
    jobs: JobsSettings in Pool {
        /// The longest time without a new job. A new job takes new targets into effect.
        interval_s: f64 = 30.0, Kind::Number { min: 1.0, max: 600.0 }, Presence::Default,
            unit "seconds", cost "a job message to every channel for each interval";
        /// Whether channels may roll the version bits of BIP323.
        version_rolling: bool = true, Kind::Boolean, Presence::Default,
            unit "truth value", cost "without it ASICs run out of work sooner, and some clients leave";
        /// How far above the specification's bound the time in a share's header may lie: clocks run apart. Bitcoin itself
        /// refuses blocks two hours ahead.
        ntime_tolerance_s: u32 = 600, Kind::Integer { min: 0, max: 7_000 }, Presence::Default,
            unit "seconds", cost "blocks may carry a time that is off by as much";
    }

    /// What strangers and miners can make the pool do or keep.
    limits: LimitsSettings in Pool {
        /// Connections in all.
        connections_max: u32 = EngineLimits::default().connections_max, Kind::Integer { min: 1, max: 10_000_000 }, Presence::Default,
            unit "connections", cost "about 0.5 KB in the process and 4.3 KB in the kernel for each open connection";
        /// Connections from one IPv4 address, or from one /64 of IPv6. Large farms behind one address need more.
        connections_per_address_max: u32 = EngineLimits::default().connections_per_address_max, Kind::Integer { min: 1, max: 10_000_000 }, Presence::Default,
            unit "connections", cost "one address can take this share of `connections_max`";
        /// Handshakes in a second, in all. Others wait; addresses take turns.
        handshakes_per_second_max: u32 = EngineLimits::default().handshakes_per_second_max, Kind::Integer { min: 1, max: 1_000_000 }, Presence::Default,
            unit "handshakes per second", cost "each takes about 90 us of a CPU, so this is what strangers can take";
        /// From the connection to the last byte of the client's part of the handshake.
        handshake_timeout_s: f64 = EngineLimits::default().handshake_timeout.as_secs_f64(), Kind::Number { min: 0.1, max: 300.0 }, Presence::Default,
            unit "seconds", cost "strangers hold a place for this long";
        /// From the handshake to SetupConnection.
        setup_timeout_s: f64 = 10.0, Kind::Number { min: 0.1, max: 300.0 }, Presence::Default,
            unit "seconds", cost "a silent peer holds a place for this long";
        /// Without an open channel, from SetupConnection or from the last channel's close.
        first_channel_timeout_s: f64 = 60.0, Kind::Number { min: 0.1, max: 3_600.0 }, Presence::Default,
            unit "seconds", cost "a peer that does not mine holds a place for this long";
        /// Without any message from the peer. Slow miners find a share seldom.
        idle_timeout_s: f64 = 900.0, Kind::Number { min: 1.0, max: 86_400.0 }, Presence::Default,
            unit "seconds", cost "a dead peer holds a place for this long";
        /// Bytes that may wait for one slow reader before it is dropped; 512 more for each channel of the connection, whose jobs
        /// all come with a new tip.
        send_buffer_bytes_max: usize = EngineLimits::default().send_buffer_bytes_max, Kind::Integer { min: 4_096, max: 1 << 30 }, Presence::Default,
            unit "bytes per connection", cost "memory, if many readers are slow at once";
        /// Bytes that may wait for all slow readers of one shard; 512 more for each channel of the shard. When there are more,
        /// the slowest readers are dropped until an eighth of it is free again.
        shard_send_buffer_bytes_max: usize = EngineLimits::default().shard_send_buffer_bytes_max, Kind::Integer { min: 65_536, max: 1 << 40 }, Presence::Default,
            unit "bytes per shard", cost "up to twice as much memory for each shard, if many readers are slow at once";
        /// The longest payload that is accepted in a frame.
        frame_payload_len_max: u32 = EngineLimits::default().frame_payload_len_max, Kind::Integer { min: 1_024, max: 16_777_215 }, Presence::Default,
            unit "bytes", cost "memory for each connection in the middle of such a frame";
        /// How long a connection that is being closed may take to read what was left for it.
        close_timeout_s: f64 = EngineLimits::default().close_timeout.as_secs_f64(),
            Kind::Number { min: 0.1, max: 300.0 }, Presence::Default,
            unit "seconds", cost "a peer that does not read holds a place for this long";
        /// How long the kernel tries to deliver what a peer does not acknowledge.
        delivery_timeout_s: f64 = EngineLimits::default().delivery_timeout.as_secs_f64(),
            Kind::Number { min: 1.0, max: 3_600.0 }, Presence::Default,
            unit "seconds", cost "a peer that is gone holds a place for this long";
        /// Lines in the log for one kind of event. More are counted and summed up in one line.
        log_lines_per_second_max: u32 = EngineLimits::default().log_lines_per_second_max,
            Kind::Integer { min: 1, max: 100_000 }, Presence::Default,
            unit "lines per second, shard and kind", cost "disk, if something goes wrong often";
        /// Channels on one connection. Proxies carry a channel for each miner behind them.
        channels_per_connection_max: u32 = 10_000, Kind::Integer { min: 1, max: 10_000_000 }, Presence::Default,
            unit "channels", cost "one peer can take this share of `channels_max`";
        /// Channels on one shard. The last tenth is kept for connections that have none yet.
        channels_max: u32 = 1_000_000, Kind::Integer { min: 1, max: 10_000_000 }, Presence::Default,
            unit "channels per shard", cost "about 256 bytes for each open channel";
        /// Jobs on one tip for which shares are taken, beside the future ones. The oldest makes room.
        jobs_max: usize = 16, Kind::Integer { min: 2, max: 1_024 }, Presence::Default,
            unit "jobs per shard", cost "memory for each job and group";
        /// Shares on one tip that are kept to find duplicates. More are refused.
        shares_per_tip_max: u32 = 100_000, Kind::Integer { min: 100, max: 100_000_000 }, Presence::Default,
            unit "shares per channel", cost "9 to 19 bytes for each share on the present tip, within `fingerprint_slots_max`";
        /// Slots of all tables that find duplicates. Up to 7 of 8 slots hold a share. Channels that send more than the wanted rate
        /// brings in a quarter of an hour are refused before this many are in use, so that they take no room from others. At
        /// least 8 for each of `channels_max`.
        fingerprint_slots_max: usize = 1 << 26, Kind::Integer { min: 65_536, max: 1 << 40 }, Presence::Default,
            unit "slots per shard", cost "8 bytes for each slot in use: at most 512 MiB by default; 128 slots hold what a channel sends in 18 minutes at 6 shares a minute";
        /// Refused shares and invalid requests within `errors_window_s` before a connection is closed; one more for each channel
        /// beyond the first, since a new tip makes the shares of many come late.
        errors_max: u32 = 1_000, Kind::Integer { min: 1, max: 100_000_000 }, Presence::Default,
            unit "errors per connection", cost "CPU spent on a faulty peer";
        /// See `errors_max`.
        errors_window_s: f64 = 60.0, Kind::Number { min: 1.0, max: 86_400.0 }, Presence::Default,
            unit "seconds", cost "none";
    }

    /// Where templates come from and blocks go to. Of several sources the first to show a new tip serves it, and another takes
    /// over when it goes away; every block goes to all of them.
    template_source: TemplateSourceSettings [up to SOURCES_MAX] {
        /// `embedded`: a node in this process, Bitcoin Core's own validation on a private chain.
        /// `core-ipc`: a Bitcoin Core on this machine, 31.0 or newer, that was started as `bitcoin-node -ipcbind=unix`.
        /// `core-rpc`: a Bitcoin Core anywhere, over its JSON-RPC.
        /// `sv2`: another server of the Template Distribution Protocol.
        /// `synthetic`: work that looks like mainnet's, for measurements: there is no node, and no share is a block. SIGUSR2
        /// makes a new tip, SIGUSR1 a new template.
        kind: SourceKind = SourceKind::Embedded, Kind::Choice(SourceKind::CHOICES), Presence::Default,
            unit "name", cost "none";
        /// What the log calls it. By default its kind, with a number if there are several.
        name: Option<String> = None, Kind::Text { len_max: 32 }, Presence::Optional("\"cellar\""),
            unit "text", cost "none";
        /// Which chain. The embedded node has private ones only: `regtest`, or a `signet` whose blocks anyone may make.
        chain: Chain = Chain::Regtest, Kind::Choice(Chain::CHOICES), Presence::Default,
            unit "name", cost "none";
        /// The least time between two templates for one tip. By default 1 with the embedded node, and 30 with others. Synthetic
        /// templates come as often as this.
        template_interval_s: Option<f64> = None, Kind::Number { min: 0.1, max: 3_600.0 }, Presence::Optional("30.0"),
            unit "seconds", cost "shorter: more job messages to every channel; longer: fees of late transactions", only for "embedded" "core-ipc" "core-rpc" "synthetic";
        /// Fees that a new template for the same tip must add.
        fee_delta_sat: u64 = 1_000, Kind::Integer { min: 0, max: 100_000_000 }, Presence::Default,
            unit "satoshis", cost "less: more job messages to every channel; more: fees of late transactions", only for "embedded" "core-ipc" "core-rpc";
        /// The node's directory. With the embedded node, where it keeps blocks and state: made if it is missing, `node` by
        /// default. With a Bitcoin Core, its `-datadir`: `~/.bitcoin` by default, of which only the socket or the cookie is
        /// used.
        data_dir: Option<PathBuf> = None, Kind::Path, Presence::Optional("\"node\""),
            unit "path", cost "the embedded node's chain on disk", only for "embedded" "core-ipc" "core-rpc";
        /// Loopback address of a JSON-RPC server with Bitcoin Core's names (`getblockcount`, `sendrawtransaction`, ...).
        /// Without it there is none.
        rpc_listen: Option<SocketAddr> = None, Kind::Address, Presence::Optional("\"127.0.0.1:18443\""),
            unit "IP:port", cost "a thread", only for "embedded";
        /// Socket of a Bitcoin Core that was started as `bitcoin-node -ipcbind=unix`. By default `node.sock` in the chain's
        /// directory below `data_dir`.
        socket: Option<PathBuf> = None, Kind::Path, Presence::Optional("\"/run/bitcoin/node.sock\""),
            unit "path", cost "none", only for "core-ipc";
        /// Where the JSON-RPC server of a Bitcoin Core listens. By default on this machine, at the chain's port.
        address: Option<String> = None, Kind::HostPort, Presence::Optional("\"127.0.0.1:8332\""),
            unit "host:port", cost "beyond this machine, blocks and password travel unencrypted", only for "core-rpc";
        /// File in which a Bitcoin Core leaves the password of its JSON-RPC server. By default `.cookie` in the chain's
        /// directory below `data_dir`. Read again whenever the node asks for another password.
        cookie_file: Option<PathBuf> = None, Kind::Path, Presence::Optional("\"/var/lib/bitcoin/.cookie\""),
            unit "path", cost "none", only for "core-rpc";
        /// User of the JSON-RPC server: of the embedded node's own, or of a Bitcoin Core's (instead of a cookie).
        rpc_user: Option<String> = None, Kind::Text { len_max: 128 }, Presence::Optional("\"adit\""),
            unit "text", cost "none", only for "embedded" "core-rpc";
        /// Password of the JSON-RPC server. The configuration file must then be readable by its owner only.
        rpc_password: Option<Secret> = None, Kind::Secret { len_max: 128 }, Presence::Optional("\"...\""),
            unit "text", cost "none", only for "embedded" "core-rpc";
        /// How often the node is asked for its tip, beside the long poll that brings a new tip's template: until it is there,
        /// miners work on an empty one.
        poll_interval_s: f64 = 0.2, Kind::Number { min: 0.05, max: 60.0 }, Presence::Default,
            unit "seconds", cost "shorter: a small call to the node each time; longer: work on an old tip while the node makes a template", only for "core-rpc";
        /// A template provider's address and its authority key.
        url: Option<String> = None, Kind::Text { len_max: 512 },
            Presence::Optional("\"stratum2+tcp://provider.example.org:8442/9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72\""),
            unit "stratum2+tcp://HOST:PORT/KEY", cost "none", only for "sv2";
        /// Takes a `url` without a key: whoever answers is believed to be the provider.
        any_authority: bool = false, Kind::Boolean, Presence::Default,
            unit "truth value", cost "whoever stands between can hand out worthless work", only for "sv2";
        /// Transactions of each template, besides the coinbase: 4,000 make a merkle path of 12 hashes, as mainnet's are.
        transactions_count: usize = 4_000, Kind::Integer { min: 0, max: TRANSACTIONS_MAX as i64 }, Presence::Default,
            unit "transactions", cost "memory and time for each template", only for "synthetic";
        /// How often a new tip comes.
        tip_interval_s: f64 = 600.0, Kind::Number { min: 0.1, max: 86_400.0 }, Presence::Default,
            unit "seconds", cost "shorter: all work of every channel is renewed more often", only for "synthetic";
    }

    /// The record of found blocks.
    journal: JournalSettings {
        /// Directory of the journal; made if it is missing. Every solution is on disk here, whatever becomes of it.
        dir: PathBuf = PathBuf::from("journal"), Kind::Path, Presence::Default,
            unit "path", cost "a sync for each found block and the size of it; the last 1,000 are kept, for 30 days";
    }

    /// What the program says of itself, on stderr.
    log: LogSettings {
        /// The least severe events that are written.
        level: LogLevel = LogLevel::Info, Kind::Choice(LogLevel::CHOICES), Presence::Default,
            unit "name", cost "`debug` writes lines for each connection and channel";
        /// `human`: text; `json`: an object on a line for each event.
        format: LogFormat = LogFormat::Human, Kind::Choice(LogFormat::CHOICES), Presence::Default,
            unit "name", cost "none";
        /// How often the status line is written; 0 for never.
        status_interval_s: u32 = 60, Kind::Integer { min: 0, max: 86_400 }, Presence::Default,
            unit "seconds", cost "a line each time";
    }
}

/// The row of a key.
pub fn field(section: &str, key: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.section == section && field.key == key)
}
