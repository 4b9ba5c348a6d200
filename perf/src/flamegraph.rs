//! A profile of a pool under a load, as an SVG and as a table of what costs most.
//!
//! `perf` samples the process by the CPU's clock (`cpu-clock`), which virtual machines have as well, with kernel and user stacks.
//! Where there is no `perf`, a profiler in this process samples a shard that runs here, without sockets and so without the
//! kernel's part (`in_process`). The picture's title says which it was.

mod in_process;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use inferno::collapse::Collapse as _;
use inferno::collapse::perf::{Folder, Options as FolderOptions};
use inferno::flamegraph::{Options, from_lines};

use crate::failure::Failure;
use crate::loads::Load;
use crate::run::PoolKind;
use crate::say;
use crate::stand::{Loading, Stand};

/// Bytes of stack that a sample keeps: the pool's deepest stacks are below half of it.
const STACK_BYTES: u32 = 16_384;
/// After all have joined, until the load is at what it measures, at least.
const SETTLE: Duration = Duration::from_secs(4);
/// How long is sampled.
const SAMPLED_S: u32 = 6;
/// How long is sampled, from the load generator's start, where a load is about joining.
const JOINING_S: u32 = 2;
/// Functions in the table.
const TABLE_LEN: usize = 30;

/// Whether there is a `perf` to be run.
pub(crate) fn has_perf() -> bool {
    let status = Command::new("perf").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Profiles a shard that runs in this process, and draws it as [`profile`] does.
pub(crate) fn profile_in_process(frequency: u32, out: &Path) -> Result<(), Failure> {
    say(&format!("sampling a shard without sockets in this process for {SAMPLED_S} s"));
    let folded = in_process::sample(frequency, Duration::from_secs(u64::from(SAMPLED_S)))?;
    draw(&folded, in_process::TITLE, "samples", out)
}

/// Profiles a pool under a load and draws it into `out`; beside it, with `.txt`, functions by their own share of the CPU.
pub(crate) fn profile(
    stand: &Stand,
    load: &Load,
    pool: PoolKind,
    frequency: u32,
    out: &Path,
) -> Result<(), Failure> {
    let directory =
        tempfile::tempdir().map_err(|error| Failure::System { what: "no temporary directory", error })?;
    let samples = directory.path().join("perf.samples");
    let (cpus, generators) =
        if load.is_about_second_shard() { (stand.two_cpus(), 2) } else { (stand.pool_cpus.clone(), 1) };
    let served = stand.serve(load, pool, &cpus)?;
    let mut loading = (0..generators).map(|_| stand.load(load, &served)).collect::<Result<Vec<_>, _>>()?;
    let sampled_s = if load.is_about_joining() {
        JOINING_S
    } else {
        loading.iter_mut().try_for_each(Loading::wait_until_joined)?;
        std::thread::sleep(SETTLE.max(load.warmup()));
        SAMPLED_S
    };
    if !loading[0].is_running()? {
        loading.swap_remove(0).finish()?;
        return Err(Failure::Drawing(format!("load {} was over before it could be sampled", load.name)));
    }
    say(&format!("sampling {} under load {} for {sampled_s} s", pool.title(), load.name));
    let mut record = Command::new("perf");
    record
        .args(["record", "--quiet", "--event", "cpu-clock", "--call-graph"])
        .arg(format!("dwarf,{STACK_BYTES}"));
    record.arg("--freq").arg(frequency.to_string()).arg("--pid").arg(served.pool.id().to_string());
    record.arg("--output").arg(&samples).args(["--", "sleep"]).arg(sampled_s.to_string());
    let failed = |error| Failure::Program { name: "perf".to_owned(), error };
    record.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let sampling = record.spawn().map_err(failed)?;
    loading[0].renew(load.renewal, &served, 1.0)?;
    let sampled = sampling.wait_with_output().map_err(failed)?;
    if !sampled.status.success() {
        let log = String::from_utf8_lossy(&sampled.stderr).into_owned();
        return Err(Failure::Ended { name: "perf".to_owned(), what: sampled.status.to_string(), log });
    }
    let reports = loading.into_iter().map(Loading::finish).collect::<Result<Vec<_>, _>>()?;
    served.stop()?;
    let accepted: f64 = reports.iter().map(|report| report.tally.measured.accepted_per_s).sum();
    say(&format!("{accepted:.0} shares a second were accepted meanwhile"));
    let folded = fold(&samples)?;
    let title = format!("{} under load {} (perf, cpu-clock)", pool.title(), load.title);
    // perf weighs a sample by the time since the one before.
    draw(&folded, &title, "ns", out)
}

/// Samples as folded stacks, a line each with its count.
fn fold(samples: &Path) -> Result<String, Failure> {
    let text = samples.with_extension("text");
    let file = File::create(&text).map_err(Failure::file(&text))?;
    // Inlined functions would be looked up for each sample, for hours.
    let mut script = Command::new("perf");
    script.args(["script", "--no-inline", "--input"]).arg(samples).stdout(file).stderr(Stdio::null());
    let status =
        script.status().map_err(|error| Failure::Program { name: "perf script".to_owned(), error })?;
    if !status.success() {
        let (name, what) = ("perf script".to_owned(), status.to_string());
        return Err(Failure::Ended { name, what, log: String::new() });
    }
    let file = File::open(&text).map_err(Failure::file(&text))?;
    let mut folded = Vec::new();
    let failed = |error| Failure::Drawing(format!("the samples cannot be folded: {error}"));
    Folder::from(FolderOptions::default()).collapse(BufReader::new(file), &mut folded).map_err(failed)?;
    Ok(String::from_utf8_lossy(&folded).into_owned())
}

fn draw(folded: &str, title: &str, unit: &str, out: &Path) -> Result<(), Failure> {
    if let Some(directory) = out.parent() {
        std::fs::create_dir_all(directory).map_err(Failure::file(directory))?;
    }
    let mut options = Options::default();
    options.title = title.to_owned();
    options.count_name = unit.to_owned();
    // Narrower ones cannot be seen, and make the file large.
    options.min_width = 0.3;
    let mut svg = Vec::new();
    from_lines(&mut options, folded.lines(), &mut svg)
        .map_err(|error| Failure::Drawing(format!("the profile cannot be drawn: {error}")))?;
    std::fs::write(out, svg).map_err(Failure::file(out))?;
    let table: PathBuf = out.with_extension("txt");
    std::fs::write(&table, own_shares(folded, title)).map_err(Failure::file(&table))?;
    say(&format!("{} and {}", out.display(), table.display()));
    Ok(())
}

/// Functions by the samples in which they were the innermost, with those in which they were anywhere.
fn own_shares(folded: &str, title: &str) -> String {
    let mut counts = BTreeMap::<&str, (u64, u64)>::new();
    let mut all = 0;
    for line in folded.lines() {
        let Some((stack, count)) = line.rsplit_once(' ') else { continue };
        let Ok(count) = count.parse::<u64>() else { continue };
        all += count;
        let mut frames: Vec<&str> = stack.split(';').collect();
        if let Some(innermost) = frames.last() {
            counts.entry(innermost).or_default().0 += count;
        }
        // A function that calls itself is in a sample once.
        frames.sort_unstable();
        frames.dedup();
        for frame in frames {
            counts.entry(frame).or_default().1 += count;
        }
    }
    let mut functions: Vec<_> = counts.into_iter().filter(|(_, (own, _))| *own > 0).collect();
    functions.sort_by_key(|(_, (own, _))| std::cmp::Reverse(*own));
    let percent = |count: u64| 100.0 * count as f64 / all as f64;
    let mut out =
        format!("{title}\n\nown: this function; all: with what it calls\n\n  own %   all %  function\n");
    for (function, (own, with_callees)) in functions.into_iter().take(TABLE_LEN) {
        let _ = writeln!(out, "{:7.2} {:7.2}  {function}", percent(own), percent(with_callees));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDED: &str = "adit;run;tick;open 6\nadit;run;tick;open;copy 2\nadit;run;run;seal 2\n";

    #[test]
    fn own_and_whole_shares_are_told_apart() {
        let table = own_shares(FOLDED, "load a");
        let lines: Vec<&str> = table.lines().skip(5).collect();
        assert_eq!(lines, ["  60.00   80.00  open", "  20.00   20.00  copy", "  20.00   20.00  seal"]);
        assert!(table.starts_with("load a\n\nown"), "{table}");
    }

    #[test]
    fn a_profile_is_drawn() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("profile/a.svg");
        draw(FOLDED, "load a", "samples", &out).unwrap();
        let svg = std::fs::read_to_string(&out).unwrap();
        assert!(svg.contains("<svg") && svg.contains("seal (2 samples"), "{svg}");
        assert!(out.with_extension("txt").exists());
    }
}
