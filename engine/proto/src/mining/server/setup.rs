//! What SetupConnection is answered (specification 3.6.1 to 3.6.3, 5.3.1).

use adit_codec::message::flags::{
    REQUIRES_FIXED_VERSION, REQUIRES_STANDARD_JOBS, REQUIRES_VERSION_ROLLING, REQUIRES_WORK_SELECTION,
};
use adit_codec::message::{Protocol, SetupConnection};

use crate::setup::{self, Refused};

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Flags of SetupConnection.Success.
    pub(super) flags: u32,
    /// The client takes standard jobs only.
    pub(super) standard_jobs: bool,
}

/// Judges a SetupConnection.
pub(super) fn negotiate(message: &SetupConnection<'_>, version_rolling: bool) -> Result<Accepted, Refused> {
    let supported = REQUIRES_STANDARD_JOBS | if version_rolling { REQUIRES_VERSION_ROLLING } else { 0 };
    let defined = REQUIRES_STANDARD_JOBS | REQUIRES_WORK_SELECTION | REQUIRES_VERSION_ROLLING;
    setup::negotiate(message, Protocol::Mining, defined, supported)?;
    Ok(Accepted {
        flags: if version_rolling { 0 } else { REQUIRES_FIXED_VERSION },
        standard_jobs: message.flags & REQUIRES_STANDARD_JOBS != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(protocol: u8, versions: (u16, u16), flags: u32) -> SetupConnection<'static> {
        SetupConnection {
            protocol,
            min_version: versions.0,
            max_version: versions.1,
            flags,
            endpoint_host: b"",
            endpoint_port: 0,
            vendor: b"",
            hardware_version: b"",
            firmware: b"",
            device_id: b"",
        }
    }

    #[test]
    fn supported_features_are_granted() {
        for (flags, standard_jobs) in [(0, false), (0b001, true), (0b100, false), (0b101, true)] {
            let accepted = negotiate(&message(0, (2, 2), flags), true);
            assert_eq!(accepted, Ok(Accepted { flags: 0, standard_jobs }));
        }
        assert!(negotiate(&message(0, (1, 9), 0), true).is_ok());
    }

    #[test]
    fn every_refusal_lists_every_unsupported_flag() {
        let refused = |message: &SetupConnection<'_>, version_rolling| {
            negotiate(message, version_rolling).map_err(|refused| (refused.flags, refused.error_code))
        };
        let all = message(0, (2, 2), u32::MAX);
        assert_eq!(refused(&all, true), Err((!0b101, "unsupported-feature-flags")));
        assert_eq!(refused(&all, false), Err((!0b001, "unsupported-feature-flags")));
        assert_eq!(refused(&message(0, (2, 2), 0b10), true), Err((0b10, "unsupported-feature-flags")));
        assert_eq!(refused(&message(0, (3, 4), 0), true), Err((0b10, "protocol-version-mismatch")));
        assert_eq!(refused(&message(0, (0, 1), 0), true), Err((0b10, "protocol-version-mismatch")));
        assert_eq!(refused(&message(0, (3, 1), 0), true), Err((0b10, "protocol-version-mismatch")));
        for protocol in [1, 2, 3, 255] {
            assert_eq!(refused(&message(protocol, (2, 2), 1), true), Err((0, "unsupported-protocol")));
        }
    }

    #[test]
    fn a_fixed_version_is_said() {
        let accepted = negotiate(&message(0, (2, 2), 0), false);
        assert_eq!(accepted.map(|accepted| accepted.flags), Ok(REQUIRES_FIXED_VERSION));
        let refused = negotiate(&message(0, (2, 2), 0b100), false);
        assert_eq!(refused.map_err(|refused| refused.flags), Err(0b110));
    }
}
