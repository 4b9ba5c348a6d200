//! Deadlines of many slots, one for each: a timer wheel of coarse ticks.
//!
//! Setting, moving and dropping a deadline costs the same however many there are, and finding the next looks at the
//! occupied buckets only. A deadline beyond the wheel's horizon comes up at the horizon: whoever polls looks at what is
//! really due and sets it again. Nothing fires early; it may fire one tick late.

use alloc::boxed::Box;
use alloc::vec;

use super::chunks::Chunks;
use super::slab::NONE;
use crate::time::Instant;

/// Nanoseconds of a tick: 100 ms.
const TICK_NANOS: u64 = 100_000_000;
/// Ticks until the wheel comes round: 102.4 s.
const BUCKETS: usize = 1024;
const WORDS: usize = BUCKETS / 64;
/// Marks a slot that waits for nothing.
const IDLE: u32 = u32::MAX;

const _: () = assert!(BUCKETS.is_power_of_two() && BUCKETS.is_multiple_of(64));

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
    bucket: u32,
}

/// Deadlines by slot.
#[derive(Debug)]
pub(super) struct Wheel {
    /// First slot of each bucket.
    heads: Box<[u32]>,
    /// Which buckets have one.
    occupied: [u64; WORDS],
    links: Chunks<Link>,
    /// The first tick that was not emptied yet: all deadlines lie from here to less than a turn ahead.
    tick: u64,
}

impl Wheel {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            heads: vec![NONE; BUCKETS].into_boxed_slice(),
            occupied: [0; WORDS],
            links: Chunks::new(),
            tick: now.as_nanos() / TICK_NANOS,
        }
    }

    /// Sets the deadline of `slot` in place of an earlier one.
    pub(super) fn schedule(&mut self, slot: u32, deadline: Instant) {
        self.cancel(slot);
        while self.links.len() <= slot as usize {
            self.links.push(Link { previous: NONE, next: NONE, bucket: IDLE });
        }
        let tick = deadline.as_nanos().div_ceil(TICK_NANOS).clamp(self.tick, self.tick + BUCKETS as u64 - 1);
        let bucket = tick as usize % BUCKETS;
        let next = self.heads[bucket];
        self.links[slot] = Link { previous: NONE, next, bucket: bucket as u32 };
        if next != NONE {
            self.links[next].previous = slot;
        }
        self.heads[bucket] = slot;
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
    }

    /// Reads what moving the deadline of `slot` reads. It says nothing: whoever asks wants it in the cache.
    pub(super) fn neighbours(&self, slot: u32) -> u32 {
        let bucket = |slot: u32| self.links.get(slot as usize).map_or(IDLE, |link| link.bucket);
        self.links.get(slot as usize).map_or(IDLE, |link| bucket(link.previous) ^ bucket(link.next))
    }

    /// Drops the deadline of `slot`, if it has one.
    pub(super) fn cancel(&mut self, slot: u32) {
        let Some(&Link { previous, next, bucket }) = self.links.get(slot as usize) else { return };
        if bucket == IDLE {
            return;
        }
        self.links[slot].bucket = IDLE;
        if next != NONE {
            self.links[next].previous = previous;
        }
        if previous != NONE {
            self.links[previous].next = next;
            return;
        }
        let bucket = bucket as usize;
        self.heads[bucket] = next;
        if next == NONE {
            self.occupied[bucket / 64] &= !(1 << (bucket % 64));
        }
    }

    /// Takes one slot whose deadline has come.
    pub(super) fn poll(&mut self, now: Instant) -> Option<u32> {
        let now_tick = now.as_nanos() / TICK_NANOS;
        let due = self.next_tick().filter(|tick| *tick <= now_tick);
        let Some(due) = due else {
            self.tick = self.tick.max(now_tick);
            return None;
        };
        self.tick = due;
        let slot = self.heads[due as usize % BUCKETS];
        self.cancel(slot);
        Some(slot)
    }

    /// When [`poll`](Self::poll) has something to give, at the earliest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next_tick().map(|tick| Instant::from_nanos(tick.saturating_mul(TICK_NANOS)))
    }

    /// The first occupied tick.
    fn next_tick(&self) -> Option<u64> {
        let start = self.tick as usize % BUCKETS;
        // The word of `start` is looked at twice: its high bits first, its low bits after a whole turn.
        for step in 0..=WORDS {
            let word = (start / 64 + step) % WORDS;
            let mask = match step {
                0 => u64::MAX << (start % 64),
                WORDS => !(u64::MAX << (start % 64)),
                _ => u64::MAX,
            };
            let bits = self.occupied[word] & mask;
            if bits != 0 {
                let bucket = word * 64 + bits.trailing_zeros() as usize;
                return Some(self.tick + ((bucket + BUCKETS - start) % BUCKETS) as u64);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::collections::BTreeMap;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn fires_in_time_and_never_early() {
        let mut wheel = Wheel::new(at(12_345));
        let mut deadlines = BTreeMap::new();
        let mut state = 7_u64;
        for slot in 0..2_000_u32 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let deadline = 12_345 + (state >> 33) % 90_000;
            wheel.schedule(slot, at(deadline));
            deadlines.insert(slot, deadline);
        }
        for slot in (0..2_000).step_by(7) {
            wheel.cancel(slot);
            wheel.cancel(slot);
            deadlines.remove(&slot);
        }
        for slot in (1..2_000).step_by(49) {
            if deadlines.contains_key(&slot) {
                wheel.schedule(slot, at(50_000));
                deadlines.insert(slot, 50_000);
            }
        }
        let mut now = 12_345;
        while let Some(next) = wheel.deadline() {
            assert!(next >= at(now).min(next));
            now = now.max(next.as_nanos() / 1_000_000);
            while let Some(slot) = wheel.poll(at(now)) {
                let deadline = deadlines.remove(&slot).expect("every slot fires once");
                assert!(deadline <= now && now < deadline + 200, "{deadline} at {now}");
            }
        }
        assert!(deadlines.is_empty());
    }

    #[test]
    fn a_slot_takes_twelve_bytes() {
        assert!(size_of::<Link>() <= 12);
    }

    #[test]
    fn far_deadlines_come_up_at_the_horizon() {
        let mut wheel = Wheel::new(at(0));
        wheel.schedule(3, at(10_000_000));
        let first = wheel.deadline().expect("one waits");
        assert!(first <= at(102_400) && first > at(100_000));
        assert_eq!(wheel.poll(at(50_000)), None);
        assert_eq!(wheel.poll(first), Some(3));
        assert_eq!(wheel.deadline(), None);
        assert_eq!(wheel.poll(at(10_000_000)), None);
        wheel.schedule(3, at(1));
        assert_eq!(wheel.poll(at(10_000_000)), Some(3), "a deadline that has passed is due at once");
    }
}
