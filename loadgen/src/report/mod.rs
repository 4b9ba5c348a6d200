//! What a load came to: counted by threads, added up over processes and hosts, written as text, JSON and a page of plots.
//!
//! Threads count into a [`Tally`]; tallies add up exactly. A [`Report`] is a tally with what it was about: the scenario, the
//! phases, what the watched processes used, and the [`Verdict`].

mod html;
mod latencies;
mod tally;
mod text;
mod verdict;

use serde::{Deserialize, Serialize};

pub use latencies::Latencies;
pub use tally::{
    Codes, ConnectionCounts, JoinTimes, Measured, SPREADS_MAX, Second, ShareCounts, Spread, Tally, count,
};
pub use text::live_line;
pub use verdict::{Verdict, judge};

use crate::simulate::Scenario;
use crate::watch::{ThreadUsage, Usage};

/// The version of the JSON format.
pub const FORMAT: u32 = 1;

/// How long each phase took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// From the start until all had joined, or until that took too long.
    pub join_ns: u64,
    /// Shares flow, nothing is measured.
    pub warmup_ns: u64,
    /// The measured window.
    pub measured_ns: u64,
    /// The last answers.
    pub drain_ns: u64,
}

/// What the generator itself used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generator {
    /// CPU time in all, in nanoseconds.
    pub cpu_ns: u64,
    /// CPU time in the measured window, in nanoseconds.
    pub cpu_ns_measured: u64,
    /// Most resident memory of one process, in bytes.
    pub rss_bytes_max: u64,
    /// Bytes of a simulated device.
    pub device_bytes: u64,
    /// Processes that took part.
    pub processes: u32,
    /// Threads of all of them.
    pub threads: u32,
}

impl Generator {
    /// Adds what another process used.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.cpu_ns += other.cpu_ns;
        self.cpu_ns_measured += other.cpu_ns_measured;
        self.rss_bytes_max = self.rss_bytes_max.max(other.rss_bytes_max);
        self.device_bytes = self.device_bytes.max(other.device_bytes);
        self.processes += other.processes;
        self.threads += other.threads;
    }
}

/// What a watched process used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// Its host and id.
    pub host: String,
    /// Its id.
    pub pid: u32,
    /// Its program's name.
    pub name: String,
    /// CPU time in each phase, in nanoseconds.
    pub cpu_ns_join: u64,
    /// See `cpu_ns_join`.
    pub cpu_ns_warmup: u64,
    /// See `cpu_ns_join`.
    pub cpu_ns_measured: u64,
    /// See `cpu_ns_join`.
    pub cpu_ns_drain: u64,
    /// CPU time of the measured window for each share that was answered in it, in nanoseconds.
    pub cpu_ns_per_share_measured: f64,
    /// Resident memory before the first connection, in bytes.
    pub rss_bytes_before: u64,
    /// When all had joined.
    pub rss_bytes_joined: u64,
    /// At the end.
    pub rss_bytes_end: u64,
    /// The most that was seen.
    pub rss_bytes_max: u64,
    /// Its threads in the measured window.
    pub threads: Vec<ThreadUsage>,
    /// Second by second, from the start of the join.
    pub seconds: Vec<Usage>,
}

/// What a load came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Who wrote it.
    pub program: String,
    /// The pool's URL.
    pub pool: String,
    /// The generator's hosts.
    pub host: String,
    /// When connections began, in nanoseconds of Unix time.
    pub started_unix_ns: u64,
    /// The load as it was run.
    pub scenario: Scenario,
    /// How long each phase took.
    pub phases: Phases,
    /// What was counted.
    #[serde(flatten)]
    pub tally: Tally,
    /// What the generator used.
    pub generator: Generator,
    /// What the watched processes used.
    pub watched: Vec<Watched>,
    /// Whether it was as it must be.
    pub verdict: Verdict,
}

impl Report {
    /// Adds the report of another part of the same load.
    pub fn merge(&mut self, other: &Self) {
        if !self.host.split(' ').any(|host| host == other.host) {
            self.host = format!("{} {}", self.host, other.host);
        }
        self.started_unix_ns = self.started_unix_ns.min(other.started_unix_ns);
        self.phases = Phases {
            join_ns: self.phases.join_ns.max(other.phases.join_ns),
            warmup_ns: self.phases.warmup_ns.max(other.phases.warmup_ns),
            measured_ns: self.phases.measured_ns.max(other.phases.measured_ns),
            drain_ns: self.phases.drain_ns.max(other.phases.drain_ns),
        };
        self.scenario.connections += other.scenario.connections;
        self.tally.merge(&other.tally);
        self.generator.merge(&other.generator);
        self.watched.extend(other.watched.iter().cloned());
        for watched in &mut self.watched {
            let shares = self.tally.measured.accepted + self.tally.measured.rejected;
            watched.cpu_ns_per_share_measured = watched.cpu_ns_measured as f64 / (shares.max(1)) as f64;
        }
        self.verdict = judge(&self.scenario, &self.tally);
    }
}
