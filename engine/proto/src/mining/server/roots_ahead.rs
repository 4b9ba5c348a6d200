//! Merkle roots that are computed before they are asked for (specification 5.3.15).
//!
//! Devices that require standard jobs mostly have one channel on a connection, and one root takes a hasher as long as many side
//! by side. So while connections are told of a job, the roots of those that come next are computed with the one that is wanted.
//!
//! So do channels that are opened one after the other: their prefixes follow one another. More are foreseen each time that all
//! before were asked for, and none after some were not. A round's roots are not given up for that.
//!
//! A root follows from a source and a prefix, and by these it is found: whatever becomes of a channel meanwhile, it is given no
//! wrong one. What nobody asks for goes with the last of its batch.
//!
//! Bounds: [`BATCHES`] of [`BATCH_MAX`] roots.

use alloc::vec::Vec;

use super::extranonce::Prefix;

/// Roots of a batch.
pub(super) const BATCH_MAX: usize = 64;
/// Batches that are kept: a tip and the template behind it announce two jobs to each connection.
const BATCHES: usize = 2;

/// Roots of one source, in the order in which they will be asked for.
#[derive(Debug, Default)]
struct Batch {
    source: u32,
    roots: Vec<(Prefix, [u8; 32])>,
    /// Where the next is expected.
    next: usize,
    /// How many roots the next single one is worth computing along.
    foreseeable: usize,
    /// Whether the roots are of channels that are yet to be opened, and not of a round.
    is_foreseen: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RootsAhead {
    batches: [Batch; BATCHES],
    oldest: usize,
}

impl RootsAhead {
    /// The root of a source's jobs under `prefix`, if it was computed.
    pub(super) fn find(&mut self, source: u32, prefix: &Prefix) -> Option<[u8; 32]> {
        let batch =
            self.batches.iter_mut().find(|batch| batch.source == source && !batch.roots.is_empty())?;
        let (before, from) = batch.roots.split_at(batch.next);
        let place = from.iter().chain(before).position(|(known, _)| known == prefix)?;
        let index = (batch.next + place) % batch.roots.len();
        let root = batch.roots[index].1;
        batch.next = index + 1;
        if batch.next == batch.roots.len() {
            // The round is past it: no later search shall go through it.
            batch.roots.clear();
            batch.next = 0;
        }
        Some(root)
    }

    /// A root of a source was asked for singly, and nothing foresaw it. Returns how many of those that may follow are worth computing
    /// along.
    pub(super) fn foresee(&mut self, source: u32) -> usize {
        let batch = self.batch(source);
        if batch.roots.is_empty() {
            let foreseen = batch.foreseeable;
            batch.foreseeable = (2 * foreseen + 1).min(BATCH_MAX - 1);
            batch.is_foreseen = true;
            return foreseen;
        }
        if batch.is_foreseen {
            batch.roots.clear();
            (batch.next, batch.foreseeable) = (0, 0);
        }
        0
    }

    /// Replaces what is left of a source's batch, or the oldest, by roots of a round or of what was foreseen last.
    pub(super) fn keep<'a>(
        &mut self,
        source: u32,
        is_foreseen: bool,
        roots: impl Iterator<Item = (Prefix, &'a [u8; 32])>,
    ) {
        let batch = self.batch(source);
        (batch.next, batch.is_foreseen) = (0, is_foreseen);
        batch.roots.clear();
        batch.roots.extend(roots.take(BATCH_MAX).map(|(prefix, root)| (prefix, *root)));
    }

    /// A source's batch, in the oldest's place if it has none.
    fn batch(&mut self, source: u32) -> &mut Batch {
        let index = self.batches.iter().position(|batch| batch.source == source).unwrap_or(self.oldest);
        if index == self.oldest {
            self.oldest = (self.oldest + 1) % BATCHES;
        }
        let batch = &mut self.batches[index];
        if batch.source != source {
            (batch.source, batch.next, batch.foreseeable) = (source, 0, 0);
            batch.roots.clear();
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_found_by_source_and_prefix_in_any_order() {
        let mut ahead = RootsAhead::default();
        assert_eq!(ahead.find(0, &[0; 8]), None);
        let roots: Vec<(Prefix, [u8; 32])> = (0..5).map(|i| ([i; 8], [i + 100; 32])).collect();
        ahead.keep(7, false, roots.iter().map(|(prefix, root)| (*prefix, root)));
        for i in [0, 1, 3, 2, 0, 4] {
            assert_eq!(ahead.find(7, &[i; 8]), Some([i + 100; 32]), "{i}");
        }
        assert_eq!(ahead.find(7, &[3; 8]), None, "the last was taken");
        ahead.keep(7, false, roots.iter().map(|(prefix, root)| (*prefix, root)));
        assert_eq!((ahead.find(8, &[1; 8]), ahead.find(7, &[9; 8])), (None, None));
        assert_eq!(ahead.find(7, &[1; 8]), Some([101; 32]));
    }

    #[test]
    fn what_was_not_asked_for_ends_foreseeing() {
        let mut ahead = RootsAhead::default();
        let keep = |ahead: &mut RootsAhead, is_foreseen| {
            ahead.keep(5, is_foreseen, [([1; 8], &[1; 32]), ([2; 8], &[2; 32])].into_iter());
        };
        assert_eq!([(); 3].map(|()| ahead.foresee(5)), [0, 1, 3]);
        keep(&mut ahead, true);
        assert_eq!([(); 3].map(|()| ahead.foresee(5)), [0, 0, 1], "anew, since two were not asked for");
        keep(&mut ahead, false);
        assert_eq!((ahead.foresee(5), ahead.foresee(5)), (0, 0));
        assert_eq!(ahead.find(5, &[2; 8]), Some([2; 32]), "the round still has its roots");
    }

    #[test]
    fn more_is_foreseen_each_time() {
        let mut ahead = RootsAhead::default();
        assert_eq!([(); 8].map(|()| ahead.foresee(5)), [0, 1, 3, 7, 15, 31, 63, 63]);
        assert_eq!([(); 2].map(|()| ahead.foresee(6)), [0, 1], "another source");
    }

    #[test]
    fn the_last_sources_are_kept() {
        let mut ahead = RootsAhead::default();
        let keep = |ahead: &mut RootsAhead, source: u32| {
            ahead.keep(source, false, [([0; 8], &[source as u8; 32]), ([1; 8], &[0; 32])].into_iter());
        };
        let known = |ahead: &mut RootsAhead| [1, 2, 3].map(|source| ahead.find(source, &[0; 8]).is_some());
        keep(&mut ahead, 1);
        keep(&mut ahead, 2);
        keep(&mut ahead, 2);
        assert_eq!(known(&mut ahead), [true, true, false]);
        keep(&mut ahead, 3);
        assert_eq!(known(&mut ahead), [false, true, true]);
        keep(&mut ahead, 2);
        keep(&mut ahead, 1);
        assert_eq!(known(&mut ahead), [true, true, false]);
        ahead.keep(2, false, core::iter::empty());
        assert_eq!(ahead.find(2, &[0; 8]), None);
    }
}
