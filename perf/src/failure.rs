//! What ends a measurement, in words for who started it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A program is not where it should be.
    Missing { path: PathBuf, remedy: &'static str },
    /// A file or directory cannot be used.
    File { path: PathBuf, error: std::io::Error },
    /// A program does not start or cannot be watched.
    Program { name: String, error: std::io::Error },
    /// A program ended, or did not come to what it should have.
    Ended { name: String, what: String, log: String },
    /// A program took longer than it may.
    Slow { name: String, waited: Duration, log: String },
    /// A report or a record is not what it should be.
    Unreadable { path: PathBuf, error: serde_json::Error },
    /// No such load.
    UnknownLoad { name: String, known: Vec<&'static str> },
    /// A profile or a plot could not be drawn.
    Drawing(String),
    /// The system does not give what a run needs.
    System { what: &'static str, error: std::io::Error },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path, remedy } => write!(f, "{} is missing: {remedy}", path.display()),
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Program { name, error } => write!(f, "{name} cannot be run: {error}"),
            Self::Ended { name, what, log } => write!(f, "{name} ended: {what}; the end of its log:\n{log}"),
            Self::Slow { name, waited, log } => {
                write!(f, "{name} is not ready after {} s; the end of its log:\n{log}", waited.as_secs())
            }
            Self::Unreadable { path, error } => {
                write!(f, "{} is not what it should be: {error}", path.display())
            }
            Self::UnknownLoad { name, known } => {
                write!(f, "there is no load \"{name}\" here; there are {}", known.join(", "))
            }
            Self::Drawing(error) => f.write_str(error),
            Self::System { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// For `map_err` on what a path was used for.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |error| Self::File { path, error }
    }
}
