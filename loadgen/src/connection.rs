//! An encrypted connection to a pool over a blocking socket (specification chapter 4).
//!
//! [`connect`] gives two halves, so that one thread can wait for frames while others send. Bounds: connecting and each act
//! of the handshake within [`CONNECT_TIMEOUT`], a write within [`WRITE_TIMEOUT`], received payloads of at most
//! [`PAYLOAD_LEN_MAX`] bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{error, fmt};

use adit_codec::frame::{FrameHeader, HEADER_LEN};
use adit_codec::keys::{AuthorityPublicKey, CertificateError};
use adit_codec::noise::{
    ACT2_LEN, DeframeError, EphemeralKey, HandshakeError, Initiator, SealError, Sealer, SecureDeframer,
    sealed_len,
};
use ring::rand::{SecureRandom, SystemRandom};

/// For the TCP connection, and then for the pool's act of the handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A pool that takes no bytes for this long is given up.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest payload that is taken: the longest job is below it.
pub const PAYLOAD_LEN_MAX: u32 = 256 * 1024;
/// Clocks may run apart by this much when certificates are checked.
pub(crate) const DRIFT_S: u32 = 10;
/// Bytes read at a time.
const READ_LEN: usize = 16 * 1024;
/// Above this, the memory for sealed frames is given back after a write.
const SEALED_LEN_KEPT: usize = 64 * 1024;

/// Where a pool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolAddress {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for PoolAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Why there is no connection, or none any more.
#[derive(Debug)]
pub enum ConnectionError {
    /// The host's name has no address.
    Resolve(io::Error),
    /// No TCP connection.
    Connect(io::Error),
    /// The system gives no randomness, or a key that no key can be.
    Randomness,
    /// The connection ended within the handshake.
    HandshakeIo(io::Error),
    /// The handshake failed.
    Handshake(HandshakeError),
    /// The pool closed the connection.
    Closed,
    /// Reading or writing failed.
    Io(io::Error),
    /// What came does not open, or is too long.
    Deframe(DeframeError),
    /// A frame cannot be sealed.
    Seal(SealError),
}

impl ConnectionError {
    /// Whether the server proved to be another than the URL's authority key says: trying again is of no use.
    pub fn is_wrong_authority(&self) -> bool {
        matches!(self, Self::Handshake(HandshakeError::Identity(CertificateError::Signature { .. })))
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(error) => write!(f, "the host's name has no address: {error}"),
            Self::Connect(error) => write!(f, "no connection: {error}"),
            Self::Randomness => f.write_str("the system gives no randomness"),
            Self::HandshakeIo(error) => write!(f, "the connection ended during the handshake: {error}"),
            Self::Handshake(error) => write!(f, "{error}"),
            Self::Closed => f.write_str("the pool closed the connection"),
            Self::Io(error) => write!(f, "the connection broke: {error}"),
            Self::Deframe(error) => write!(f, "{error}"),
            Self::Seal(error) => write!(f, "{error}"),
        }
    }
}

impl error::Error for ConnectionError {}

/// The receiving half.
#[derive(Debug)]
pub struct Reader {
    stream: TcpStream,
    deframer: SecureDeframer,
    buffer: Vec<u8>,
}

/// The sending half.
#[derive(Debug)]
pub struct Writer {
    stream: TcpStream,
    sealer: Sealer,
    sealed: Vec<u8>,
}

/// Ends a connection from another thread.
#[derive(Debug)]
pub struct Closer(TcpStream);

impl Closer {
    /// Ends it; both halves fail from now on.
    pub fn close(&self) {
        // It may have ended by itself.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Connects and shakes hands; the server must prove that `authority` vouches for it. `read_timeout` is how long
/// [`Reader::receive`] waits.
///
/// # Errors
/// Which step failed, and why.
pub fn connect(
    address: &PoolAddress,
    authority: &AuthorityPublicKey,
    read_timeout: Duration,
) -> Result<(Reader, Writer), ConnectionError> {
    let mut stream = connect_tcp(address)?;
    let configure = |stream: &TcpStream| {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        stream.set_read_timeout(Some(CONNECT_TIMEOUT))
    };
    configure(&stream).map_err(ConnectionError::Io)?;

    let mut random = [0; 64];
    SystemRandom::new().fill(&mut random).map_err(|_| ConnectionError::Randomness)?;
    let ephemeral = EphemeralKey::new(&random).map_err(|_| ConnectionError::Randomness)?;
    let (initiator, act1) = Initiator::new(ephemeral);
    let mut act2 = [0; ACT2_LEN];
    stream
        .write_all(&act1)
        .and_then(|()| stream.read_exact(&mut act2))
        .map_err(ConnectionError::HandshakeIo)?;
    let transport =
        initiator.finish(&act2, Some(authority), unix_now(), DRIFT_S).map_err(ConnectionError::Handshake)?;

    stream.set_read_timeout(Some(read_timeout)).map_err(ConnectionError::Io)?;
    let writing = stream.try_clone().map_err(ConnectionError::Io)?;
    let deframer = SecureDeframer::new(transport.opener, PAYLOAD_LEN_MAX);
    let reader = Reader { stream, deframer, buffer: vec![0; READ_LEN] };
    Ok((reader, Writer { stream: writing, sealer: transport.sealer, sealed: Vec::new() }))
}

/// The first of the host's addresses that answers.
fn connect_tcp(address: &PoolAddress) -> Result<TcpStream, ConnectionError> {
    let addresses =
        (address.host.as_str(), address.port).to_socket_addrs().map_err(ConnectionError::Resolve)?;
    let mut last = io::Error::new(ErrorKind::NotFound, "no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(ConnectionError::Connect(last))
}

pub(crate) fn unix_now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

impl Reader {
    /// Waits for bytes, at most as long as the read timeout, and hands each frame that they complete to `handle`, until
    /// that returns an error.
    ///
    /// # Errors
    /// That error, or the connection's.
    pub fn receive<E: From<ConnectionError>>(
        &mut self,
        mut handle: impl FnMut(FrameHeader, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let len = match self.stream.read(&mut self.buffer) {
            Ok(0) => return Err(ConnectionError::Closed.into()),
            Ok(len) => len,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(ConnectionError::Io(error).into()),
        };
        let mut input = &mut self.buffer[..len];
        while let Some((header, payload)) =
            self.deframer.next_frame(&mut input).map_err(ConnectionError::Deframe)?
        {
            handle(header, payload)?;
        }
        Ok(())
    }
}

impl Writer {
    /// Seals frames and sends them with one write.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub fn send<'f>(&mut self, frames: impl Iterator<Item = &'f [u8]>) -> Result<(), ConnectionError> {
        self.sealed.clear();
        for frame in frames {
            let start = self.sealed.len();
            self.sealed.resize(start + sealed_len(frame.len().saturating_sub(HEADER_LEN)), 0);
            self.sealer.seal_frame_into(frame, &mut self.sealed[start..]).map_err(ConnectionError::Seal)?;
        }
        if self.sealed.is_empty() {
            return Ok(());
        }
        let written = self.stream.write_all(&self.sealed).map_err(ConnectionError::Io);
        if self.sealed.capacity() > SEALED_LEN_KEPT {
            self.sealed = Vec::new();
        }
        written
    }

    /// A handle that ends the connection.
    ///
    /// # Errors
    /// Too many files are open.
    pub fn closer(&self) -> Result<Closer, ConnectionError> {
        self.stream.try_clone().map(Closer).map_err(ConnectionError::Io)
    }

    /// Ends the connection: both halves fail from now on.
    pub fn close(&self) {
        // It may have ended by itself.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
