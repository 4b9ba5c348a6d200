//! What a command measured, with everything that it depends on, as a file.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::figures::{Figure, median};
use crate::loads::Suite;
use crate::machine::Machine;
use crate::page;
use crate::run::{PoolKind, Run};
use crate::say;
use crate::stand::Stand;

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) suite: Suite,
    /// When it began, UTC, such as `2026-11-24 1200`.
    pub(crate) date: String,
    pub(crate) command: String,
    /// Of the checkout, with `-dirty` where it held more than its commit.
    pub(crate) commit: String,
    pub(crate) machine: Machine,
    pub(crate) pool_cpus: String,
    pub(crate) generator_cpus: String,
    pub(crate) runs: Vec<Run>,
    #[serde(skip)]
    smoke: bool,
}

impl Record {
    pub(crate) fn begin(suite: Suite, stand: &Stand) -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Self {
            suite,
            date: output("date", &["-u", "+%Y-%m-%d %H%M"]),
            command: format!("adit-perf {}", arguments.join(" ")),
            commit: output("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            machine: Machine::read(),
            pool_cpus: stand.pool_cpus.to_string(),
            generator_cpus: stand.generator_cpus.to_string(),
            runs: Vec::new(),
            smoke: stand.smoke,
        }
    }

    pub(crate) fn add(&mut self, run: Run) {
        self.runs.push(run);
    }

    /// Writes it below `directory`, and the page anew. A smoke run leaves nothing: it fails if a run had faults.
    pub(crate) fn finish(self, directory: &Path) -> Result<(), Failure> {
        if self.smoke {
            let faulty = self.runs.iter().find(|run| !run.faults.is_empty());
            return faulty.map_or(Ok(()), |run| {
                Err(Failure::Ended {
                    name: format!("load {}", run.load),
                    what: run.faults.join("; "),
                    log: String::new(),
                })
            });
        }
        let path = directory.join("record").join(format!(
            "{}-{}.json",
            self.suite.name(),
            self.date.replace(' ', "-")
        ));
        let mut text = serde_json::to_string_pretty(&self)
            .map_err(|error| Failure::Unreadable { path: path.clone(), error })?;
        text.push('\n');
        std::fs::create_dir_all(directory.join("record")).map_err(Failure::file(directory))?;
        std::fs::write(&path, text).map_err(Failure::file(&path))?;
        say(&format!("recorded in {}", path.display()));
        page::write(directory)
    }

    /// The newest record of a suite below `directory`; none if there is none.
    pub(crate) fn newest(directory: &Path, suite: Suite) -> Result<Option<(PathBuf, Self)>, Failure> {
        let records = directory.join("record");
        let Ok(files) = std::fs::read_dir(&records) else { return Ok(None) };
        let of_suite = format!("{}-", suite.name());
        let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        // The date is in the name.
        let newest = names.filter(|name| name.starts_with(&of_suite) && name.ends_with(".json")).max();
        let Some(name) = newest else { return Ok(None) };
        let path = records.join(name);
        let bytes = std::fs::read(&path).map_err(Failure::file(&path))?;
        let record = serde_json::from_slice(&bytes);
        record.map(|record| Some((path.clone(), record))).map_err(|error| Failure::Unreadable { path, error })
    }

    /// The runs of a pool under a load.
    pub(crate) fn runs_of(&self, load: &str, pool: PoolKind) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.load == load && run.pool == pool)
    }

    /// A figure of a pool under a load: the median of the rounds.
    pub(crate) fn figure(&self, load: &str, pool: PoolKind, figure: Figure) -> Option<f64> {
        median(self.runs_of(load, pool).filter_map(|run| run.figures.get(&figure).copied()).collect())
    }
}

/// The first line of what a program prints; empty where it fails.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A record of load A in which Adit takes a quarter of the peer's CPU.
    pub(crate) fn record() -> Record {
        let run = |pool, round, cpu| Run {
            load: "a".to_owned(),
            pool,
            round,
            figures: [(Figure::CpuUsPerShare, cpu), (Figure::AckP99Ms, 2.0 * cpu)].into(),
            faults: Vec::new(),
            others_cpus: 0.25,
            withheld_cpus: Some(0.125),
        };
        Record {
            suite: Suite::Peers,
            date: "2026-11-24 1200".to_owned(),
            command: "adit-perf peers".to_owned(),
            commit: "0123456789ab".to_owned(),
            machine: Machine { cpu: "a CPU".to_owned(), cpus: 2, ..Machine::default() },
            pool_cpus: "0".to_owned(),
            generator_cpus: "1".to_owned(),
            runs: vec![
                run(PoolKind::Adit, 0, 3.0),
                run(PoolKind::Sri, 0, 11.0),
                run(PoolKind::Sri, 1, 13.0),
                run(PoolKind::Adit, 1, 3.0),
            ],
            smoke: false,
        }
    }

    #[test]
    fn the_newest_record_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Record::newest(directory.path(), Suite::Peers).unwrap(), None);
        let earlier = Record { date: "2026-11-23 2359".to_owned(), ..record() };
        record().finish(directory.path()).unwrap();
        earlier.finish(directory.path()).unwrap();
        let (path, newest) = Record::newest(directory.path(), Suite::Peers).unwrap().unwrap();
        assert!(path.ends_with("record/peers-2026-11-24-1200.json"), "{}", path.display());
        assert_eq!(newest, record());
        assert_eq!(Record::newest(directory.path(), Suite::Scale).unwrap(), None);
        assert!(directory.path().join("README.md").exists());
    }

    #[test]
    fn a_figure_is_the_median_of_the_rounds() {
        assert_eq!(record().figure("a", PoolKind::Sri, Figure::CpuUsPerShare), Some(12.0));
        assert_eq!(record().figure("b", PoolKind::Sri, Figure::CpuUsPerShare), None);
    }

    #[test]
    fn a_smoke_run_leaves_nothing_and_fails_with_its_runs() {
        let directory = tempfile::tempdir().unwrap();
        let mut smoke = Record { smoke: true, ..record() };
        smoke.clone().finish(directory.path()).unwrap();
        smoke.runs[1].faults.push("the sum of shares is off".to_owned());
        let failure = smoke.finish(directory.path()).unwrap_err().to_string();
        assert!(failure.contains("load a") && failure.contains("the sum of shares is off"), "{failure}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
