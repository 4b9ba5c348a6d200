//! Accepted shares that are yet to be acknowledged, where an operator chose to acknowledge several with one message
//! (specification 5.3.13).
//!
//! A message is a send for each connection and tick, which costs a pool of busy connections more than all it does for
//! the shares themselves. By default nothing waits here: each tick acknowledges its own shares.
//!
//! Bounds: one entry for a channel; one deadline for an entry, and not more than [`STALE_MAX`] beyond twice those that are
//! still waited for.

use alloc::collections::VecDeque;
use core::time::Duration;

use super::batch::Account;
use super::slab::{NONE, Slab};
use crate::time::Instant;

/// Deadlines of entries that were acknowledged before, kept until they are swept.
const STALE_MAX: usize = 1_024;

/// When accepted shares are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// How many of a channel's shares gather, at most; 1 acknowledges with the tick in which they were judged.
    pub shares: u32,
    /// How long the first of them waits, at most.
    pub delay: Duration,
}

impl Acknowledgement {
    /// Nothing waits.
    pub const AT_ONCE: Self = Self { shares: 1, delay: Duration::ZERO };
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    account: Account,
    serial: u64,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    entry: u32,
    serial: u64,
}

/// What channels are owed.
#[derive(Debug)]
pub(super) struct Owed {
    policy: Acknowledgement,
    entries: Slab<Entry>,
    /// In the order of their moments, since all wait equally long.
    deadlines: VecDeque<Deadline>,
    serial: u64,
}

impl Owed {
    pub(super) const fn new(policy: Acknowledgement) -> Self {
        Self { policy, entries: Slab::new(), deadlines: VecDeque::new(), serial: 0 }
    }

    /// Whether no channel is ever owed anything.
    pub(super) const fn is_at_once(&self) -> bool {
        self.policy.shares <= 1
    }

    /// Whether no channel is owed anything now.
    pub(super) const fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    /// Adds what a tick has accepted to the entry `owed` of its channel, or to a new one. Returns what is to be
    /// acknowledged now; `owed` is the channel's entry afterwards.
    pub(super) fn add(&mut self, owed: &mut u32, account: &Account, now: Instant) -> Option<Account> {
        let mut sum = *account;
        if *owed == NONE && sum.accepted >= self.policy.shares {
            return Some(sum);
        }
        if let Some(entry) = self.entries.get_mut(*owed) {
            entry.account.accepted += account.accepted;
            entry.account.difficulty += account.difficulty;
            entry.account.last_sequence_number = account.last_sequence_number;
            sum = entry.account;
        }
        if sum.accepted >= self.policy.shares {
            self.entries.remove(core::mem::replace(owed, NONE), 0);
            return Some(sum);
        }
        if *owed == NONE {
            self.serial += 1;
            let serial = self.serial;
            *owed = self.entries.insert(|_, _| Entry { account: sum, serial });
            self.sweep();
            self.deadlines.push_back(Deadline { at: now + self.policy.delay, entry: *owed, serial });
        }
        None
    }

    /// Takes a channel's entry.
    pub(super) fn take(&mut self, owed: &mut u32) -> Option<Account> {
        self.entries.remove(core::mem::replace(owed, NONE), 0).map(|entry| entry.account)
    }

    /// The channel that has waited longest, if its time is over.
    pub(super) fn poll(&mut self, now: Instant) -> Option<u32> {
        while let Some(first) = self.deadlines.front().filter(|first| first.at <= now) {
            let waits = self.waits(first);
            self.deadlines.pop_front();
            if waits.is_some() {
                return waits;
            }
        }
        None
    }

    /// When [`poll`](Self::poll) has something to give, at the earliest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|first| first.at)
    }

    /// The channel whose entry a deadline is of, if it is not acknowledged yet.
    fn waits(&self, deadline: &Deadline) -> Option<u32> {
        let entry = self.entries.get(deadline.entry).filter(|entry| entry.serial == deadline.serial)?;
        Some(entry.account.channel)
    }

    fn sweep(&mut self) {
        if self.deadlines.len() > 2 * self.entries.len() as usize + STALE_MAX {
            let mut deadlines = core::mem::take(&mut self.deadlines);
            deadlines.retain(|deadline| self.waits(deadline).is_some());
            self.deadlines = deadlines;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Acknowledgement = Acknowledgement { shares: 10, delay: Duration::from_millis(100) };

    fn account(channel: u32, accepted: u32, last_sequence_number: u32) -> Account {
        Account { channel, accepted, last_sequence_number, difficulty: f64::from(accepted) }
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn shares_gather_until_they_are_enough() {
        let (mut all, mut owed) = (Owed::new(POLICY), NONE);
        assert!(all.add(&mut owed, &account(7, 4, 3), at(0)).is_none());
        assert!(all.add(&mut owed, &account(7, 5, 8), at(50)).is_none());
        let sum = all.add(&mut owed, &account(7, 3, 11), at(60)).expect("twelve are more than ten");
        assert_eq!((sum.channel, sum.accepted, sum.last_sequence_number), (7, 12, 11));
        assert_eq!((sum.difficulty, owed), (12.0, NONE));
        assert_eq!(all.poll(at(1_000)), None, "nothing is owed any more");
    }

    #[test]
    fn the_first_share_waits_no_longer_than_the_delay() {
        let (mut all, mut one, mut other) = (Owed::new(POLICY), NONE, NONE);
        all.add(&mut one, &account(1, 1, 0), at(0));
        all.add(&mut other, &account(2, 1, 0), at(30));
        all.add(&mut one, &account(1, 1, 1), at(90));
        assert_eq!(all.deadline(), Some(at(100)));
        assert_eq!((all.poll(at(99)), all.poll(at(100)), all.poll(at(100))), (None, Some(1), None));
        assert_eq!(all.take(&mut one).map(|sum| sum.accepted), Some(2));
        assert!(all.take(&mut one).is_none());
        // A channel that is owed anew is not acknowledged at its earlier deadline.
        all.take(&mut other);
        all.add(&mut other, &account(2, 1, 1), at(120));
        assert_eq!((all.poll(at(130)), all.poll(at(220))), (None, Some(2)));
    }

    #[test]
    fn deadlines_of_what_was_acknowledged_are_swept() {
        let (mut all, mut owed) = (Owed::new(POLICY), NONE);
        for number in 0..100_000 {
            all.add(&mut owed, &account(1, 5, number), at(0));
            assert!(all.deadlines.len() <= STALE_MAX + 4);
        }
    }
}
