//! Shares that wait for an answer, in the order of their sequence numbers.
//!
//! A success names the last share that it stands for and how many there are. Where shares were judged out of order, the
//! oldest are taken for the accepted ones; an error that comes for one of these later takes the oldest that is left in
//! its stead, so that the count is always right.

use alloc::collections::VecDeque;

use crate::time::Instant;

/// A share that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Submitted {
    pub(super) sequence_number: u32,
    pub(super) at: Instant,
}

/// The shares of one channel; memory grows with how many wait at a time, which the owner bounds.
#[derive(Clone, Debug)]
pub(super) struct Outstanding {
    shares: VecDeque<Submitted>,
    /// Sequence number of the next share. Numbers wrap around after 2^32.
    next: u32,
}

/// The first sequence number.
const FIRST: u32 = 1;

/// Why an answer cannot be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// The share was not submitted, or nothing waits.
    UnknownShare,
    /// More than wait.
    TooMany,
}

impl Outstanding {
    pub(super) const fn new() -> Self {
        Self { shares: VecDeque::new(), next: FIRST }
    }

    pub(super) fn len(&self) -> usize {
        self.shares.len()
    }

    pub(super) fn oldest(&self) -> Option<Submitted> {
        self.shares.front().copied()
    }

    /// Records one more share and returns its sequence number.
    pub(super) fn submit(&mut self, now: Instant) -> u32 {
        let sequence_number = self.next;
        self.next = self.next.wrapping_add(1);
        self.shares.push_back(Submitted { sequence_number, at: now });
        sequence_number
    }

    /// Whether a share of this number can have been submitted: it lies behind the next one, by less than half the circle.
    fn was_submitted(&self, sequence_number: u32) -> bool {
        (1..=1 << 31).contains(&self.next.wrapping_sub(sequence_number))
    }

    /// Numbers rise along the queue: a distance from the next number that falls.
    fn position(&self, sequence_number: u32) -> Option<usize> {
        let next = self.next;
        let distance = |number: u32| core::cmp::Reverse(next.wrapping_sub(number));
        self.shares
            .binary_search_by_key(&distance(sequence_number), |share| distance(share.sequence_number))
            .ok()
    }

    /// Whether [`accept`](Self::accept) can be right.
    pub(super) fn check_accept(&self, last: u32, count: u32) -> Result<(), Mismatch> {
        if !self.was_submitted(last) {
            return Err(Mismatch::UnknownShare);
        }
        if usize::try_from(count).is_ok_and(|count| count <= self.shares.len()) {
            Ok(())
        } else {
            Err(Mismatch::TooMany)
        }
    }

    /// Takes `count` accepted shares, `last` among them if it waits, and gives each to `accepted`.
    pub(super) fn accept(&mut self, last: u32, count: u32, mut accepted: impl FnMut(Submitted)) {
        let Some(before) = count.checked_sub(1) else { return };
        let last = self.position(last).and_then(|position| self.shares.remove(position));
        let before = if last.is_some() { before } else { count };
        for _ in 0..before {
            let Some(share) = self.shares.pop_front() else { break };
            accepted(share);
        }
        if let Some(share) = last {
            accepted(share);
        }
    }

    /// Takes the refused share, or the oldest one if that was counted as accepted before.
    pub(super) fn reject(&mut self, sequence_number: u32) -> Result<Submitted, Mismatch> {
        if !self.was_submitted(sequence_number) {
            return Err(Mismatch::UnknownShare);
        }
        let position = self.position(sequence_number).unwrap_or(0);
        let share = self.shares.remove(position).ok_or(Mismatch::UnknownShare)?;
        Ok(Submitted { sequence_number, at: share.at })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    fn with(count: u32) -> Outstanding {
        let mut outstanding = Outstanding::new();
        for nanos in 0..u64::from(count) {
            outstanding.submit(Instant::from_nanos(nanos));
        }
        outstanding
    }

    fn accepted(outstanding: &mut Outstanding, last: u32, count: u32) -> Vec<u32> {
        let mut numbers = Vec::new();
        outstanding.check_accept(last, count).unwrap();
        outstanding.accept(last, count, |share| numbers.push(share.sequence_number));
        numbers
    }

    #[test]
    fn successes_in_order_take_the_oldest() {
        let mut outstanding = with(5);
        assert_eq!(accepted(&mut outstanding, 2, 2), vec![1, 2]);
        assert_eq!(accepted(&mut outstanding, 5, 3), vec![3, 4, 5]);
        assert_eq!(outstanding.len(), 0);
        assert_eq!(outstanding.check_accept(5, 1), Err(Mismatch::TooMany));
    }

    #[test]
    fn errors_before_older_successes() {
        let mut outstanding = with(5);
        assert_eq!(outstanding.reject(4).unwrap().sequence_number, 4);
        assert_eq!(accepted(&mut outstanding, 5, 4), vec![1, 2, 3, 5]);
    }

    #[test]
    fn a_share_judged_late_does_not_upset_the_count() {
        // 3 waits for a new tip; 1, 2, 4, 5 are accepted, then 3 is refused or accepted.
        for refused in [true, false] {
            let mut outstanding = with(5);
            assert_eq!(accepted(&mut outstanding, 5, 4), vec![1, 2, 3, 5]);
            if refused {
                assert_eq!(
                    outstanding.reject(3).unwrap(),
                    Submitted { sequence_number: 3, at: Instant::from_nanos(3) }
                );
            } else {
                assert_eq!(accepted(&mut outstanding, 3, 1), vec![4]);
            }
            assert_eq!(outstanding.len(), 0);
        }
    }

    #[test]
    fn answers_for_nothing_are_told() {
        let mut outstanding = with(2);
        assert_eq!(outstanding.check_accept(3, 1), Err(Mismatch::UnknownShare));
        assert_eq!(outstanding.check_accept(2, 3), Err(Mismatch::TooMany));
        assert_eq!(outstanding.reject(3), Err(Mismatch::UnknownShare));
        assert_eq!(accepted(&mut outstanding, 2, 0), Vec::<u32>::new());
        assert_eq!(accepted(&mut outstanding, 2, 2), vec![1, 2]);
        assert_eq!(outstanding.reject(2), Err(Mismatch::UnknownShare), "nothing waits");
    }

    #[test]
    fn numbers_wrap_around() {
        let mut outstanding = Outstanding { shares: VecDeque::new(), next: u32::MAX };
        for _ in 0..3 {
            outstanding.submit(Instant::ZERO);
        }
        assert_eq!(outstanding.check_accept(2, 1), Err(Mismatch::UnknownShare));
        assert_eq!(outstanding.reject(0).unwrap().sequence_number, 0);
        assert_eq!(accepted(&mut outstanding, 1, 2), vec![u32::MAX, 1]);
    }
}
