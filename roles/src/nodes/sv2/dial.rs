//! From an address to an encrypted connection (specification chapter 4).
//!
//! Bounds: the name within [`RESOLVE_TIMEOUT`], [`ADDRESSES_MAX`] addresses, each within [`CONNECT_TIMEOUT`], the handshake
//! within [`HANDSHAKE_TIMEOUT`], a write within [`WRITE_TIMEOUT`]. Payloads are at most [`SETUP_PAYLOAD_LEN_MAX`] bytes until
//! the connection is set up, then what a frame can state: transactions of a whole block come in one.
//!
//! Silence says nothing in this protocol: a provider has nothing to say while fees and tip stay. Whether its machine still
//! lives is for the system to ask ([`KEEPALIVE_IDLE`] and below), whether the provider does, the next request for transactions.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_codec::frame::{self, FrameHeader, HEADER_LEN};
use adit_codec::keys::AuthorityPublicKey;
use adit_codec::noise::{ACT2_LEN, EphemeralKey, Initiator, Sealer, SecureDeframer, sealed_len};
use ring::rand::{SecureRandom, SystemRandom};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::lost::Lost;

/// For the host's name.
pub(super) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// For each address.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For both acts.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the frames that are sent at a time.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;
/// The longest payload before the connection is set up: an answer to SetupConnection is far below.
const SETUP_PAYLOAD_LEN_MAX: u32 = 4 * 1024;
/// The longest payload after: the most that a frame can state.
const PAYLOAD_LEN_MAX: u32 = frame::PAYLOAD_LEN_MAX;
/// Clocks may run apart by this much when certificates are checked.
const DRIFT_S: u32 = 10;
/// Bytes read at a time.
const READ_LEN: usize = 64 * 1024;
/// Silence after which the system asks the other side for a sign of life.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
/// And then again.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Questions without answer, or time without acknowledgement of what was sent, after which the connection is over.
const KEEPALIVE_RETRIES: u32 = 4;
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

/// An encrypted connection.
pub(super) struct Link {
    stream: TcpStream,
    deframer: SecureDeframer,
    sealer: Sealer,
    buffer: Vec<u8>,
}

/// Resolves, connects and shakes hands; the server must prove that `authority` vouches for it, if there is one.
pub(super) async fn dial(address: &Address, authority: Option<&AuthorityPublicKey>) -> Result<Link, Lost> {
    let mut stream = connect(address).await?;
    timeout(HANDSHAKE_TIMEOUT, shake_hands(&mut stream, authority))
        .await
        .map_err(|_| Lost::HandshakeTimeout)?
        .map(|(deframer, sealer)| Link { stream, deframer, sealer, buffer: vec![0; READ_LEN] })
}

/// The first of the host's addresses that answers. The name is resolved anew for each connection.
async fn connect(address: &Address) -> Result<TcpStream, Lost> {
    let resolving = tokio::net::lookup_host((address.host.as_str(), address.port));
    let addresses = timeout(RESOLVE_TIMEOUT, resolving)
        .await
        .map_err(|_| Lost::ResolveTimeout)?
        .map_err(Lost::Resolve)?;
    let mut lost = Lost::Resolve(io::Error::new(io::ErrorKind::NotFound, "no address"));
    for address in addresses.take(ADDRESSES_MAX) {
        match connect_to(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => lost = Lost::Connect(address, error),
        }
    }
    Err(lost)
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await.map_err(timed_out)??;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(stream)
}

async fn shake_hands(
    stream: &mut TcpStream,
    authority: Option<&AuthorityPublicKey>,
) -> Result<(SecureDeframer, Sealer), Lost> {
    let mut random = [0; 64];
    SystemRandom::new().fill(&mut random).map_err(|_| Lost::Randomness)?;
    let ephemeral = EphemeralKey::new(&random).map_err(|_| Lost::Randomness)?;
    let (initiator, act1) = Initiator::new(ephemeral);
    stream.write_all(&act1).await.map_err(Lost::HandshakeIo)?;
    let mut act2 = [0; ACT2_LEN];
    stream.read_exact(&mut act2).await.map_err(Lost::HandshakeIo)?;
    let transport = initiator.finish(&act2, authority, unix_now(), DRIFT_S).map_err(Lost::Handshake)?;
    Ok((SecureDeframer::new(transport.opener, SETUP_PAYLOAD_LEN_MAX), transport.sealer))
}

fn unix_now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

impl Link {
    /// Frames of every length are taken from now on.
    pub(super) fn handle_set_up(&mut self) {
        self.deframer.set_payload_len_max(PAYLOAD_LEN_MAX);
    }

    /// Whether a frame has begun that is not whole yet.
    pub(super) fn is_within_frame(&self) -> bool {
        self.deframer.buffered_len() > 0
    }

    /// Waits for bytes; 0 at the end of the stream. Nothing is lost if this is given up while it waits.
    pub(super) async fn read(&mut self) -> Result<usize, Lost> {
        self.stream.read(&mut self.buffer).await.map_err(Lost::Io)
    }

    /// Hands each frame that the last `len` bytes complete to `handle`, until that returns an error.
    pub(super) fn frames(
        &mut self,
        len: usize,
        mut handle: impl FnMut(FrameHeader, &[u8]) -> Result<(), Lost>,
    ) -> Result<(), Lost> {
        let mut input = &mut self.buffer[..len];
        while let Some((header, payload)) = self.deframer.next_frame(&mut input).map_err(Lost::Deframe)? {
            handle(header, payload)?;
        }
        Ok(())
    }

    /// Seals frames and sends them.
    pub(super) async fn send<'f>(&mut self, frames: impl Iterator<Item = &'f [u8]>) -> Result<(), Lost> {
        let mut sealed = Vec::new();
        for frame in frames {
            let start = sealed.len();
            sealed.resize(start + sealed_len(frame.len().saturating_sub(HEADER_LEN)), 0);
            self.sealer.seal_frame_into(frame, &mut sealed[start..]).map_err(Lost::Seal)?;
        }
        match timeout(WRITE_TIMEOUT, self.stream.write_all(&sealed)).await {
            Ok(written) => written.map_err(Lost::Io),
            Err(_) => Err(Lost::WriteTimeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_asks_for_signs_of_life() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let stream = connect_to(listener.local_addr().expect("bound")).await.expect("somebody listens");
            let socket = SockRef::from(&stream);
            assert!(socket.keepalive().expect("an option of every socket"));
            assert_eq!(socket.tcp_keepalive_time().ok(), Some(KEEPALIVE_IDLE));
            assert_eq!(socket.tcp_keepalive_interval().ok(), Some(KEEPALIVE_INTERVAL));
            assert_eq!(socket.tcp_keepalive_retries().ok(), Some(KEEPALIVE_RETRIES));
            assert_eq!(socket.tcp_user_timeout().ok().flatten(), Some(USER_TIMEOUT));
        });
    }
}
