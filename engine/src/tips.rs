//! How long a tip takes from the node to the kernel.
//!
//! Two legs, and the whole way: from the moment at which the role learnt of the tip until it handed the tip over; until a shard
//! has taken it from its link; and, for each connection, from the first of these moments until the last byte of its
//! SetNewPrevHash is handed to the kernel. A shard records for itself and adds what it has recorded to what others read, at
//! most once in [`PUBLISH_INTERVAL`] and never waiting for a reader. Times in a shard are those of the tick in which it learnt
//! of it.
//!
//! Bounds: three histograms for each shard and three for its readers, of about 20 KB each.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use adit_proto::Instant;
use hdrhistogram::Histogram;

/// Microseconds that are told apart at most: what takes longer counts as this.
const LATENCY_US_MAX: u64 = 60_000_000;
/// Figures of a latency that are kept.
const FIGURES: u8 = 2;
/// How often a shard adds to what others read.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// What a leg took, over all tips since the start. Quantiles are exact to two figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// How often it was measured.
    pub count: u64,
    /// Half of them took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// None took longer.
    pub max: Duration,
}

impl fmt::Display for Latency {
    /// `p50 0.31 ms, p99 1.20 ms, max 2.04 ms`, or `none yet`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("none yet");
        }
        let [p50, p99, max] = [self.p50, self.p99, self.max].map(|took| took.as_secs_f64() * 1e3);
        write!(f, "p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms")
    }
}

/// The way of tips through an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TipLatencies {
    /// From the node, as far as the role could see, to the role's handing over; once for each tip and shard.
    pub prepared: Latency,
    /// From there to a shard; once for each tip and shard.
    pub taken: Latency,
    /// From the node to the last byte of SetNewPrevHash handed to the kernel; once for each tip and connection.
    pub sent: Latency,
}

/// All of it, as it is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Legs {
    prepared: Histogram<u64>,
    taken: Histogram<u64>,
    sent: Histogram<u64>,
}

impl Default for Legs {
    fn default() -> Self {
        let empty = Histogram::new_with_bounds(1, LATENCY_US_MAX, FIGURES).expect("sound bounds");
        Self { prepared: empty.clone(), taken: empty.clone(), sent: empty }
    }
}

impl Legs {
    fn add(&mut self, other: &Self) {
        let alike = "histograms of the same bounds";
        self.prepared.add(&other.prepared).expect(alike);
        self.taken.add(&other.taken).expect(alike);
        self.sent.add(&other.sent).expect(alike);
    }

    fn reset(&mut self) {
        self.prepared.reset();
        self.taken.reset();
        self.sent.reset();
    }
}

/// What readers see of one shard.
pub(crate) type SharedLegs = Arc<Mutex<Legs>>;

/// What all shards have recorded.
pub(crate) fn read<'a>(shards: impl Iterator<Item = &'a SharedLegs>) -> TipLatencies {
    let mut sum = Legs::default();
    for shard in shards {
        // A shard that panicked leaves what it had added.
        sum.add(&shard.lock().unwrap_or_else(PoisonError::into_inner));
    }
    TipLatencies { prepared: summary(&sum.prepared), taken: summary(&sum.taken), sent: summary(&sum.sent) }
}

fn summary(leg: &Histogram<u64>) -> Latency {
    if leg.is_empty() {
        return Latency::default();
    }
    let at = |quantile| Duration::from_micros(leg.value_at_quantile(quantile));
    Latency { count: leg.len(), p50: at(0.5), p99: at(0.99), max: Duration::from_micros(leg.max()) }
}

/// Where an update was before it reached a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since {
    /// When the role learnt of it.
    pub(crate) learned: Instant,
    /// When the role handed it over.
    pub(crate) handed_over: Instant,
}

/// A shard's side.
pub(crate) struct TipClock {
    own: Legs,
    shared: SharedLegs,
    has_news: bool,
    published: Instant,
    /// When the role learnt of the earliest tip that is being announced.
    announced: Option<Instant>,
}

impl TipClock {
    pub(crate) fn new(shared: SharedLegs) -> Self {
        Self { own: Legs::default(), shared, has_news: false, published: Instant::ZERO, announced: None }
    }

    /// A tip was taken from the link. Of several that are announced together, each class's or one upon the other, all are
    /// measured from the earliest: too much is said rather than too little.
    pub(crate) fn begin(&mut self, since: Since, now: Instant) {
        self.own.prepared.saturating_record(micros(since.learned, since.handed_over));
        self.own.taken.saturating_record(micros(since.handed_over, now));
        self.has_news = true;
        self.announced = Some(self.announced.map_or(since.learned, |earliest| earliest.min(since.learned)));
    }

    /// When the role learnt of the earliest tip that is being announced. None once everybody has it: who gets a SetNewPrevHash then has
    /// just come.
    pub(crate) fn announced(&self) -> Option<Instant> {
        self.announced
    }

    /// The tip was announced to everybody.
    pub(crate) fn end(&mut self) {
        self.announced = None;
    }

    /// A connection's SetNewPrevHash of a tip that was learnt of at `since` is with the kernel.
    pub(crate) fn record_sent(&mut self, since: Instant, now: Instant) {
        self.own.sent.saturating_record(micros(since, now));
        self.has_news = true;
    }

    /// Lets others read what was recorded, if it is time and nobody is reading.
    pub(crate) fn publish(&mut self, now: Instant) {
        if !self.has_news || now.since(self.published) < PUBLISH_INTERVAL {
            return;
        }
        let mut shared = match self.shared.try_lock() {
            Ok(shared) => shared,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        shared.add(&self.own);
        self.own.reset();
        self.has_news = false;
        self.published = now;
    }
}

fn micros(since: Instant, now: Instant) -> u64 {
    u64::try_from(now.since(since).as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn shards_are_summed_and_readers_never_waited_for() {
        let shared = [SharedLegs::default(), SharedLegs::default()];
        let mut clocks = shared.clone().map(TipClock::new);
        assert_eq!(read(shared.iter()), TipLatencies::default());
        for (shard, clock) in clocks.iter_mut().enumerate() {
            clock.begin(Since { learned: at(1_000), handed_over: at(1_007) }, at(1_008));
            for connection in 0..100 {
                clock.record_sent(clock.announced().unwrap(), at(1_002 + 100 * shard as u64 + connection));
            }
            clock.end();
            assert_eq!(clock.announced(), None);
        }
        {
            let _reader = shared[0].lock().unwrap();
            clocks[0].publish(at(1_300));
        }
        clocks[1].publish(at(1_300));
        assert_eq!(read(shared.iter()).sent.count, 100, "what finds a reader waits");
        clocks[0].publish(at(1_310));
        // Nothing twice.
        clocks[0].publish(at(2_000));
        let TipLatencies { prepared, taken, sent } = read(shared.iter());
        assert_eq!((prepared.count, taken.count, sent.count), (2, 2, 200));
        let near = |found: Duration, millis: u64| found.as_millis().abs_diff(millis.into()) <= 2;
        assert_eq!(taken.to_string(), "p50 1.00 ms, p99 1.00 ms, max 1.00 ms");
        assert!(
            near(prepared.max, 7) && near(taken.max, 1) && near(sent.p50, 101) && near(sent.max, 201),
            "{sent:?}"
        );
    }

    #[test]
    fn tips_that_are_announced_together_count_from_the_earliest() {
        let mut clock = TipClock::new(SharedLegs::default());
        for learned in [1_000, 1_030] {
            clock.begin(Since { learned: at(learned), handed_over: at(1_031) }, at(1_032));
        }
        assert_eq!(clock.announced(), Some(at(1_000)));
        clock.end();
        clock.begin(Since { learned: at(2_000), handed_over: at(2_000) }, at(2_000));
        assert_eq!(clock.announced(), Some(at(2_000)), "those of before are with everybody");
    }

    #[test]
    fn what_takes_too_long_counts_as_the_longest() {
        let shared = SharedLegs::default();
        let mut clock = TipClock::new(shared.clone());
        clock.record_sent(at(0), at(u64::MAX / 2_000_000));
        clock.publish(at(1_000_000));
        let sent = read([&shared].into_iter()).sent;
        assert!(sent.count == 1 && sent.max >= Duration::from_micros(LATENCY_US_MAX), "{sent:?}");
    }
}
