//! What the figures depend on besides the programs: the machine, and who else uses it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The machine and its settings, as the page shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    /// The instruction sets that the hasher and the cipher ask for, as far as the CPU has them.
    pub(crate) flags: Vec<String>,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) congestion_control: String,
    /// The limit on open files.
    pub(crate) files_max: String,
}

const FLAGS: [&str; 7] = ["sha_ni", "avx2", "avx512f", "avx512vl", "avx512ifma", "aes", "vaes"];
/// USER_HZ, the unit of CPU times in /proc: 100 on every Linux that Adit runs on.
const TICKS_PER_S: u64 = 100;

impl Machine {
    /// This one; empty where the system does not say.
    pub(crate) fn read() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let flags = value(&cpuinfo, "flags").unwrap_or_default();
        let memory_kib = value(&read("/proc/meminfo"), "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        let files_max = read("/proc/self/limits");
        let files_max = files_max.lines().find_map(|line| line.strip_prefix("Max open files"));
        Self {
            cpu: cpu_name(&cpuinfo),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            flags: FLAGS
                .iter()
                .filter(|flag| flags.split(' ').any(|has| has == **flag))
                .map(|flag| (*flag).to_owned())
                .collect(),
            memory_gib: memory_kib.unwrap_or_default() >> 20,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned(),
            files_max: files_max
                .and_then(|rest| rest.split_whitespace().next())
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// What stands behind `key` and a colon.
fn value(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

/// Model, family and stepping: virtual machines hide the first.
fn cpu_name(cpuinfo: &str) -> String {
    let value = |key| value(cpuinfo, key).unwrap_or_default();
    format!(
        "{} (family {}, model {}, stepping {})",
        value("model name"),
        value("cpu family"),
        value("model"),
        value("stepping")
    )
}

/// What a run shared the CPUs with, in CPUs on average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Disturbance {
    /// What programs kept busy that have no part in the run.
    pub(crate) others_cpus: f64,
    /// What the host of a virtual machine gave to others though there was something to run: no latency is shorter than the pauses
    /// that this makes.
    pub(crate) withheld_cpus: f64,
}

/// CPU time that was spent so far: by everybody, and by some processes; and what the host withheld.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuTime {
    all: Duration,
    own: Duration,
    withheld: Duration,
}

impl CpuTime {
    /// Of the machine since its start, and of these processes since theirs.
    pub(crate) fn now(processes: &[u32]) -> Self {
        let own = processes.iter().map(|pid| process_ticks(&read(&format!("/proc/{pid}/stat"))).unwrap_or(0));
        let stat = read("/proc/stat");
        Self {
            all: span(ticks(&stat, &BUSY).unwrap_or(0)),
            own: span(own.sum()),
            withheld: span(ticks(&stat, &STEAL).unwrap_or(0)),
        }
    }

    /// What others than these processes, and one more that took `further_ns`, have spent in the time `elapsed` since `before`, and
    /// what the host withheld.
    pub(crate) fn disturbance_since(&self, before: &Self, further_ns: u64, elapsed: Duration) -> Disturbance {
        let all = self.all.saturating_sub(before.all);
        let own = self.own.saturating_sub(before.own) + Duration::from_nanos(further_ns);
        let withheld = self.withheld.saturating_sub(before.withheld);
        let cpus = |time: Duration| time.as_secs_f64() / elapsed.as_secs_f64();
        Disturbance { others_cpus: cpus(all.saturating_sub(own)), withheld_cpus: cpus(withheld) }
    }
}

fn span(ticks: u64) -> Duration {
    Duration::from_millis(ticks * (1_000 / TICKS_PER_S))
}

/// Columns of /proc/stat: user, nice, system, irq and softirq.
const BUSY: [usize; 5] = [0, 1, 2, 5, 6];
/// Column of /proc/stat: what the host ran instead.
const STEAL: [usize; 1] = [7];

/// Ticks of all CPUs in these columns of /proc/stat.
fn ticks(stat: &str, columns: &[usize]) -> Option<u64> {
    let numbers = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
    Some(columns.iter().filter_map(|at| numbers.get(*at)).sum())
}

/// utime and stime of /proc/PID/stat. The second field, a name in parentheses, may hold anything.
fn process_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::read();
        assert!(machine.cpus >= 1 && machine.memory_gib >= 1 && machine.kernel.contains('.'), "{machine:?}");
        assert!(machine.cpu.contains("family") && !machine.files_max.is_empty(), "{machine:?}");
    }

    #[test]
    fn cpu_times_are_read_as_the_kernel_writes_them() {
        let stat = "cpu  1 2 4 1000 2000 8 16 32 0 0\ncpu0 9 9\n";
        assert_eq!((ticks(stat, &BUSY), ticks(stat, &STEAL)), (Some(31), Some(32)));
        assert_eq!(ticks("intr 5", &BUSY), None);
        let stat = "42 (a) b) c) S 1 42 42 0 -1 4194560 9 0 0 0 700 50 3 4 20 0 2 0 99 1 1";
        assert_eq!(process_ticks(stat), Some(750));
        assert_eq!(process_ticks(""), None);
    }

    #[test]
    fn others_are_what_is_left() {
        let time = |all, own, withheld| CpuTime { all: span(all), own: span(own), withheld: span(withheld) };
        let since = |now: CpuTime, further_ns| {
            now.disturbance_since(&time(500, 100, 10), further_ns, Duration::from_secs(4))
        };
        let found = since(time(1_000, 300, 110), 1_000_000_000);
        assert_eq!(found, Disturbance { others_cpus: 0.5, withheld_cpus: 0.25 });
        assert_eq!(since(time(500, 300, 10), 0), Disturbance::default(), "clocks are coarse");
    }
}
