//! What RequestExtensions is answered (extension 0x0001), and what was agreed on.

use alloc::vec::Vec;

use adit_codec::tlv::{EXTENSIONS_NEGOTIATION, WORKER_HASHRATE_TRACKING};

/// What this server can do.
const SUPPORTED: [u16; 2] = [EXTENSIONS_NEGOTIATION, WORKER_HASHRATE_TRACKING];

/// The extensions of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Negotiated {
    /// Extension 0x0002: shares on extended channels name their worker.
    pub(super) worker_identity: bool,
    /// An extension that the server requires and the client has not requested.
    pub(super) missing: Option<u16>,
    /// Whether the client was told so.
    pub(super) told: bool,
}

impl Negotiated {
    pub(super) const NOTHING: Self = Self { worker_identity: false, missing: None, told: false };

    /// The state after SetupConnection.
    pub(super) fn required(required: &[u16]) -> Self {
        Self { missing: required.first().copied(), ..Self::NOTHING }
    }
}

/// The answer to RequestExtensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Success { supported: Vec<u16>, negotiated: Negotiated },
    Error { unsupported: Vec<u16>, required: Vec<u16> },
}

/// Judges a request. Each extension is listed once, however often it was requested.
pub(super) fn negotiate(requested: impl Iterator<Item = u16>, required: &[u16]) -> Answer {
    let mut requested: Vec<u16> = requested.collect();
    let nothing_requested = requested.is_empty();
    requested.sort_unstable();
    requested.dedup();
    let missing: Vec<u16> =
        required.iter().copied().filter(|extension| !requested.contains(extension)).collect();
    let (supported, unsupported): (Vec<u16>, Vec<u16>) =
        requested.into_iter().partition(|extension| SUPPORTED.contains(extension));
    if !missing.is_empty() || (supported.is_empty() && !nothing_requested) {
        return Answer::Error { unsupported, required: missing };
    }
    let worker_identity = supported.contains(&WORKER_HASHRATE_TRACKING);
    Answer::Success { supported, negotiated: Negotiated { worker_identity, ..Negotiated::NOTHING } }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn answer(requested: &[u16], required: &[u16]) -> Answer {
        negotiate(requested.iter().copied(), required)
    }

    #[test]
    fn some_supported_is_success() {
        let Answer::Success { supported, negotiated } = answer(&[3, 2, 2, 0x4000], &[]) else {
            panic!("0x0002 is supported");
        };
        assert_eq!(supported, [2]);
        assert!(negotiated.worker_identity && negotiated.missing.is_none());
        assert_eq!(
            answer(&[], &[]),
            Answer::Success { supported: vec![], negotiated: Negotiated::NOTHING },
            "who asks for nothing gets it"
        );
        assert!(matches!(
            answer(&[1], &[]),
            Answer::Success { negotiated: Negotiated { worker_identity: false, .. }, .. }
        ));
        assert!(matches!(answer(&[2], &[2]), Answer::Success { .. }));
    }

    #[test]
    fn nothing_supported_is_an_error() {
        assert_eq!(answer(&[9, 3, 9], &[]), Answer::Error { unsupported: vec![3, 9], required: vec![] });
    }

    #[test]
    fn what_is_required_must_be_requested() {
        assert_eq!(answer(&[], &[2]), Answer::Error { unsupported: vec![], required: vec![2] });
        assert_eq!(answer(&[1, 3], &[2]), Answer::Error { unsupported: vec![3], required: vec![2] });
        assert_eq!(Negotiated::required(&[2, 5]).missing, Some(2));
        assert_eq!(Negotiated::required(&[]).missing, None);
    }
}
