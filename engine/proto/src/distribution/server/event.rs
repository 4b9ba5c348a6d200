//! What a server reports to its driver.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use adit_codec::DecodeError;
use adit_codec::message::MessageKind;

use super::super::{Constraints, Reserve, TemplateFault};
pub use crate::mining::server::ConnectionId;

/// A constraint class: clients whose templates leave the same room. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u64);

/// How a template stands to the present tip of its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It waits for a tip.
    Future,
    /// It builds on the tip.
    Current,
    /// A newer tip came, or nobody is left in its class.
    Stale,
}

/// The template that a message names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownTemplate {
    /// Its id as the driver gave it.
    pub template_id: u64,
    /// Its class.
    pub class: ClassId,
    /// Whether it is still worth something.
    pub standing: Standing,
}

/// A SubmitSolution (specification 7.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubmittedSolution {
    /// Who found it.
    pub connection: ConnectionId,
    /// The template, or `None` if it is not kept. What the client found is reported nevertheless: the driver may know how
    /// to save a block.
    pub template: Option<KnownTemplate>,
    /// The template's id as the client names it.
    pub wire_template_id: u64,
    /// Of the header.
    pub version: u32,
    /// Of the header.
    pub header_timestamp: u32,
    /// Of the header.
    pub header_nonce: u32,
    /// The whole coinbase, with its witness.
    pub coinbase_tx: Vec<u8>,
}

/// Why a server ends a connection. One line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// A frame that does not decode.
    Malformed(DecodeError),
    /// A known message that has no place in this state or direction.
    Unexpected(MessageKind),
    /// SetupConnection was answered with an Error.
    SetupRefused(&'static str),
    /// No SetupConnection in time.
    SetupTimeout,
    /// No CoinbaseOutputConstraints in time.
    ConstraintsTimeout,
    /// More room asked for than [`Limits::max_additional_size_max`](super::Limits::max_additional_size_max) or
    /// [`Limits::max_additional_sigops_max`](super::Limits::max_additional_sigops_max).
    ConstraintsTooLarge(Constraints),
    /// Its templates have been shown under as many ids as may be: it may connect anew, and is shown the first ones.
    TooManyIds,
    /// The node cannot leave the room that was asked for.
    ReserveRefused(Reserve),
    /// Too many errors, or constraints changed too often.
    TooManyErrors,
    /// The operator asked for it.
    Operator,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "{error}"),
            Self::Unexpected(message) => write!(f, "{message}: not expected from a client now"),
            Self::SetupRefused(code) => write!(f, "SetupConnection refused: {code}"),
            Self::SetupTimeout => f.write_str("no SetupConnection in time"),
            Self::ConstraintsTimeout => f.write_str("no CoinbaseOutputConstraints in time"),
            Self::ConstraintsTooLarge(constraints) => write!(
                f,
                "CoinbaseOutputConstraints: {} bytes and {} sigops, more than this server grants",
                constraints.max_additional_size, constraints.max_additional_sigops
            ),
            Self::TooManyIds => f.write_str("constraints changed by too many clients: connect anew"),
            Self::ReserveRefused(reserve) => write!(
                f,
                "CoinbaseOutputConstraints: the node cannot leave {} weight units and {} sigops free",
                reserve.reserved_weight, reserve.max_additional_sigops
            ),
            Self::TooManyErrors => f.write_str("too many errors"),
            Self::Operator => f.write_str("closed by the operator"),
        }
    }
}

/// What the driver must know. Frames are in the outbox beside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A block, perhaps: to be built and broadcast before anything else is done.
    Solution(Box<SubmittedSolution>),
    /// SetupConnection was accepted.
    SetUp {
        /// Which connection.
        connection: ConnectionId,
        /// `vendor`, as received.
        vendor: Vec<u8>,
        /// `firmware`, as received.
        firmware: Vec<u8>,
    },
    /// CoinbaseOutputConstraints were accepted: the connection gets the templates of a class.
    Joined {
        /// Which connection.
        connection: ConnectionId,
        /// Its class.
        class: ClassId,
        /// What it asked for.
        constraints: Constraints,
    },
    /// Templates of this reserve are wanted from now on, beginning at once with a future template and a tip.
    ClassWanted {
        /// By whom.
        class: ClassId,
        /// What the templates leave free.
        reserve: Reserve,
    },
    /// No templates are wanted for this class any more, since nobody has been in it for a while; its id does not come back.
    ClassUnwanted {
        /// Which.
        class: ClassId,
    },
    /// Nobody can ask for this template any more, and a solution of it would be too late: the node's is to be destroyed.
    TemplateReleased {
        /// Its id as the driver gave it.
        template_id: u64,
    },
    /// A client wants a template's transactions: to be answered by [`Server::answer_transactions`] or
    /// [`Server::refuse_transactions`].
    ///
    /// [`Server::answer_transactions`]: super::Server::answer_transactions
    /// [`Server::refuse_transactions`]: super::Server::refuse_transactions
    TransactionsRequested {
        /// Which connection.
        connection: ConnectionId,
        /// The template's id as the driver gave it.
        template_id: u64,
    },
    /// The connection is over for the server: send what waits, then close.
    Close {
        /// Which connection.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
}

/// What is wrong with what the driver gave: nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// No such class, or not any more: the class ended while its template was on the way.
    UnknownClass(ClassId),
    /// The template's id is not above that of the last template of any class.
    NotRising(u64),
    /// The template itself.
    Invalid(u64, TemplateFault),
    /// A template that is not for a future tip, before the class's first tip.
    NoTip(u64),
    /// The tip names no future template of the class.
    UnknownFuture(u64),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownClass(class) => write!(f, "constraint class {}: not wanted", class.0),
            Self::NotRising(id) => write!(f, "template {id}: not above the last one's id"),
            Self::Invalid(id, fault) => write!(f, "template {id}: {fault}"),
            Self::NoTip(id) => write!(f, "template {id}: no tip that it could build on"),
            Self::UnknownFuture(id) => write!(f, "tip: template {id} is no future template"),
        }
    }
}

impl core::error::Error for TemplateError {}

/// Why a driver's command did not take place: nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// No such connection, or not set up.
    UnknownConnection,
    /// The connection does not wait for an answer about this template: it was answered, or its time was up.
    UnknownRequest,
    /// More than a frame can carry.
    TooLong,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownConnection => "no such connection, or not set up",
            Self::UnknownRequest => "the connection does not wait for this template's transactions",
            Self::TooLong => "more than a frame can carry",
        })
    }
}

impl core::error::Error for CommandError {}

/// Why a client gets no transactions (specification 7.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionsError {
    /// No such template.
    TemplateIdNotFound,
    /// The template builds on an old tip.
    StaleTemplateId,
    /// As many requests wait as may.
    TooManyRequests,
    /// The node did not answer in time, or the answer is more than a frame can carry.
    Unavailable,
}

impl TransactionsError {
    /// Every one, in order of its discriminant.
    pub const ALL: [Self; 4] =
        [Self::TemplateIdNotFound, Self::StaleTemplateId, Self::TooManyRequests, Self::Unavailable];

    /// The `error_code`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::TemplateIdNotFound => "template-id-not-found",
            Self::StaleTemplateId => "stale-template-id",
            Self::TooManyRequests => "too-many-requests",
            Self::Unavailable => "transaction-data-unavailable",
        }
    }
}

/// What a server has done since it was made; monotone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames of NewTemplate sent.
    pub templates_sent: u64,
    /// Frames of SetNewPrevHash sent.
    pub prev_hashes_sent: u64,
    /// Templates and tips that were encoded: what classes save.
    pub frames_encoded: u64,
    /// SubmitSolution messages.
    pub solutions: u64,
    /// Of these, for templates that are not kept.
    pub solutions_unknown: u64,
    /// Requests for transactions.
    pub requests: u64,
    /// Frames of unknown extensions, dropped unread (specification 3.4.1).
    pub frames_discarded: u64,
}
