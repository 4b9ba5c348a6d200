//! What a miner is told to do.

use std::fmt;
use std::time::Duration;

use adit_codec::url::PoolUrl;
use adit_hasher::Hasher;

/// Devices of one miner.
pub const DEVICES_MAX: usize = 100_000;
/// Connections of one miner: each has a thread.
pub const CONNECTIONS_MAX: usize = 4_096;
/// Hashing threads.
pub const THREADS_MAX: usize = 1_024;
/// Bytes of a user identity with room for a device's number.
const USER_IDENTITY_LEN_MAX: usize = 240;

/// Which channels the devices open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceKind {
    /// Header-only mining.
    #[default]
    Standard,
    /// With an extranonce to roll.
    Extended,
    /// Devices of both kinds in turn, also within a connection.
    Mixed,
}

impl DeviceKind {
    /// Whether the device of this number opens an extended channel.
    pub(super) fn is_extended(self, device: usize) -> bool {
        match self {
            Self::Standard => false,
            Self::Extended => true,
            Self::Mixed => device % 2 == 1,
        }
    }
}

/// The settings of a [`Miner`](super::Miner).
#[derive(Clone, Debug)]
pub struct MinerConfig {
    /// Which pool.
    pub url: PoolUrl,
    /// How many devices, each with a channel of its own.
    pub devices: usize,
    /// How many of them share a connection.
    pub devices_per_connection: usize,
    /// Which channels they open.
    pub kind: DeviceKind,
    /// Threads that hash, shared fairly by all devices.
    pub threads: usize,
    /// `user_identity` of the channels; with several devices each appends a dot and its number, from 1.
    pub user_identity: String,
    /// Hashes per second that a device computes at most.
    pub hash_rate_limit: Option<f64>,
    /// Hashes per second that a device announces; measured at the start if not given.
    pub nominal_hash_rate: Option<f32>,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Stop once this many shares were accepted.
    pub shares_max: Option<u64>,
    /// Set REQUIRES_STANDARD_JOBS: no group gets extended jobs. Not for extended channels.
    pub requires_standard_jobs: bool,
    /// Ask for extension 0x0002 and name the device in every extended share.
    pub worker_names: bool,
    /// Bytes of extranonce that extended channels ask for.
    pub min_extranonce_size: u16,
    /// What hashes.
    pub hasher: Hasher,
}

impl MinerConfig {
    /// One standard device on one thread.
    pub fn new(url: PoolUrl) -> Self {
        Self {
            url,
            devices: 1,
            devices_per_connection: 1,
            kind: DeviceKind::Standard,
            threads: 1,
            user_identity: String::from("adit-loadgen"),
            hash_rate_limit: None,
            nominal_hash_rate: None,
            duration: None,
            shares_max: None,
            requires_standard_jobs: false,
            worker_names: false,
            min_extranonce_size: 4,
            hasher: Hasher::detect(),
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.devices.div_ceil(self.devices_per_connection.max(1))
    }

    /// Whether it can be done.
    pub(super) fn validate(&self) -> Result<(), MinerConfigError> {
        let within = |what, value: usize, max| {
            if (1..=max).contains(&value) {
                Ok(())
            } else {
                Err(MinerConfigError::Range { what, value, max })
            }
        };
        within("devices", self.devices, DEVICES_MAX)?;
        within("devices per connection", self.devices_per_connection, DEVICES_MAX)?;
        within("connections", self.connections(), CONNECTIONS_MAX)?;
        within("threads", self.threads, THREADS_MAX)?;
        if self.user_identity.len() > USER_IDENTITY_LEN_MAX {
            return Err(MinerConfigError::UserIdentity { len: self.user_identity.len() });
        }
        if self.requires_standard_jobs && self.kind != DeviceKind::Standard {
            return Err(MinerConfigError::StandardJobs);
        }
        let rates = [self.hash_rate_limit, self.nominal_hash_rate.map(f64::from)];
        if rates.into_iter().flatten().any(|rate| !rate.is_finite() || rate < 0.0)
            || self.hash_rate_limit == Some(0.0)
        {
            return Err(MinerConfigError::HashRate);
        }
        Ok(())
    }
}

/// Why a [`MinerConfig`] is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MinerConfigError {
    /// Too few or too many.
    Range {
        /// Of what.
        what: &'static str,
        /// How many.
        value: usize,
        /// At most; at least 1.
        max: usize,
    },
    /// The user identity leaves no room for a device's number.
    UserIdentity {
        /// Its bytes.
        len: usize,
    },
    /// Extended channels on connections that require standard jobs.
    StandardJobs,
    /// A hash rate that is none.
    HashRate,
    /// A thread cannot be started.
    Thread(std::io::ErrorKind),
}

impl fmt::Display for MinerConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { what, value, max } => write!(f, "{what}: {value}, must be from 1 to {max}"),
            Self::UserIdentity { len } => {
                write!(f, "the user identity has {len} bytes, at most {USER_IDENTITY_LEN_MAX}")
            }
            Self::StandardJobs => {
                f.write_str("a miner that requires standard jobs cannot open extended channels")
            }
            Self::HashRate => f.write_str("a hash rate must be a positive number"),
            Self::Thread(kind) => write!(f, "a thread cannot be started: {kind}"),
        }
    }
}

impl std::error::Error for MinerConfigError {}
