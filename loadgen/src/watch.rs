//! What a process costs: CPU time and memory, as the kernel counts them for each of its threads.
//!
//! CPU time is the sum of `/proc/PID/task/*/schedstat`, in nanoseconds. A thread that ended keeps what it had at the last
//! look, so looks are taken every second.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

/// CPU time of each thread, by its id: its name and nanoseconds.
pub type ThreadTimes = BTreeMap<u32, (String, u64)>;

/// Threads of one process that are told apart in a report.
const THREADS_MAX: usize = 64;

/// What a look at a process found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time since its start, in nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
}

/// A process that is looked at from time to time.
#[derive(Debug)]
pub struct Watch {
    pid: u32,
    name: String,
    threads: ThreadTimes,
}

impl Watch {
    /// Watches a process.
    ///
    /// # Errors
    /// There is none of this id, or it is another user's.
    pub fn new(pid: u32) -> io::Result<Self> {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"))?.trim().to_owned();
        let mut watch = Self { pid, name, threads: BTreeMap::new() };
        watch.look()?;
        Ok(watch)
    }

    /// Watches this process.
    ///
    /// # Errors
    /// There is no `/proc`.
    pub fn own() -> io::Result<Self> {
        Self::new(std::process::id())
    }

    /// Its id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Its program's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// CPU time of each thread so far.
    #[must_use]
    pub fn threads(&self) -> ThreadTimes {
        self.threads.clone()
    }

    /// Looks at it now.
    ///
    /// # Errors
    /// It has ended.
    pub fn look(&mut self) -> io::Result<Usage> {
        for entry in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let path = entry?.path();
            let Some(tid) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
            // A thread may end between two reads.
            let Ok(schedstat) = fs::read_to_string(path.join("schedstat")) else { continue };
            let Some(cpu_ns) = schedstat.split_whitespace().next().and_then(|text| text.parse().ok()) else {
                continue;
            };
            match self.threads.get_mut(&tid) {
                Some((_, before)) => *before = cpu_ns,
                None => {
                    let name = fs::read_to_string(path.join("comm")).unwrap_or_default().trim().to_owned();
                    self.threads.insert(tid, (name, cpu_ns));
                }
            }
        }
        let cpu_ns = self.threads.values().map(|(_, cpu_ns)| cpu_ns).sum();
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let rss_kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        Ok(Usage { cpu_ns, rss_bytes: rss_kib * 1024 })
    }
}

/// What threads used between two looks, by name, most first.
#[must_use]
pub fn used(before: &ThreadTimes, after: &ThreadTimes) -> Vec<ThreadUsage> {
    let used = |(tid, (name, cpu_ns)): (&u32, &(String, u64))| {
        let before_ns = before.get(tid).map_or(0, |(_, cpu_ns)| *cpu_ns);
        ThreadUsage { name: name.clone(), cpu_ns: cpu_ns.saturating_sub(before_ns) }
    };
    let mut threads: Vec<ThreadUsage> = after.iter().map(used).collect();
    threads.sort_by_key(|thread| std::cmp::Reverse(thread.cpu_ns));
    threads.truncate(THREADS_MAX);
    threads
}

/// What a thread used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadUsage {
    /// Its name.
    pub name: String,
    /// CPU time, in nanoseconds.
    pub cpu_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_uses_time_and_memory() {
        let mut watch = Watch::own().unwrap();
        let (before, threads) = (watch.look().unwrap(), watch.threads());
        assert!(before.rss_bytes > 100_000, "{before:?}");
        let mut sum = 0u64;
        loop {
            (0..1_000_000u64).for_each(|n| sum = std::hint::black_box(sum ^ n));
            let after = watch.look().unwrap();
            if after.cpu_ns > before.cpu_ns + 1_000_000 {
                break;
            }
        }
        let used = used(&threads, &watch.threads());
        assert!(used[0].cpu_ns >= used.last().unwrap().cpu_ns);
        assert!(used.iter().map(|thread| thread.cpu_ns).sum::<u64>() > 1_000_000);
        assert!(Watch::new(u32::MAX).is_err());
    }
}
