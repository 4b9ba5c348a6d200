//! Counted figures against recorded ones.
//!
//! The rule: a case that takes more than [`TOLERANCE`] more instructions than recorded fails, and so does a recorded case
//! that was not counted. One that became better by as much passes, with the advice to renew the record, or the gain could be lost
//! again unseen. Where compiler, valgrind, C library or CPU are others than recorded, no figure fails: the differences may be
//! theirs, and the report says so.

use std::collections::BTreeMap;
use std::fmt;

use super::record::Record;

/// By how much a case may differ from its record. The counts repeat within half a percent, whatever the load and the target
/// directory.
pub const TOLERANCE: f64 = 0.03;

/// How a record is renewed.
const RENEWAL: &str = "make instructions RENEW=1";

/// What a case has given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// So many instructions.
    Instructions(u64),
    /// The CPU, as valgrind shows it, cannot run it.
    Unsupported,
}

/// What became of one case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Finding {
    /// Within the tolerance; by how much, as a fraction of the recorded figure.
    Kept(f64),
    /// More instructions than the tolerance allows.
    Worse(f64),
    /// Fewer instructions, by more than the tolerance.
    Better(f64),
    /// It was recorded, and is no case any more.
    Missing,
    /// It is a case, and was not recorded.
    Unknown,
    /// This CPU cannot run it.
    Unsupported,
}

impl Finding {
    fn of(recorded: Option<u64>, counted: Option<Count>) -> Self {
        match (recorded, counted) {
            (_, Some(Count::Unsupported)) => Self::Unsupported,
            (Some(recorded), Some(Count::Instructions(counted))) => {
                let change = (counted as f64 - recorded as f64) / recorded.max(1) as f64;
                if change > TOLERANCE {
                    Self::Worse(change)
                } else if change < -TOLERANCE {
                    Self::Better(change)
                } else {
                    Self::Kept(change)
                }
            }
            (_, None) => Self::Missing,
            (None, Some(_)) => Self::Unknown,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept(change) => write!(f, "{:+.2} %", 100.0 * change),
            Self::Worse(change) => write!(f, "{:+.2} %  WORSE", 100.0 * change),
            Self::Better(change) => write!(f, "{:+.2} %  better", 100.0 * change),
            Self::Missing => f.write_str("recorded, but not counted"),
            Self::Unknown => f.write_str("not recorded"),
            Self::Unsupported => f.write_str("this CPU cannot run it"),
        }
    }
}

/// All cases of a record and of a run, side by side.
#[derive(Debug)]
pub struct Comparison {
    findings: Vec<(String, Option<Count>, Finding)>,
    /// What is other than at the time of the record.
    differences: Vec<String>,
}

impl Comparison {
    /// Holds counted cases against a record. `environment` of `counted` is where they were counted.
    #[must_use]
    pub fn new(record: &Record, counted: &BTreeMap<String, Count>, differences: Vec<String>) -> Self {
        let mut names: Vec<&String> = record.instructions.keys().chain(counted.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let finding = |name: &String| {
            let count = counted.get(name).copied();
            let finding = Finding::of(record.instructions.get(name).copied(), count);
            (name.clone(), count, finding)
        };
        Self { findings: names.into_iter().map(finding).collect(), differences }
    }

    /// Whether the build may go on.
    #[must_use]
    pub fn passes(&self) -> bool {
        !self.findings.iter().any(|(_, _, finding)| match finding {
            Finding::Worse(_) => self.differences.is_empty(),
            Finding::Missing => true,
            Finding::Kept(_) | Finding::Better(_) | Finding::Unknown | Finding::Unsupported => false,
        })
    }

    fn count(&self, is_counted: impl Fn(&Finding) -> bool) -> usize {
        self.findings.iter().filter(|(_, _, finding)| is_counted(finding)).count()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|(name, _, _)| name.len()).max().unwrap_or(0);
        for (name, count, finding) in &self.findings {
            let count = match count {
                Some(Count::Instructions(count)) => count.to_string(),
                Some(Count::Unsupported) | None => "-".to_owned(),
            };
            writeln!(f, "{name:width$}  {count:>10}  {finding}")?;
        }
        writeln!(f)?;
        let worse = self.count(|finding| matches!(finding, Finding::Worse(_)));
        let better = self.count(|finding| matches!(finding, Finding::Better(_)));
        let missing = self.count(|finding| *finding == Finding::Missing);
        let unknown = self.count(|finding| *finding == Finding::Unknown);
        let percent = 100.0 * TOLERANCE;
        if !self.differences.is_empty() {
            writeln!(f, "not counted as the record was, so no figure fails:")?;
            for difference in &self.differences {
                writeln!(f, "  {difference}")?;
            }
            writeln!(f, "If this is what is used from now on: {RENEWAL}")?;
        }
        if worse > 0 {
            writeln!(f, "{worse} worse by more than {percent} %. If it is meant to be so: {RENEWAL}")?;
        }
        if missing > 0 {
            writeln!(f, "{missing} recorded, but not counted. If a case was taken out: {RENEWAL}")?;
        }
        if better > 0 {
            writeln!(f, "{better} better by more than {percent} %. To hold the gain: {RENEWAL}")?;
        }
        if unknown > 0 {
            writeln!(f, "{unknown} not recorded, and so not compared. To record: {RENEWAL}")?;
        }
        let verdict = if self.passes() { "pass" } else { "fail" };
        write!(f, "instructions: {} cases, tolerance {percent} %: {verdict}", self.findings.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Environment;
    use super::*;

    fn compare(recorded: &[(&str, u64)], counted: &[(&str, u64)], differences: &[&str]) -> Comparison {
        let environment = Environment {
            rustc: String::new(),
            valgrind: String::new(),
            libc: String::new(),
            cpu: String::new(),
        };
        let instructions = recorded.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let counted = counted.iter().map(|(name, count)| ((*name).to_owned(), Count::Instructions(*count)));
        let differences = differences.iter().map(|difference| (*difference).to_owned()).collect();
        Comparison::new(&Record { environment, instructions }, &counted.collect(), differences)
    }

    #[test]
    fn figures_within_the_tolerance_pass() {
        for counted in [970, 1_000, 1_030] {
            let comparison = compare(&[("open", 1_000)], &[("open", counted)], &[]);
            assert!(comparison.passes());
            assert!(matches!(comparison.findings[0].2, Finding::Kept(_)), "{comparison}");
        }
    }

    #[test]
    fn a_worse_figure_fails_and_says_how_much_and_how_to_renew() {
        let comparison = compare(&[("open", 1_000), ("seal", 10)], &[("open", 1_031), ("seal", 10)], &[]);
        assert!(!comparison.passes());
        let text = comparison.to_string();
        assert!(text.contains("open        1031  +3.10 %  WORSE"), "{text}");
        assert!(text.contains("1 worse by more than 3 %"), "{text}");
        assert!(text.contains(RENEWAL) && text.ends_with("fail"), "{text}");
    }

    #[test]
    fn a_better_figure_passes_and_asks_to_be_recorded() {
        let comparison = compare(&[("open", 1_000)], &[("open", 900)], &[]);
        assert!(comparison.passes());
        let text = comparison.to_string();
        assert!(text.contains("-10.00 %  better") && text.contains(RENEWAL), "{text}");
    }

    #[test]
    fn a_missing_case_fails_wherever_it_was_recorded() {
        for differences in [&[][..], &["rustc 2, recorded with rustc 1"]] {
            let comparison = compare(&[("open", 1_000), ("seal", 10)], &[("open", 1_000)], differences);
            assert!(!comparison.passes());
            assert!(comparison.to_string().contains("recorded, but not counted"));
        }
    }

    #[test]
    fn an_unknown_case_is_told_and_passes() {
        let comparison = compare(&[], &[("open", 1_000)], &[]);
        assert!(comparison.passes());
        let text = comparison.to_string();
        assert!(text.contains("1 not recorded") && text.contains(RENEWAL), "{text}");
    }

    #[test]
    fn with_another_compiler_a_worse_figure_is_told_and_passes() {
        let differences = ["rustc 2, recorded with rustc 1"];
        let comparison = compare(&[("open", 1_000)], &[("open", 2_000)], &differences);
        assert!(comparison.passes());
        let text = comparison.to_string();
        assert!(text.contains("WORSE") && text.contains(differences[0]), "{text}");
        assert!(text.contains("no figure fails"), "{text}");
    }

    #[test]
    fn a_case_that_the_cpu_cannot_run_is_not_missing() {
        let environment = compare(&[], &[], &[]);
        assert!(environment.passes());
        assert_eq!(Finding::of(Some(1), Some(Count::Unsupported)), Finding::Unsupported);
        assert_eq!(Finding::of(None, Some(Count::Unsupported)), Finding::Unsupported);
    }
}
