//! The loads that take more than a pool under a load: two shards against one.

use std::collections::BTreeMap;
use std::time::Instant;

use adit_loadgen::report::Report;

use crate::failure::Failure;
use crate::figures::Figure;
use crate::loads::Load;
use crate::machine::CpuTime;
use crate::run::{PoolKind, Run};
use crate::say;
use crate::stand::{CpuList, Loading, Served, Stand};

/// The runs of a load of the suite.
pub(crate) fn runs(stand: &Stand, load: &Load) -> Result<Vec<Run>, Failure> {
    if load.is_about_second_shard() {
        return Ok(vec![second_shard(stand, load).unwrap_or_else(|failure| {
            say(&format!("  {failure}"));
            Run::failed(load, PoolKind::Adit, 0, failure.to_string())
        })]);
    }
    Ok(vec![stand.run(load, PoolKind::Adit, 0)?])
}

/// What a second shard costs the first: two processes of one shard each, then one process of two shards, on the same two CPUs and
/// under the same two load generators. Nothing differs but what the shards share.
fn second_shard(stand: &Stand, load: &Load) -> Result<Run, Failure> {
    say(&format!("load {}, two processes of one shard", load.name));
    let begun = Instant::now();
    let before = CpuTime::now(&[]);
    let both = stand.two_cpus();
    let each: Vec<CpuList> = both.0.iter().map(|cpu| CpuList(vec![*cpu])).collect();
    let apart: Vec<_> =
        each.iter().map(|cpu| stand.serve(load, PoolKind::Adit, cpu)).collect::<Result<_, _>>()?;
    let loading: Vec<_> = apart.iter().map(|served| stand.load(load, served)).collect::<Result<_, _>>()?;
    let alone: Vec<Report> = loading.into_iter().map(Loading::finish).collect::<Result<_, _>>()?;
    apart.into_iter().try_for_each(Served::stop)?;

    say(&format!("load {}, one process of two shards", load.name));
    let served = stand.serve(load, PoolKind::Adit, &both)?;
    let loading = [stand.load(load, &served)?, stand.load(load, &served)?];
    let together: Vec<Report> = loading.into_iter().map(Loading::finish).collect::<Result<_, _>>()?;
    // Pools that have ended cannot be asked any more, but their load generators have.
    let generators = alone.iter().chain(&together).map(|report| report.generator.cpu_ns).sum::<u64>();
    let pools = alone.iter().chain(&together[..1]).filter_map(|report| report.watched.first());
    let pools: u64 = pools
        .map(|pool| pool.cpu_ns_join + pool.cpu_ns_warmup + pool.cpu_ns_measured + pool.cpu_ns_drain)
        .sum();
    let disturbance = CpuTime::now(&[]).disturbance_since(&before, generators + pools, begun.elapsed());
    served.stop()?;

    let (apart, together) = (Cost::apart(&alone), Cost::together(&together));
    let factor = together.cpu_us_per_share / apart.cpu_us_per_share;
    say(&format!("  {}: {factor:.3}", Figure::SecondShardFactor.title()));
    let figures = BTreeMap::from([
        (Figure::SecondShardFactor, factor),
        (Figure::CpuUsPerShare, together.cpu_us_per_share),
        (Figure::AckP99Ms, together.ack_p99_ms),
    ]);
    let faults = alone.iter().flat_map(|report| report.verdict.failures.clone()).collect();
    Ok(Run {
        load: load.name.to_owned(),
        pool: PoolKind::Adit,
        round: 0,
        figures,
        faults,
        others_cpus: disturbance.others_cpus,
        withheld_cpus: Some(disturbance.withheld_cpus),
    })
}

/// What shares cost in one arrangement.
struct Cost {
    cpu_us_per_share: f64,
    ack_p99_ms: f64,
}

impl Cost {
    /// Two pools, each watched by its own load generator.
    fn apart(reports: &[Report]) -> Self {
        let cpu_ns =
            reports.iter().filter_map(|report| report.watched.first()).map(|pool| pool.cpu_ns_measured).sum();
        Self::of(cpu_ns, reports)
    }

    /// One pool, watched by both: the windows are the same but for milliseconds.
    fn together(reports: &[Report]) -> Self {
        let watched =
            reports.iter().filter_map(|report| report.watched.first()).map(|pool| pool.cpu_ns_measured);
        let cpu_ns = watched.sum::<u64>() / reports.len() as u64;
        Self::of(cpu_ns, reports)
    }

    fn of(cpu_ns: u64, reports: &[Report]) -> Self {
        let shares: u64 = reports.iter().map(|report| report.tally.measured.accepted).sum();
        let p99 = reports.iter().map(|report| report.tally.measured.latency.quantile_ns(0.99)).max();
        Self {
            cpu_us_per_share: cpu_ns as f64 / 1e3 / shares as f64,
            ack_p99_ms: p99.unwrap_or_default() as f64 / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::tests::report;

    #[test]
    fn a_pool_that_both_watch_is_counted_once() {
        let reports = [report(), report()];
        assert_eq!(Cost::apart(&reports).cpu_us_per_share, 4.0);
        assert_eq!(Cost::together(&reports).cpu_us_per_share, 2.0);
        assert!((Cost::together(&reports).ack_p99_ms - 2.5).abs() < 0.01);
    }
}
