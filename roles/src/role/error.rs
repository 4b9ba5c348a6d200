//! Why a role does not start.

use std::fmt;

use crate::certificates::IdentityError;
use crate::journal::JournalError;
use crate::nodes;

/// Why a role does not start; each part says what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum RoleError {
    /// The engine.
    Engine(adit_engine::StartError),
    /// A template source.
    Node(nodes::StartError),
    /// The journal.
    Journal(JournalError),
    /// The certificate.
    Identity(IdentityError),
    /// The system gives no thread.
    Thread(std::io::Error),
}

impl fmt::Display for RoleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Node(error) => error.fmt(f),
            Self::Journal(error) => error.fmt(f),
            Self::Identity(error) => error.fmt(f),
            Self::Thread(error) => {
                write!(
                    f,
                    "the system gives no thread: {error}; raise the limit with `ulimit -u` or TasksMax="
                )
            }
        }
    }
}

impl std::error::Error for RoleError {}
