//! Why a connection ended, in the words of the log.

use std::fmt;
use std::io;
use std::time::Duration;

use adit_codec::noise::DeframeError;
use adit_proto::distribution::server as distribution;
use adit_proto::mining::server::{CloseReason, ProtocolFault};

/// Why a connection ended. One line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The peer closed it.
    PeerClosed,
    /// It broke; the system's error number.
    Lost(i32),
    /// Its shard could not take it: the kernel refused the socket's place in the shard's table; the system's error number.
    NotTaken(i32),
    /// No complete first act of the handshake in time.
    HandshakeTimeout(Duration),
    /// More bytes than the first act of the handshake has: the peer speaks something else.
    HandshakeTooLong,
    /// Refused because there is no valid certificate to show.
    NoValidCertificate,
    /// A frame that does not open, or announces too long a payload.
    Frame(DeframeError),
    /// The peer did not read what it was sent.
    SlowReader {
        /// Bytes that waited.
        waiting: usize,
        /// The bound.
        max: usize,
    },
    /// All peers of the shard together did not read what they were sent, and this one had most waiting.
    SlowestReader {
        /// Bytes that waited for this one.
        waiting: usize,
        /// Bytes that waited for all.
        shard_waiting: usize,
        /// The bound of the shard.
        shard_max: usize,
    },
    /// There are as many clients of Template Distribution as may be.
    ClientsMax(usize),
    /// The mining server's own reasons.
    Mining(CloseReason),
    /// The Template Distribution server's own reasons.
    Distribution(distribution::CloseReason),
    /// The engine is shutting down.
    Shutdown,
    /// A fault of the engine's own; it names what failed.
    Internal(&'static str),
}

/// The kinds of [`EndReason`], for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EndKind {
    /// See [`EndReason::PeerClosed`].
    PeerClosed,
    /// See [`EndReason::Lost`].
    Lost,
    /// See [`EndReason::HandshakeTimeout`].
    HandshakeTimeout,
    /// See [`EndReason::HandshakeTooLong`].
    HandshakeTooLong,
    /// See [`EndReason::NoValidCertificate`].
    NoValidCertificate,
    /// A frame that does not open.
    FrameSeal,
    /// A frame that is too long.
    FrameTooLong,
    /// See [`EndReason::SlowReader`].
    SlowReader,
    /// See [`EndReason::SlowestReader`].
    SlowestReader,
    /// See [`EndReason::ClientsMax`].
    ClientsMax,
    /// A frame that does not decode, or that has no place where it came.
    Protocol,
    /// [`CloseReason::SetupRefused`] and [`CloseReason::ExtensionRequired`].
    SetupRefused,
    /// [`CloseReason::SetupTimeout`].
    SetupTimeout,
    /// [`CloseReason::NoChannel`].
    NoChannel,
    /// [`distribution::CloseReason::ConstraintsTimeout`].
    ConstraintsTimeout,
    /// Templates with the room that was asked for are not to be had.
    ConstraintsRefused,
    /// [`CloseReason::Idle`].
    Idle,
    /// [`CloseReason::TooManyErrors`].
    TooManyErrors,
    /// [`CloseReason::Operator`].
    Operator,
    /// See [`EndReason::Shutdown`].
    Shutdown,
    /// See [`EndReason::Internal`].
    Internal,
}

impl EndKind {
    /// How many there are.
    pub const COUNT: usize = 21;
    /// Every one, in order of its discriminant.
    pub const ALL: [Self; Self::COUNT] = [
        Self::PeerClosed,
        Self::Lost,
        Self::HandshakeTimeout,
        Self::HandshakeTooLong,
        Self::NoValidCertificate,
        Self::FrameSeal,
        Self::FrameTooLong,
        Self::SlowReader,
        Self::SlowestReader,
        Self::ClientsMax,
        Self::Protocol,
        Self::SetupRefused,
        Self::SetupTimeout,
        Self::NoChannel,
        Self::ConstraintsTimeout,
        Self::ConstraintsRefused,
        Self::Idle,
        Self::TooManyErrors,
        Self::Operator,
        Self::Shutdown,
        Self::Internal,
    ];

    /// A name for metrics and summaries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PeerClosed => "closed by the peer",
            Self::Lost => "connection lost",
            Self::HandshakeTimeout => "handshake timeout",
            Self::HandshakeTooLong => "no Noise handshake",
            Self::NoValidCertificate => "no valid certificate",
            Self::FrameSeal => "frame does not open",
            Self::FrameTooLong => "frame too long",
            Self::SlowReader => "slow reader",
            Self::SlowestReader => "slowest reader of a full shard",
            Self::ClientsMax => "too many clients",
            Self::Protocol => "protocol fault",
            Self::SetupRefused => "setup refused",
            Self::SetupTimeout => "setup timeout",
            Self::NoChannel => "no channel",
            Self::ConstraintsTimeout => "constraints timeout",
            Self::ConstraintsRefused => "constraints refused",
            Self::Idle => "idle",
            Self::TooManyErrors => "too many errors",
            Self::Operator => "closed by the operator",
            Self::Shutdown => "shutdown",
            Self::Internal => "internal fault",
        }
    }
}

impl EndReason {
    /// Which counter it belongs to.
    #[must_use]
    pub const fn kind(&self) -> EndKind {
        match self {
            Self::PeerClosed => EndKind::PeerClosed,
            Self::Lost(_) => EndKind::Lost,
            Self::HandshakeTimeout(_) => EndKind::HandshakeTimeout,
            Self::HandshakeTooLong => EndKind::HandshakeTooLong,
            Self::NoValidCertificate => EndKind::NoValidCertificate,
            Self::Frame(DeframeError::PayloadTooLong { .. }) => EndKind::FrameTooLong,
            Self::Frame(_) => EndKind::FrameSeal,
            Self::SlowReader { .. } => EndKind::SlowReader,
            Self::SlowestReader { .. } => EndKind::SlowestReader,
            Self::ClientsMax(_) => EndKind::ClientsMax,
            Self::Mining(reason) => match reason {
                CloseReason::Protocol(_) => EndKind::Protocol,
                CloseReason::SetupRefused(_) | CloseReason::ExtensionRequired(_) => EndKind::SetupRefused,
                CloseReason::SetupTimeout => EndKind::SetupTimeout,
                CloseReason::NoChannel => EndKind::NoChannel,
                CloseReason::Idle => EndKind::Idle,
                CloseReason::TooManyErrors => EndKind::TooManyErrors,
                CloseReason::Operator => EndKind::Operator,
            },
            Self::Distribution(reason) => distribution_kind(reason),
            Self::Shutdown => EndKind::Shutdown,
            Self::NotTaken(_) | Self::Internal(_) => EndKind::Internal,
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerClosed => f.write_str("closed by the peer"),
            Self::Lost(error) => write!(f, "lost: {}", io::Error::from_raw_os_error(*error)),
            Self::NotTaken(libc::ENFILE) => f.write_str(
                "internal fault: no room in its shard's table of sockets; closing connections hold it",
            ),
            Self::NotTaken(error) => {
                write!(
                    f,
                    "internal fault: its shard cannot take it: {}",
                    io::Error::from_raw_os_error(*error)
                )
            }
            Self::HandshakeTimeout(timeout) => {
                write!(f, "no handshake within {} s", timeout.as_secs_f32())
            }
            Self::HandshakeTooLong => {
                f.write_str("no Noise handshake: sent more than its first act before it was answered")
            }
            Self::NoValidCertificate => f.write_str("refused: there is no valid certificate to show"),
            Self::Frame(error) => error.fmt(f),
            Self::SlowReader { waiting, max } => {
                write!(f, "does not read: {waiting} bytes wait to be sent, at most {max}")
            }
            Self::SlowestReader { waiting, shard_waiting, shard_max } => write!(
                f,
                "does not read: {waiting} bytes wait to be sent, and {shard_waiting} on its shard, at most {shard_max}"
            ),
            Self::ClientsMax(max) => write!(f, "refused: {max} clients are connected, which is clients_max"),
            Self::Mining(reason) => write_close_reason(reason, f),
            Self::Distribution(reason) => reason.fmt(f),
            Self::Shutdown => f.write_str("the server shuts down"),
            Self::Internal(what) => write!(f, "internal fault: {what}"),
        }
    }
}

const fn distribution_kind(reason: &distribution::CloseReason) -> EndKind {
    use distribution::CloseReason;
    match reason {
        CloseReason::Malformed(_) | CloseReason::Unexpected(_) => EndKind::Protocol,
        CloseReason::SetupRefused(_) => EndKind::SetupRefused,
        CloseReason::SetupTimeout => EndKind::SetupTimeout,
        CloseReason::ConstraintsTimeout => EndKind::ConstraintsTimeout,
        CloseReason::ConstraintsTooLarge(_) | CloseReason::TooManyIds | CloseReason::ReserveRefused(_) => {
            EndKind::ConstraintsRefused
        }
        CloseReason::TooManyErrors => EndKind::TooManyErrors,
        CloseReason::Operator => EndKind::Operator,
    }
}

fn write_close_reason(reason: &CloseReason, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match reason {
        CloseReason::Protocol(ProtocolFault::Malformed(error)) => write!(f, "malformed message: {error}"),
        CloseReason::Protocol(ProtocolFault::Unexpected(name)) => write!(f, "{name} has no place here"),
        CloseReason::SetupRefused(code) => write!(f, "setup refused: {code}"),
        CloseReason::ExtensionRequired(extension) => {
            write!(f, "setup refused: extension {extension:#06x} is required and was not requested")
        }
        CloseReason::SetupTimeout => f.write_str("no SetupConnection in time"),
        CloseReason::NoChannel => f.write_str("had no open channel for too long"),
        CloseReason::Idle => f.write_str("sent nothing for too long"),
        CloseReason::TooManyErrors => f.write_str("too many refused shares or invalid requests"),
        CloseReason::Operator => f.write_str("closed by the operator"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_indexed_by_discriminant() {
        for (index, kind) in EndKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }

    #[test]
    fn reasons_read_like_sentences() {
        assert_eq!(
            EndReason::Lost(libc::ECONNRESET).to_string(),
            "lost: Connection reset by peer (os error 104)"
        );
        assert_eq!(
            EndReason::NotTaken(libc::ENOMEM).to_string(),
            "internal fault: its shard cannot take it: Cannot allocate memory (os error 12)"
        );
        assert_eq!(
            EndReason::SlowReader { waiting: 12, max: 10 }.to_string(),
            "does not read: 12 bytes wait to be sent, at most 10"
        );
    }
}
