//! Handshakes that wait for their turn, and what each of them needs.
//!
//! A handshake costs about 90 us of CPU, 25 of which are its ephemeral key. So their rate is bounded, shares come first, and an
//! idle shard makes keys ahead of time. Bounds: the queue holds each connection at most once; the rate; the spare keys.

use std::collections::VecDeque;

use adit_codec::noise::EphemeralKey;
use adit_proto::Instant;
use ring::rand::{SecureRandom, SystemRandom};

use crate::limits::tick::SPARE_KEYS_MAX;
use crate::transport::SocketId;

/// How much of a second's handshakes may be done in one go after a pause.
const BURST_PER_SECOND: f64 = 0.05;

pub(super) struct Handshakes {
    queue: VecDeque<(SocketId, u64)>,
    per_second: f64,
    tokens: f64,
    refilled: Instant,
    random: SystemRandom,
    spare_keys: Vec<EphemeralKey>,
}

impl Handshakes {
    /// At most `per_second` in a second.
    pub(super) fn new(per_second: f64, now: Instant) -> Self {
        let tokens = Self::burst(per_second);
        Self {
            queue: VecDeque::new(),
            per_second,
            tokens,
            refilled: now,
            random: SystemRandom::new(),
            spare_keys: Vec::with_capacity(SPARE_KEYS_MAX),
        }
    }

    fn burst(per_second: f64) -> f64 {
        (per_second * BURST_PER_SECOND).max(1.0)
    }

    pub(super) fn push(&mut self, socket: SocketId, serial: u64) {
        self.queue.push_back((socket, serial));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next one, if the rate allows it.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(SocketId, u64)> {
        if self.queue.is_empty() {
            return None;
        }
        let earned = now.since(self.refilled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + earned).min(Self::burst(self.per_second));
        self.refilled = self.refilled.max(now);
        if self.tokens < 1.0 {
            return None;
        }
        self.queue.pop_front()
    }

    /// Counts a handshake against the rate; one that was popped but had gone away costs nothing.
    pub(super) fn spend(&mut self) {
        self.tokens -= 1.0;
    }

    /// When the rate will allow the next one that waits.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.queue.is_empty() {
            return None;
        }
        let missing = (1.0 - self.tokens).max(0.0) / self.per_second.max(1e-3);
        Some(self.refilled + std::time::Duration::from_secs_f64(missing))
    }

    /// A key made ahead of time, or a new one. None if the system gives no randomness.
    pub(super) fn take_key(&mut self) -> Option<EphemeralKey> {
        self.spare_keys.pop().or_else(|| self.make_key())
    }

    /// Makes one key ahead of time. Returns whether one was missing.
    pub(super) fn make_spare_key(&mut self) -> bool {
        if self.spare_keys.len() >= SPARE_KEYS_MAX {
            return false;
        }
        let key = self.make_key();
        let made = key.is_some();
        self.spare_keys.extend(key);
        made
    }

    fn make_key(&self) -> Option<EphemeralKey> {
        // 64 random bytes are no key with probability 2^-128: more than two attempts mean that they are not random.
        (0..2).find_map(|_| {
            let mut random = [0; 64];
            self.random.fill(&mut random).ok()?;
            EphemeralKey::new(&random).ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds() {
        let mut handshakes = Handshakes::new(1000.0, Instant::ZERO);
        for serial in 0..10_000 {
            handshakes.push(SocketId(0), serial);
        }
        let mut done = 0;
        for micros in (0..2_000_000).step_by(100) {
            while handshakes.pop(Instant::from_nanos(micros * 1000)).is_some() {
                handshakes.spend();
                done += 1;
            }
        }
        assert!((2000..=2051).contains(&done), "{done}");
        let next = handshakes.poll_timeout().unwrap();
        assert!(next > Instant::from_nanos(1_999_900_000));
        assert!(handshakes.pop(next + std::time::Duration::from_micros(1)).is_some());
    }

    #[test]
    fn keys_ahead_of_time_are_bounded() {
        let mut handshakes = Handshakes::new(1.0, Instant::ZERO);
        let mut made = 0;
        while handshakes.make_spare_key() {
            made += 1;
        }
        assert_eq!(made, SPARE_KEYS_MAX);
        assert!(handshakes.take_key().is_some());
        assert!(handshakes.make_spare_key());
    }
}
