//! The load generator's report, as far as figures are made of it.

use std::collections::BTreeMap;

use adit_loadgen::stamp::Stamp;
use serde::Deserialize;

/// `report.json` of `adit-loadgen simulate`. Times are nanoseconds.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) started_unix_ns: u64,
    pub(crate) scenario: Scenario,
    pub(crate) phases: Phases,
    pub(crate) shares: Shares,
    pub(crate) measured: Measured,
    pub(crate) join: Join,
    pub(crate) tips: Vec<Spread>,
    pub(crate) templates: Vec<Spread>,
    pub(crate) generator: Generator,
    pub(crate) watched: Vec<Watched>,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Scenario {
    pub(crate) connections: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Phases {
    pub(crate) join_ns: u64,
    pub(crate) warmup_ns: u64,
    pub(crate) measured_ns: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Shares {
    pub(crate) rejected: BTreeMap<String, u64>,
    pub(crate) outstanding: u64,
    pub(crate) lost: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Measured {
    pub(crate) accepted: u64,
    pub(crate) accepted_per_s: f64,
    pub(crate) latency: Latency,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Join {
    pub(crate) connections_served: u64,
    pub(crate) channels_opened: u64,
    pub(crate) first_job: Latency,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) max_ns: u64,
}

/// A tip or a template on its way to every connection.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Spread {
    /// The moment at the source.
    made_unix_ns: Option<u64>,
    /// Of a tip its hash, as hashes are written: the last byte of the header's order first.
    key: String,
    pub(crate) connections: u64,
    pub(crate) first_unix_ns: u64,
    pub(crate) last_unix_ns: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Generator {
    pub(crate) cpu_ns: u64,
}

/// The pool under test, from outside.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Watched {
    pub(crate) cpu_ns_join: u64,
    pub(crate) cpu_ns_measured: u64,
    pub(crate) rss_bytes_before: u64,
    pub(crate) rss_bytes_joined: u64,
    pub(crate) rss_bytes_end: u64,
    pub(crate) rss_bytes_max: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Verdict {
    /// What must not be.
    pub(crate) faults: Vec<String>,
}

impl Latency {
    /// Itself, if it counted anything.
    pub(crate) fn counted(&self) -> Option<&Self> {
        (self.count > 0).then_some(self)
    }
}

impl Watched {
    /// What the process grew by while connections joined.
    pub(crate) fn joining_bytes(&self) -> f64 {
        self.rss_bytes_joined as f64 - self.rss_bytes_before as f64
    }
}

impl Spread {
    /// When the source made it, if it says so.
    pub(crate) fn made_unix_ns(&self) -> Option<u64> {
        self.made_unix_ns.or_else(|| {
            let prev_hash = bytes_of_hex(&self.key)?;
            Some(Stamp::of_prev_hash(&prev_hash)?.0 * 1_000)
        })
    }
}

impl Report {
    /// Whether it came in the measured window.
    pub(crate) fn is_in_window(&self, spread: &Spread) -> bool {
        let begin = self.started_unix_ns + self.phases.join_ns + self.phases.warmup_ns;
        (begin..begin + self.phases.measured_ns).contains(&spread.first_unix_ns)
    }

    /// What came to all connections in the measured window: tips, or templates where no tip came.
    pub(crate) fn spreads(&self) -> impl Iterator<Item = &Spread> {
        let tips = self.tips.iter().any(|tip| self.is_in_window(tip));
        let spreads = if tips { &self.tips } else { &self.templates };
        spreads.iter().filter(|spread| self.is_in_window(spread))
    }
}

fn bytes_of_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().rev().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report as the generator writes it, shortened to what is read and something that is not.
    pub(crate) const REPORT: &str = r#"{
        "format": 1, "program": "adit-loadgen 0.1.0", "pool": "stratum2+tcp://127.0.0.1:1/9au", "started_unix_ns": 1000,
        "scenario": {"profile": "extended", "connections": 12},
        "phases": {"join_ns": 100, "warmup_ns": 50, "measured_ns": 10000000000, "drain_ns": 7},
        "shares": {"submitted": 1020, "accepted": 1000, "rejected": {"stale-share": 2}, "outstanding": 10, "lost": 8,
                   "abandoned": 0, "surplus": 0, "difficulty_sum": 1, "sum_is_right": true},
        "measured": {"submitted": 1010, "accepted": 1000, "rejected": {}, "accepted_per_s": 100.0,
                     "latency": {"count": 1000, "p50_ns": 1500000, "p90_ns": 2, "p99_ns": 2500000, "p999_ns": 3,
                                 "max_ns": 9000000, "mean_ns": 1, "histogram": {}}},
        "join": {"connections_served": 10, "channels_opened": 10, "channels_refused": 0,
                 "first_job": {"count": 10, "p50_ns": 1, "p99_ns": 4000000, "max_ns": 5000000}},
        "tips": [
            {"key": "0000000000000000", "connections": 10, "first_unix_ns": 500, "last_unix_ns": 600},
            {"key": "", "made_unix_ns": 1000000, "connections": 10, "channels": 10, "first_unix_ns": 2000000, "last_unix_ns": 5000000},
            {"key": "", "made_unix_ns": 1000000, "connections": 9, "channels": 10, "first_unix_ns": 9000000, "last_unix_ns": 9000001}],
        "templates": [],
        "generator": {"cpu_ns": 5, "cpu_ns_measured": 4},
        "watched": [{"pid": 7, "name": "adit", "cpu_ns_join": 30000000, "cpu_ns_warmup": 1, "cpu_ns_measured": 4000000, "cpu_ns_drain": 0,
                     "cpu_ns_per_share_measured": 4000.0, "rss_bytes_before": 1048576, "rss_bytes_joined": 1058816,
                     "rss_bytes_end": 2107392, "rss_bytes_max": 3145728}],
        "verdict": {"ok": true, "faults": [], "misses": []}
    }"#;

    #[test]
    fn the_moment_of_a_tip_is_in_its_hash() {
        let hash = Stamp(1_234_567).prev_hash(9);
        let key = hash.iter().rev().map(|byte| format!("{byte:02x}")).collect();
        let mut spread =
            Spread { made_unix_ns: None, key, connections: 1, first_unix_ns: 0, last_unix_ns: 0 };
        assert_eq!(spread.made_unix_ns(), Some(1_234_567_000));
        spread.made_unix_ns = Some(5);
        assert_eq!(spread.made_unix_ns(), Some(5), "what the generator says counts more");
        for none in ["", "zz", &"0".repeat(64), &"\u{e9}".repeat(32)] {
            let spread = Spread { made_unix_ns: None, key: none.to_owned(), ..spread.clone() };
            assert_eq!(spread.made_unix_ns(), None, "{none}");
        }
    }

    #[test]
    fn only_what_comes_in_the_window_counts() {
        let report: Report = serde_json::from_str(REPORT).unwrap();
        assert_eq!(report.spreads().count(), 2);
        let templates = Report { templates: report.tips.clone(), tips: Vec::new(), ..report };
        assert_eq!(templates.spreads().count(), 2, "where no tip came");
    }
}
