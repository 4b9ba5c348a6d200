//! The page `perf/README.md`, written from the newest records.
//!
//! Nothing on it is written by hand but `perf/findings.md`, which it takes over: what the profiles say.

use std::fmt::Write as _;
use std::path::Path;

use crate::compare::{Pair, Verdict, missed};
use crate::failure::Failure;
use crate::figures::Figure;
use crate::loads::{LOADS, Limit, Load, Suite};
use crate::plot::{Bars, bars};
use crate::record::Record;
use crate::run::PoolKind;

const HEAD: &str = "\
# Performance

<!-- Written by `adit-perf` from perf/record and perf/findings.md; edit those. -->

Every figure here comes of a command that repeats it on any machine:

```
make peers        # Adit and SRI's pool_sv2 in turn under loads A to I: the first table
make scale        # Adit alone at its limits, loads I' to L: the second table
make flamegraph   # a profile of the pool under a load, LOAD=c for load C
```

Both pools get the same work from the same `adit tp` (a source without a node, 4,000 transactions), the same load from
the same `adit-loadgen`, and the same CPUs; each run starts all three anew. Figures are medians of the rounds, and the pools
take turns. CPU time is the pool's whole process (`schedstat`), with what the kernel does in its name. Absolute
figures drift with the machine, ratios within a record hold. Both pools acknowledge a channel's shares by tens, under load D
each of them; in the second table Adit acknowledges each.
";

/// Writes page and plots below `directory`.
pub(crate) fn write(directory: &Path) -> Result<(), Failure> {
    let mut page = HEAD.to_owned();
    for suite in [Suite::Peers, Suite::Scale] {
        let Some((path, record)) = Record::newest(directory, suite)? else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        describe(&record, &name, directory, &mut page);
        if suite == Suite::Peers {
            for (name, plot) in plots(&record) {
                let Some(svg) = bars(&plot)? else { continue };
                let path = directory.join(format!("{name}.svg"));
                std::fs::write(&path, svg).map_err(Failure::file(&path))?;
                let _ = writeln!(page, "\n![{}]({name}.svg)", plot.title);
            }
        }
        details(&record, &mut page);
    }
    if let Ok(findings) = std::fs::read_to_string(directory.join("findings.md")) {
        let _ = write!(page, "\n{findings}");
    }
    let path = directory.join("README.md");
    std::fs::write(&path, page).map_err(Failure::file(&path))
}

fn loads(suite: Suite) -> impl Iterator<Item = &'static Load> {
    LOADS.iter().filter(move |load| load.suite == suite)
}

/// Head, machine and targets; what is missed with its profile, where there is one.
fn describe(record: &Record, name: &str, directory: &Path, page: &mut String) {
    let machine = &record.machine;
    let title = match record.suite {
        Suite::Peers => "Beside SRI's pool_sv2 0.7.0",
        Suite::Scale => "At the limits",
    };
    let _ = write!(
        page,
        "\n## {title}\n\nRecord [{name}](record/{name}), {} UTC, commit {}, `{}`. Machine: {}, {} CPUs ({}), {} GiB; \
         Linux {}, congestion control {}, {} open files; the pool on CPU {}, load generator and template provider on CPU {}.\n\n",
        record.date,
        record.commit,
        record.command,
        machine.cpu,
        machine.cpus,
        machine.flags.join(", "),
        machine.memory_gib,
        machine.kernel,
        machine.congestion_control,
        machine.files_max,
        record.pool_cpus,
        record.generator_cpus,
    );
    let peer = record.suite == Suite::Peers;
    let (head, line) = if peer { (" SRI | times better |", "---:|---:|") } else { ("", "") };
    let _ =
        writeln!(page, "| load | figure | Adit |{head} must | aim | |\n|---|---|---:|{line}---:|---:|---|");
    for load in loads(record.suite) {
        for target in load.targets {
            let pair = Pair::of(record, load, target.figure);
            let verdict = pair.verdict(target);
            let (letter, title) = (letter(load), target.figure.title());
            let _ = write!(page, "| {letter} | {title} | {} |", number(pair.own));
            if peer {
                let _ = write!(page, " {} | {} |", number(pair.peer), number(pair.times()));
            }
            let _ = writeln!(
                page,
                " {} | {} | {} |",
                target.must.map_or_else(|| "-".to_owned(), limit),
                target.aim.map_or_else(|| "-".to_owned(), limit),
                verdict.title()
            );
        }
    }
    let missed: Vec<String> = missed(record, loads(record.suite))
        .map(|(load, target)| {
            let profile = format!("profile/{}.svg", file(load));
            let profile = if directory.join(&profile).exists() {
                format!("; [profile]({profile})")
            } else {
                String::new()
            };
            format!("{} ({}{profile})", letter(load), target.figure.title())
        })
        .collect();
    let unknown = loads(record.suite).flat_map(|load| load.targets.iter().map(move |target| (load, target)));
    let unknown = unknown
        .filter(|(load, target)| Pair::of(record, load, target.figure).verdict(target) == Verdict::Unknown);
    let unknown: Vec<String> =
        unknown.map(|(load, target)| format!("{} ({})", letter(load), target.figure.title())).collect();
    for (what, list) in [("Missed", missed), ("Not measured in this record", unknown)] {
        if !list.is_empty() {
            let _ = writeln!(page, "\n{what}: {}.", list.join("; "));
        }
    }
}

/// Every figure of every load, and what went wrong or disturbed.
fn details(record: &Record, page: &mut String) {
    for load in loads(record.suite).filter(|load| record.runs.iter().any(|run| run.load == load.name)) {
        let _ = write!(
            page,
            "\n### {}\n\n[`loads/{file}.toml`](loads/{file}.toml), by itself: `make {} ARGS=\"--loads {}\"`\n\n",
            load.title,
            record.suite.name(),
            load.name,
            file = file(load),
        );
        if record.suite == Suite::Peers {
            let _ = writeln!(page, "| | Adit | SRI | times better |\n|---|---:|---:|---:|");
        } else {
            let _ = writeln!(page, "| | Adit |\n|---|---:|");
        }
        for figure in load.figures {
            let pair = Pair::of(record, load, *figure);
            let _ = write!(page, "| {} | {} |", figure.title(), number(pair.own));
            if record.suite == Suite::Peers {
                let _ = write!(page, " {} | {} |", number(pair.peer), number(pair.times()));
            }
            page.push('\n');
        }
        let runs = || record.runs.iter().filter(|run| run.load == load.name);
        let others = runs().map(|run| run.others_cpus).fold(0.0, f64::max);
        let withheld = runs().filter_map(|run| run.withheld_cpus).reduce(f64::max);
        let withheld =
            withheld.map_or_else(String::new, |cpus| format!("; the host withheld at most {cpus:.2}"));
        let _ = writeln!(page, "\nOther programs kept at most {others:.2} CPUs busy meanwhile{withheld}.");
        for run in runs() {
            for fault in &run.faults {
                let fault = fault.lines().next().unwrap_or_default();
                let _ = writeln!(page, "- {}, round {}: {fault}", run.pool.title(), run.round + 1);
            }
        }
    }
}

/// The plots of a comparison, by file name.
fn plots(record: &Record) -> [(&'static str, Bars); 3] {
    let group = |load: &str, label: &str, figure| {
        let value = |pool| record.figure(load, pool, figure);
        (label.to_owned(), value(PoolKind::Adit), value(PoolKind::Sri))
    };
    [
        (
            "cpu",
            Bars {
                title: "CPU per share, us",
                groups: vec![
                    group("a", "A: a share per write", Figure::CpuUsPerShare),
                    group("b", "B: 32 per write", Figure::CpuUsPerShare),
                    group("c", "C: standard, 30 per write", Figure::CpuUsPerShare),
                ],
            },
        ),
        (
            "latency",
            Bars {
                title: "share to acknowledgement, p99, ms",
                groups: vec![
                    group("a", "A: saturated", Figure::AckP99Ms),
                    group("d", "D: 5,000 shares/s", Figure::AckP99Ms),
                    group("d20", "D: 20,000 shares/s", Figure::AckP99Ms),
                ],
            },
        ),
        (
            "tips",
            Bars {
                title: "new tip on 5,000 connections, ms",
                groups: vec![
                    group("e", "first connection", Figure::FirstMs),
                    group("e", "last connection", Figure::LastMs),
                    group("e", "CPU", Figure::CpuMsEach),
                ],
            },
        ),
    ]
}

/// The letter that a title begins with.
fn letter(load: &Load) -> &'static str {
    load.title.split('.').next().unwrap_or_default()
}

/// The scenario's file: some loads differ in nothing but what the template source does.
fn file(load: &Load) -> &'static str {
    load.name.split('-').next().unwrap_or_default()
}

fn limit(limit: Limit) -> String {
    match limit {
        Limit::Times(times) => format!("{times}x"),
        Limit::AtMost(most) => number(Some(most)),
    }
}

/// Three digits that count.
fn number(value: Option<f64>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    match value.abs() {
        at if at >= 10_000.0 => thousands(value),
        at if at >= 100.0 || value == value.trunc() => format!("{value:.0}"),
        at if at >= 10.0 => format!("{value:.1}"),
        at if at >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if value < 0.0 { format!("-{out}") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn numbers_have_the_digits_that_count() {
        for (value, text) in [
            (0.0, "0"),
            (0.1234, "0.123"),
            (1.235, "1.24"),
            (12.34, "12.3"),
            (123.4, "123"),
            (4_567.8, "4568"),
            (1_234_567.0, "1,234,567"),
            (-12_345.0, "-12,345"),
            (256.0, "256"),
        ] {
            assert_eq!(number(Some(value)), text);
        }
        assert_eq!(number(None), "-");
    }

    #[test]
    fn the_page_has_targets_machine_details_and_findings() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("findings.md"), "## What the profiles say\n\nNothing yet.\n")
            .unwrap();
        let mut record = record();
        record.runs[2].faults.push("ended: killed\nwith more lines".to_owned());
        record.finish(directory.path()).unwrap();
        let page = std::fs::read_to_string(directory.path().join("README.md")).unwrap();
        for expected in [
            "[peers-2026-11-24-1200.json](record/peers-2026-11-24-1200.json)",
            "commit 0123456789ab, `adit-perf peers`",
            "Machine: a CPU, 2 CPUs",
            "| A | CPU per share, us | 3 | 12 | 4 | 3.5x | 4.5x | met |\n",
            "| B | CPU per share, us | - | - | - | 12x | 16x | not measured |\n",
            "Not measured in this record: B (CPU per share, us); C",
            "### A. extended channels, 64 connections",
            "[`loads/a.toml`](loads/a.toml), by itself: `make peers ARGS=\"--loads a\"`\n",
            "| ack p99, ms | 6 | 24 | 4 |\n",
            "Other programs kept at most 0.25 CPUs busy meanwhile; the host withheld at most 0.12.",
            "- SRI pool_sv2, round 2: ended: killed\n",
            "![CPU per share, us](cpu.svg)",
            "## What the profiles say",
        ] {
            assert!(page.contains(expected), "{expected} is not in\n{page}");
        }
        assert!(!page.contains("with more lines") && !page.contains("Missed:"), "{page}");
        assert!(directory.path().join("cpu.svg").exists());
        assert!(!directory.path().join("tips.svg").exists(), "there is nothing to draw");
    }

    #[test]
    fn what_is_missed_stands_there_with_its_profile() {
        let directory = tempfile::tempdir().unwrap();
        let mut record = record();
        for run in record.runs.iter_mut().filter(|run| run.pool == PoolKind::Adit) {
            run.figures.entry(Figure::CpuUsPerShare).and_modify(|value| *value *= 2.0);
        }
        record.finish(directory.path()).unwrap();
        let missed = || {
            write(directory.path()).unwrap();
            let page = std::fs::read_to_string(directory.path().join("README.md")).unwrap();
            page.lines().find(|line| line.starts_with("Missed:")).unwrap_or_default().to_owned()
        };
        assert_eq!(missed(), "Missed: A (CPU per share, us).");
        std::fs::create_dir(directory.path().join("profile")).unwrap();
        std::fs::write(directory.path().join("profile/a.svg"), "").unwrap();
        assert_eq!(missed(), "Missed: A (CPU per share, us; [profile](profile/a.svg)).");
    }
}
