//! What a template provider does wrong ([`ClientFault`]), and what a client will not send ([`Refusal`]).

use core::fmt;

use adit_codec::DecodeError;
use adit_codec::message::MessageKind;

use super::super::TemplateFault;

/// A template provider's breach of the protocol: there is nothing to do but to close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFault {
    /// A frame that does not decode, or is of another protocol.
    Malformed(DecodeError),
    /// A message that has no place in the connection's present state, or that only clients send.
    Unexpected(MessageKind),
    /// No answer in time to this message.
    Timeout(MessageKind),
    /// SetupConnection.Success with a version that was not offered.
    VersionNotOffered(u16),
    /// A template id that is not above the last one's.
    NotRising {
        /// The template.
        template_id: u64,
        /// The last one.
        last: u64,
    },
    /// A template that no block can be made of.
    Template {
        /// The template.
        template_id: u64,
        /// What about it.
        fault: TemplateFault,
    },
    /// A template that is not for a future tip, before the first tip.
    NoPrevHash {
        /// The template.
        template_id: u64,
    },
    /// SetNewPrevHash for a template that was not sent as a future template since the last one.
    UnknownFutureTemplate {
        /// The template.
        template_id: u64,
    },
    /// SetNewPrevHash with a target that nothing meets.
    ZeroTarget,
    /// An answer to nothing that was asked.
    UnknownRequest {
        /// The answer.
        message: MessageKind,
        /// What it claims to answer.
        template_id: u64,
    },
    /// Reconnect to a host that is no ASCII text.
    ReconnectHost,
}

impl From<DecodeError> for ClientFault {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl fmt::Display for ClientFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "{error}"),
            Self::Unexpected(message) => write!(f, "{message}: not expected from a template provider now"),
            Self::Timeout(message) => write!(f, "{message}: no answer in time"),
            Self::VersionNotOffered(version) => {
                write!(f, "SetupConnection.Success.used_version: {version} was not offered")
            }
            Self::NotRising { template_id, last } => {
                write!(f, "NewTemplate.template_id: {template_id}, after {last}: must rise")
            }
            Self::Template { template_id, fault } => write!(f, "template {template_id}: {fault}"),
            Self::NoPrevHash { template_id } => {
                write!(f, "template {template_id}: for the present tip, before any SetNewPrevHash")
            }
            Self::UnknownFutureTemplate { template_id } => {
                write!(f, "SetNewPrevHash.template_id: {template_id} is no future template")
            }
            Self::ZeroTarget => f.write_str("SetNewPrevHash.target: zero"),
            Self::UnknownRequest { message, template_id } => {
                write!(f, "{message}.template_id: {template_id} was not asked for, or is answered already")
            }
            Self::ReconnectHost => f.write_str("Reconnect.new_host: not ASCII"),
        }
    }
}

impl core::error::Error for ClientFault {}

/// Why a client does not do what its driver asks: nothing was sent, and nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The connection is not set up.
    NotReady,
    /// The provider sent no template of this id on this connection.
    UnknownTemplate,
    /// The same request waits for its answer.
    AlreadyRequested,
    /// [`ClientLimits::requests_max`](super::ClientLimits::requests_max) requests wait for an answer.
    TooManyRequests,
    /// A coinbase of more than 65,535 bytes.
    CoinbaseTooLong,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "the connection to the template provider is not set up",
            Self::UnknownTemplate => "the template provider sent no such template",
            Self::AlreadyRequested => "the template's transactions are requested already",
            Self::TooManyRequests => "too many requests for transactions wait for an answer",
            Self::CoinbaseTooLong => "the coinbase is longer than a message can carry",
        })
    }
}

impl core::error::Error for Refusal {}
