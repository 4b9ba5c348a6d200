//! What the specification demands of a client on its sockets (tests/conformance lists it): the miner against pools played
//! here.

#![allow(clippy::unwrap_used, reason = "a test that fails shall panic")]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_codec::frame::FrameHeader;
use adit_codec::keys::{AuthoritySecretKey, StaticKeyPair};
use adit_codec::message::{
    Message, OpenStandardMiningChannelSuccess, Protocol, Reconnect, SetupConnectionSuccess,
};
use adit_codec::noise::{ACT1_LEN, ACT2_LEN, EphemeralKey, Responder, Sealer, SecureDeframer, sealed_len};
use adit_codec::url::PoolUrl;
use adit_codec::{Encode, encode_frame, frame_len};
use adit_loadgen::miner::{Miner, MinerConfig, MinerHandle};
use ring::rand::{SecureRandom, SystemRandom};

const PATIENCE: Duration = Duration::from_secs(20);

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes
}

fn authority(byte: u8) -> AuthoritySecretKey {
    AuthoritySecretKey::from_bytes(&[byte; 32]).unwrap()
}

/// A pool that waits for its miner.
struct Pool {
    listener: TcpListener,
    authority: AuthoritySecretKey,
}

/// A connection of the miner, after the handshake.
struct Connection {
    stream: TcpStream,
    deframer: SecureDeframer,
    sealer: Sealer,
    frames: VecDeque<(FrameHeader, Vec<u8>)>,
}

impl Pool {
    fn new(byte: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener, authority: authority(byte) }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    fn url(&self) -> PoolUrl {
        let authority = self.authority.public_key();
        PoolUrl { host: "127.0.0.1".into(), port: self.port(), authority }
    }

    /// The next connection's socket.
    fn accept_bare(&self) -> TcpStream {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return stream;
                }
                Err(_) => assert!(Instant::now() < deadline, "nobody comes"),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn is_alone(&self) -> bool {
        self.listener.accept().is_err()
    }

    /// Answers the handshake that must come first.
    fn accept(&self) -> Connection {
        let mut stream = self.accept_bare();
        let mut act1 = [0; ACT1_LEN];
        stream.read_exact(&mut act1).unwrap();
        let static_key = StaticKeyPair::new(&random()).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
        let certificate = self.authority.certify(static_key.public_key(), now - 10, now + 3_600, &random());
        let mut act2 = [0; ACT2_LEN];
        let ephemeral = EphemeralKey::new(&random()).unwrap();
        let transport = Responder::respond(&act1, &static_key, &certificate, ephemeral, &mut act2);
        stream.write_all(&act2).unwrap();
        let deframer = SecureDeframer::new(transport.opener, 1 << 16);
        Connection { stream, deframer, sealer: transport.sealer, frames: VecDeque::new() }
    }
}

impl Connection {
    /// The next frame; `None` if the miner is gone.
    fn receive(&mut self) -> Option<(FrameHeader, Vec<u8>)> {
        let mut bytes = [0; 4096];
        while self.frames.is_empty() {
            let len = self.stream.read(&mut bytes).ok().filter(|len| *len > 0)?;
            let mut input = &mut bytes[..len];
            while let Some((header, payload)) = self.deframer.next_frame(&mut input).unwrap() {
                self.frames.push_back((header, payload.to_vec()));
            }
        }
        self.frames.pop_front()
    }

    fn send<M: Encode>(&mut self, message: &M) {
        let mut frame = vec![0; frame_len(message)];
        encode_frame(message, &mut frame).unwrap();
        let mut sealed = vec![0; sealed_len(frame.len() - 6)];
        self.sealer.seal_frame_into(&frame, &mut sealed).unwrap();
        self.stream.write_all(&sealed).unwrap();
    }

    /// Receives SetupConnection for a pool at this port, and accepts it.
    fn set_up(&mut self, port: u16) {
        let (header, payload) = self.receive().unwrap();
        let Message::SetupConnection(setup) = decode(header, &payload) else { panic!("{header:?}") };
        assert_eq!((setup.endpoint_host, setup.endpoint_port), (&b"127.0.0.1"[..], port));
        self.send(&SetupConnectionSuccess { used_version: 2, flags: 0 });
    }

    /// Receives the opening of a channel and grants it; returns what was announced.
    fn open(&mut self) -> f32 {
        let (header, payload) = self.receive().unwrap();
        let Message::OpenStandardMiningChannel(open) = decode(header, &payload) else { panic!("{header:?}") };
        self.send(&OpenStandardMiningChannelSuccess {
            request_id: open.request_id,
            channel_id: 64,
            target: &[0xff; 32],
            extranonce_prefix: &[1; 8],
            group_channel_id: 8,
        });
        open.nominal_hash_rate
    }
}

fn decode(header: FrameHeader, payload: &[u8]) -> Message<'_> {
    Message::decode(header, payload, Protocol::Mining).unwrap().message
}

fn start(pool: &Pool) -> MinerHandle {
    let config = MinerConfig { nominal_hash_rate: Some(12_345.0), ..MinerConfig::new(pool.url()) };
    Miner::start(config).unwrap_or_else(|error| panic!("{error}"))
}

/// 3.6.1, chapter 4, 5.3.2: the handshake, then SetupConnection, then a channel, unasked.
#[test]
fn a_miner_says_what_it_is_and_no_more() {
    let pool = Pool::new(1);
    let miner = start(&pool);
    let mut connection = pool.accept();
    let (header, payload) = connection.receive().unwrap();
    let Message::SetupConnection(setup) = decode(header, &payload) else { panic!("{header:?}") };
    assert_eq!((setup.protocol, setup.min_version, setup.max_version), (0, 2, 2));
    for text in [setup.vendor, setup.hardware_version, setup.firmware] {
        assert!(
            !text.is_empty() && text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' '),
            "{text:?}"
        );
    }
    assert!(setup.device_id.is_empty(), "nobody asked for telemetry");
    connection.send(&SetupConnectionSuccess { used_version: 2, flags: 0 });
    assert_eq!(connection.open(), 12_345.0);
    drop(connection);
    miner.stop();
}

/// 3.3, 3.6.5: a handshake with whoever is named, who must have the same authority's word.
#[test]
fn a_miner_that_is_sent_elsewhere_shakes_hands_there() {
    let (home, elsewhere, stranger) = (Pool::new(1), Pool::new(1), Pool::new(2));
    let miner = start(&home);
    let mut connection = home.accept();
    connection.set_up(home.port());
    connection.open();
    connection.send(&Reconnect { new_host: b"", new_port: elsewhere.port() });
    let mut connection = elsewhere.accept();
    connection.set_up(elsewhere.port());
    connection.open();
    assert!(home.is_alone());

    connection.send(&Reconnect { new_host: b"127.0.0.1", new_port: stranger.port() });
    let mut connection = stranger.accept();
    assert_eq!(connection.receive(), None, "whose certificate another authority signed is told nothing");
    // Where it is known who is there, work goes on.
    let mut connection = home.accept();
    connection.set_up(home.port());
    connection.open();
    drop(connection);
    miner.stop();
}
