//! What a client says of itself, and its bounds.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

/// The longest STR0_255 (specification 3.1).
pub(super) const STR_LEN_MAX: usize = 255;
/// Extensions that one client may request.
const EXTENSIONS_MAX: usize = 64;

/// The settings of a [`Client`](super::Client).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Host that the driver connects to, ASCII; at most 255 bytes, as all texts here.
    pub endpoint_host: Vec<u8>,
    /// Port that the driver connects to.
    pub endpoint_port: u16,
    /// Who made the device or program; never empty (specification 3.6.1).
    pub vendor: Vec<u8>,
    /// The hardware or software package in use.
    pub hardware_version: Vec<u8>,
    /// The firmware.
    pub firmware: Vec<u8>,
    /// Names the device; empty for those who give no telemetry.
    pub device_id: Vec<u8>,
    /// [`flags`](adit_codec::message::flags) of SetupConnection: `REQUIRES_STANDARD_JOBS`, `REQUIRES_VERSION_ROLLING`.
    pub flags: u32,
    /// Extensions to request; none are negotiated if this is empty.
    pub requested_extensions: Vec<u16>,
    /// Bounds.
    pub limits: ClientLimits,
}

/// Bounds on what an upstream can make a client keep, and on how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Channels, open or being opened. 65,536 by default.
    pub channels_max: usize,
    /// Future jobs of a channel; the oldest makes room. 64 by default.
    pub future_jobs_max: usize,
    /// Active jobs of a channel on one tip for which shares may still be sent, the current one included; the oldest makes
    /// room. 16 by default.
    pub active_jobs_max: usize,
    /// Bytes of extended jobs in all. 64 MiB by default.
    pub job_bytes_max: usize,
    /// Shares of a channel that wait for an answer; more are not sent. 4,096 by default.
    pub outstanding_shares_max: usize,
    /// Closed channels and groups for which messages that were under way are ignored. 4,096 by default.
    pub closed_channels_max: usize,
    /// For the answer to SetupConnection; 10 s by default.
    pub setup_timeout: Duration,
    /// For the answer to RequestExtensions, after which the client goes on without extensions; 2 s by default.
    pub extensions_timeout: Duration,
    /// For the answer to the opening of a channel; 30 s by default.
    pub open_timeout: Duration,
    /// For the answer to a share; none by default, since servers may wait for a batch to fill.
    pub share_timeout: Option<Duration>,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            channels_max: 65_536,
            future_jobs_max: 64,
            active_jobs_max: 16,
            job_bytes_max: 64 << 20,
            outstanding_shares_max: 4_096,
            closed_channels_max: 4_096,
            setup_timeout: Duration::from_secs(10),
            extensions_timeout: Duration::from_secs(2),
            open_timeout: Duration::from_secs(30),
            share_timeout: None,
        }
    }
}

/// Why a [`ClientConfig`] is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientConfigError {
    /// A text is longer than a message can carry.
    TooLong {
        /// Which.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// The specification demands a vendor.
    NoVendor,
    /// More extensions requested than is sensible.
    TooManyExtensions {
        /// How many.
        count: usize,
    },
    /// A limit of zero with which no client can work.
    ZeroLimit {
        /// Which.
        limit: &'static str,
    },
}

impl fmt::Display for ClientConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { field, len } => write!(f, "{field}: {len} bytes, at most {STR_LEN_MAX}"),
            Self::NoVendor => f.write_str("vendor: must not be empty"),
            Self::TooManyExtensions { count } => {
                write!(f, "requested_extensions: {count}, at most {EXTENSIONS_MAX}")
            }
            Self::ZeroLimit { limit } => write!(f, "{limit}: must be at least 1"),
        }
    }
}

impl core::error::Error for ClientConfigError {}

impl ClientConfig {
    /// Whether messages can carry it.
    pub(super) fn validate(&self) -> Result<(), ClientConfigError> {
        let texts = [
            ("endpoint_host", &self.endpoint_host),
            ("vendor", &self.vendor),
            ("hardware_version", &self.hardware_version),
            ("firmware", &self.firmware),
            ("device_id", &self.device_id),
        ];
        for (field, text) in texts {
            if text.len() > STR_LEN_MAX {
                return Err(ClientConfigError::TooLong { field, len: text.len() });
            }
        }
        if self.vendor.is_empty() {
            return Err(ClientConfigError::NoVendor);
        }
        if self.requested_extensions.len() > EXTENSIONS_MAX {
            return Err(ClientConfigError::TooManyExtensions { count: self.requested_extensions.len() });
        }
        let limits = [
            ("channels_max", self.limits.channels_max),
            ("future_jobs_max", self.limits.future_jobs_max),
            ("active_jobs_max", self.limits.active_jobs_max),
            ("outstanding_shares_max", self.limits.outstanding_shares_max),
        ];
        match limits.into_iter().find(|(_, value)| *value == 0) {
            Some((limit, _)) => Err(ClientConfigError::ZeroLimit { limit }),
            None => Ok(()),
        }
    }
}
