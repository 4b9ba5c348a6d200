//! When a busy shard lets what arrives gather before it reads.
//!
//! A receive costs the kernel as much for one frame as for ten of the same connection, and it acknowledges each to the peer with
//! a packet; so does a round of the shard, and a batch of hashes costs as much half full as full. A shard that reads as
//! fast as it can on a busy pool therefore reads frames one by one, and spends the whole CPU on what half of it could do. So
//! rounds are spread out: each begins a while after the one before began.
//!
//! Only where that pays: where many frames arrive. Where they arrive in large portions there is less to save, and rounds are half as
//! far apart. Gathering itself makes portions larger, so that they are looked at in a period without it, now and then. Where rounds
//! take longer than that while, nothing waits. What comes over links (a tip above all) ends a pause, and there is none while work waits for
//! the sends of a round to be over.

use std::time::Duration;

use adit_proto::Instant;

/// Frames within the longest pause from which on it pays: 64,000 a second with a pause of 0.5 ms.
const FRAMES_MIN: f64 = 32.0;
/// Frames in a receive up to which it pays most: a peer that sends more at once saves the shard some of what gathering would.
const PORTION_MAX: f64 = 4.0;
/// How long is counted before it is decided anew.
const PERIOD: Duration = Duration::from_millis(8);
/// Periods of gathering between two without, in which portions are looked at.
const PERIODS: u32 = 64;

/// What a shard has received so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Received {
    /// Completions of receives.
    pub(super) portions: u64,
    pub(super) frames: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gathering {
    longest: Duration,
    counted_from: Instant,
    counted: Received,
    /// How far apart rounds begin at present.
    apart: Duration,
    /// Periods in which to gather, the present one among them.
    periods_left: u32,
}

impl Gathering {
    /// Rounds begin at least `longest` apart where it pays.
    pub(super) fn new(longest: Duration, now: Instant) -> Self {
        Self {
            longest,
            counted_from: now,
            counted: Received::default(),
            apart: Duration::ZERO,
            periods_left: 0,
        }
    }

    /// How long to let what arrives gather, after a round that began at `begun`.
    pub(super) fn pause(&mut self, received: Received, begun: Instant, now: Instant) -> Option<Duration> {
        let elapsed = now.since(self.counted_from);
        if elapsed >= PERIOD {
            self.decide(received, elapsed);
            (self.counted_from, self.counted) = (now, received);
        }
        let rest = self.apart.checked_sub(now.since(begun))?;
        (!rest.is_zero()).then_some(rest)
    }

    fn decide(&mut self, received: Received, elapsed: Duration) {
        let frames = (received.frames - self.counted.frames) as f64;
        let portions = (received.portions - self.counted.portions) as f64;
        let are_many = frames * self.longest.as_secs_f64() >= FRAMES_MIN * elapsed.as_secs_f64();
        self.periods_left = match self.periods_left {
            _ if !are_many => 0,
            0 => PERIODS,
            periods => periods - 1,
        };
        match self.periods_left {
            0 => self.apart = Duration::ZERO,
            PERIODS if frames <= PORTION_MAX * portions => self.apart = self.longest,
            PERIODS => self.apart = self.longest / 2,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(500);

    /// Runs rounds for some seconds at so many frames a second; which part of the rounds had a pause in the second half. What arrives
    /// between two rounds is one portion for each of `connections`, or several of `written` frames.
    fn paused(frames_per_s: f64, round: Duration, connections: f64, written: f64) -> f64 {
        let start = Instant::from_nanos(1 << 40);
        let mut gathering = Gathering::new(LONGEST, start);
        let (mut now, mut received) = (start, Received::default());
        let (mut portions, mut frames) = (0.0, 0.0);
        let (mut rounds, mut pauses) = (0.0, 0.0);
        let mut last = start;
        while now.since(start) < Duration::from_secs(4) {
            let new = now.since(last).as_secs_f64() * frames_per_s;
            (frames, portions) = (frames + new, portions + (new / written).min(connections));
            (received.frames, received.portions) = (frames as u64, portions as u64);
            (last, now) = (now, now + round);
            let pause = gathering.pause(received, last, now);
            if let Some(pause) = pause {
                let apart = if written > PORTION_MAX { LONGEST / 2 } else { LONGEST };
                assert_eq!(pause, apart - round);
            }
            if now.since(start) > Duration::from_secs(2) {
                rounds += 1.0;
                pauses += f64::from(u8::from(pause.is_some()));
            }
            now = now + pause.unwrap_or_default();
        }
        pauses / rounds
    }

    #[test]
    fn rounds_of_a_busy_shard_are_spread_out() {
        let round = Duration::from_micros(50);
        // A period without holds ten times as many rounds.
        for connections in [8.0, 64.0, 10_000.0] {
            assert!(paused(200_000.0, round, connections, 1.0) > 0.8, "{connections} connections");
        }
        assert_eq!(paused(20_000.0, round, 64.0, 1.0), 0.0, "there is little to save");
        assert!(paused(1_000_000.0, round, 64.0, 32.0) > 0.8, "for half as long");
        assert_eq!(paused(200_000.0, LONGEST, 64.0, 1.0), 0.0, "there is no time to lose");
    }

    #[test]
    fn it_ends_with_the_load() {
        let start = Instant::from_nanos(0);
        let mut gathering = Gathering::new(LONGEST, start);
        let mut now = start;
        let mut received = Received::default();
        for _ in 0..20 {
            now = now + PERIOD;
            received = Received { portions: received.portions + 2_000, frames: received.frames + 2_000 };
            assert!(gathering.pause(received, now, now).is_some());
        }
        now = now + PERIOD;
        assert_eq!(gathering.pause(received, now, now), None);
    }

    #[test]
    fn a_shard_that_may_not_gather_never_does() {
        let start = Instant::from_nanos(0);
        let mut gathering = Gathering::new(Duration::ZERO, start);
        for round in 1..100 {
            let now = start + Duration::from_millis(10 * round);
            let received = Received { portions: round * 1_000_000, frames: round * 1_000_000 };
            assert_eq!(gathering.pause(received, now, now), None);
        }
    }
}
