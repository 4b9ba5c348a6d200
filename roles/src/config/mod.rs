//! The configuration of a role: a TOML file, parsed once into a validated struct.
//!
//! `settings` is the one table of keys and `sources` what those of template sources come to; `read` takes the text, `check` the relations between keys, key files and the
//! machine; `reference` writes the documentation. A file's mistakes are listed all at once, with their lines.

mod check;
mod cpus;
mod payout;
mod problem;
mod read;
pub mod reference;
mod setting;
mod settings;
mod sources;
mod tp;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_codec::keys::{AuthorityPublicKey, AuthoritySecretKey};
use adit_codec::noise::Aead;
use adit_engine::EngineLimits;
use adit_hasher::Hasher;
use adit_proto::mining::server;

use crate::keys::StaticSecret;

pub use cpus::allowed as allowed_cpus;
pub use payout::Payout;
pub use problem::{ConfigError, Problem};
pub use read::{Lines, Reading, program_of, read};
pub use setting::{CPUS_LEN_MAX, Cpus, Kind, Secret, Setting, Value};
pub use settings::*;
pub use tp::TpConfig;

/// How a server proves who it is.
pub enum Authority {
    /// The secret is here: certificates are made and renewed here.
    Present {
        /// The authority's key.
        secret: AuthoritySecretKey,
        /// The static key; a new one is made at each start without it.
        static_secret: Option<StaticSecret>,
        /// How long a certificate is valid.
        validity: Duration,
    },
    /// The secret is elsewhere: certificates come as files.
    Absent {
        /// Who must have signed.
        public: AuthorityPublicKey,
        /// The static key.
        static_secret: StaticSecret,
        /// Where the certificate lies.
        certificate_file: PathBuf,
    },
}

impl Authority {
    /// What clients write behind the address.
    pub fn public_key(&self) -> AuthorityPublicKey {
        match self {
            Self::Present { secret, .. } => secret.public_key(),
            Self::Absent { public, .. } => *public,
        }
    }
}

/// A validated configuration.
pub struct PoolConfig {
    /// The settings; paths are absolute or relative to the working directory.
    pub settings: Settings,
    /// Which keys the file sets.
    pub lines: Lines,
    /// Who is paid.
    pub payout: Payout,
    /// How the pool proves who it is.
    pub authority: Authority,
    /// One shard on each.
    pub cpus: Vec<usize>,
    /// What hashes shares.
    pub hasher: Hasher,
    /// What encrypts small frames.
    pub aead: Aead,
    /// What is allowed but worth a thought.
    pub warnings: Vec<String>,
}

impl PoolConfig {
    /// Reads and checks a file, its key files and whether this machine can do what it asks.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        load(path, Self::parse)
    }

    /// Checks the text of a file with these mode bits that lies in `directory`.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn parse(text: &str, directory: &Path, mode: u32) -> Result<Self, Vec<Problem>> {
        check::check(read(text, Program::Pool), directory, mode)
    }

    /// Checks settings that no file gave. Paths stay as they are.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn from_settings(settings: Settings, authority: Authority) -> Result<Self, Vec<Problem>> {
        check::check_settings(settings, authority)
    }

    /// The engine's bounds.
    pub fn engine_limits(&self) -> EngineLimits {
        let limits = &self.settings.limits;
        EngineLimits {
            connections_max: limits.connections_max,
            connections_per_address_max: limits.connections_per_address_max,
            handshakes_per_second_max: limits.handshakes_per_second_max,
            handshake_timeout: Duration::from_secs_f64(limits.handshake_timeout_s),
            send_buffer_bytes_max: limits.send_buffer_bytes_max,
            shard_send_buffer_bytes_max: limits.shard_send_buffer_bytes_max,
            frame_payload_len_max: limits.frame_payload_len_max,
            close_timeout: Duration::from_secs_f64(limits.close_timeout_s),
            gather_max: Duration::from_secs_f64(self.settings.engine.gather_s),
            delivery_timeout: Duration::from_secs_f64(limits.delivery_timeout_s),
            log_lines_per_second_max: limits.log_lines_per_second_max,
        }
    }

    /// The server's settings, for the shard 0; the engine fills in the others.
    pub fn server(&self) -> server::ServerConfig {
        let Settings { pool, vardiff, acknowledgement, jobs, limits, .. } = &self.settings;
        server::ServerConfig {
            shard: server::ShardId(0),
            extranonce: server::ExtranonceLayout { node: pool.node_id, first_slot: 0 },
            coinbase: server::CoinbasePolicy {
                payout_script: self.payout.script.to_bytes(),
                pool_tag: pool.pool_tag.clone().into_bytes(),
            },
            vardiff: server::VardiffConfig {
                shares_per_minute: vardiff.shares_per_minute,
                hash_rate_default: vardiff.hash_rate_default,
                difficulty_min: vardiff.difficulty_min,
                adjust: vardiff.adjust,
            },
            acknowledgement: server::Acknowledgement {
                shares: acknowledgement.shares,
                delay: Duration::from_secs_f64(acknowledgement.delay_s),
            },
            job_interval: Duration::from_secs_f64(jobs.interval_s),
            version_rolling: jobs.version_rolling,
            ntime_tolerance_s: jobs.ntime_tolerance_s,
            required_extensions: pool.required_extensions.clone(),
            limits: server::Limits {
                channels_per_connection_max: limits.channels_per_connection_max,
                channels_max: limits.channels_max,
                jobs_max: limits.jobs_max,
                shares_per_tip_max: limits.shares_per_tip_max,
                fingerprint_slots_max: limits.fingerprint_slots_max,
                errors_max: limits.errors_max,
                errors_window: Duration::from_secs_f64(limits.errors_window_s),
                setup_timeout: Duration::from_secs_f64(limits.setup_timeout_s),
                first_channel_timeout: Duration::from_secs_f64(limits.first_channel_timeout_s),
                idle_timeout: Duration::from_secs_f64(limits.idle_timeout_s),
            },
        }
    }
}

/// The program whose file this is.
///
/// # Errors
/// It cannot be read.
pub fn program_of_file(path: &Path) -> Result<Program, ConfigError> {
    load(path, |text, _, _| Ok(program_of(text)))
}

/// Reads a file and has it parsed with its directory and mode bits.
fn load<C>(
    path: &Path,
    parse: impl FnOnce(&str, &Path, u32) -> Result<C, Vec<Problem>>,
) -> Result<C, ConfigError> {
    let refuse = |problems| ConfigError::new(path.to_owned(), problems);
    let (text, mode) = read_file(path).map_err(|wrong| refuse(vec![Problem::missing(wrong)]))?;
    let directory = path.parent().unwrap_or(Path::new(""));
    parse(&text, directory, mode).map_err(refuse)
}

fn read_file(path: &Path) -> Result<(String, u32), String> {
    let hint = "`adit config example` prints one to begin with";
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}; {hint}");
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(read::FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > read::FILE_LEN_MAX {
        return Err(format!("more than {} bytes: not a configuration", read::FILE_LEN_MAX));
    }
    let text = String::from_utf8(bytes).map_err(|_| "not text (UTF-8)".to_owned())?;
    Ok((text, metadata.mode() & 0o7777))
}
