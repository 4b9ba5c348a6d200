//! What is asked of the load generator's report.

use adit_loadgen::report::{Latencies, Report, Spread, Watched};

/// Whether a tip or a template came in the measured window.
fn is_in_window(report: &Report, spread: &Spread) -> bool {
    let begin = report.started_unix_ns + report.phases.join_ns + report.phases.warmup_ns;
    (begin..begin + report.phases.measured_ns).contains(&spread.first_unix_ns)
}

/// What came to all connections in the measured window: tips, or templates where no tip came.
pub(crate) fn spreads(report: &Report) -> impl Iterator<Item = &Spread> {
    let (tips, templates) = (&report.tally.tips, &report.tally.templates);
    let has_tips = tips.iter().any(|tip| is_in_window(report, tip));
    let spreads = if has_tips { tips } else { templates };
    spreads.iter().filter(|spread| is_in_window(report, spread))
}

/// Itself, if it counted anything.
pub(crate) fn counted(latencies: &Latencies) -> Option<&Latencies> {
    (latencies.count() > 0).then_some(latencies)
}

/// What the process grew by while connections joined.
pub(crate) fn joining_bytes(watched: &Watched) -> f64 {
    watched.rss_bytes_joined as f64 - watched.rss_bytes_before as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use adit_loadgen::report::{FORMAT, Generator, Phases, Tally, Verdict};
    use adit_loadgen::simulate::Scenario;

    use super::*;

    fn spread(made_unix_ns: u64, first_unix_ns: u64, last_unix_ns: u64, connections: u64) -> Spread {
        let made_unix_ns = Some(made_unix_ns);
        Spread { made_unix_ns, first_unix_ns, last_unix_ns, connections, ..Spread::default() }
    }

    /// A run of twelve connections, of which ten were served, with a thousand shares and two tips in the window.
    pub(crate) fn report() -> Report {
        let mut tally = Tally::default();
        tally.shares.rejected.insert("stale-share".to_owned(), 2);
        tally.shares.rejected.insert("duplicate-share".to_owned(), 1);
        (tally.shares.outstanding, tally.shares.lost) = (10, 8);
        (tally.measured.accepted, tally.measured.accepted_per_s) = (1_000, 100.0);
        tally.measured.latency.record_n(1_500_000, 985);
        tally.measured.latency.record_n(2_500_000, 10);
        tally.measured.latency.record_n(9_000_000, 5);
        tally.measured.late.record_n(500_000, 1_000);
        (tally.join.connections_asked, tally.join.connections_served) = (12, 10);
        tally.join.channels_opened = 10;
        tally.join.first_job.record_n(4_000_000, 999);
        tally.join.first_job.record(5_000_000);
        tally.tips = vec![
            spread(0, 500, 600, 10),
            spread(1_000_000, 2_000_000, 5_000_000, 10),
            spread(1_000_000, 9_000_000, 9_000_001, 9),
        ];
        let watched = Watched {
            cpu_ns_join: 30_000_000,
            cpu_ns_measured: 4_000_000,
            rss_bytes_before: 1 << 20,
            rss_bytes_joined: (1 << 20) + 10 * 1_024,
            rss_bytes_end: (2 << 20) + 10 * 1_024,
            rss_bytes_max: 3 << 20,
            ..Watched::default()
        };
        Report {
            format: FORMAT,
            program: String::new(),
            pool: String::new(),
            host: String::new(),
            started_unix_ns: 1_000,
            scenario: Scenario::default(),
            phases: Phases { join_ns: 100, warmup_ns: 50, measured_ns: 10_000_000_000, drain_ns: 7 },
            tally,
            generator: Generator { cpu_ns_measured: 5_000_000_000, ..Generator::default() },
            watched: vec![watched],
            verdict: Verdict::default(),
        }
    }

    #[test]
    fn only_what_comes_in_the_window_counts() {
        let mut report = report();
        assert_eq!(spreads(&report).count(), 2);
        report.tally.templates = std::mem::take(&mut report.tally.tips);
        assert_eq!(spreads(&report).count(), 2, "where no tip came");
    }
}
