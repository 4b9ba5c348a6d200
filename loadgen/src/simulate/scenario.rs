//! What a load is: the scenario file, read once into a checked struct.
//!
//! TOML, every key optional, unknown keys refused. Bounds are named here; what they hold back is the generator's own memory.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Connections of one run, in all processes.
pub const CONNECTIONS_MAX: u32 = 1_000_000;
/// Simulated devices of one run: 48 bytes each, 2.4 GB.
pub const DEVICES_MAX: u64 = 50_000_000;
/// Shares that a connection may have in flight in a closed loop.
pub const IN_FLIGHT_MAX: u32 = 1 << 20;
/// Shares of one write: their frames are 62 to 95 bytes each.
pub const PER_WRITE_MAX: u32 = 4_096;
/// What a device without hashes announces: so little that no pool has a target easy enough for it.
pub const HASH_RATE_SYNTHETIC: f32 = 0.1;
/// Events of one scenario.
pub const EVENTS_MAX: usize = 256;
/// Connections for one source address, where addresses are many: half of what ports allow, as closed ones linger.
const CONNECTIONS_PER_SOURCE: u32 = 8_192;
/// Loopback addresses that sources are taken from: 127.0.1.1 to 127.0.250.250.
const SOURCES_MAX: u32 = 250 * 250;

/// Which channels the simulated devices open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Standard channels that take the group's extended jobs.
    #[default]
    StandardGrouped,
    /// Standard channels on connections that require standard jobs.
    StandardJobs,
    /// Extended channels.
    Extended,
    /// Grouped standard and extended channels in turn.
    Mixed,
}

/// Where shares come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShareKind {
    /// A Poisson process per channel, whatever the pool does.
    #[default]
    Open,
    /// The next shares leave when earlier ones were answered.
    Closed,
    /// Channels without shares.
    None,
    /// Real hashing on this machine's CPUs, by the miner: few devices, true difficulties.
    Hash,
}

/// How connections begin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Join {
    /// Connections begun per second in all; 0 for as fast as `in_flight` allows.
    pub rate_per_s: f64,
    /// Connections that are begun and have no job yet; 0 for no bound.
    pub in_flight: u32,
    /// After so many seconds the run goes on with those who have joined.
    pub timeout_s: f64,
}

impl Default for Join {
    fn default() -> Self {
        Self { rate_per_s: 0.0, in_flight: 100, timeout_s: 60.0 }
    }
}

/// The shares of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shares {
    /// Open loop, closed loop or none.
    pub kind: ShareKind,
    /// Open: arrivals per minute and channel.
    pub per_minute: f64,
    /// Open: milliseconds that an arrival may wait to share a write; part of its latency.
    pub batch_ms: f64,
    /// Closed: shares in flight per connection.
    pub in_flight: u32,
    /// Closed: shares per write.
    pub per_write: u32,
    /// Closed: consecutive shares of one channel.
    pub run: u32,
    /// Hash: hashing threads.
    pub threads: u32,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            kind: ShareKind::Open,
            per_minute: 6.0,
            batch_ms: 0.0,
            in_flight: 64,
            per_write: 1,
            run: 1,
            threads: 1,
        }
    }
}

/// What happens during a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// Connections are closed and begin anew.
    Reconnect,
    /// Connections are closed for good.
    Disconnect,
    /// Channels find shares at another rate.
    Rate,
    /// Channels announce another hash rate.
    Update,
    /// Connections read nothing for a while.
    SlowReaders,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Seconds from the end of the warm-up.
    pub at_s: f64,
    /// What happens.
    pub kind: EventKind,
    /// To which part of the connections, or of each connection's channels.
    #[serde(default = "one")]
    pub fraction: f64,
    /// Rate and update: by how much.
    #[serde(default = "one")]
    pub factor: f64,
    /// Slow readers: for how many seconds.
    #[serde(default)]
    pub duration_s: f64,
}

const fn one() -> f64 {
    1.0
}

/// What is demanded of a strict run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Check {
    /// Refused shares at most.
    pub rejected_max: u64,
    /// Shares without an answer at most.
    pub outstanding_max: u64,
    /// Shares on connections that the pool closed at most.
    pub lost_max: u64,
}

/// A load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Which channels.
    pub profile: Profile,
    /// Connections in all.
    pub connections: u32,
    /// Channels, and so devices, of each connection.
    pub channels_per_connection: u32,
    /// Bytes of extranonce that extended channels ask for.
    pub extranonce_size: u16,
    /// Hashes per second that each channel announces: by default [`HASH_RATE_SYNTHETIC`], or what a device that hashes was
    /// measured to compute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nominal_hash_rate: Option<f32>,
    /// User identity of every channel.
    pub user_identity: String,
    /// Openings of a connection that wait for their answer.
    pub opens_in_flight: u32,
    /// Loopback addresses that connections come from; 0 for one per 8,192 connections.
    pub source_addresses: u32,
    /// Seconds in which shares flow and nothing is measured.
    pub warmup_s: f64,
    /// Seconds that are measured.
    pub duration_s: f64,
    /// Seconds at most for the last answers.
    pub drain_s: f64,
    /// Threads that have nothing to do look at their sockets and the clock all the time, instead of sleeping. Each takes a whole
    /// CPU; its own awakening is in no latency, and awakening it is no work of a pool on the same machine.
    pub busy_poll: bool,
    /// How connections begin.
    pub join: Join,
    /// The shares.
    pub shares: Shares,
    /// What happens meanwhile.
    pub event: Vec<Event>,
    /// What is demanded.
    pub check: Check,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            connections: 1,
            channels_per_connection: 1,
            extranonce_size: 4,
            nominal_hash_rate: None,
            user_identity: "adit-loadgen".to_owned(),
            opens_in_flight: 64,
            source_addresses: 0,
            warmup_s: 2.0,
            duration_s: 10.0,
            drain_s: 5.0,
            busy_poll: false,
            join: Join::default(),
            shares: Shares::default(),
            event: Vec::new(),
            check: Check::default(),
        }
    }
}

/// Why a scenario is refused, in words for who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScenarioError {
    /// It is no TOML, or has a key or a type that it must not have.
    Syntax(String),
    /// A `--set` is not `key=value`, or leads through something that is no table.
    Assignment(String),
    /// A value is out of its range.
    Range {
        /// The key.
        key: &'static str,
        /// What it may be.
        must: String,
    },
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(message) => write!(f, "{}", message.trim_end()),
            Self::Assignment(text) => write!(f, "`{text}`: must be key=value, such as shares.per_minute=60"),
            Self::Range { key, must } => write!(f, "{key}: must be {must}"),
        }
    }
}

impl std::error::Error for ScenarioError {}

impl Scenario {
    /// Reads a scenario file's text, with keys set otherwise by `key=value` assignments.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str, assignments: &[String]) -> Result<Self, ScenarioError> {
        let mut table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| ScenarioError::Syntax(error.to_string()))?;
        for assignment in assignments {
            assign(&mut table, assignment)?;
        }
        // Where nothing was set otherwise, errors can point into the text.
        let scenario: Self =
            if assignments.is_empty() { toml::from_str(text) } else { toml::Value::Table(table).try_into() }
                .map_err(|error| ScenarioError::Syntax(error.to_string()))?;
        scenario.validate()?;
        Ok(scenario)
    }

    fn validate(&self) -> Result<(), ScenarioError> {
        let check = |holds: bool, key, must: &str| {
            if holds { Ok(()) } else { Err(ScenarioError::Range { key, must: must.to_owned() }) }
        };
        let seconds = |value: f64| (0.0..=1e7).contains(&value);
        check((1..=CONNECTIONS_MAX).contains(&self.connections), "connections", "from 1 to 1000000")?;
        check(self.channels_per_connection >= 1, "channels_per_connection", "at least 1")?;
        check(self.devices() <= DEVICES_MAX, "channels_per_connection", "50 million in all at most")?;
        check(self.extranonce_size <= 32, "extranonce_size", "at most 32 bytes")?;
        check(self.user_identity.len() <= 255, "user_identity", "at most 255 bytes long")?;
        let hash_rate = self.hash_rate();
        check(hash_rate.is_finite() && hash_rate > 0.0, "nominal_hash_rate", "above 0")?;
        check(self.opens_in_flight >= 1, "opens_in_flight", "at least 1")?;
        check(self.source_addresses <= SOURCES_MAX, "source_addresses", "at most 62500")?;
        for (key, value) in [
            ("warmup_s", self.warmup_s),
            ("duration_s", self.duration_s),
            ("drain_s", self.drain_s),
            ("join.timeout_s", self.join.timeout_s),
        ] {
            check(seconds(value), key, "a number of seconds from 0 to 10 million")?;
        }
        check((0.0..=1e9).contains(&self.join.rate_per_s), "join.rate_per_s", "from 0 to 1e9")?;
        let shares = &self.shares;
        check((1e-6..=1e12).contains(&shares.per_minute), "shares.per_minute", "from 1e-6 to 1e12")?;
        check((0.0..=10_000.0).contains(&shares.batch_ms), "shares.batch_ms", "from 0 to 10000")?;
        check((1..=IN_FLIGHT_MAX).contains(&shares.in_flight), "shares.in_flight", "from 1 to 1048576")?;
        let per_write_max = PER_WRITE_MAX.min(shares.in_flight);
        check(
            (1..=per_write_max).contains(&shares.per_write),
            "shares.per_write",
            "from 1 to shares.in_flight, and at most 4096",
        )?;
        check((1..=1 << 20).contains(&shares.run), "shares.run", "from 1 to 1048576")?;
        let hashes = shares.kind == ShareKind::Hash;
        check(!hashes || !self.busy_poll, "busy_poll", "left out where shares.kind is hash")?;
        check(!hashes || self.event.is_empty(), "event", "left out where shares.kind is hash")?;
        check(self.event.len() <= EVENTS_MAX, "event", "at most 256")?;
        for event in &self.event {
            check(seconds(event.at_s), "event.at_s", "a number of seconds from 0 to 10 million")?;
            check((0.0..=1.0).contains(&event.fraction), "event.fraction", "from 0 to 1")?;
            check((1e-6..=1e6).contains(&event.factor), "event.factor", "from 1e-6 to 1e6")?;
            check(seconds(event.duration_s), "event.duration_s", "a number of seconds from 0 to 10 million")?;
        }
        Ok(())
    }

    /// Hashes per second that a channel of synthetic shares announces.
    pub(super) fn hash_rate(&self) -> f32 {
        self.nominal_hash_rate.unwrap_or(HASH_RATE_SYNTHETIC)
    }

    /// Simulated devices in all.
    pub fn devices(&self) -> u64 {
        u64::from(self.connections) * u64::from(self.channels_per_connection)
    }

    /// Whether the channel of this number on its connection is an extended one.
    pub(super) fn is_extended(&self, device: u32) -> bool {
        match self.profile {
            Profile::StandardGrouped | Profile::StandardJobs => false,
            Profile::Extended => true,
            Profile::Mixed => device % 2 == 1,
        }
    }

    /// Where a connection comes from, if the pool is on this machine's loopback: ports of one address run out.
    pub(super) fn source_address(&self, connection: u32, pool: IpAddr) -> Option<IpAddr> {
        if !matches!(pool, IpAddr::V4(address) if address.is_loopback()) {
            return None;
        }
        let addresses = match self.source_addresses {
            0 => self.connections.div_ceil(CONNECTIONS_PER_SOURCE),
            given => given,
        };
        let index = connection % addresses.clamp(1, SOURCES_MAX);
        let octet = |number: u32| u8::try_from(number + 1).expect("below 250");
        Some(IpAddr::V4(Ipv4Addr::new(127, 0, octet(index / 250), octet(index % 250))))
    }
}

/// Sets `a.b=value` in a table. What is no TOML value is a string.
fn assign(table: &mut toml::Table, assignment: &str) -> Result<(), ScenarioError> {
    let wrong = || ScenarioError::Assignment(assignment.to_owned());
    let (path, value) = assignment.split_once('=').ok_or_else(wrong)?;
    let parsed: Option<toml::Table> = format!("value = {value}").parse().ok();
    let value = parsed
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().filter(|key| !key.is_empty()).ok_or_else(wrong)?;
    let mut place = table;
    for key in keys {
        let entry = place.entry(key).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        place = entry.as_table_mut().ok_or_else(wrong)?;
    }
    place.insert(last.to_owned(), value);
    Ok(())
}

/// Seconds of a checked scenario as nanoseconds.
pub(super) fn nanos(seconds: f64) -> u64 {
    u64::try_from(Duration::from_secs_f64(seconds).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(assignments: &[&str]) -> Result<Scenario, ScenarioError> {
        let assignments: Vec<String> = assignments.iter().map(|&text| text.to_owned()).collect();
        Scenario::parse("connections = 3\n[shares]\nkind = \"closed\"\n", &assignments)
    }

    #[test]
    fn keys_can_be_set_from_outside() {
        let scenario = set(&["profile=extended", "shares.in_flight=9", "join.rate_per_s=2.5"]).unwrap();
        assert_eq!((scenario.connections, scenario.profile), (3, Profile::Extended));
        assert_eq!((scenario.shares.kind, scenario.shares.in_flight), (ShareKind::Closed, 9));
        assert_eq!((scenario.join.rate_per_s, scenario.join.in_flight), (2.5, 100));
        let event = "event=[{ at_s = 1, kind = \"slow-readers\", fraction = 0.5, duration_s = 2 }]";
        assert_eq!(set(&[event]).unwrap().event[0].kind, EventKind::SlowReaders);
        assert_eq!(Scenario::parse("", &[]).unwrap(), Scenario::default());
    }

    #[test]
    fn mistakes_are_named() {
        let message = |result: Result<Scenario, ScenarioError>| result.unwrap_err().to_string();
        assert!(message(set(&["conections=3"])).contains("unknown field `conections`"));
        assert!(message(set(&["connections"])).contains("key=value"));
        assert!(message(set(&["connections.x=3"])).contains("key=value"));
        assert!(message(set(&["connections=0"])).contains("connections: must be from 1"));
        assert!(message(set(&["shares.per_write=65"])).contains("shares.per_write"));
        assert!(message(set(&["channels_per_connection=20000000"])).contains("50 million"));
        assert!(
            message(set(&["shares.kind=hash", "busy_poll=true"])).contains("busy_poll: must be left out")
        );
        let text = message(Scenario::parse("connections = 1\nprofil = \"mixed\"", &[]));
        assert!(text.contains("line 2") && text.contains("profile"), "{text}");
    }

    #[test]
    fn sources_are_many_only_on_loopback() {
        let scenario = Scenario { connections: 100_000, ..Scenario::default() };
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        let sources: std::collections::BTreeSet<_> =
            (0..100_000).filter_map(|connection| scenario.source_address(connection, loopback)).collect();
        assert_eq!(sources.len(), 13);
        assert_eq!(scenario.source_address(5, "10.0.0.1".parse().unwrap()), None);
    }
}
