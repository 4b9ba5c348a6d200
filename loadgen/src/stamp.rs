//! When synthetic work was made, written into the work itself.
//!
//! The template source `synthetic` writes the moment of a tip into `prev_hash`, and the moment of a template into an output of
//! the coinbase that carries nothing else. Any pool hands both on unchanged, so a simulated device knows how old its work is
//! without a word between the processes, whichever pool it connects to. Standard jobs do not show the coinbase: their
//! devices see the moments of tips only. Both ends read the system's clock, so that ages mean something on one machine, or
//! where clocks agree.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What tells a stamp from other bytes.
const MARK: [u8; 8] = *b"AditTime";
/// OP_RETURN and a push of mark and moment.
const SCRIPT_START: [u8; 2] = [0x6a, 16];
/// A stamped output as it is serialised: no value, and the script with its length.
pub const OUTPUT_LEN: usize = 8 + 1 + SCRIPT_START.len() + 16;

/// A moment, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The system's clock; 1970 if it stands before that.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// How long ago it was; zero for a moment that is still to come.
    pub fn age(self) -> Duration {
        Duration::from_micros(Self::now().0.saturating_sub(self.0))
    }

    /// The hash of a block that does not exist: the moment, the mark, the height, and as a number small like a real one's.
    pub fn prev_hash(self, height: u32) -> [u8; 32] {
        let mut hash = [0; 32];
        hash[..16].copy_from_slice(&self.marked());
        hash[16..20].copy_from_slice(&height.to_le_bytes());
        hash
    }

    /// The moment in a tip's `prev_hash`; none if the tip is a real one.
    pub fn of_prev_hash(prev_hash: &[u8; 32]) -> Option<Self> {
        Self::find(&prev_hash[..16])
    }

    /// An output of a coinbase that pays nobody and carries the moment, serialised.
    pub fn output(self) -> [u8; OUTPUT_LEN] {
        let mut output = [0; OUTPUT_LEN];
        output[8] = (SCRIPT_START.len() + 16) as u8;
        output[9..11].copy_from_slice(&SCRIPT_START);
        output[11..].copy_from_slice(&self.marked());
        output
    }

    /// The moment in the `coinbase_tx_suffix` of an extended job; none if no synthetic source made its template.
    pub fn of_coinbase_suffix(suffix: &[u8]) -> Option<Self> {
        Self::find(suffix)
    }

    fn marked(self) -> [u8; 16] {
        let mut marked = [0; 16];
        marked[..8].copy_from_slice(&MARK);
        marked[8..].copy_from_slice(&self.0.to_le_bytes());
        marked
    }

    fn find(bytes: &[u8]) -> Option<Self> {
        let at = bytes.windows(MARK.len()).position(|window| window == MARK)?;
        let moment = bytes.get(at + MARK.len()..)?.first_chunk()?;
        Some(Self(u64::from_le_bytes(*moment)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_again() {
        let stamp = Stamp(1_700_000_000_123_456);
        assert_eq!(Stamp::of_prev_hash(&stamp.prev_hash(930_000)), Some(stamp));
        let suffix = [&[0xff; 4][..], &[1; 31], &stamp.output(), &[0; 4]].concat();
        assert_eq!(Stamp::of_coinbase_suffix(&suffix), Some(stamp));
        assert_ne!(stamp.prev_hash(1), stamp.prev_hash(2));
    }

    #[test]
    fn real_work_has_none() {
        assert_eq!(Stamp::of_prev_hash(&[7; 32]), None);
        assert_eq!(Stamp::of_coinbase_suffix(&[]), None);
        let output = Stamp(5).output();
        assert_eq!(Stamp::of_coinbase_suffix(&output[..OUTPUT_LEN - 1]), None, "cut off");
    }

    #[test]
    fn ages_are_never_negative() {
        assert_eq!(Stamp(u64::MAX).age(), Duration::ZERO);
        assert!(Stamp(0).age() > Duration::from_secs(1_600_000_000));
    }
}
