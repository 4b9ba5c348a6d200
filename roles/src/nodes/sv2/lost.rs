//! Why there is no connection to a template provider, or none any more, in words that say what to do.

use std::net::SocketAddr;
use std::{error, fmt, io};

use adit_codec::keys::CertificateError;
use adit_codec::noise::{DeframeError, HandshakeError, SealError};
use adit_proto::distribution::client::ClientFault;

use super::dial::{CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, WRITE_TIMEOUT};

/// The end of a connection, or of the try to make one.
#[derive(Debug)]
pub(super) enum Lost {
    /// The host's name has no address.
    Resolve(io::Error),
    /// The name was not resolved in time.
    ResolveTimeout,
    /// No TCP connection to the last address that was tried.
    Connect(SocketAddr, io::Error),
    /// The system gives no randomness.
    Randomness,
    /// The connection ended within the handshake.
    HandshakeIo(io::Error),
    /// The provider's act of the handshake did not come in time.
    HandshakeTimeout,
    /// The handshake failed.
    Handshake(HandshakeError),
    /// SetupConnection was refused.
    SetupRefused { flags: u32, error_code: String },
    /// The provider breaks the protocol.
    Fault(ClientFault),
    /// What came does not open, or is too long.
    Deframe(DeframeError),
    /// A frame was begun and not finished in time.
    SlowFrame,
    /// A template's transactions were asked for, and nothing came in time.
    Unanswered,
    /// More frames in a second than are read.
    Flood,
    /// A template of another height than the tip's, which the provider did not announce.
    OtherHeight { template: u32, tip: u32 },
    /// The provider closed the connection.
    Closed { is_set_up: bool },
    /// Reading or writing failed.
    Io(io::Error),
    /// The provider takes no bytes.
    WriteTimeout,
    /// A frame cannot be sealed.
    Seal(SealError),
    /// The provider asked to connect anew.
    Moved,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BROKEN: &str = "the template provider breaks the protocol: look for a newer version of it";
        match self {
            Self::Resolve(error) => {
                write!(f, "the host's name has no address: {error}; check the host in the url, and DNS")
            }
            Self::ResolveTimeout => f.write_str("the host's name was not resolved in time; check DNS"),
            Self::Connect(address, error) if error.kind() == io::ErrorKind::TimedOut => write!(
                f,
                "no connection to {address} within {} s; check host and port in the url, and firewalls",
                CONNECT_TIMEOUT.as_secs()
            ),
            Self::Connect(address, error) => write!(
                f,
                "no connection to {address}: {error}; check that the template provider runs and listens there"
            ),
            Self::Randomness => f.write_str("the system gives no randomness"),
            Self::HandshakeIo(error) => write!(
                f,
                "the connection ended during the handshake: {error}; check that the port is the template provider's"
            ),
            Self::HandshakeTimeout => write!(
                f,
                "no answer to the handshake within {} s; check that the port is the template provider's",
                HANDSHAKE_TIMEOUT.as_secs()
            ),
            Self::Handshake(HandshakeError::Identity(error)) => fmt_identity(*error, f),
            Self::Handshake(error) => {
                write!(f, "{error}; check that the port is the template provider's")
            }
            Self::SetupRefused { flags, error_code } => fmt_refusal(*flags, error_code, f),
            Self::Fault(ClientFault::VersionNotOffered(version)) => {
                write!(f, "it speaks version {version} of the protocol, this program speaks 2")
            }
            Self::Fault(fault @ ClientFault::Timeout(_)) => {
                write!(f, "{fault}; look at the template provider's log")
            }
            Self::Fault(fault) => write!(f, "{fault}; {BROKEN}"),
            Self::Deframe(error) => write!(f, "{error}; {BROKEN}"),
            Self::SlowFrame => f.write_str("a frame was begun and not finished in time: the line is too slow or cut"),
            Self::Unanswered => f.write_str(
                "no answer to RequestTransactionData: the template provider or its node hangs; their logs may say why",
            ),
            Self::Flood => write!(f, "too many frames in a second; {BROKEN}"),
            Self::OtherHeight { template, tip } => write!(
                f,
                "a template of height {template} without SetNewPrevHash, where {tip} is due: connecting anew to learn the tip"
            ),
            Self::Closed { is_set_up: true } => {
                f.write_str("the template provider closed the connection; its log says why")
            }
            Self::Closed { is_set_up: false } => f.write_str(
                "the template provider closed the connection before it gave a template; its log says why: perhaps it \
                 grants less room for the coinbase's outputs, or has too many clients",
            ),
            Self::Io(error) => write!(f, "the connection broke: {error}"),
            Self::WriteTimeout => {
                write!(f, "the template provider took no bytes for {} s", WRITE_TIMEOUT.as_secs())
            }
            Self::Seal(error) => write!(f, "{error}"),
            Self::Moved => f.write_str("the template provider asked to connect anew"),
        }
    }
}

impl error::Error for Lost {}

fn fmt_identity(error: CertificateError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "the server is not who it should be: {error}")?;
    match error {
        CertificateError::Signature { .. } => {
            f.write_str("; put the authority key that the template provider shows at the end of the url")
        }
        CertificateError::Expired { .. } => {
            f.write_str("; renew the template provider's certificate, and check both clocks")
        }
        _ => Ok(()),
    }
}

fn fmt_refusal(flags: u32, error_code: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "SetupConnection refused: {error_code}")?;
    match error_code {
        "unsupported-protocol" => {
            f.write_str("; the port is another service's: take the template provider's")
        }
        "protocol-version-mismatch" => {
            f.write_str("; this program speaks version 2: take a provider that does")
        }
        _ if flags != 0 => write!(f, " (flags {flags:#x})"),
        _ => f.write_str("; the template provider's log may say why"),
    }
}
