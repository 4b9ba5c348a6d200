//! A server in virtual time, and a mirror: what a client makes of the frames it was sent, by the specification alone.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod mirror;

use std::sync::Arc;
use std::time::Duration;

use adit_codec::frame::{FrameHeader, HEADER_LEN};
use adit_codec::message::{
    Message, OpenExtendedMiningChannel, OpenStandardMiningChannel, Protocol, SetupConnection,
};
use adit_codec::{Encode, encode_frame, frame_len};
use adit_hasher::{Portable, Target};
use adit_proto::mining::server::{
    Acknowledgement, CoinbasePolicy, ConnectionId, Event, ExtranonceLayout, Limits, Server, ServerConfig,
    ServerOutbox, ShardId, TemplateError, VardiffConfig,
};
use adit_proto::template::{PrevHash, Template, TemplateUpdate};
use adit_proto::{Instant, Priority};

/// A frame as a client gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub to: ConnectionId,
    pub priority: Priority,
    pub header: FrameHeader,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn message(&self) -> Message<'_> {
        let decoded = Message::decode(self.header, &self.payload, Protocol::Mining)
            .expect("the server's frames decode");
        assert!(decoded.trailing.is_empty());
        assert_eq!(self.header.payload_len as usize, self.payload.len());
        decoded.message
    }

    pub fn name(&self) -> &'static str {
        self.message().kind().name()
    }
}

pub fn config() -> ServerConfig {
    ServerConfig {
        shard: ShardId(3),
        extranonce: ExtranonceLayout { node: 0x0102, first_slot: 5 },
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
            channels_max: 10_000,
            jobs_max: 4,
            shares_per_tip_max: 1_000,
            fingerprint_slots_max: 1 << 20,
            errors_max: 1_000,
            errors_window: Duration::from_secs(60),
            setup_timeout: Duration::from_secs(10),
            first_channel_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(3_600),
        },
    }
}

/// An output that commits to witnesses.
pub fn commitment_output() -> Vec<u8> {
    let mut output = vec![0; 8];
    output.push(38);
    output.extend_from_slice(&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed]);
    output.extend_from_slice(&[0x77; 32]);
    output
}

pub fn template(template_id: u64, future_template: bool) -> Template {
    Template {
        template_id,
        future_template,
        version: 0x2000_0000,
        coinbase_tx_version: 2,
        coinbase_prefix: vec![2, 0x10, 0x20],
        coinbase_tx_input_sequence: 0xffff_ffff,
        coinbase_tx_value_remaining: 1_000_000 + template_id,
        coinbase_tx_outputs_count: 1,
        coinbase_tx_outputs: commitment_output(),
        coinbase_tx_locktime: 0,
        merkle_path: vec![[template_id as u8; 32], [9; 32]],
    }
}

/// The timestamp of the tips made here.
pub const HEADER_TIMESTAMP: u32 = 1_700_000_000;

/// A tip whose target nothing meets.
pub fn prev_hash(template_id: u64, number: u8) -> PrevHash {
    let mut one = [0; 32];
    one[0] = 1;
    PrevHash {
        template_id,
        prev_hash: [number; 32],
        header_timestamp: HEADER_TIMESTAMP,
        nbits: 0x207f_ffff,
        target: Target::from_le_bytes(one),
    }
}

pub struct World {
    pub server: Server,
    pub out: ServerOutbox,
    pub now: Instant,
    pub hashes: Portable,
    pub events: Vec<Event>,
    next_request: u32,
}

impl World {
    pub fn new(config: ServerConfig) -> Self {
        let now = Instant::ZERO + Duration::from_secs(1_000);
        Self {
            server: Server::new(config, now),
            out: ServerOutbox::new(),
            now,
            hashes: Portable,
            events: Vec::new(),
            next_request: 1,
        }
    }

    /// A server with template 1 active on tip 1.
    pub fn with_work(config: ServerConfig) -> Self {
        let mut world = Self::new(config);
        world.template(template(1, true)).expect("a good template");
        world.tip(prev_hash(1, 1)).expect("a known template");
        world
    }

    pub fn advance(&mut self, seconds: f64) {
        self.now = self.now + Duration::from_secs_f64(seconds);
    }

    pub fn send<M: Encode>(&mut self, id: ConnectionId, message: &M) {
        self.send_with_trailing(id, message, &[]);
    }

    pub fn send_with_trailing<M: Encode>(&mut self, id: ConnectionId, message: &M, trailing: &[u8]) {
        let mut frame = vec![0; frame_len(message)];
        encode_frame(message, &mut frame).expect("tests send what can be encoded");
        let mut header = FrameHeader::parse(frame[..HEADER_LEN].try_into().expect("six bytes"));
        header.payload_len += trailing.len() as u32;
        let payload = [&frame[HEADER_LEN..], trailing].concat();
        self.send_raw(id, header, &payload);
    }

    pub fn send_raw(&mut self, id: ConnectionId, header: FrameHeader, payload: &[u8]) {
        self.server.read_ahead(id, [(header, payload)]);
        self.server.handle_frame(id, header, payload, self.now, &self.hashes, &mut self.out);
    }

    /// The frames since the last call; their events are kept in `events`.
    pub fn take(&mut self) -> Vec<Frame> {
        let frames = self
            .out
            .frames()
            .map(|(to, priority, bytes)| Frame {
                to,
                priority,
                header: FrameHeader::parse(bytes[..HEADER_LEN].try_into().expect("six bytes")),
                payload: bytes[HEADER_LEN..].to_vec(),
            })
            .collect();
        self.out.clear_frames();
        self.events.extend(self.out.drain_events());
        frames
    }

    pub fn names(&mut self) -> Vec<&'static str> {
        self.take().iter().map(Frame::name).collect()
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        self.events.extend(self.out.drain_events());
        std::mem::take(&mut self.events)
    }

    pub fn template(&mut self, template: Template) -> Result<(), TemplateError> {
        let update = TemplateUpdate::NewTemplate(Arc::new(template));
        self.server.handle_template(&update, self.now)
    }

    pub fn tip(&mut self, prev_hash: PrevHash) -> Result<(), TemplateError> {
        let update = TemplateUpdate::SetNewPrevHash(Arc::new(prev_hash));
        self.server.handle_template(&update, self.now)
    }

    pub fn fan_out(&mut self) {
        for _ in 0..10_000 {
            if !self.server.poll_fan_out(64, &self.hashes, &mut self.out) {
                return;
            }
        }
        panic!("the fan-out does not end");
    }

    pub fn settle(&mut self) {
        self.server.settle(&self.hashes, self.now, &mut self.out);
    }

    pub fn timeout(&mut self) {
        self.server.handle_timeout(self.now, &self.hashes, &mut self.out);
    }

    /// A connection that was set up; the answers are dropped.
    pub fn connect(&mut self, flags: u32) -> ConnectionId {
        let id = self.server.handle_connect(self.now);
        self.send(id, &setup(flags));
        let frames = self.take();
        assert_eq!(frames.last().map(Frame::name), Some("SetupConnection.Success"));
        id
    }

    pub fn open_standard(&mut self, id: ConnectionId) {
        let request_id = self.next_request();
        self.send(
            id,
            &OpenStandardMiningChannel {
                request_id,
                user_identity: b"alice.rig1",
                nominal_hash_rate: 1.0,
                max_target: &[0xff; 32],
            },
        );
    }

    pub fn open_extended(&mut self, id: ConnectionId, min_extranonce_size: u16) {
        let request_id = self.next_request();
        self.send(
            id,
            &OpenExtendedMiningChannel {
                request_id,
                user_identity: b"bob",
                nominal_hash_rate: 1.0,
                max_target: &[0xff; 32],
                min_extranonce_size,
            },
        );
    }

    pub fn next_request(&mut self) -> u32 {
        self.next_request += 1;
        self.next_request
    }
}

pub fn setup(flags: u32) -> SetupConnection<'static> {
    SetupConnection {
        protocol: 0,
        min_version: 2,
        max_version: 2,
        flags,
        endpoint_host: b"localhost",
        endpoint_port: 3333,
        vendor: b"vendor",
        hardware_version: b"1",
        firmware: b"fw",
        device_id: b"",
    }
}
