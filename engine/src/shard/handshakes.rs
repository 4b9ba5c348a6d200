//! Handshakes that wait for their turn, and what each of them needs.
//!
//! A handshake costs about 90 us of CPU, 25 of which are its ephemeral key. So their rate is bounded, shares come first, and a
//! shard that has been idle for a while makes keys ahead of time. Addresses take turns: one that opens thousands of connections delays its own, and
//! everybody else's by one handshake.
//!
//! Bounds: at most twice the connections that wait, each once; the rate; the spare keys.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use adit_codec::noise::EphemeralKey;
use adit_proto::Instant;
use ring::rand::{SecureRandom, SystemRandom};

use crate::limits::tick::SPARE_KEYS_MAX;
use crate::transport::SocketId;

/// How much of a second's handshakes may be done in one go after a pause.
const BURST_PER_SECOND: f64 = 0.05;

/// After the last handshake, before keys are made for the next.
const CALM: Duration = Duration::from_secs(1);

/// Entries below which the lines are not swept.
const UNSWEPT: usize = 1024;

pub(super) struct Handshakes {
    /// What waits, by address; none is empty. Entries of connections that have gone stay until their turn or a sweep.
    lines: HashMap<IpAddr, VecDeque<(SocketId, u64)>>,
    /// The addresses that have a line, each once, in the order of their turns.
    turns: VecDeque<IpAddr>,
    /// Entries of all lines.
    len: usize,
    sweep_at: usize,
    per_second: f64,
    tokens: f64,
    refilled: Instant,
    random: SystemRandom,
    spare_keys: Vec<EphemeralKey>,
    /// No key is made ahead before.
    calm_from: Instant,
}

impl Handshakes {
    /// At most `per_second` in a second.
    pub(super) fn new(per_second: f64, now: Instant) -> Self {
        let tokens = Self::burst(per_second);
        Self {
            lines: HashMap::new(),
            turns: VecDeque::new(),
            len: 0,
            sweep_at: UNSWEPT,
            per_second,
            tokens,
            refilled: now,
            random: SystemRandom::new(),
            spare_keys: Vec::with_capacity(SPARE_KEYS_MAX),
            calm_from: now,
        }
    }

    fn burst(per_second: f64) -> f64 {
        (per_second * BURST_PER_SECOND).max(1.0)
    }

    /// Adds a connection to the line of its address (see [`address_block`](crate::acceptor::address_block)); `waits` tells
    /// which of the others still do.
    pub(super) fn push(
        &mut self,
        address: IpAddr,
        socket: SocketId,
        serial: u64,
        waits: impl Fn(SocketId, u64) -> bool,
    ) {
        if self.len >= self.sweep_at {
            self.sweep(waits);
        }
        let line = self.lines.entry(address).or_default();
        if line.is_empty() {
            self.turns.push_back(address);
        }
        line.push_back((socket, serial));
        self.len += 1;
    }

    /// Forgets connections that have gone.
    fn sweep(&mut self, waits: impl Fn(SocketId, u64) -> bool) {
        self.lines.retain(|_, line| {
            line.retain(|&(socket, serial)| waits(socket, serial));
            !line.is_empty()
        });
        self.turns.retain(|address| self.lines.contains_key(address));
        self.len = self.lines.values().map(VecDeque::len).sum();
        self.sweep_at = (2 * self.len).max(UNSWEPT);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next one, if the rate allows it.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(SocketId, u64)> {
        if self.is_empty() {
            return None;
        }
        let earned = now.since(self.refilled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + earned).min(Self::burst(self.per_second));
        self.refilled = self.refilled.max(now);
        if self.tokens < 1.0 {
            return None;
        }
        let address = self.turns.pop_front()?;
        let line = self.lines.get_mut(&address)?;
        let next = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&address);
        } else {
            self.turns.push_back(address);
        }
        self.len -= usize::from(next.is_some());
        next
    }

    /// Counts a handshake against the rate; one that was popped but had gone away costs nothing.
    pub(super) fn spend(&mut self) {
        self.tokens -= 1.0;
    }

    /// When the rate will allow the next one that waits.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.is_empty() {
            return None;
        }
        let missing = (1.0 - self.tokens).max(0.0) / self.per_second.max(1e-3);
        Some(self.refilled + Duration::from_secs_f64(missing))
    }

    /// A key made ahead of time, or a new one. None if the system gives no randomness.
    pub(super) fn take_key(&mut self, now: Instant) -> Option<EphemeralKey> {
        self.calm_from = now + CALM;
        self.spare_keys.pop().or_else(|| self.make_key())
    }

    /// Makes one key ahead of time. Returns whether one was missing, and handshakes have been over for a while: between two of
    /// them a key would only make the next one wait.
    pub(super) fn make_spare_key(&mut self, now: Instant) -> bool {
        if self.spare_keys.len() >= SPARE_KEYS_MAX || now < self.calm_from {
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

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn addresses_take_turns() {
        let mut handshakes = Handshakes::new(1e9, Instant::ZERO);
        for serial in 0..1000 {
            handshakes.push(address(1), SocketId(0), serial, |_, _| true);
        }
        for serial in 1000..1003 {
            handshakes.push(address(serial as u8), SocketId(0), serial, |_, _| true);
        }
        handshakes.push(address(1), SocketId(0), 1003, |_, _| true);
        let mut order = std::iter::from_fn(|| handshakes.pop(Instant::ZERO)).map(|(_, serial)| serial);
        let first: Vec<_> = order.by_ref().take(6).collect();
        assert_eq!(first, [0, 1000, 1001, 1002, 1, 2]);
        assert!(order.by_ref().eq((3..1000).chain([1003])));
        drop(order);
        assert!(handshakes.is_empty() && handshakes.lines.is_empty() && handshakes.turns.is_empty());
    }

    #[test]
    fn connections_that_have_gone_are_swept() {
        // None is popped, as when the rate is used up by others.
        let mut handshakes = Handshakes::new(1.0, Instant::ZERO);
        for serial in 0..1_000_000u64 {
            let from = address((serial % 50) as u8);
            handshakes.push(from, SocketId(0), serial, |_, old| old >= 999_000);
            assert!(handshakes.len <= 2 * UNSWEPT && handshakes.turns.len() <= 50);
        }
        assert_eq!(handshakes.len, handshakes.lines.values().map(VecDeque::len).sum::<usize>());
        assert_eq!(handshakes.turns.len(), handshakes.lines.len());
    }

    #[test]
    fn the_rate_holds() {
        let mut handshakes = Handshakes::new(1000.0, Instant::ZERO);
        for serial in 0..10_000 {
            handshakes.push(address(1), SocketId(0), serial, |_, _| true);
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
        while handshakes.make_spare_key(Instant::ZERO) {
            made += 1;
        }
        assert_eq!(made, SPARE_KEYS_MAX);
        let taken = Instant::from_nanos(5_000_000_000);
        assert!(handshakes.take_key(taken).is_some());
        assert!(!handshakes.make_spare_key(taken + CALM / 2), "others may follow at once");
        assert!(handshakes.make_spare_key(taken + CALM));
        assert!(!handshakes.make_spare_key(taken + CALM));
    }
}
