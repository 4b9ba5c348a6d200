//! What a client reports to its driver.

use alloc::string::String;
use alloc::vec::Vec;

use super::TransactionList;
use crate::template::TemplateUpdate;

/// What the driver must know. Frames are in the outbox beside.
#[derive(Clone, Debug)]
pub enum ClientEvent {
    /// SetupConnection was accepted, and the constraints were sent.
    SetUp {
        /// The version that is spoken.
        used_version: u16,
        /// The provider's flags; none are defined.
        flags: u32,
    },
    /// SetupConnection was refused. The provider closes the connection.
    SetupRefused {
        /// Flags that it does not support.
        flags: u32,
        /// Why.
        error_code: String,
    },
    /// A template or a tip, in the provider's order and with its ids.
    Template(TemplateUpdate),
    /// The transactions of a template.
    Transactions {
        /// Which.
        template_id: u64,
        /// To be passed on unread (specification 7.5).
        excess_data: Vec<u8>,
        /// All but the coinbase, in the order of the block.
        transactions: TransactionList,
    },
    /// There are no transactions for a request.
    TransactionsRefused {
        /// The template.
        template_id: u64,
        /// Why.
        error_code: String,
    },
    /// A request for transactions was not answered in time, or its connection ended.
    TransactionsTimedOut {
        /// The template.
        template_id: u64,
    },
    /// The provider asks to connect anew, with the same authority key, and perhaps elsewhere.
    Reconnect {
        /// Where to; `None`: the same host.
        host: Option<String>,
        /// Where to; `None`: the same port.
        port: Option<u16>,
    },
}

/// What a client has seen since it was made; monotone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounters {
    /// Templates.
    pub templates: u64,
    /// Tips.
    pub prev_hashes: u64,
    /// Solutions sent.
    pub solutions: u64,
    /// Frames ignored: of unknown extensions, or answers that came too late.
    pub frames_ignored: u64,
}

/// An error code as text without control characters, of at most 255 characters.
pub(super) fn printable(code: &[u8]) -> String {
    String::from_utf8_lossy(code)
        .chars()
        .map(|character| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character })
        .collect()
}
