//! A client that speaks Noise over blocking TCP, one message at a time: what honest and hostile test clients are made of.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_codec::frame::{FrameHeader, HEADER_LEN};
use adit_codec::message::{
    Message, OpenExtendedMiningChannel, OpenStandardMiningChannel, Protocol, SetupConnection,
};
use adit_codec::noise::{
    ACT2_LEN, EphemeralKey, Initiator, Opener, SEALED_HEADER_LEN, Sealer, sealed_len, sealed_payload_len,
};
use adit_codec::url::PoolUrl;
use adit_codec::{Encode, encode_frame, frame_len};
use ring::rand::{SecureRandom, SystemRandom};

const TIMEOUT: Duration = Duration::from_secs(20);
const DRIFT_S: u32 = 10;

/// Random bytes, enough for an ephemeral key.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    bytes
}

/// A frame as it was received.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its header.
    pub header: FrameHeader,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The message in it, which must be one of the mining protocol.
    pub fn message(&self) -> Message<'_> {
        match Message::decode(self.header, &self.payload, Protocol::Mining) {
            Ok(decoded) => decoded.message,
            Err(error) => panic!("the pool sent a bad frame: {error}"),
        }
    }
}

/// A connection to a pool after its handshake.
pub struct Peer {
    stream: TcpStream,
    opener: Opener,
    sealer: Sealer,
}

/// The socket address that a pool URL names.
pub fn address(url: &PoolUrl) -> SocketAddr {
    (url.host.as_str(), url.port)
        .to_socket_addrs()
        .expect("the host is an address")
        .next()
        .expect("there is one")
}

/// A bare TCP connection with timeouts.
pub fn connect_bare(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Peer {
    /// Connects and shakes hands; the pool's certificate is checked.
    pub fn connect(url: &PoolUrl) -> io::Result<Self> {
        let mut stream = connect_bare(address(url))?;
        let (initiator, act1) = Initiator::new(EphemeralKey::new(&random()).expect("random bytes are a key"));
        stream.write_all(&act1)?;
        let mut act2 = [0; ACT2_LEN];
        stream.read_exact(&mut act2)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as u32;
        let transport = initiator
            .finish(&act2, Some(&url.authority), now, DRIFT_S)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        Ok(Self { stream, opener: transport.opener, sealer: transport.sealer })
    }

    /// Connects, shakes hands and sets the connection up.
    pub fn set_up(url: &PoolUrl, flags: u32) -> io::Result<Self> {
        let mut peer = Self::connect(url)?;
        peer.send(&SetupConnection {
            protocol: 0,
            min_version: 2,
            max_version: 2,
            flags,
            endpoint_host: url.host.as_bytes(),
            endpoint_port: url.port,
            vendor: b"adit-tests",
            hardware_version: b"peer",
            firmware: b"",
            device_id: b"",
        })?;
        let frame = peer.receive()?;
        assert!(matches!(frame.message(), Message::SetupConnectionSuccess(_)), "{frame:?}");
        Ok(peer)
    }

    /// Asks for a standard channel.
    pub fn open_standard(&mut self, request_id: u32, user: &[u8], hash_rate: f32) -> io::Result<()> {
        self.send(&OpenStandardMiningChannel {
            request_id,
            user_identity: user,
            nominal_hash_rate: hash_rate,
            max_target: &[0xff; 32],
        })
    }

    /// Asks for an extended channel.
    pub fn open_extended(
        &mut self,
        request_id: u32,
        user: &[u8],
        hash_rate: f32,
        size: u16,
    ) -> io::Result<()> {
        self.send(&OpenExtendedMiningChannel {
            request_id,
            user_identity: user,
            nominal_hash_rate: hash_rate,
            max_target: &[0xff; 32],
            min_extranonce_size: size,
        })
    }

    /// Seals and sends one message.
    pub fn send<M: Encode>(&mut self, message: &M) -> io::Result<()> {
        let mut frame = vec![0; frame_len(message)];
        let len = encode_frame(message, &mut frame).expect("tests send encodable messages");
        self.send_frame(&frame[..len])
    }

    /// Seals and sends the bytes of a frame, header and payload, whatever they say.
    pub fn send_frame(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut sealed = vec![0; sealed_len(frame.len() - HEADER_LEN)];
        let len =
            self.sealer.seal_frame_into(frame, &mut sealed).expect("the frame's header tells its length");
        self.stream.write_all(&sealed[..len])
    }

    /// The next frame; an error of kind `UnexpectedEof` once the pool has closed the connection.
    pub fn receive(&mut self) -> io::Result<Frame> {
        let mut sealed = [0; SEALED_HEADER_LEN];
        self.stream.read_exact(&mut sealed)?;
        let header =
            self.opener.open_header(&mut sealed).map_err(|error| io::Error::other(error.to_string()))?;
        let mut payload = vec![0; sealed_payload_len(header.payload_len as usize)];
        self.stream.read_exact(&mut payload)?;
        let len =
            self.opener.open_payload(&mut payload).map_err(|error| io::Error::other(error.to_string()))?;
        payload.truncate(len);
        Ok(Frame { header, payload })
    }

    /// Receives until `find` gives something.
    ///
    /// # Panics
    /// If that takes longer than a test waits.
    pub fn receive_until<T>(&mut self, find: impl Fn(&Message<'_>) -> Option<T>) -> io::Result<T> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let frame = self.receive()?;
            if let Some(found) = find(&frame.message()) {
                return Ok(found);
            }
            assert!(Instant::now() < deadline, "the pool talks on without saying what the test waits for");
        }
    }

    /// Waits until the pool closes the connection; frames before that are read over.
    pub fn wait_for_close(&mut self) {
        while self.receive().is_ok() {}
    }

    /// The socket, for what no honest client does.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Ends the connection.
    pub fn close(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
