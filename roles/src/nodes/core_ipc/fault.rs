//! What can go wrong between this program and a node.

use std::fmt;
use std::io;
use std::time::Duration;

use bitcoin_capnp_types::capnp::{self, ErrorKind};

/// Why a call gave no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The socket takes no connection.
    Connect(io::Error),
    /// No answer in time.
    Silent {
        /// The method.
        call: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The connection is over; the library's words.
    Gone(String),
    /// The node's interface is older than ours.
    Missing {
        /// The method that the node does not have.
        call: &'static str,
    },
    /// The node does not want to; its words.
    Refused {
        /// The method.
        call: &'static str,
        /// The node's words.
        reason: String,
    },
    /// An answer that is none.
    Malformed {
        /// The method.
        call: &'static str,
        /// What is wrong with the answer.
        what: &'static str,
    },
    /// The node is shutting down.
    Stopping,
    /// The node follows another chain than it should.
    Chain {
        /// What was expected.
        expected: &'static str,
    },
}

impl Fault {
    /// What the library says about a call.
    pub(super) fn of(call: &'static str, error: capnp::Error) -> Self {
        match error.kind {
            ErrorKind::Unimplemented => Self::Missing { call },
            ErrorKind::Disconnected => Self::Gone(error.extra),
            ErrorKind::Failed | ErrorKind::Overloaded => Self::Refused { call, reason: error.extra },
            _ => Self::Gone(format!("{call}: {error}")),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => {
                let remedy = match error.kind() {
                    io::ErrorKind::NotFound => {
                        "start Bitcoin Core 31 or newer as `bitcoin-node -ipcbind=unix`, or set `socket` to where its \
                         node.sock is"
                    }
                    io::ErrorKind::ConnectionRefused => {
                        "the socket is left from a node that has ended: start it again as `bitcoin-node -ipcbind=unix`"
                    }
                    io::ErrorKind::PermissionDenied => {
                        "run this program as the node's user, or give it the right to write to the socket and to enter \
                         its directory"
                    }
                    io::ErrorKind::InvalidInput => {
                        "a socket's path has at most 107 bytes: name another by `-ipcbind=unix:PATH` and `socket`"
                    }
                    _ => "see that bitcoin-node runs with `-ipcbind=unix` and answers",
                };
                write!(f, "{error}; {remedy}")
            }
            Self::Silent { call, after } => write!(
                f,
                "no answer to {call} for {after:?}; if the node still loads its chain or flushes it to disk, this passes; \
                 else see whether it hangs"
            ),
            Self::Gone(reason) => write!(
                f,
                "the connection was lost ({reason}); see whether bitcoin-node runs, it is connected again as soon as it does"
            ),
            Self::Missing { call } => write!(
                f,
                "the node has no {call}: its mining interface is older than Bitcoin Core 31; use a newer node, or the \
                 template source `core-rpc`"
            ),
            Self::Refused { call, reason } => write!(f, "the node refuses {call}: {reason}"),
            Self::Malformed { call, what } => {
                write!(
                    f,
                    "the node's answer to {call} has {what}; is its Bitcoin Core newer than this program knows?"
                )
            }
            Self::Stopping => f.write_str("the node is shutting down; start it again"),
            Self::Chain { expected } => {
                write!(
                    f,
                    "the node follows another chain than {expected}; set `chain` and `socket` to the same one"
                )
            }
        }
    }
}
