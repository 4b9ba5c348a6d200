//! The committed figures: `bench/record/instructions.toml`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};

/// What stands above the figures.
const PREAMBLE: &str = "\
# Instructions of each case, counted by callgrind. `make instructions` holds a build against them, and
# `make instructions RENEW=1` writes this file anew: do so with a change that is meant to change them, and say in its
# commit what became better or worse, and why.
";

/// What decides the figures beside the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// The compiler, as `rustc --version` has it.
    pub rustc: String,
    /// The emulator, as `valgrind --version` has it.
    pub valgrind: String,
    /// The C library, whose memcpy and malloc are counted too.
    pub libc: String,
    /// The CPU as far as valgrind hands it on.
    pub cpu: String,
}

impl Environment {
    /// What differs from another, each with both values.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let pairs = [
            (&self.rustc, &other.rustc),
            (&self.valgrind, &other.valgrind),
            (&self.libc, &other.libc),
            (&self.cpu, &other.cpu),
        ];
        let differing = pairs.into_iter().filter(|(ours, theirs)| ours != theirs);
        differing.map(|(ours, theirs)| format!("{ours}, recorded with {theirs}")).collect()
    }
}

/// Figures and where they come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Where they were counted.
    pub environment: Environment,
    /// Instructions by the case's name.
    pub instructions: BTreeMap<String, u64>,
}

/// A record that cannot be read or written.
#[derive(Debug)]
pub enum RecordError {
    /// The file.
    Io(io::Error),
    /// What is in it.
    Syntax(toml::de::Error),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Syntax(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RecordError {}

impl Record {
    /// The record in a file.
    ///
    /// # Errors
    /// It cannot be read, or is no record.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let text = fs::read_to_string(path).map_err(RecordError::Io)?;
        toml::from_str(&text).map_err(RecordError::Syntax)
    }

    /// The file's text.
    ///
    /// # Panics
    /// Never: names and figures are always TOML.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{PREAMBLE}\n{}", toml::to_string(self).expect("strings and integers"))
    }

    /// Writes the record to a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(RecordError::Io)?;
        }
        fs::write(path, self.to_text()).map_err(RecordError::Io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            environment: Environment {
                rustc: "rustc 1.95.0".into(),
                valgrind: "valgrind-3.19.0".into(),
                libc: "glibc 2.36".into(),
                cpu: "x86_64 with AVX2".into(),
            },
            instructions: [("open, avx2".to_owned(), 64_000), ("seal".to_owned(), 1)].into(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record").join("instructions.toml");
        record().write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record());
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let text = record().to_text().replace("libc", "clib");
        assert!(toml::from_str::<Record>(&text).is_err());
    }

    #[test]
    fn differences_name_both_sides() {
        let (ours, mut theirs) = (record().environment, record().environment);
        assert!(ours.differences(&theirs).is_empty());
        theirs.rustc = "rustc 1.94.0".into();
        assert_eq!(ours.differences(&theirs), ["rustc 1.95.0, recorded with rustc 1.94.0"]);
    }
}
