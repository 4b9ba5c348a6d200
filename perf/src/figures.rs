//! The figures that a run can give, their units, and how they come out of the generator's report.

use std::collections::BTreeMap;

use adit_loadgen::report::{Report, ShareCounts, Spread};
use serde::{Deserialize, Serialize};

use crate::generator::{counted, joining_bytes, spreads};

/// A figure; smaller is better, except for shares per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    /// CPU time of the pool's process for each accepted share, in the measured window.
    CpuUsPerShare,
    /// Accepted shares in the measured window.
    SharesPerSecond,
    /// CPUs that the pool's process kept busy in the measured window.
    CpusBusy,
    /// CPUs that the load generator kept busy meanwhile: near what it has, the pool could have taken more.
    GeneratorCpusBusy,
    /// From the share's write (closed loop) or its intended time (open loop) to its acknowledgement.
    AckP50Ms,
    AckP99Ms,
    AckMaxMs,
    /// Of it what is the load generator's own: from the intended time to the sealed share (open loop).
    LateP99Ms,
    /// From the moment at the template source to the first and the last connection, median of the tips or templates that all
    /// connections got.
    FirstMs,
    LastMs,
    /// CPU time of the pool's process for each of them.
    CpuMsEach,
    /// CPU time of the pool's process while connections join, for each that was served.
    CpuMsPerJoin,
    /// From the connect to the first job.
    FirstJobP99Ms,
    FirstJobMaxMs,
    /// Connections that asked and were not served in time.
    NotServed,
    /// CPU time of the pool's process while channels are opened, for each channel.
    CpuUsPerOpen,
    /// Resident memory that joining added, for each connection.
    KibPerConnection,
    /// Resident memory that joining added, for each channel.
    BytesPerChannel,
    /// Resident memory that the measured shares added, for each channel.
    ShareBytesPerChannel,
    /// Resident memory at the end beyond that after the first joining.
    GrowthMib,
    /// Resident memory at most.
    RssMaxMib,
    /// Shares without an answer, and shares refused though they were on the tip, in the whole run.
    SharesLost,
    /// Shares that were on their way when a new tip came, and refused for it, in the whole run.
    SharesStale,
    /// CPU time for each share with two shards in one process, against two processes of one shard.
    SecondShardFactor,
}

impl Figure {
    /// What it is called, with its unit.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::CpuUsPerShare => "CPU per share, us",
            Self::SharesPerSecond => "shares per second",
            Self::CpusBusy => "CPUs busy",
            Self::GeneratorCpusBusy => "CPUs that the load generator kept busy",
            Self::AckP50Ms => "ack p50, ms",
            Self::AckP99Ms => "ack p99, ms",
            Self::AckMaxMs => "ack max, ms",
            Self::LateP99Ms => "of it the load generator's own delay, p99, ms",
            Self::FirstMs => "first connection has it after, ms",
            Self::LastMs => "last connection has it after, ms",
            Self::CpuMsEach => "CPU for each, ms",
            Self::CpuMsPerJoin => "CPU per connection, ms",
            Self::FirstJobP99Ms => "first job p99, ms",
            Self::FirstJobMaxMs => "first job max, ms",
            Self::NotServed => "connections not served",
            Self::CpuUsPerOpen => "CPU per channel opened, us",
            Self::KibPerConnection => "memory per connection, KiB",
            Self::BytesPerChannel => "memory per channel, bytes",
            Self::ShareBytesPerChannel => "memory that shares add per channel, bytes",
            Self::GrowthMib => "memory kept after the last joining, MiB",
            Self::RssMaxMib => "memory at most, MiB",
            Self::SharesLost => "shares lost, or refused though not stale",
            Self::SharesStale => "stale shares",
            Self::SecondShardFactor => "CPU per share, two shards against one",
        }
    }

    /// Whether more is better.
    pub(crate) const fn is_rising(self) -> bool {
        matches!(self, Self::SharesPerSecond)
    }

    /// Its value in a report; none where the run has none.
    pub(crate) fn read(self, report: &Report) -> Option<f64> {
        let (watched, tally) = (report.watched.first()?, &report.tally);
        let (ms, mib) = (1e6, 1024.0 * 1024.0);
        let value = match self {
            Self::CpuUsPerShare => ratio(watched.cpu_ns_measured as f64 / 1e3, tally.measured.accepted)?,
            Self::SharesPerSecond => tally.measured.accepted_per_s,
            Self::CpusBusy => ratio(watched.cpu_ns_measured as f64, report.phases.measured_ns)?,
            Self::GeneratorCpusBusy => {
                ratio(report.generator.cpu_ns_measured as f64, report.phases.measured_ns)?
            }
            Self::AckP50Ms => counted(&tally.measured.latency)?.quantile_ns(0.50) as f64 / ms,
            Self::AckP99Ms => counted(&tally.measured.latency)?.quantile_ns(0.99) as f64 / ms,
            Self::AckMaxMs => counted(&tally.measured.latency)?.max_ns() as f64 / ms,
            Self::LateP99Ms => counted(&tally.measured.late)?.quantile_ns(0.99) as f64 / ms,
            Self::FirstMs => median_age(report, |spread| spread.first_unix_ns)? / ms,
            Self::LastMs => median_age(report, |spread| spread.last_unix_ns)? / ms,
            Self::CpuMsEach => ratio(watched.cpu_ns_measured as f64 / ms, spreads(report).count() as u64)?,
            Self::CpuMsPerJoin => ratio(watched.cpu_ns_join as f64 / ms, tally.join.connections_served)?,
            Self::FirstJobP99Ms => counted(&tally.join.first_job)?.quantile_ns(0.99) as f64 / ms,
            Self::FirstJobMaxMs => counted(&tally.join.first_job)?.max_ns() as f64 / ms,
            Self::NotServed => {
                tally.join.connections_asked.saturating_sub(tally.join.connections_served) as f64
            }
            Self::CpuUsPerOpen => ratio(watched.cpu_ns_join as f64 / 1e3, tally.join.channels_opened)?,
            Self::KibPerConnection => ratio(joining_bytes(watched) / 1024.0, tally.join.connections_served)?,
            Self::BytesPerChannel => ratio(joining_bytes(watched), tally.join.channels_opened)?,
            Self::ShareBytesPerChannel => ratio(
                watched.rss_bytes_end as f64 - watched.rss_bytes_joined as f64,
                tally.join.channels_opened,
            )?,
            Self::GrowthMib => (watched.rss_bytes_end as f64 - watched.rss_bytes_joined as f64) / mib,
            Self::RssMaxMib => watched.rss_bytes_max as f64 / mib,
            Self::SharesLost => {
                let shares = &tally.shares;
                (shares.rejected() - stale(shares) + shares.outstanding + shares.lost) as f64
            }
            Self::SharesStale => stale(&tally.shares) as f64,
            // It takes two runs.
            Self::SecondShardFactor => return None,
        };
        Some(value)
    }
}

/// All of these that the report has.
pub(crate) fn read_all(figures: &[Figure], report: &Report) -> BTreeMap<Figure, f64> {
    figures.iter().filter_map(|figure| Some((*figure, figure.read(report)?))).collect()
}

fn stale(shares: &ShareCounts) -> u64 {
    shares.rejected.get("stale-share").copied().unwrap_or_default()
}

fn ratio(of: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| of / count as f64)
}

/// How long after its moment at the source a tip or template was somewhere, in the median, in nanoseconds. Only those count that
/// every served connection got.
fn median_age(report: &Report, at: impl Fn(&Spread) -> u64) -> Option<f64> {
    let complete =
        spreads(report).filter(|spread| spread.connections >= report.tally.join.connections_served);
    median(
        complete.filter_map(|spread| Some(at(spread).saturating_sub(spread.made_unix_ns?) as f64)).collect(),
    )
}

/// The middle of these; none of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::tests::report;

    #[test]
    fn figures_have_the_units_that_they_name() {
        let report = report();
        for (figure, value) in [
            (Figure::CpuUsPerShare, 4.0),
            (Figure::SharesPerSecond, 100.0),
            (Figure::CpusBusy, 0.0004),
            (Figure::GeneratorCpusBusy, 0.5),
            (Figure::AckP50Ms, 1.5),
            (Figure::AckP99Ms, 2.5),
            (Figure::AckMaxMs, 9.0),
            (Figure::LateP99Ms, 0.5),
            // Of the two tips in the window one did not come to all.
            (Figure::FirstMs, 1.0),
            (Figure::LastMs, 4.0),
            (Figure::CpuMsEach, 2.0),
            (Figure::CpuMsPerJoin, 3.0),
            (Figure::FirstJobP99Ms, 4.0),
            (Figure::FirstJobMaxMs, 5.0),
            (Figure::NotServed, 2.0),
            (Figure::CpuUsPerOpen, 3_000.0),
            (Figure::KibPerConnection, 1.0),
            (Figure::BytesPerChannel, 1_024.0),
            (Figure::ShareBytesPerChannel, 104_857.6),
            (Figure::GrowthMib, 1.0),
            (Figure::RssMaxMib, 3.0),
            (Figure::SharesLost, 19.0),
            (Figure::SharesStale, 2.0),
        ] {
            let read = figure.read(&report).unwrap();
            // Latencies are kept with three digits.
            assert!((read - value).abs() <= 1e-3 * value, "{figure:?}: {read}, not {value}");
        }
        assert_eq!(Figure::SecondShardFactor.read(&report), None);
    }

    #[test]
    fn what_a_run_does_not_have_is_no_figure() {
        let mut report = report();
        report.tally.measured.accepted = 0;
        report.tally.measured.latency = Default::default();
        report.tally.tips.clear();
        let all =
            [Figure::CpuUsPerShare, Figure::AckP99Ms, Figure::FirstMs, Figure::CpuMsEach, Figure::NotServed];
        assert_eq!(read_all(&all, &report).into_keys().collect::<Vec<_>>(), [Figure::NotServed]);
        report.watched.clear();
        assert!(read_all(&all, &report).is_empty());
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }
}
