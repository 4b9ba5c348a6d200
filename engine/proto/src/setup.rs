//! What the servers of all protocols do alike with a connection: the rules of SetupConnection (specification 3.6.1 to 3.6.3),
//! and the count of faults that a connection outlives.

use core::time::Duration;

use adit_codec::message::{Protocol, SetupConnection};

use crate::time::Instant;

/// The version of the protocols that is spoken here.
pub(crate) const PROTOCOL_VERSION: u16 = 2;

/// Why a SetupConnection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Every flag that is not supported, whatever the reason of the refusal: this is how clients learn of them.
    pub(crate) flags: u32,
    pub(crate) error_code: &'static str,
}

/// Judges a SetupConnection for a server of `protocol`, of whose `defined` flags it supports some.
pub(crate) fn negotiate(
    message: &SetupConnection<'_>,
    protocol: Protocol,
    defined: u32,
    supported: u32,
) -> Result<(), Refused> {
    if Protocol::from_wire(message.protocol) != Some(protocol) {
        // Flags mean something else in other protocols.
        return Err(Refused { flags: 0, error_code: "unsupported-protocol" });
    }
    let unsupported = (defined | message.flags) & !supported;
    if !(message.min_version..=message.max_version).contains(&PROTOCOL_VERSION) {
        return Err(Refused { flags: unsupported, error_code: "protocol-version-mismatch" });
    }
    if message.flags & unsupported != 0 {
        return Err(Refused { flags: unsupported, error_code: "unsupported-feature-flags" });
    }
    Ok(())
}

/// Faults of a connection within a window of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    count: u32,
    since: Instant,
}

impl Faults {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { count: 0, since: now }
    }

    /// Counts one more; whether it is one too many.
    pub(crate) fn count(&mut self, max: u32, window: Duration, now: Instant) -> bool {
        if now.since(self.since) >= window {
            *self = Self::new(now);
        }
        self.count = self.count.saturating_add(1);
        self.count > max
    }
}
