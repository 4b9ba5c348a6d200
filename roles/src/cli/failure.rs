//! Why a command did not succeed.

use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::keys::files::FileError;

/// A command's failure: what was wrong, where, and what to do.
#[derive(Debug)]
pub struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    /// It failed while running: status 1.
    pub fn running(message: impl fmt::Display) -> Self {
        Self { message: format!("adit: {message}"), status: 1 }
    }

    /// The command line or a file that it names is wrong: status 2.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { message: format!("adit: {message}"), status: 2 }
    }

    /// The process's exit status.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.status)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let count = error.problems().len();
        let mistakes = if count == 1 { "1 mistake".to_owned() } else { format!("{count} mistakes") };
        Self {
            message: format!(
                "{error}\nadit: {mistakes} in the configuration, nothing was started; \
                 `adit config reference` explains every key"
            ),
            status: 2,
        }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::usage(error)
    }
}
