//! What an operator chooses, and its bounds.

use core::fmt;
use core::time::Duration;

use super::super::{Constraints, Reserve};

/// The highest first template id: it leaves more ids than can be used.
const FIRST_TEMPLATE_ID_MAX: u64 = 1 << 63;

/// The settings of a [`Server`](super::Server).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// The first template id that clients see. It should lie above those of the run before: microseconds since 1970 do.
    pub first_template_id: u64,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds on what clients can make a server keep or do, and on how long they may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections. 256 by default.
    pub clients_max: usize,
    /// Constraint classes, each of which costs the node a template. 16 by default. The last one is kept for a class that
    /// covers all that may be asked for: it serves whoever finds no class of its own.
    pub classes_max: usize,
    /// Classes that may begin within a minute, but for the one that covers all. 32 by default.
    pub classes_begun_max: u32,
    /// How long a class lives without clients, unless another needs its place: who loses its connection finds its templates
    /// again. 60 s by default.
    pub class_linger: Duration,
    /// Bytes of outputs that a client may ask room for. 100,000 by default.
    pub max_additional_size_max: u32,
    /// Signature operations of these outputs that a client may ask room for. 16,000 by default, a fifth of a block's.
    pub max_additional_sigops_max: u16,
    /// Templates kept in all; the oldest that no class needs makes room. 4,096 by default.
    pub templates_max: usize,
    /// Future templates of a class that wait for a tip; the oldest makes room. 16 by default.
    pub future_templates_max: usize,
    /// How long templates of a tip are kept after the next. 10 s by default.
    pub stale_retention: Duration,
    /// Requests for transactions of one connection that wait for an answer. 3 by default: answers are megabytes long, and
    /// wait to be sent all at once.
    pub requests_max: usize,
    /// How long such a request may wait. 30 s by default.
    pub request_timeout: Duration,
    /// Errors, and changed constraints, of one connection within [`Limits::errors_window`]. 32 by default.
    pub errors_max: u32,
    /// See [`Limits::errors_max`]. One minute by default.
    pub errors_window: Duration,
    /// From the end of the handshake to SetupConnection. 10 s by default.
    pub setup_timeout: Duration,
    /// From SetupConnection.Success to CoinbaseOutputConstraints. 10 s by default. There is no limit on silence after:
    /// a client that finds no block has nothing to say.
    pub constraints_timeout: Duration,
}

impl Limits {
    /// What may be asked for at most.
    pub(super) const fn covering_reserve(&self) -> Reserve {
        let (max_additional_size, max_additional_sigops) =
            (self.max_additional_size_max, self.max_additional_sigops_max);
        Constraints { max_additional_size, max_additional_sigops }.reserve()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients_max: 256,
            classes_max: 16,
            classes_begun_max: 32,
            class_linger: Duration::from_secs(60),
            max_additional_size_max: 100_000,
            max_additional_sigops_max: 16_000,
            templates_max: 4_096,
            future_templates_max: 16,
            stale_retention: Duration::from_secs(10),
            requests_max: 3,
            request_timeout: Duration::from_secs(30),
            errors_max: 32,
            errors_window: Duration::from_secs(60),
            setup_timeout: Duration::from_secs(10),
            constraints_timeout: Duration::from_secs(10),
        }
    }
}

/// Why a [`ServerConfig`] is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerConfigError {
    /// The first template id leaves too few.
    FirstTemplateId(u64),
    /// A limit is too low for a server to work.
    LimitTooLow {
        /// Which.
        limit: &'static str,
        /// Its lowest value.
        min: usize,
    },
    /// Not every class can keep its future templates, the tip's and the newest one.
    TemplatesMax {
        /// The lowest value with the other limits.
        min: usize,
    },
}

impl fmt::Display for ServerConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstTemplateId(id) => write!(f, "first_template_id: {id}, at most 2^63"),
            Self::LimitTooLow { limit, min } => write!(f, "{limit}: must be at least {min}"),
            Self::TemplatesMax { min } => {
                write!(f, "templates_max: must be at least {min}, classes_max * (future_templates_max + 2)")
            }
        }
    }
}

impl core::error::Error for ServerConfigError {}

impl ServerConfig {
    pub(super) fn validate(&self) -> Result<(), ServerConfigError> {
        if self.first_template_id > FIRST_TEMPLATE_ID_MAX {
            return Err(ServerConfigError::FirstTemplateId(self.first_template_id));
        }
        let limits = &self.limits;
        let counts = [
            ("clients_max", limits.clients_max),
            ("classes_max", limits.classes_max),
            ("future_templates_max", limits.future_templates_max),
            ("requests_max", limits.requests_max),
        ];
        if let Some((limit, _)) = counts.into_iter().find(|(_, value)| *value == 0) {
            return Err(ServerConfigError::LimitTooLow { limit, min: 1 });
        }
        let min = limits.classes_max.saturating_mul(limits.future_templates_max.saturating_add(2));
        if limits.templates_max < min {
            return Err(ServerConfigError::TemplatesMax { min });
        }
        Ok(())
    }
}
