//! What is wrong with a configuration, so that a person can mend it at once.

use std::fmt;
use std::path::PathBuf;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, counted from 1; none for what is missing.
    pub line: Option<usize>,
    /// Section, key, what was found, what is allowed, what to do.
    pub message: String,
}

impl Problem {
    /// A mistake on a line.
    pub fn at(line: usize, message: impl Into<String>) -> Self {
        Self { line: Some(line), message: message.into() }
    }

    /// Something that is missing.
    pub fn missing(message: impl Into<String>) -> Self {
        Self { line: None, message: message.into() }
    }
}

/// Every mistake that was found in one file, in order of lines; what is missing comes last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: PathBuf,
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(crate) fn new(file: PathBuf, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        Self { file, problems }
    }

    /// The mistakes.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match problem.line {
                Some(line) => write!(f, "{file}:{line}: {}", problem.message)?,
                None => write!(f, "{file}: {}", problem.message)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
