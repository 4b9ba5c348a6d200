//! The test stand: a template provider, a pool and the load generator, each a process on CPUs of its own.
//!
//! Both pools get the same work from the same template provider, and the same key, so that the load generator's command differs
//! in nothing but the port. Targets are the easiest there are: the generator's shares cost it no hashes and are all good.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use adit_loadgen::report::Report;
use rustix::process::Signal;

use crate::failure::Failure;
use crate::loads::{Load, Renewal};
use crate::machine::CpuTime;
use crate::programs::{LOOK_INTERVAL, Process, Programs, free_address};
use crate::run::{PoolKind, Run};
use crate::say;

/// The authority's key pair, that of the reference implementation's examples.
const PUBLIC_KEY: &str = "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72";
const SECRET_KEY: &str = "mkDLTBBRxdBv998612qipDYoTK3YUrqLe8uWw7gu3iXbSrn2n";
/// Beyond what the scenario says that a run takes.
const SPARE: Duration = Duration::from_secs(180);
/// Before a pool that listens is loaded: what it does at its start is no part of any load.
const SETTLING: Duration = Duration::from_secs(1);
/// In smoke runs, connections and channels are so many times fewer.
const SMOKE_DIVISOR: u64 = 100;
/// In smoke runs, tips and templates come so many times as often.
const SMOKE_HURRY: f64 = 10.0;

/// CPUs as a list of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CpuList(pub(crate) Vec<usize>);

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers: Result<Vec<usize>, _> = text.split(',').map(|number| number.trim().parse()).collect();
        numbers.map(Self).map_err(|_| format!("`{text}`: must be CPU numbers such as 0 or 2,3"))
    }
}

impl std::fmt::Display for CpuList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.iter().map(usize::to_string).collect::<Vec<_>>().join(","))
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Stand {
    pub(crate) programs: Programs,
    pub(crate) pool_cpus: CpuList,
    pub(crate) generator_cpus: CpuList,
    /// A second of each load with a hundredth of its connections.
    pub(crate) smoke: bool,
}

/// A pool that serves, and the template provider that it depends on.
pub(crate) struct Served {
    pub(crate) pool: Process,
    provider: Process,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

/// A load generator at work.
pub(crate) struct Loading {
    process: Process,
    report: PathBuf,
    patience: Duration,
}

impl Stand {
    /// The CPUs of a pool of two shards: its own, and the load generator's, which it then shares with it.
    pub(crate) fn two_cpus(&self) -> CpuList {
        CpuList([&self.pool_cpus.0[..1], &self.generator_cpus.0[..1]].concat())
    }

    /// Runs a pool under a load, from nothing. What one run comes to grief over is in the record, and the next goes on.
    pub(crate) fn run(&self, load: &Load, pool: PoolKind, round: u32) -> Result<Run, Failure> {
        say(&format!("round {}, load {}, {}", round + 1, load.name, pool.title()));
        // Without its program no run of a pool would come to anything.
        if pool == PoolKind::Sri {
            self.programs.peer()?;
        }
        let run = self.try_run(load, pool, round).unwrap_or_else(|failure| {
            say(&format!("  {failure}"));
            Run::failed(load, pool, round, failure.to_string())
        });
        for (figure, value) in &run.figures {
            say(&format!("  {}: {value:.3}", figure.title()));
        }
        run.faults.iter().for_each(|fault| say(&format!("  fault: {fault}")));
        Ok(run)
    }

    fn try_run(&self, load: &Load, pool: PoolKind, round: u32) -> Result<Run, Failure> {
        let served = self.serve(load, pool, &self.pool_cpus)?;
        let (begun, before) = (Instant::now(), CpuTime::now(&served.processes()));
        let mut loading = self.load(load, &served)?;
        loading.renew(load.renewal, &served, if self.smoke { SMOKE_HURRY } else { 1.0 })?;
        let report = loading.finish()?;
        let now = CpuTime::now(&served.processes());
        let disturbance = now.disturbance_since(&before, report.generator.cpu_ns, begun.elapsed());
        served.stop()?;
        Ok(Run::of(load, pool, round, &report, disturbance))
    }

    /// Starts a template provider and a pool on these CPUs.
    pub(crate) fn serve(&self, load: &Load, pool: PoolKind, cpus: &CpuList) -> Result<Served, Failure> {
        let directory = temporary(tempfile::Builder::new().prefix("adit-perf-").tempdir())?;
        let path = directory.path();
        let source = free_address()?;
        let arguments =
            |role: &str, file: &Path| [role, "--config"].map(str::to_owned).into_iter().chain([text(file)]);

        let file = write_private(path, "tp.toml", &provider_config(source))?;
        let arguments_tp: Vec<_> = arguments("tp", &file).collect();
        let own = &self.generator_cpus.0;
        let mut provider = Process::start("adit-tp", &self.programs.adit, &arguments_tp, own, path)?;
        provider.wait_until_listening(source)?;

        let address = free_address()?;
        let mut pool = match pool {
            PoolKind::Adit => {
                let file = write_private(path, "pool.toml", &adit_config(load, address, source, cpus))?;
                let arguments: Vec<_> = arguments("pool", &file).collect();
                Process::start("adit-pool", &self.programs.adit, &arguments, &cpus.0, path)?
            }
            PoolKind::Sri => {
                let file = write_private(path, "pool.toml", &peer_config(load, address, source))?;
                let arguments = ["-c".to_owned(), text(&file)];
                Process::start("pool_sv2", self.programs.peer()?, &arguments, &cpus.0, path)?
            }
        };
        pool.wait_until_listening(address)?;
        std::thread::sleep(SETTLING);
        Ok(Served { pool, provider, address, directory })
    }

    /// Starts the load generator against a pool.
    pub(crate) fn load(&self, load: &Load, served: &Served) -> Result<Loading, Failure> {
        // Several may load one pool.
        let directory =
            temporary(tempfile::Builder::new().prefix("load-").tempdir_in(&served.directory))?.keep();
        let directory = directory.as_path();
        let scenario = directory.join(format!("{}.toml", load.name));
        std::fs::write(&scenario, load.scenario).map_err(Failure::file(&scenario))?;
        let report = directory.join("report");
        let mut arguments = vec!["simulate".to_owned()];
        for (name, value) in [
            ("--pool", format!("stratum2+tcp://{}/{PUBLIC_KEY}", served.address)),
            ("--scenario", text(&scenario)),
            ("--report", text(&report)),
            ("--watch-pid", served.pool.id().to_string()),
        ] {
            arguments.extend([name.to_owned(), value]);
        }
        if self.smoke {
            arguments.extend(smoke_settings(load).flat_map(|setting| ["--set".to_owned(), setting]));
        }
        let process = Process::start(
            "adit-loadgen",
            &self.programs.loadgen,
            &arguments,
            &self.generator_cpus.0,
            directory,
        )?;
        Ok(Loading { process, report: report.join("report.json"), patience: load.duration_max() + SPARE })
    }
}

impl Served {
    /// The processes that take part besides the load generator.
    fn processes(&self) -> [u32; 2] {
        [self.pool.id(), self.provider.id()]
    }

    pub(crate) fn stop(self) -> Result<(), Failure> {
        self.pool.stop()?;
        self.provider.stop()
    }
}

impl Loading {
    /// Waits for the end and reads the report. A run in which the sum of shares is off has a report as well: it says so.
    pub(crate) fn finish(mut self) -> Result<Report, Failure> {
        let status = self.process.wait(self.patience)?;
        let bytes = match std::fs::read(&self.report) {
            Ok(bytes) if status.code().is_some_and(|code| code <= 1) => bytes,
            _ => return Err(self.process.ended(&status.to_string())),
        };
        serde_json::from_slice(&bytes).map_err(|error| Failure::Unreadable { path: self.report, error })
    }

    /// Has the template source make tips and templates until the load generator ends, `hurry` times as often as said.
    pub(crate) fn renew(&mut self, renewal: Renewal, served: &Served, hurry: f64) -> Result<(), Failure> {
        let interval =
            |seconds: Option<u32>| seconds.map(|seconds| Duration::from_secs(seconds.into()).div_f64(hurry));
        let timers = [(interval(renewal.tip_s), Signal::USR2), (interval(renewal.template_s), Signal::USR1)];
        let mut timers: Vec<_> =
            timers.into_iter().filter_map(|(every, signal)| Some((every?, Instant::now(), signal))).collect();
        if timers.is_empty() {
            return Ok(());
        }
        let (begun, mut has_joined) = (Instant::now(), false);
        while self.is_running()? && begun.elapsed() < self.patience {
            if !has_joined {
                has_joined = all_have_joined(&self.process.last_line());
                timers.iter_mut().for_each(|(every, next, _)| *next = Instant::now() + *every);
            }
            for (every, next, signal) in &mut timers {
                if Instant::now() >= *next {
                    served.provider.signal(*signal);
                    *next += *every;
                }
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// Waits until all connections and channels are there, or the load generator has ended, or should have.
    pub(crate) fn wait_until_joined(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        while self.is_running()?
            && !all_have_joined(&self.process.last_line())
            && begun.elapsed() < self.patience
        {
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> Result<bool, Failure> {
        Ok(self.process.try_wait()?.is_none())
    }
}

/// Whether the load generator's live line says so: `3 s  5000/5000 connections  ...`.
fn all_have_joined(live_line: &str) -> bool {
    let words: Vec<&str> = live_line.split_whitespace().take(4).collect();
    let [_, "s", counts, "connections"] = words[..] else { return false };
    counts.split_once('/').is_some_and(|(joined, asked)| joined == asked)
}

fn temporary(made: std::io::Result<tempfile::TempDir>) -> Result<tempfile::TempDir, Failure> {
    made.map_err(|error| Failure::System { what: "no temporary directory", error })
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Secrets are in these files, so that the programs refuse them where others may read them.
fn write_private(directory: &Path, name: &str, content: &str) -> Result<PathBuf, Failure> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = directory.join(name);
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(content.as_bytes())).map_err(Failure::file(&path))?;
    Ok(path)
}

fn smoke_settings(load: &Load) -> impl Iterator<Item = String> {
    let fewer = |key: &str| (load.number(key) / SMOKE_DIVISOR).clamp(2, 50);
    let settings = [
        format!("connections={}", fewer("connections")),
        format!(
            "channels_per_connection={}",
            fewer("channels_per_connection").min(load.number("channels_per_connection"))
        ),
        "warmup_s=0.2".to_owned(),
        // The load generator says once a second who has joined, and tips wait for it.
        format!("duration_s={}", if load.renewal == Renewal::NONE { "1.0" } else { "3.0" }),
        "drain_s=1.0".to_owned(),
        "event=[]".to_owned(),
    ];
    settings.into_iter()
}

/// What comes, comes at signals: its timers are set beyond every run.
fn provider_config(listen: SocketAddr) -> String {
    format!(
        "[tp]\nlisten = \"{listen}\"\nshutdown_grace_s = 0.5\n[authority]\nsecret_key = \"{SECRET_KEY}\"\n\
         [template_source]\nkind = \"synthetic\"\nchain = \"main\"\ntemplate_interval_s = 3600.0\n\
         tip_interval_s = 86400.0\n[journal]\ndir = \"tp-journal\"\n[log]\nlevel = \"error\"\n"
    )
}

fn adit_config(load: &Load, listen: SocketAddr, source: SocketAddr, cpus: &CpuList) -> String {
    let connections_max = load.number("connections") + 1_000;
    let channels = load.number("connections") * load.number("channels_per_connection");
    // Connections of an earlier round may still be there when the next joins.
    let channels_max = (2 * channels).max(100_000);
    let slots_max = (8 * channels_max).max(1 << 26);
    format!(
        "[pool]\nlisten = \"{listen}\"\npayout = \"raw(51)\"\nshutdown_grace_s = 0.5\n[engine]\ncpus = [{cpus}]\n\
         [authority]\nsecret_key = \"{SECRET_KEY}\"\n\
         [vardiff]\nshares_per_minute = 1e9\ndifficulty_min = 0.0\n\
         [acknowledgement]\nshares = {}\n\
         [limits]\nconnections_max = {}\nconnections_per_address_max = {}\nhandshakes_per_second_max = 1000000\n\
         channels_per_connection_max = {channels_max}\nchannels_max = {channels_max}\n\
         fingerprint_slots_max = {slots_max}\nshares_per_tip_max = 10000000\n\
         [template_source]\nkind = \"sv2\"\nchain = \"main\"\nurl = \"stratum2+tcp://{source}/{PUBLIC_KEY}\"\n\
         [log]\nlevel = \"error\"\n",
        load.share_batch_size,
        2 * connections_max,
        2 * connections_max
    )
}

fn peer_config(load: &Load, listen: SocketAddr, source: SocketAddr) -> String {
    format!(
        "listen_address = \"{listen}\"\nauthority_public_key = \"{PUBLIC_KEY}\"\n\
         authority_secret_key = \"{SECRET_KEY}\"\ncert_validity_sec = 86400\ncoinbase_reward_script = \"raw(51)\"\n\
         server_id = 1\npool_signature = \"reference\"\nshares_per_minute = 1000000.0\nshare_batch_size = {}\n\
         supported_extensions = []\nrequired_extensions = []\n\
         [template_provider_type.Sv2Tp]\naddress = \"{source}\"\npublic_key = \"{PUBLIC_KEY}\"\n",
        load.share_batch_size
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loads::LOADS;

    #[test]
    fn cpus_are_numbers() {
        assert_eq!("0".parse(), Ok(CpuList(vec![0])));
        assert_eq!("2, 3".parse::<CpuList>().unwrap().to_string(), "2,3");
        assert!("all".parse::<CpuList>().is_err() && "".parse::<CpuList>().is_err());
    }

    #[test]
    fn the_end_of_joining_is_read_off_the_live_line() {
        assert!(all_have_joined("    3 s  5000/5000 connections  0/s accepted  p50 0 us"));
        for line in ["", "    3 s  4999/5000 connections  0/s", "load  5000 connections", "not good"] {
            assert!(!all_have_joined(line), "{line}");
        }
    }

    #[test]
    fn every_configuration_is_toml() {
        let (listen, source) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        assert!(provider_config(listen).parse::<toml::Table>().is_ok());
        for load in LOADS {
            assert!(adit_config(load, listen, source, &CpuList(vec![0, 1])).parse::<toml::Table>().is_ok());
            assert!(peer_config(load, listen, source).parse::<toml::Table>().is_ok());
            for setting in smoke_settings(load) {
                assert!(setting.parse::<toml::Table>().is_ok(), "{setting}");
            }
        }
    }
}
