//! An engine on a loopback port, and a blocking client for it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that fails shall panic")]

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_codec::frame::{FrameHeader, HEADER_LEN, PAYLOAD_LEN_MAX};
use adit_codec::keys::{AuthorityPublicKey, AuthoritySecretKey, StaticKeyPair};
use adit_codec::message::{
    Message, OpenExtendedMiningChannel, OpenStandardMiningChannel, Protocol, SetupConnection,
    SubmitSharesExtended, SubmitSharesStandard,
};
use adit_codec::noise::{ACT2_LEN, Aead, EphemeralKey, Initiator, Sealer, SecureDeframer, sealed_len};
use adit_codec::{Encode, encode_frame, frame_len};
use adit_engine::service::MiningConfig;
use adit_engine::{Engine, EngineConfig, EngineCounters, EngineHandle, EngineLimits, Identity, LogEvent};
use adit_hasher::{Hasher, Target};
use adit_proto::mining::server::{
    Acknowledgement, CoinbasePolicy, ExtranonceLayout, Limits, ServerConfig, ShardId, VardiffConfig,
};
use adit_proto::template::{PrevHash, Template, TemplateUpdate};
use ring::rand::{SecureRandom, SystemRandom};

/// The longest that anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const HEADER_TIMESTAMP: u32 = 1_700_000_000;

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).unwrap();
    bytes
}

pub fn now_unix() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32
}

pub fn authority() -> AuthoritySecretKey {
    AuthoritySecretKey::from_bytes(&[9; 32]).unwrap()
}

/// An identity that is valid from `from` to `until` seconds from now.
pub fn identity(from: i64, until: i64) -> Identity {
    let static_key = StaticKeyPair::new(&random()).unwrap();
    let at = |offset: i64| u32::try_from(i64::from(now_unix()) + offset).unwrap();
    let certificate = authority().certify(static_key.public_key(), at(from), at(until), &random());
    Identity { static_key, certificate }
}

pub fn server_config() -> ServerConfig {
    ServerConfig {
        shard: ShardId(0),
        extranonce: ExtranonceLayout { node: 0x0102, first_slot: 0 },
        coinbase: CoinbasePolicy { payout_script: vec![0x51], pool_tag: b"adit".to_vec() },
        vardiff: VardiffConfig {
            shares_per_minute: 1e9,
            hash_rate_default: 1.0,
            difficulty_min: 0.0,
            adjust: false,
        },
        acknowledgement: Acknowledgement::AT_ONCE,
        job_interval: Duration::from_secs(30),
        version_rolling: true,
        ntime_tolerance_s: 5,
        required_extensions: Vec::new(),
        limits: Limits {
            channels_per_connection_max: 1_000,
            channels_max: 100_000,
            jobs_max: 8,
            shares_per_tip_max: 1_000_000,
            fingerprint_slots_max: 1 << 27,
            errors_max: 100,
            errors_window: Duration::from_secs(60),
            setup_timeout: Duration::from_secs(10),
            first_channel_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(3_600),
        },
    }
}

pub fn config(shards: usize) -> EngineConfig {
    let cpus = std::thread::available_parallelism().unwrap().get();
    EngineConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        cpus: (0..shards).map(|index| index % cpus).collect(),
        aead: Aead::detect(),
        service: MiningConfig { server: server_config(), hasher: Hasher::detect() },
        limits: EngineLimits { connections_max: 4_000, ..EngineLimits::default() },
    }
}

pub fn start(config: EngineConfig) -> EngineHandle {
    Engine::start(config, identity(-10, 3_600)).unwrap_or_else(|error| panic!("{error}"))
}

/// A template that is about as large as those of mainnet.
pub fn template(template_id: u64, future_template: bool) -> TemplateUpdate {
    let mut commitment = vec![0; 8];
    commitment.extend_from_slice(&[38, 0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed]);
    commitment.extend_from_slice(&[0x77; 32]);
    TemplateUpdate::NewTemplate(Arc::new(Template {
        template_id,
        future_template,
        version: 0x2000_0000,
        coinbase_tx_version: 2,
        coinbase_prefix: vec![3, 0x10, 0x20, 0x30],
        coinbase_tx_input_sequence: 0xffff_ffff,
        coinbase_tx_value_remaining: 312_500_000 + template_id,
        coinbase_tx_outputs_count: 1,
        coinbase_tx_outputs: commitment,
        coinbase_tx_locktime: 0,
        merkle_path: (0..12).map(|level| [template_id as u8 ^ level; 32]).collect(),
    }))
}

/// A tip. If `easy`, every share is a block; otherwise none is.
pub fn tip(template_id: u64, easy: bool) -> TemplateUpdate {
    let mut target = [0; 32];
    target[0] = 1;
    let target = if easy { Target::MAX } else { Target::from_le_bytes(target) };
    TemplateUpdate::SetNewPrevHash(Arc::new(PrevHash {
        template_id,
        prev_hash: [template_id as u8; 32],
        header_timestamp: HEADER_TIMESTAMP,
        nbits: 0x207f_ffff,
        target,
    }))
}

/// Work for everybody: template and tip `id`.
pub fn give_work(engine: &EngineHandle, id: u64, easy: bool) {
    engine.send_update(template(id, true));
    engine.send_update(tip(id, easy));
}

pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn wait_for_counters(engine: &EngineHandle, what: &str, done: impl Fn(&EngineCounters) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done(&engine.counters()) {
        assert!(Instant::now() < deadline, "waited in vain for {what}: {:#?}", engine.counters());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Lines of the log until one fits.
pub fn wait_for_line(engine: &EngineHandle, what: &str, fits: impl Fn(&LogEvent) -> bool) -> LogEvent {
    let (log, deadline) = (engine.log(), Instant::now() + PATIENCE);
    let mut lines = Vec::new();
    loop {
        match log.recv_deadline(deadline) {
            Ok(event) if fits(&event) => return event,
            Ok(event) => lines.push(event.to_string()),
            Err(_) => panic!("no line for {what} among {lines:#?}"),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Frame {
    pub header: FrameHeader,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn message(&self) -> Message<'_> {
        Message::decode(self.header, &self.payload, Protocol::Mining).unwrap().message
    }

    pub fn name(&self) -> &'static str {
        self.message().kind().name()
    }
}

/// What a channel mines on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Channel {
    pub id: u32,
    pub extended: bool,
    pub job: u32,
    pub ntime: u32,
    pub version: u32,
    pub sequence: u32,
    pub nonce: u32,
    pub extranonce_size: usize,
}

/// A client of one connection.
pub struct Peer {
    pub stream: TcpStream,
    deframer: SecureDeframer,
    sealer: Sealer,
    frames: VecDeque<Frame>,
    pub accepted: u64,
    pub refused: Vec<String>,
    /// Jobs that wait for their tip, by id: version.
    future: Vec<(u32, u32)>,
}

pub fn connect_bare(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Peer {
    pub fn connect(engine: &EngineHandle) -> Self {
        Self::try_connect(engine.local_addr()).unwrap()
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Self::handshake(connect_bare(address), Some(&authority().public_key()))
    }

    pub fn handshake(mut stream: TcpStream, authority: Option<&AuthorityPublicKey>) -> io::Result<Self> {
        let (initiator, act1) = Initiator::new(EphemeralKey::new(&random()).unwrap());
        stream.write_all(&act1)?;
        let mut act2 = [0; ACT2_LEN];
        stream.read_exact(&mut act2)?;
        let session = initiator
            .finish(&act2, authority, now_unix(), 10)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Self {
            stream,
            deframer: SecureDeframer::new(session.opener, PAYLOAD_LEN_MAX),
            sealer: session.sealer,
            frames: VecDeque::new(),
            accepted: 0,
            refused: Vec::new(),
            future: Vec::new(),
        })
    }

    /// Connected and set up.
    pub fn set_up(engine: &EngineHandle) -> Self {
        let mut peer = Self::connect(engine);
        peer.send(&setup());
        assert_eq!(peer.receive().unwrap().name(), "SetupConnection.Success");
        peer
    }

    pub fn seal<M: Encode>(&mut self, message: &M) -> Vec<u8> {
        let mut frame = vec![0; frame_len(message)];
        encode_frame(message, &mut frame).unwrap();
        self.seal_frame(&frame)
    }

    pub fn seal_frame(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut sealed = vec![0; sealed_len(frame.len() - HEADER_LEN)];
        self.sealer.seal_frame_into(frame, &mut sealed).unwrap();
        sealed
    }

    pub fn try_send<M: Encode>(&mut self, message: &M) -> io::Result<()> {
        let sealed = self.seal(message);
        self.stream.write_all(&sealed)
    }

    pub fn send<M: Encode>(&mut self, message: &M) {
        self.try_send(message).unwrap();
    }

    /// The next frame; an error when the connection is over.
    pub fn receive(&mut self) -> io::Result<Frame> {
        let mut bytes = vec![0; 16 << 10];
        while self.frames.is_empty() {
            let len = self.stream.read(&mut bytes)?;
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut input = &mut bytes[..len];
            while let Some((header, payload)) = self.deframer.next_frame(&mut input).unwrap() {
                self.frames.push_back(Frame { header, payload: payload.to_vec() });
            }
        }
        Ok(self.frames.pop_front().unwrap())
    }

    /// Reads until the peer closes; the names of the frames that came before.
    pub fn read_to_end(&mut self) -> Vec<&'static str> {
        std::iter::from_fn(|| self.receive().ok()).map(|frame| frame.name()).collect()
    }

    /// Opens a channel and waits for its work.
    pub fn open(&mut self, extended: bool) -> Channel {
        if extended {
            self.send(&OpenExtendedMiningChannel {
                request_id: 7,
                user_identity: b"bob.farm",
                nominal_hash_rate: 1.0,
                max_target: &[0xff; 32],
                min_extranonce_size: 8,
            });
        } else {
            self.send(&OpenStandardMiningChannel {
                request_id: 7,
                user_identity: b"alice.rig1",
                nominal_hash_rate: 1.0,
                max_target: &[0xff; 32],
            });
        }
        let mut channel = Channel { extended, ..Channel::default() };
        while channel.job == 0 || channel.ntime == 0 {
            let frame = self.receive().unwrap();
            self.take(&frame, &mut channel);
        }
        channel
    }

    /// What a frame changes.
    pub fn take(&mut self, frame: &Frame, channel: &mut Channel) {
        match frame.message() {
            Message::OpenStandardMiningChannelSuccess(message) => channel.id = message.channel_id,
            Message::OpenExtendedMiningChannelSuccess(message) => {
                channel.id = message.channel_id;
                channel.extranonce_size = usize::from(message.extranonce_size);
            }
            Message::NewMiningJob(job) => self.new_job(job.job_id, job.version, job.min_ntime, channel),
            Message::NewExtendedMiningJob(job) => {
                self.new_job(job.job_id, job.version, job.min_ntime, channel);
            }
            Message::SetNewPrevHash(tip) => {
                let (job, version) =
                    *self.future.iter().find(|(job, _)| *job == tip.job_id).expect("a tip names a known job");
                (channel.job, channel.version, channel.ntime) = (job, version, tip.min_ntime);
                self.future.clear();
            }
            Message::SubmitSharesSuccess(success) => {
                self.accepted += u64::from(success.new_submits_accepted_count);
            }
            Message::SubmitSharesError(error) => {
                self.refused.push(String::from_utf8_lossy(error.error_code).into_owned());
            }
            Message::SetTarget(_) => {}
            message => panic!("unexpected {}", message.kind().name()),
        }
    }

    fn new_job(&mut self, job: u32, version: u32, min_ntime: Option<u32>, channel: &mut Channel) {
        match min_ntime {
            None => self.future.push((job, version)),
            Some(ntime) => (channel.job, channel.version, channel.ntime) = (job, version, ntime),
        }
    }

    /// A sealed share that nobody has sent before.
    pub fn share(&mut self, channel: &mut Channel) -> Vec<u8> {
        channel.sequence += 1;
        channel.nonce += 1;
        let Channel { id: channel_id, job: job_id, ntime, version, nonce, .. } = *channel;
        let sequence_number = channel.sequence;
        if channel.extended {
            let extranonce = vec![5; channel.extranonce_size];
            let extranonce = &extranonce[..];
            self.seal(&SubmitSharesExtended {
                channel_id,
                sequence_number,
                job_id,
                nonce,
                ntime,
                version,
                extranonce,
            })
        } else {
            self.seal(&SubmitSharesStandard { channel_id, sequence_number, job_id, nonce, ntime, version })
        }
    }

    /// Sends shares in one write each `burst`, and reads until each of them is answered.
    pub fn mine(&mut self, channel: &mut Channel, shares: u64, burst: u64) {
        let (mut sent, done) = (0, self.accepted + self.refused.len() as u64 + shares);
        while sent < shares {
            let mut bytes = Vec::new();
            for _ in 0..burst.min(shares - sent) {
                bytes.extend(self.share(channel));
                sent += 1;
            }
            self.stream.write_all(&bytes).unwrap();
        }
        while self.accepted + (self.refused.len() as u64) < done {
            let frame = self.receive().unwrap();
            self.take(&frame, channel);
        }
    }
}

pub fn setup() -> SetupConnection<'static> {
    SetupConnection {
        protocol: 0,
        min_version: 2,
        max_version: 2,
        flags: 0,
        endpoint_host: b"localhost",
        endpoint_port: 3333,
        vendor: b"vendor",
        hardware_version: b"1",
        firmware: b"fw",
        device_id: b"",
    }
}
