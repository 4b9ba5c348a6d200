//! When shares of an open loop are due.
//!
//! The devices of a connection find shares as independent Poisson processes. Their superposition is one Poisson process at
//! the sum of the rates whose arrivals belong to devices chosen by rate, so that a connection needs one time and no device
//! needs any. The times do not depend on what the pool does: who cannot send in time catches up, and the latency counts from
//! the intended time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// SplitMix64: enough randomness for loads, at a nanosecond a number.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below 1, in steps of 2^-53.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// From 0 to below `bound`.
    fn below(&mut self, bound: u32) -> u32 {
        u32::try_from((u64::from(bound) * (self.next() >> 32)) >> 32).expect("below a u32")
    }

    /// Exponentially distributed with mean 1.
    fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }
}

/// The rates of a connection's devices: the first `boosted` of them find shares `factor` times as often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rates {
    devices: u32,
    boosted: u32,
    factor: f64,
    /// Of a device that is not boosted.
    per_ns: f64,
}

impl Rates {
    pub(super) const fn new(devices: u32, per_ns: f64) -> Self {
        Self { devices, boosted: 0, factor: 1.0, per_ns }
    }

    /// Boosts a fraction of all devices; the connection is the one of this number. Over all connections the fraction is
    /// met, also where each has a single device.
    pub(super) fn boost(&mut self, connection: u32, fraction: f64, factor: f64) {
        let up_to = |connection: u32| (f64::from(connection) * f64::from(self.devices) * fraction).floor();
        self.boosted = (up_to(connection + 1) - up_to(connection)) as u32;
        self.factor = factor;
    }

    fn weight_boosted(&self) -> f64 {
        f64::from(self.boosted) * self.factor
    }

    fn weight(&self) -> f64 {
        self.weight_boosted() + f64::from(self.devices - self.boosted)
    }

    /// Nanoseconds from one arrival to the next.
    pub(super) fn draw_gap_ns(&self, random: &mut Random) -> u64 {
        (random.exponential() / (self.weight() * self.per_ns)) as u64
    }

    /// Whose arrival it is.
    pub(super) fn draw_device(&self, random: &mut Random) -> u32 {
        if self.boosted == 0 {
            random.below(self.devices)
        } else if random.unit() * self.weight() < self.weight_boosted() {
            random.below(self.boosted)
        } else {
            self.boosted + random.below((self.devices - self.boosted).max(1))
        }
        .min(self.devices - 1)
    }
}

/// Connections by the time of their next arrival. One entry for each that is not waiting for its socket.
#[derive(Debug, Default)]
pub(super) struct Arrivals(BinaryHeap<Reverse<(u64, u32)>>);

impl Arrivals {
    pub(super) fn push(&mut self, due_ns: u64, connection: u32) {
        self.0.push(Reverse((due_ns, connection)));
    }

    pub(super) fn next_due_ns(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((due_ns, _))| *due_ns)
    }

    /// Takes a connection that is due.
    pub(super) fn pop_due(&mut self, now_ns: u64) -> Option<u32> {
        let Reverse((due_ns, connection)) = *self.0.peek()?;
        (due_ns <= now_ns).then(|| {
            self.0.pop();
            connection
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_exponential() {
        let mut random = Random::new(1);
        let rates = Rates::new(50, 1e-6 / 50.0);
        let gaps: Vec<f64> = (0..200_000).map(|_| rates.draw_gap_ns(&mut random) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean / 1e6 - 1.0).abs() < 0.02, "{mean}");
        // The standard deviation of an exponential distribution is its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "{variance}");
        let long = gaps.iter().filter(|gap| **gap > 2e6).count() as f64 / gaps.len() as f64;
        assert!((long - (-2.0f64).exp()).abs() < 0.005, "{long}");
    }

    #[test]
    fn boosted_devices_find_more() {
        let mut random = Random::new(2);
        let mut rates = Rates::new(10, 1e-6);
        rates.boost(0, 0.2, 10.0);
        let mut counts = [0u32; 10];
        (0..100_000).for_each(|_| counts[rates.draw_device(&mut random) as usize] += 1);
        for (device, count) in counts.iter().enumerate() {
            let expected = 100_000.0 * if device < 2 { 10.0 } else { 1.0 } / 28.0;
            assert!((f64::from(*count) / expected - 1.0).abs() < 0.1, "{counts:?}");
        }
        let mean = (0..10_000).map(|_| rates.draw_gap_ns(&mut random)).sum::<u64>() / 10_000;
        assert!(mean.abs_diff(1_000_000 / 28) < 2_000, "{mean}");
    }

    #[test]
    fn a_fraction_is_met_over_connections_of_one_device() {
        let boosted = |connection| {
            let mut rates = Rates::new(1, 1e-6);
            rates.boost(connection, 0.3, 10.0);
            rates.boosted
        };
        assert_eq!((0..1_000).map(boosted).sum::<u32>(), 300);
        let mut random = Random::new(3);
        let mut rates = Rates::new(1, 1e-6);
        rates.boost(0, 1.0, 3.0);
        assert_eq!(rates.draw_device(&mut random), 0);
    }

    #[test]
    fn the_earliest_is_due_first() {
        let mut arrivals = Arrivals::default();
        [(30, 1), (10, 2), (20, 3)].iter().for_each(|&(due, connection)| arrivals.push(due, connection));
        assert_eq!((arrivals.next_due_ns(), arrivals.pop_due(9)), (Some(10), None));
        assert_eq!(
            (arrivals.pop_due(25), arrivals.pop_due(25), arrivals.pop_due(25)),
            (Some(2), Some(3), None)
        );
    }
}
