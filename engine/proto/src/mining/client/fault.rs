//! What an upstream does wrong ([`ClientFault`]), and what a client will not send ([`Refusal`]).

use core::fmt;

use adit_codec::DecodeError;
use adit_codec::message::MessageKind;
use adit_hasher::CoinbaseJobError;

use crate::mining::server::{ChannelId, JobId};

/// An upstream's breach of the protocol: there is nothing to do but to close the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFault {
    /// A frame that does not decode.
    Malformed(DecodeError),
    /// A message that has no place in the connection's present state, or that only clients send.
    Unexpected(MessageKind),
    /// No answer in time to this message.
    Timeout(MessageKind),
    /// SetupConnection.Success with a version that was not offered.
    VersionNotOffered(u16),
    /// SetupConnection.Success forbids the version rolling that was required.
    VersionRollingRefused,
    /// An answer to nothing that was asked.
    UnknownRequest {
        /// The answer.
        message: MessageKind,
        /// What it claims to answer.
        request_id: u32,
    },
    /// A message to a channel or group that never was.
    UnknownChannel {
        /// The message.
        message: MessageKind,
        /// The id.
        channel: ChannelId,
    },
    /// A message that channels of this kind, or groups, cannot get.
    WrongChannelKind {
        /// The message.
        message: MessageKind,
        /// The id.
        channel: ChannelId,
    },
    /// A message that a client of standard jobs cannot get.
    StandardJobsRequired(MessageKind),
    /// A new channel's id, or a group's, names something else already.
    IdInUse {
        /// The message.
        message: MessageKind,
        /// The id.
        channel: ChannelId,
    },
    /// A full extranonce of more than 32 bytes.
    ExtranonceTooLong {
        /// Whose.
        channel: ChannelId,
        /// Bytes of prefix and rest.
        len: usize,
    },
    /// Less extranonce than was asked for.
    ExtranonceTooShort {
        /// Whose.
        channel: ChannelId,
        /// Bytes granted.
        granted: usize,
        /// Bytes asked for at least.
        requested: usize,
    },
    /// A channel whose full extranonce has not the size of its group's.
    GroupExtranonceLen {
        /// The group.
        group: ChannelId,
        /// The channel.
        channel: ChannelId,
        /// Bytes of the channel's.
        len: usize,
        /// Bytes of the group's.
        group_len: usize,
    },
    /// A target that nothing can meet.
    ZeroTarget {
        /// Whose.
        channel: ChannelId,
    },
    /// A target above what the client can accept.
    TargetAboveMaximum {
        /// Whose.
        channel: ChannelId,
    },
    /// An active job before the first SetNewPrevHash.
    NoPrevHash {
        /// Whose.
        channel: ChannelId,
        /// The job.
        job: JobId,
    },
    /// The id of a job that is still valid.
    JobIdInUse {
        /// Whose.
        channel: ChannelId,
        /// The job.
        job: JobId,
    },
    /// SetNewPrevHash for a job that was not sent as a future job.
    UnknownFutureJob {
        /// Whose.
        channel: ChannelId,
        /// The job.
        job: JobId,
    },
    /// A job that forbids the version rolling that was required, or allows it although the upstream forbade it.
    VersionRolling {
        /// The job.
        job: JobId,
        /// What the job says.
        allowed: bool,
    },
    /// A coinbase or merkle path out of bounds.
    Job {
        /// The job.
        job: JobId,
        /// What about it.
        error: CoinbaseJobError,
    },
    /// More bytes of jobs than the client keeps.
    JobBytes {
        /// Bytes, with the new job.
        bytes: usize,
        /// [`ClientLimits::job_bytes_max`](super::ClientLimits::job_bytes_max).
        bytes_max: usize,
    },
    /// An answer for a share that was not submitted, or was answered already.
    UnknownShare {
        /// Whose.
        channel: ChannelId,
        /// Which.
        sequence_number: u32,
    },
    /// More shares accepted than are waiting.
    TooManyAccepted {
        /// Whose.
        channel: ChannelId,
        /// How many are said to be accepted.
        count: u32,
        /// How many wait.
        outstanding: usize,
    },
    /// Reconnect to a host that is no ASCII text.
    ReconnectHost,
    /// A channel message without a channel id.
    NoChannelId {
        /// The message's extension.
        extension_type: u16,
        /// Its number.
        msg_type: u8,
    },
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
            Self::Unexpected(message) => write!(f, "{message}: not expected from a server now"),
            Self::Timeout(message) => write!(f, "{message}: no answer in time"),
            Self::VersionNotOffered(version) => {
                write!(f, "SetupConnection.Success.used_version: {version} was not offered")
            }
            Self::VersionRollingRefused => f.write_str(
                "SetupConnection.Success.flags: demands a fixed version, although rolling was required",
            ),
            Self::UnknownRequest { message, request_id } => {
                write!(f, "{message}.request_id: {request_id} was not asked, or is answered already")
            }
            Self::UnknownChannel { message, channel } => {
                write!(f, "{message}.channel_id: {} is no channel or group", channel.0)
            }
            Self::WrongChannelKind { message, channel } => {
                write!(f, "{message}.channel_id: {} is of a kind that cannot get this message", channel.0)
            }
            Self::StandardJobsRequired(message) => {
                write!(f, "{message}: sent to a client that requires standard jobs")
            }
            Self::IdInUse { message, channel } => write!(f, "{message}: id {} is in use", channel.0),
            Self::ExtranonceTooLong { channel, len } => {
                write!(f, "channel {}: full extranonce of {len} bytes, at most 32", channel.0)
            }
            Self::ExtranonceTooShort { channel, granted, requested } => {
                write!(
                    f,
                    "channel {}: extranonce_size {granted}, although {requested} were requested",
                    channel.0
                )
            }
            Self::GroupExtranonceLen { group, channel, len, group_len } => write!(
                f,
                "channel {}: full extranonce of {len} bytes in group {}, whose channels have {group_len}",
                channel.0, group.0
            ),
            Self::ZeroTarget { channel } => write!(f, "channel {}: target zero", channel.0),
            Self::TargetAboveMaximum { channel } => {
                write!(f, "channel {}: target above the maximum that was asked for", channel.0)
            }
            Self::NoPrevHash { channel, job } => {
                write!(f, "channel {}: active job {} before any SetNewPrevHash", channel.0, job.0)
            }
            Self::JobIdInUse { channel, job } => {
                write!(f, "channel {}: job_id {} is in use by a valid job", channel.0, job.0)
            }
            Self::UnknownFutureJob { channel, job } => {
                write!(f, "channel {}: SetNewPrevHash.job_id {} is no future job", channel.0, job.0)
            }
            Self::VersionRolling { job, allowed: true } => {
                write!(f, "job {}: allows version rolling, which SetupConnection.Success forbade", job.0)
            }
            Self::VersionRolling { job, allowed: false } => {
                write!(f, "job {}: forbids version rolling, which SetupConnection required", job.0)
            }
            Self::Job { job, error } => write!(f, "job {}: {error}", job.0),
            Self::JobBytes { bytes, bytes_max } => {
                write!(f, "jobs of {bytes} bytes in all, at most {bytes_max}")
            }
            Self::UnknownShare { channel, sequence_number } => {
                write!(f, "channel {}: answer for share {sequence_number}, which waits for none", channel.0)
            }
            Self::TooManyAccepted { channel, count, outstanding } => {
                write!(f, "channel {}: {count} shares accepted, but only {outstanding} wait", channel.0)
            }
            Self::ReconnectHost => f.write_str("Reconnect.new_host: not ASCII"),
            Self::NoChannelId { extension_type, msg_type } => write!(
                f,
                "channel message 0x{msg_type:02x} of extension 0x{extension_type:04x}: shorter than a channel id"
            ),
        }
    }
}

impl core::error::Error for ClientFault {}

/// Why a client does not do what its driver asks: nothing was sent, and nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Before [`ClientEvent::Ready`](super::ClientEvent::Ready), or while extensions are negotiated anew.
    NotReady,
    /// More channels than [`ClientLimits::channels_max`](super::ClientLimits::channels_max).
    TooManyChannels,
    /// A text of more than 255 bytes, or a worker's name of more than 32.
    TextTooLong,
    /// A reason code with a control character.
    ControlCharacter,
    /// A hash rate that is negative, infinite or no number.
    HashRate,
    /// A maximum target of zero.
    ZeroTarget,
    /// The upstream takes extended channels only.
    ExtendedChannelsRequired,
    /// The client said that it requires standard jobs, so that it cannot have extended channels.
    StandardJobsRequired,
    /// More extranonce than there can be.
    ExtranonceTooLong,
    /// No such channel, or not any more.
    UnknownChannel,
    /// A standard share on an extended channel, or the other way round.
    WrongChannelKind,
    /// The job never was, is not valid on the present tip, or is too old.
    UnknownJob,
    /// The job waits for its SetNewPrevHash.
    FutureJob,
    /// ntime below the job's, or ahead of the time that has passed since (specification 5.3.11).
    NtimeOutOfRange,
    /// Version bits changed that must not be.
    VersionBits,
    /// Not the channel's extranonce size.
    BadExtranonceSize,
    /// [`ClientLimits::outstanding_shares_max`](super::ClientLimits::outstanding_shares_max) shares wait for an answer.
    TooManyOutstanding,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "the connection is not ready for requests",
            Self::TooManyChannels => "the connection has as many channels as it may",
            Self::TextTooLong => "text too long: at most 255 bytes, 32 for a worker's name",
            Self::ControlCharacter => "a reason code must not hold control characters",
            Self::HashRate => "the hash rate is negative, infinite or no number",
            Self::ZeroTarget => "the maximum target is zero",
            Self::ExtendedChannelsRequired => "the upstream accepts extended channels only",
            Self::StandardJobsRequired => {
                "a client that requires standard jobs cannot have extended channels"
            }
            Self::ExtranonceTooLong => "more extranonce than 32 bytes",
            Self::UnknownChannel => "no such channel",
            Self::WrongChannelKind => "the channel is of the other kind",
            Self::UnknownJob => "the job is not valid, or not any more",
            Self::FutureJob => "the job is not active yet",
            Self::NtimeOutOfRange => "ntime is below the job's or ahead of the time",
            Self::VersionBits => "version bits were changed that must not be",
            Self::BadExtranonceSize => "the extranonce has not the channel's size",
            Self::TooManyOutstanding => "too many shares of the channel wait for an answer",
        })
    }
}

impl core::error::Error for Refusal {}
