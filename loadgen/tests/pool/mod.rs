//! A pool in this process: the server's state machine behind real sockets and real encryption, without the engine.
//!
//! One thread owns the server; readers hand it frames, tests hand it commands.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_codec::frame::{FrameHeader, HEADER_LEN};
use adit_codec::keys::{AuthoritySecretKey, Certificate, StaticKeyPair};
use adit_codec::message::MessageKind;
use adit_codec::noise::{
    ACT1_LEN, ACT2_LEN, EphemeralKey, Responder, Sealer, SecureDeframer, Transport, sealed_len,
};
use adit_codec::url::PoolUrl;
use adit_codec::{Encode, encode_frame, frame_len};
use adit_hasher::{Hasher, Target};
use adit_proto::Priority;
use adit_proto::mining::server::{
    Acknowledgement, CoinbasePolicy, ConnectionId, Event, ExtranonceLayout, Limits, Server, ServerConfig,
    ServerOutbox, ShardId, VardiffConfig,
};
use adit_proto::template::{PrevHash, Template, TemplateUpdate};
use ring::rand::{SecureRandom, SystemRandom};

/// Shares that a device finds in a second, if it announces its rate truly.
pub const SHARES_PER_SECOND: f64 = 20.0;
const TICK: Duration = Duration::from_millis(5);
const AUTHORITY: [u8; 32] = [7; 32];

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    bytes
}

pub fn config() -> ServerConfig {
    ServerConfig {
        shard: ShardId(0),
        extranonce: ExtranonceLayout { node: 1, first_slot: 1 },
        coinbase: CoinbasePolicy { payout_script: vec![0x51], pool_tag: b"test".to_vec() },
        vardiff: VardiffConfig {
            shares_per_minute: SHARES_PER_SECOND * 60.0,
            hash_rate_default: 1e5,
            difficulty_min: 0.0,
            adjust: false,
        },
        acknowledgement: Acknowledgement::AT_ONCE,
        job_interval: Duration::from_millis(400),
        version_rolling: true,
        ntime_tolerance_s: 2,
        required_extensions: Vec::new(),
        limits: Limits {
            channels_per_connection_max: 1_000,
            channels_max: 10_000,
            jobs_max: 16,
            shares_per_tip_max: 100_000,
            fingerprint_slots_max: 1 << 24,
            errors_max: 100_000,
            errors_window: Duration::from_secs(60),
            setup_timeout: Duration::from_secs(10),
            first_channel_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(600),
        },
    }
}

/// The side of a pool that lives in its thread.
pub struct State {
    pub server: Server,
    pub out: ServerOutbox,
    pub hasher: Hasher,
    pub events: Vec<Event>,
    /// Shares that are lost on their way to the server.
    pub shares_swallowed: u32,
    peers: HashMap<ConnectionId, Peer>,
    started: Instant,
    next_template: u64,
}

struct Peer {
    stream: TcpStream,
    sealer: Sealer,
}

enum Input {
    Connected(TcpStream, Transport),
    Frame(ConnectionId, FrameHeader, Vec<u8>),
    Gone(ConnectionId),
    Command(Box<dyn FnOnce(&mut State) + Send>),
}

pub struct Pool {
    pub address: SocketAddr,
    pub url: PoolUrl,
    inputs: Sender<Input>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    pub fn start(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let authority = AuthoritySecretKey::from_bytes(&AUTHORITY).expect("a key");
        let url =
            PoolUrl { host: "127.0.0.1".to_owned(), port: address.port(), authority: authority.public_key() };
        let (inputs, received) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let accepting = {
            let (inputs, stop) = (inputs.clone(), Arc::clone(&stop));
            thread::spawn(move || accept(&listener, &authority, &inputs, &stop))
        };
        let serving = {
            let (inputs, stop) = (inputs.clone(), Arc::clone(&stop));
            thread::spawn(move || serve(config, &received, &inputs, &stop))
        };
        Self { address, url, inputs, stop, threads: vec![accepting, serving] }
    }

    /// Runs a command in the pool's thread and waits for its answer.
    pub fn ask<T: Send + 'static>(&self, command: impl FnOnce(&mut State) -> T + Send + 'static) -> T {
        let (answer, answered) = channel();
        let run = move |state: &mut State| {
            let _ = answer.send(command(state));
        };
        self.inputs.send(Input::Command(Box::new(run))).expect("the pool runs");
        answered.recv_timeout(Duration::from_secs(20)).expect("the pool answers")
    }

    /// Waits until something holds, or fails.
    pub fn wait_until(&self, what: &str, holds: impl Fn(&mut State) -> bool + Send + Clone + 'static) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.ask(holds.clone()) {
            assert!(Instant::now() < deadline, "still waiting for {what}");
            thread::sleep(TICK);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, authority: &AuthoritySecretKey, inputs: &Sender<Input>, stop: &AtomicBool) {
    let static_key = StaticKeyPair::new(&random()).expect("random bytes are a key");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as u32;
    let certificate = authority.certify(static_key.public_key(), now - 60, now + 3_600, &random());
    for stream in listener.incoming() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if let Some((stream, transport)) = handshake(stream, &static_key, &certificate) {
            let _ = inputs.send(Input::Connected(stream, transport));
        }
    }
}

fn handshake(
    mut stream: TcpStream,
    static_key: &StaticKeyPair,
    certificate: &Certificate,
) -> Option<(TcpStream, Transport)> {
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let (mut act1, mut act2) = ([0; ACT1_LEN], [0; ACT2_LEN]);
    stream.read_exact(&mut act1).ok()?;
    let ephemeral = EphemeralKey::new(&random()).expect("random bytes are a key");
    let transport = Responder::respond(&act1, static_key, certificate, ephemeral, &mut act2);
    stream.write_all(&act2).ok()?;
    stream.set_read_timeout(None).ok()?;
    Some((stream, transport))
}

fn read(mut stream: TcpStream, mut deframer: SecureDeframer, id: ConnectionId, inputs: &Sender<Input>) {
    let mut buffer = [0; 4_096];
    'reading: while let Ok(len) = stream.read(&mut buffer) {
        if len == 0 {
            break;
        }
        let mut input = &mut buffer[..len];
        loop {
            match deframer.next_frame(&mut input) {
                Ok(Some((header, payload))) => {
                    let _ = inputs.send(Input::Frame(id, header, payload.to_vec()));
                }
                Ok(None) => break,
                Err(_) => break 'reading,
            }
        }
    }
    let _ = inputs.send(Input::Gone(id));
}

fn serve(config: ServerConfig, received: &Receiver<Input>, inputs: &Sender<Input>, stop: &AtomicBool) {
    let started = Instant::now();
    let mut state = State {
        server: Server::new(config, adit_proto::Instant::ZERO),
        out: ServerOutbox::new(),
        hasher: Hasher::detect(),
        events: Vec::new(),
        shares_swallowed: 0,
        peers: HashMap::new(),
        started,
        next_template: 1,
    };
    state.new_tip();
    while !stop.load(Ordering::Acquire) {
        match received.recv_timeout(TICK) {
            Ok(input) => state.handle(input, inputs),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Ok(input) = received.try_recv() {
            state.handle(input, inputs);
        }
        state.tick();
    }
    for peer in state.peers.values() {
        let _ = peer.stream.shutdown(Shutdown::Both);
    }
}

fn is_share(header: FrameHeader) -> bool {
    let kind = MessageKind::from_header(header);
    matches!(kind, Some(MessageKind::SubmitSharesStandard | MessageKind::SubmitSharesExtended))
}

impl State {
    pub fn now(&self) -> adit_proto::Instant {
        adit_proto::Instant::from_nanos(self.started.elapsed().as_nanos() as u64)
    }

    pub fn connections(&self) -> Vec<ConnectionId> {
        self.peers.keys().copied().collect()
    }

    fn handle(&mut self, input: Input, inputs: &Sender<Input>) {
        let now = self.now();
        match input {
            Input::Connected(stream, transport) => {
                let id = self.server.handle_connect(now);
                let reading = stream.try_clone().expect("file descriptors are left");
                let deframer = SecureDeframer::new(transport.opener, 65_536);
                let inputs = inputs.clone();
                thread::spawn(move || read(reading, deframer, id, &inputs));
                self.peers.insert(id, Peer { stream, sealer: transport.sealer });
            }
            Input::Frame(_, header, _) if is_share(header) && self.shares_swallowed > 0 => {
                self.shares_swallowed -= 1;
            }
            Input::Frame(id, header, payload) => {
                self.server.handle_frame(id, header, &payload, now, &self.hasher, &mut self.out);
            }
            Input::Gone(id) => self.disconnect(id),
            Input::Command(command) => command(self),
        }
    }

    /// Sends a message that the server knows nothing of to every connection.
    pub fn say<M: Encode>(&mut self, message: &M) {
        let mut frame = vec![0; frame_len(message)];
        encode_frame(message, &mut frame).expect("a good message");
        for peer in self.peers.values_mut() {
            let mut sealed = vec![0; sealed_len(frame.len() - HEADER_LEN)];
            peer.sealer.seal_frame_into(&frame, &mut sealed).expect("a frame");
            let _ = peer.stream.write_all(&sealed);
        }
    }

    /// The socket is gone, or goes now.
    pub fn disconnect(&mut self, id: ConnectionId) {
        if let Some(peer) = self.peers.remove(&id) {
            let _ = peer.stream.shutdown(Shutdown::Both);
            self.server.handle_disconnect(id, &mut self.out);
        }
    }

    fn update(&mut self, update: TemplateUpdate) {
        let now = self.now();
        self.server.handle_template(&update, now).expect("a good template");
    }

    pub fn new_template(&mut self, future_template: bool) -> u64 {
        let template_id = self.next_template;
        self.next_template += 1;
        self.update(TemplateUpdate::NewTemplate(Arc::new(Template {
            template_id,
            future_template,
            version: 0x2000_0000,
            coinbase_tx_version: 2,
            coinbase_prefix: vec![1, 0x10],
            coinbase_tx_input_sequence: 0xffff_ffff,
            coinbase_tx_value_remaining: 5_000_000_000 + template_id,
            coinbase_tx_outputs_count: 0,
            coinbase_tx_outputs: Vec::new(),
            coinbase_tx_locktime: 0,
            merkle_path: vec![[5; 32], [6; 32]],
        })));
        template_id
    }

    /// A tip whose target nothing meets.
    pub fn new_tip(&mut self) {
        let template_id = self.new_template(true);
        let mut one = [0; 32];
        one[0] = 1;
        self.update(TemplateUpdate::SetNewPrevHash(Arc::new(PrevHash {
            template_id,
            prev_hash: [template_id as u8; 32],
            header_timestamp: 1_700_000_000,
            nbits: 0x207f_ffff,
            target: Target::from_le_bytes(one),
        })));
    }

    fn tick(&mut self) {
        let now = self.now();
        if self.server.poll_timeout().is_some_and(|timeout| timeout <= now) {
            self.server.handle_timeout(now, &self.hasher, &mut self.out);
        }
        self.server.settle(&self.hasher, now, &mut self.out);
        while self.server.poll_fan_out(64, &self.hasher, &mut self.out) {}
        let mut frames: Vec<(ConnectionId, Priority, &[u8])> = self.out.frames().collect();
        frames.sort_by_key(|(_, priority, _)| std::cmp::Reverse(*priority));
        for (to, _, frame) in frames {
            let Some(peer) = self.peers.get_mut(&to) else { continue };
            let mut sealed = vec![0; sealed_len(frame.len() - HEADER_LEN)];
            peer.sealer.seal_frame_into(frame, &mut sealed).expect("a frame");
            // The reader tells of a connection that broke.
            let _ = peer.stream.write_all(&sealed);
        }
        self.out.clear_frames();
        let events: Vec<Event> = self.out.drain_events().collect();
        for event in events {
            if let Event::Close { connection, .. } = &event {
                self.disconnect(*connection);
            }
            self.events.push(event);
        }
    }
}
