//! The commands `simulate`, `merge` and `part`.

use std::fs;
use std::io::{BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_codec::url::PoolUrl;
use adit_loadgen::load::{LoadConfig, PROCESSES_MAX, run, run_part};
use adit_loadgen::report::{FORMAT, Report};
use adit_loadgen::simulate::{Scenario, THREADS_MAX};
use clap::Args;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::catch_signals;

/// The longest report that is read.
const REPORT_LEN_MAX: u64 = 1 << 30;

#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// The pool: stratum2+tcp://HOST:PORT/AUTHORITY_KEY. Its targets must be the easiest there are.
    #[arg(long)]
    pool: PoolUrl,
    /// The load, as a TOML file; its defaults if not given.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// A key of the scenario, set otherwise: shares.per_minute=60.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Write report.json, report.txt and report.html into this directory.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Report CPU time and memory of this process too: the pool's.
    #[arg(long = "watch-pid", value_name = "PID")]
    watched: Vec<u32>,
    /// Divide the connections among so many processes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(PROCESSES_MAX)))]
    processes: u32,
    /// Threads of each process.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(THREADS_MAX)))]
    threads: u32,
    /// Run on these CPUs only: numbers with commas between.
    #[arg(long, value_delimiter = ',', value_name = "CPUS")]
    cpus: Vec<usize>,
    /// Begin at this Unix time, so that several hosts begin together.
    #[arg(long, value_name = "SECONDS")]
    at: Option<f64>,
    /// Exit with status 1 also if not all joined, or the scenario's `check` is not met.
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// report.json of each host.
    #[arg(required = true)]
    reports: Vec<PathBuf>,
    /// Write report.json, report.txt and report.html into this directory.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Exit with status 1 also if not all joined, or the scenario's `check` is not met.
    #[arg(long)]
    strict: bool,
}

/// Runs a load. Returns whether it failed.
pub(crate) fn simulate(args: &SimulateArgs) -> Result<bool, String> {
    let text = match &args.scenario {
        None => String::new(),
        Some(path) => fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?,
    };
    let name = args.scenario.as_deref().unwrap_or(Path::new("--set")).display().to_string();
    let scenario = Scenario::parse(&text, &args.assignments).map_err(|error| format!("{name}: {error}"))?;
    let at = args.at.map(|seconds| {
        Duration::try_from_secs_f64(seconds)
            .map(|since| UNIX_EPOCH + since)
            .map_err(|error| format!("--at {seconds}: {error}"))
    });
    let config = LoadConfig {
        url: args.pool.clone(),
        scenario,
        threads: args.threads,
        processes: args.processes,
        watched: args.watched.clone(),
        at: at.transpose()?.filter(|at| *at > SystemTime::now()),
    };
    if let Some(directory) = &args.report {
        fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    pin(&args.cpus)?;
    let (stop, ends_at_once) = catch_signals()?;
    let terminal = std::io::stderr().is_terminal();
    let report = run(&config, &stop, |line| {
        // Progress that cannot be shown is no reason to stop.
        let mut stderr = std::io::stderr().lock();
        let _ = if terminal { write!(stderr, "\r\x1b[K{line:.110}") } else { writeln!(stderr, "{line}") };
        let _ = stderr.flush();
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            ends_at_once.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    })
    .map_err(|error| error.to_string())?;
    if terminal {
        let _ = writeln!(std::io::stderr());
    }
    publish(&report, args.report.as_deref(), args.strict)
}

/// Keeps this thread, and so all that it starts, on some CPUs.
fn pin(cpus: &[usize]) -> Result<(), String> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            return Err(format!("--cpus {cpu}: there is no such CPU"));
        }
        set.set(cpu);
    }
    sched_setaffinity(None, &set).map_err(|error| format!("--cpus: {error}"))
}

/// Adds reports up. Returns whether the sum fails.
pub(crate) fn merge(args: &MergeArgs) -> Result<bool, String> {
    let mut merged: Option<Report> = None;
    for path in &args.reports {
        let wrong = |error: String| format!("{}: {error}", path.display());
        let len = fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
        if len > REPORT_LEN_MAX {
            return Err(wrong(format!("{len} bytes are no report")));
        }
        let file = fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
        let report: Report =
            serde_json::from_reader(BufReader::new(file)).map_err(|error| wrong(error.to_string()))?;
        if report.format != FORMAT {
            return Err(wrong(format!("format {}, this program reads {FORMAT}", report.format)));
        }
        match &mut merged {
            None => merged = Some(report),
            Some(merged) => merged.merge(&report),
        }
    }
    let merged = merged.ok_or("no report was given")?;
    publish(&merged, args.report.as_deref(), args.strict)
}

/// Runs a part of another process's load.
pub(crate) fn part() -> Result<bool, String> {
    // A terminal's Ctrl-C goes to parts too. They end when the parent says so, with their counts.
    let _signals = catch_signals()?;
    run_part(BufReader::new(std::io::stdin()), std::io::stdout()).map_err(|error| error.to_string())?;
    Ok(false)
}

/// Prints and writes a report. Returns whether the run failed.
fn publish(report: &Report, directory: Option<&Path>, strict: bool) -> Result<bool, String> {
    // A reader that has gone misses nothing that the exit status does not say.
    let _ = writeln!(std::io::stdout(), "{report}");
    if let Some(directory) = directory {
        fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let json = serde_json::to_string(report).map_err(|error| error.to_string())?;
        for (name, text) in
            [("report.json", json), ("report.txt", format!("{report}\n")), ("report.html", report.html())]
        {
            let path = directory.join(name);
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    Ok(report.verdict.fails(strict))
}
