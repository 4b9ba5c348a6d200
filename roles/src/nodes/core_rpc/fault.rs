//! What can go wrong between this source and its node, and what to do about it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Bitcoin Core's codes (src/rpc/protocol.h) that have a remedy, or that decide something here.
pub(super) mod code {
    pub(crate) const METHOD_NOT_FOUND: i32 = -32_601;
    pub(crate) const NOT_CONNECTED: i32 = -9;
    pub(crate) const IN_INITIAL_DOWNLOAD: i32 = -10;
    pub(crate) const IN_WARMUP: i32 = -28;
    pub(crate) const DESERIALIZATION: i32 = -22;
}

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum RpcFault {
    /// No connection.
    Unreachable { address: String, error: String },
    /// The connection ended before the answer did.
    Lost { address: String, error: String },
    /// No answer in time.
    Silent { method: &'static str, patience: Duration },
    /// The cookie cannot be read.
    Cookie { path: PathBuf, error: String },
    /// The node does not know this password.
    Unauthorized { address: String, cookie: Option<PathBuf> },
    /// The node does not let this address in, or not this user to the method.
    Forbidden { address: String, method: &'static str },
    /// As many calls wait as the node is set up for.
    Busy,
    /// Another status without JSON.
    Http { method: &'static str, status: u16 },
    /// More bytes than an answer can have.
    TooLong { method: &'static str, len_max: usize },
    /// No JSON, or not what the method answers.
    Malformed { method: &'static str, error: String },
    /// The node's own error.
    Node { method: &'static str, code: i32, message: String },
    /// The node is on another chain.
    WrongChain { address: String, expected: String, found: String },
    /// Blocks of this chain must be signed.
    SignedBlocks,
}

impl RpcFault {
    /// Whether it is the connection's fault and not the answer's.
    pub(super) fn is_transport(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Lost { .. }
                | Self::Silent { .. }
                | Self::Busy
                | Self::Http { .. }
        )
    }
}

impl fmt::Display for RpcFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { address, error } => write!(
                f,
                "no connection to the node's JSON-RPC at {address}: {error}; is Bitcoin Core running, with server=1?"
            ),
            Self::Lost { address, error } => write!(f, "the connection to the node at {address} was lost: {error}"),
            Self::Silent { method, patience } => {
                write!(f, "the node did not answer {method} within {} s", patience.as_secs())
            }
            Self::Cookie { path, error } => write!(
                f,
                "the node's cookie {} cannot be read: {error}; Bitcoin Core writes it when it starts: set cookie_file or \
                 data_dir to where it is and run the pool as a user who may read it, or set rpc_user and rpc_password",
                path.display()
            ),
            Self::Unauthorized { address, cookie: Some(path) } => write!(
                f,
                "the node at {address} refuses the password in {}: it is another node's cookie, or that of an earlier run; set \
                 cookie_file to this node's",
                path.display()
            ),
            Self::Unauthorized { address, cookie: None } => write!(
                f,
                "the node at {address} refuses this user and password: set rpc_user and rpc_password to what its rpcauth line \
                 in bitcoin.conf was made for"
            ),
            Self::Forbidden { address, method } => write!(
                f,
                "the node at {address} forbids {method}: let this machine in with rpcallowip and the user with rpcwhitelist, \
                 in bitcoin.conf"
            ),
            Self::Busy => f.write_str(
                "the node has too many calls to answer: raise rpcworkqueue and rpcthreads in bitcoin.conf, or spare it",
            ),
            Self::Http { method, status } => {
                write!(f, "the node answered {method} with HTTP status {status}: is the address that of its JSON-RPC?")
            }
            Self::TooLong { method, len_max } => {
                write!(f, "the node's answer to {method} is longer than {len_max} bytes: is the address right?")
            }
            Self::Malformed { method, error } => {
                write!(f, "the node's answer to {method} is not what Bitcoin Core gives: {error}")
            }
            Self::Node { code: code::IN_INITIAL_DOWNLOAD, .. } => {
                f.write_str("the node is still downloading the chain; work begins when it is done")
            }
            Self::Node { code: code::NOT_CONNECTED, .. } => f.write_str(
                "the node has no connection to other nodes, so it does not know the newest block: check its network",
            ),
            Self::Node { code: code::IN_WARMUP, message, .. } => write!(f, "the node is starting: {message}"),
            Self::Node { method, code: code::METHOD_NOT_FOUND, .. } => {
                write!(f, "the node does not know {method}: Bitcoin Core 0.21 or newer is needed")
            }
            Self::Node { method, code, message } => {
                write!(f, "the node answered {method} with error {code}: {message}")
            }
            Self::WrongChain { address, expected, found } => write!(
                f,
                "the node at {address} is on the chain {found}, but the pool mines {expected}: set chain or address right"
            ),
            Self::SignedBlocks => f.write_str(
                "blocks of this signet must be signed by who runs it, so a pool cannot mine here; a private signet with the \
                 challenge 51 (OP_TRUE) works",
            ),
        }
    }
}

impl std::error::Error for RpcFault {}
