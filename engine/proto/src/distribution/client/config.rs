//! What a client says of itself, and its bounds.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::super::Constraints;

/// The longest STR0_255 (specification 3.1).
const STR_LEN_MAX: usize = 255;

/// The settings of a [`Client`](super::Client).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Host that the driver connects to, ASCII; at most 255 bytes, as all texts here.
    pub endpoint_host: Vec<u8>,
    /// Port that the driver connects to.
    pub endpoint_port: u16,
    /// Who made the program; never empty (specification 3.6.1).
    pub vendor: Vec<u8>,
    /// The hardware or software package in use.
    pub hardware_version: Vec<u8>,
    /// The program's version.
    pub firmware: Vec<u8>,
    /// Names the instance; empty for those who give no telemetry.
    pub device_id: Vec<u8>,
    /// The room that templates leave in the coinbase, at first.
    pub constraints: Constraints,
    /// Bounds.
    pub limits: ClientLimits,
}

/// Bounds on what a template provider can make a client keep, and on how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Future templates that wait for a tip; the oldest makes room. 64 by default.
    pub future_templates_max: usize,
    /// Requests for transactions that wait for an answer. 8 by default.
    pub requests_max: usize,
    /// For the answer to such a request; 30 s by default.
    pub request_timeout: Duration,
    /// For the answer to SetupConnection; 10 s by default.
    pub setup_timeout: Duration,
    /// From the first constraints to the first tip; none by default, since a node may still be loading its chain.
    pub tip_timeout: Option<Duration>,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            future_templates_max: 64,
            requests_max: 8,
            request_timeout: Duration::from_secs(30),
            setup_timeout: Duration::from_secs(10),
            tip_timeout: None,
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
        if let Some((field, text)) = texts.into_iter().find(|(_, text)| text.len() > STR_LEN_MAX) {
            return Err(ClientConfigError::TooLong { field, len: text.len() });
        }
        if self.vendor.is_empty() {
            return Err(ClientConfigError::NoVendor);
        }
        let limits = [
            ("future_templates_max", self.limits.future_templates_max),
            ("requests_max", self.limits.requests_max),
        ];
        match limits.into_iter().find(|(_, value)| *value == 0) {
            Some((limit, _)) => Err(ClientConfigError::ZeroLimit { limit }),
            None => Ok(()),
        }
    }
}
