//! Durations as an HDR histogram that travels as JSON and merges exactly.
//!
//! Values are nanoseconds. Two histograms of one precision have the same buckets, so that what several threads, processes
//! and hosts recorded adds up to what one would have recorded.

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is told apart at the lower end.
const NS_MIN: u64 = 1_000;
/// What is longer counts as this long: an hour.
const NS_MAX: u64 = 3_600_000_000_000;

/// Durations in nanoseconds. Allocated with the first one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latencies {
    histogram: Option<Histogram<u64>>,
    /// Significant digits less one; the default is three digits.
    coarse: bool,
}

impl Latencies {
    /// Two significant digits instead of three, in an eighth of the memory: for many of them.
    #[must_use]
    pub const fn coarse() -> Self {
        Self { histogram: None, coarse: true }
    }

    fn histogram(&mut self) -> &mut Histogram<u64> {
        let digits = if self.coarse { 2 } else { 3 };
        self.histogram.get_or_insert_with(|| {
            Histogram::new_with_bounds(NS_MIN, NS_MAX, digits)
                .expect("the bounds are in order and the digits at most 5")
        })
    }

    /// Records one duration.
    pub fn record(&mut self, nanos: u64) {
        self.histogram().saturating_record(nanos);
    }

    /// Records one duration several times.
    pub fn record_n(&mut self, nanos: u64, count: u64) {
        self.histogram().saturating_record_n(nanos, count);
    }

    /// Adds what another has recorded.
    pub fn merge(&mut self, other: &Self) {
        match &other.histogram {
            None => {}
            Some(histogram) if self.histogram.is_none() => {
                *self = Self { histogram: Some(histogram.clone()), coarse: other.coarse };
            }
            Some(histogram) => {
                for value in histogram.iter_recorded() {
                    self.record_n(value.value_iterated_to(), value.count_at_value());
                }
            }
        }
    }

    /// All durations, each later by `nanos`.
    #[must_use]
    pub fn shifted(&self, nanos: u64) -> Self {
        let mut shifted = Self { histogram: None, coarse: self.coarse };
        for (value, count) in self.buckets() {
            shifted.record_n(value + nanos, count);
        }
        shifted
    }

    /// How many were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::len)
    }

    /// The duration that this part of them did not exceed, in nanoseconds; 0 if there are none.
    #[must_use]
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        self.histogram.as_ref().map_or(0, |histogram| histogram.value_at_quantile(quantile))
    }

    /// The longest, in nanoseconds, to the histogram's precision.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::max)
    }

    /// The mean, in nanoseconds.
    #[must_use]
    pub fn mean_ns(&self) -> f64 {
        self.histogram.as_ref().map_or(0.0, Histogram::mean)
    }

    /// The buckets in use: a duration in nanoseconds, and how often.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let recorded = self.histogram.iter().flat_map(Histogram::iter_recorded);
        recorded.map(|value| (value.value_iterated_to(), value.count_at_value()))
    }
}

/// What is written: the quantiles for readers, the buckets for those who merge.
#[derive(Serialize, Deserialize)]
struct Written {
    count: u64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
    mean_ns: f64,
    histogram: Buckets,
}

#[derive(Serialize, Deserialize)]
struct Buckets {
    digits: u8,
    /// Duration in nanoseconds, and how often.
    counts: Vec<(u64, u64)>,
}

impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits = if self.coarse { 2 } else { 3 };
        Written {
            count: self.count(),
            p50_ns: self.quantile_ns(0.5),
            p90_ns: self.quantile_ns(0.9),
            p99_ns: self.quantile_ns(0.99),
            p999_ns: self.quantile_ns(0.999),
            max_ns: self.max_ns(),
            mean_ns: self.mean_ns(),
            histogram: Buckets { digits, counts: self.buckets().collect() },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Buckets { digits, counts } = Written::deserialize(deserializer)?.histogram;
        let mut latencies = Self { histogram: None, coarse: digits == 2 };
        for (value, count) in counts {
            latencies.record_n(value, count);
        }
        Ok(latencies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(seed: u64, count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(move |n| (n * n * 7_919 + seed * 104_729) % 80_000_000_000)
    }

    #[test]
    fn merging_is_exact_also_through_json() {
        for mut parts in
            [[Latencies::default(), Latencies::default()], [Latencies::coarse(), Latencies::coarse()]]
        {
            let mut whole = parts[0].clone();
            for (seed, part) in parts.iter_mut().enumerate() {
                for nanos in spread(seed as u64, 20_000) {
                    part.record(nanos);
                    whole.record(nanos);
                }
            }
            let mut merged = Latencies::default();
            for part in &parts {
                let json = serde_json::to_string(part).unwrap();
                merged.merge(&serde_json::from_str(&json).unwrap());
            }
            assert_eq!(merged.buckets().collect::<Vec<_>>(), whole.buckets().collect::<Vec<_>>());
            assert_eq!(serde_json::to_string(&merged).unwrap(), serde_json::to_string(&whole).unwrap());
            assert_eq!(merged.count(), 40_000);
        }
    }

    #[test]
    fn nothing_is_no_memory_and_what_is_too_long_is_an_hour() {
        let mut latencies = Latencies::default();
        latencies.merge(&Latencies::default());
        assert!(latencies.histogram.is_none());
        assert_eq!((latencies.count(), latencies.max_ns(), latencies.quantile_ns(0.5)), (0, 0, 0));
        latencies.record(u64::MAX);
        assert!(latencies.max_ns().abs_diff(NS_MAX) < NS_MAX / 500);
    }
}
