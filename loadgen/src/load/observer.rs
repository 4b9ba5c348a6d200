//! Looks at processes at the turns of the phases, and each second.

use std::time::Duration;

use super::LoadError;
use crate::report::{Generator, Watched};
use crate::watch::{ThreadTimes, Usage, Watch, used};

/// Seconds of a run that are kept.
const SECONDS_MAX: usize = 100_000;

/// What was seen of one process. A process that has ended stays as it was seen last.
struct Observed {
    watch: Watch,
    last: Usage,
    rss_bytes_max: u64,
    before: Usage,
    joined: Option<Usage>,
    measured_from: Option<(Usage, ThreadTimes)>,
    measured_to: Option<(Usage, ThreadTimes)>,
    seconds: Vec<Usage>,
}

impl Observed {
    fn new(watch: Watch) -> Self {
        Self {
            watch,
            last: Usage::default(),
            rss_bytes_max: 0,
            before: Usage::default(),
            joined: None,
            measured_from: None,
            measured_to: None,
            seconds: Vec::new(),
        }
    }

    fn look(&mut self) -> Usage {
        if let Ok(usage) = self.watch.look() {
            self.last = usage;
            self.rss_bytes_max = self.rss_bytes_max.max(usage.rss_bytes);
        }
        self.last
    }

    fn look_closely(&mut self) -> (Usage, ThreadTimes) {
        (self.look(), self.watch.threads())
    }

    fn finish(mut self, host: &str, shares: u64) -> Watched {
        let end = self.look();
        let joined = self.joined.unwrap_or(end);
        let (from, threads_from) = self.measured_from.unwrap_or_else(|| (end, self.watch.threads()));
        let (to, threads_to) = self.measured_to.unwrap_or_else(|| (end, self.watch.threads()));
        let cpu_ns_measured = to.cpu_ns - from.cpu_ns;
        Watched {
            host: host.to_owned(),
            pid: self.watch.pid(),
            name: self.watch.name().to_owned(),
            cpu_ns_join: joined.cpu_ns - self.before.cpu_ns,
            cpu_ns_warmup: from.cpu_ns - joined.cpu_ns,
            cpu_ns_measured,
            cpu_ns_drain: end.cpu_ns - to.cpu_ns,
            cpu_ns_per_share_measured: cpu_ns_measured as f64 / shares.max(1) as f64,
            rss_bytes_before: self.before.rss_bytes,
            rss_bytes_joined: joined.rss_bytes,
            rss_bytes_end: end.rss_bytes,
            rss_bytes_max: self.rss_bytes_max,
            threads: used(&threads_from, &threads_to),
            seconds: self.seconds,
        }
    }
}

/// Everything that is watched; the generator itself comes last.
pub(super) struct Observer(Vec<Observed>);

impl Observer {
    pub(super) fn new(pids: &[u32]) -> Result<Self, LoadError> {
        let mut observed = Vec::new();
        for pid in pids.iter().copied().chain([std::process::id()]) {
            let watch = Watch::new(pid).map_err(|error| LoadError::Watch(pid, error))?;
            observed.push(Observed::new(watch));
        }
        Ok(Self(observed))
    }

    pub(super) fn begin(&mut self) {
        self.0.iter_mut().for_each(|observed| observed.before = observed.look());
    }

    pub(super) fn joined(&mut self) {
        self.0.iter_mut().for_each(|observed| observed.joined = Some(observed.look()));
    }

    /// Called often while shares flow: notes when the measured window begins and ends.
    pub(super) fn pass(&mut self, since_go: Duration, warmup: Duration, measured: Duration) {
        for observed in &mut self.0 {
            if since_go >= warmup && observed.measured_from.is_none() {
                observed.measured_from = Some(observed.look_closely());
            }
            if since_go >= warmup + measured && observed.measured_to.is_none() {
                observed.measured_to = Some(observed.look_closely());
            }
        }
    }

    pub(super) fn look_each_second(&mut self, since_start: Duration) {
        for observed in &mut self.0 {
            if observed.seconds.len() < SECONDS_MAX && observed.seconds.len() as u64 <= since_start.as_secs()
            {
                let usage = observed.look();
                observed.seconds.push(usage);
            }
        }
    }

    /// What was watched, and what this process used.
    pub(super) fn finish(self, host: &str, shares: u64) -> (Vec<Watched>, Generator) {
        let mut watched: Vec<Watched> =
            self.0.into_iter().map(|observed| observed.finish(host, shares)).collect();
        let own = watched.pop().expect("the generator itself comes last");
        let generator = Generator {
            cpu_ns: own.cpu_ns_join + own.cpu_ns_warmup + own.cpu_ns_measured + own.cpu_ns_drain,
            cpu_ns_measured: own.cpu_ns_measured,
            rss_bytes_max: own.rss_bytes_max,
            ..Generator::default()
        };
        (watched, generator)
    }
}
