//! A shard without sockets, and clients that are sealed sessions without sockets: for what is measured or counted.

#![allow(dead_code, unreachable_pub, reason = "each user needs a part")]

use std::time::Duration;

use adit_codec::frame::HEADER_LEN;
use adit_codec::keys::{AuthoritySecretKey, StaticKeyPair};
use adit_codec::message::{
    Message, OpenExtendedMiningChannel, OpenStandardMiningChannel, Protocol, SetupConnection,
    SubmitSharesExtended, SubmitSharesStandard,
};
use adit_codec::noise::{ACT2_LEN, Aead, EphemeralKey, Initiator, Sealer, SecureDeframer, sealed_len};
use adit_codec::{Encode, encode_frame, frame_len};
use adit_engine::service::{Mining, Service};
use adit_engine::shard::{Detached, Effect};
use adit_engine::transport::{Handler, SocketId};
use adit_engine::{EngineLimits, Identity};
use adit_hasher::{Hasher, Target};
use adit_proto::Instant;
use adit_proto::mining::server::{
    Acknowledgement, CoinbasePolicy, ExtranonceLayout, Limits, ServerConfig, ShardId, VardiffConfig,
};
use adit_proto::template::{PrevHash, Template, TemplateUpdate};

pub const NTIME: u32 = 1_700_000_000;

pub fn server_config() -> ServerConfig {
    ServerConfig {
        shard: ShardId(0),
        extranonce: ExtranonceLayout { node: 0, first_slot: 0 },
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
        ntime_tolerance_s: 600,
        required_extensions: Vec::new(),
        limits: Limits {
            channels_per_connection_max: 10_000,
            channels_max: 1 << 20,
            jobs_max: 4,
            shares_per_tip_max: u32::MAX,
            fingerprint_slots_max: 1 << 40,
            errors_max: 1_000,
            errors_window: Duration::from_secs(60),
            setup_timeout: Duration::from_secs(3_600),
            first_channel_timeout: Duration::from_secs(3_600),
            idle_timeout: Duration::from_secs(36_000),
        },
    }
}

pub fn identity() -> Identity {
    let static_key = StaticKeyPair::new(&[7; 64]).expect("in range");
    let authority = AuthoritySecretKey::from_bytes(&[9; 32]).expect("in range");
    let certificate = authority.certify(static_key.public_key(), 0, u32::MAX, &[0; 32]);
    Identity { static_key, certificate }
}

/// The client's end of a connection.
pub struct Client {
    sealer: Sealer,
    deframer: SecureDeframer,
    channel_id: u32,
    job_id: u32,
    version: u32,
    nonce: u32,
    /// How many bytes of extranonce a share has; a standard channel's has none.
    extranonce_size: Option<u16>,
    /// Shares that were answered with a Success.
    pub accepted: u32,
}

impl Client {
    fn seal<M: Encode>(&mut self, message: &M, out: &mut Vec<u8>) {
        let mut frame = [0; 512];
        let frame = &mut frame[..frame_len(message)];
        encode_frame(message, frame).expect("encodable");
        let start = out.len();
        out.resize(start + sealed_len(frame.len() - HEADER_LEN), 0);
        self.sealer.seal_frame_into(frame, &mut out[start..]).expect("there is room");
    }

    pub fn share(&mut self, out: &mut Vec<u8>) {
        self.nonce += 1;
        if let Some(size) = self.extranonce_size {
            let mut extranonce = [0; 32];
            extranonce[..4].copy_from_slice(&self.nonce.to_le_bytes());
            let share = SubmitSharesExtended {
                channel_id: self.channel_id,
                sequence_number: self.nonce,
                job_id: self.job_id,
                nonce: self.nonce,
                ntime: NTIME,
                version: self.version,
                extranonce: &extranonce[..usize::from(size)],
            };
            return self.seal(&share, out);
        }
        let share = SubmitSharesStandard {
            channel_id: self.channel_id,
            sequence_number: self.nonce,
            job_id: self.job_id,
            nonce: self.nonce,
            ntime: NTIME,
            version: self.version,
        };
        self.seal(&share, out);
    }

    pub fn receive(&mut self, mut bytes: Vec<u8>) {
        let mut input = &mut bytes[..];
        while let Some((header, payload)) = self.deframer.next_frame(&mut input).expect("sealed for us") {
            match Message::decode(header, payload, Protocol::Mining).expect("well formed").message {
                Message::OpenStandardMiningChannelSuccess(success) => self.channel_id = success.channel_id,
                Message::OpenExtendedMiningChannelSuccess(success) => {
                    self.channel_id = success.channel_id;
                    self.extranonce_size = Some(success.extranonce_size);
                }
                Message::SubmitSharesSuccess(success) => self.accepted += success.new_submits_accepted_count,
                Message::NewMiningJob(job) => (self.job_id, self.version) = (job.job_id, job.version),
                Message::NewExtendedMiningJob(job) => {
                    (self.job_id, self.version) = (job.job_id, job.version);
                }
                _ => {}
            }
        }
    }
}

/// Adds a connection of `peer` to a shard and sends the first act of its handshake.
pub fn begin<S: Service>(shard: &mut Detached<S>, socket: SocketId, peer: &str) -> Initiator {
    shard.connect(socket, peer.parse().expect("an address"));
    let mut seed = [3; 64];
    seed[..4].copy_from_slice(&(socket.0 + 1).to_le_bytes());
    let (initiator, mut act1) = Initiator::new(EphemeralKey::new(&seed).expect("in range"));
    shard.core.handle_received(socket, &mut act1);
    initiator
}

/// A shard with connections that have a channel each, and their clients.
pub struct World {
    pub shard: Detached<Mining>,
    pub clients: Vec<Client>,
    clock: u64,
}

impl World {
    pub fn new(connections: usize) -> Self {
        let limits = EngineLimits { handshakes_per_second_max: u32::MAX, ..EngineLimits::default() };
        Self::with_limits(connections, limits)
    }

    pub fn with_limits(connections: usize, limits: EngineLimits) -> Self {
        let mut world = Self::empty(limits, Hasher::detect(), Aead::detect());
        for index in 0..connections {
            world.join(SocketId(u32::try_from(index).expect("few")), 0, 1);
        }
        world
    }

    /// A shard that has work and no connections, with kernels of one's own.
    pub fn empty(limits: EngineLimits, hasher: Hasher, aead: Aead) -> Self {
        let mining = Mining::new(server_config(), hasher, Instant::ZERO);
        let shard = Detached::with_aead(mining, limits, identity(), aead, Instant::ZERO);
        let mut world = Self { shard, clients: Vec::new(), clock: 1 };
        let (template, tip) = work(1);
        world.shard.core.handle_update(&template);
        world.shard.core.handle_update(&tip);
        world
    }

    /// Adds a connection of `peer` and sends the first act of its handshake.
    pub fn begin(&mut self, socket: SocketId, peer: &str) -> Initiator {
        begin(&mut self.shard, socket, peer)
    }

    /// Adds a connection with these flags of SetupConnection and so many standard channels.
    pub fn join(&mut self, socket: SocketId, flags: u32, channels: usize) {
        let open = OpenStandardMiningChannel {
            request_id: 1,
            user_identity: b"bench",
            nominal_hash_rate: 1.0,
            max_target: &[0xff; 32],
        };
        self.join_with(socket, flags, channels, &open);
    }

    /// Adds a connection with an extended channel, whose shares have eight bytes of extranonce.
    pub fn join_extended(&mut self, socket: SocketId) {
        let open = OpenExtendedMiningChannel {
            request_id: 1,
            user_identity: b"bench",
            nominal_hash_rate: 1.0,
            max_target: &[0xff; 32],
            min_extranonce_size: 8,
        };
        self.join_with(socket, 0, 1, &open);
    }

    fn join_with<M: Encode>(&mut self, socket: SocketId, flags: u32, channels: usize, open: &M) {
        let initiator = self.begin(socket, "192.0.2.1:1");
        self.next_tick();
        while !self.shard.core.poll_handshakes(1) {
            self.next_tick();
        }
        let act2 = self.take(socket);
        let act2: [u8; ACT2_LEN] = act2.try_into().expect("act 2 alone");
        let session = initiator.finish(&act2, None, 1, 0).expect("a sound handshake");
        let mut client = Client {
            sealer: session.sealer,
            deframer: SecureDeframer::new(session.opener, 1 << 20),
            channel_id: 0,
            job_id: 0,
            version: 0,
            nonce: 0,
            extranonce_size: None,
            accepted: 0,
        };
        let mut bytes = Vec::new();
        let setup = SetupConnection {
            protocol: 0,
            min_version: 2,
            max_version: 2,
            flags,
            endpoint_host: b"localhost",
            endpoint_port: 3333,
            vendor: b"bench",
            hardware_version: b"",
            firmware: b"",
            device_id: b"",
        };
        client.seal(&setup, &mut bytes);
        for _ in 0..channels {
            client.seal(open, &mut bytes);
        }
        self.shard.core.handle_received(socket, &mut bytes);
        self.tick();
        client.receive(self.take(socket));
        assert!(client.channel_id != 0 && client.job_id != 0, "the channel is open and has work");
        self.clients.push(client);
    }

    pub fn next_tick(&mut self) {
        self.clock += 1_000;
        self.shard.core.begin_tick(Instant::from_nanos(self.clock));
    }

    pub fn tick(&mut self) {
        self.shard.core.settle();
        self.shard.core.flush();
        self.shard.core.poll_fan_out(128);
        self.shard.core.flush();
    }

    /// One tick in which the clients from `first` on, as many as `frames` has room for, send a sealed share each, and are
    /// answered. What is answered is put into `sent`.
    pub fn share_tick(&mut self, first: usize, frames: &mut [Vec<u8>], sent: &mut Vec<(SocketId, Vec<u8>)>) {
        self.next_tick();
        for (offset, frame) in frames.iter_mut().enumerate() {
            let index = (first + offset) % self.clients.len();
            self.shard.core.handle_received(SocketId(index as u32), frame);
        }
        self.tick();
        self.take_sends(sent);
    }

    /// One tick in which work comes, and each connection is sent what it must know of it. What is sent is put into `sent`.
    pub fn work_tick(&mut self, updates: &[TemplateUpdate], sent: &mut Vec<(SocketId, Vec<u8>)>) {
        self.next_tick();
        for update in updates {
            self.shard.core.handle_update(update);
        }
        while self.shard.core.poll_fan_out(128) {
            self.shard.core.flush();
        }
        self.shard.core.flush();
        self.take_sends(sent);
    }

    fn take_sends(&mut self, sent: &mut Vec<(SocketId, Vec<u8>)>) {
        self.shard.core.take_effects(|effect| {
            if let Effect::Send(socket, buffer) = effect {
                sent.push((socket, buffer));
            }
        });
    }

    /// The shares of the next [`Self::share_tick`], sealed.
    pub fn seal_shares(&mut self, first: usize, frames: &mut [Vec<u8>]) {
        let clients = self.clients.len();
        for (offset, frame) in frames.iter_mut().enumerate() {
            frame.clear();
            self.clients[(first + offset) % clients].share(frame);
        }
    }

    /// The sends of a tick are done.
    pub fn complete(&mut self, sent: &mut Vec<(SocketId, Vec<u8>)>) {
        for (socket, buffer) in sent.drain(..) {
            self.shard.core.handle_sent(socket, buffer, Ok(()));
        }
    }

    /// What was sent to one socket, with its send completed.
    pub fn take(&mut self, socket: SocketId) -> Vec<u8> {
        let mut sent = Vec::new();
        self.shard.core.take_effects(|effect| {
            if let Effect::Send(to, bytes) = effect {
                assert_eq!(to, socket);
                sent.push(bytes);
            }
        });
        let bytes = sent.concat();
        for buffer in sent {
            self.shard.core.handle_sent(socket, buffer, Ok(()));
        }
        bytes
    }
}

/// A template with twelve levels of merkle path, and a tip whose target nothing meets.
pub fn work(template_id: u64) -> (TemplateUpdate, TemplateUpdate) {
    let mut target = [0; 32];
    target[0] = 1;
    work_for(template_id, Target::from_le_bytes(target))
}

/// As [`work`], with a target of one's own.
pub fn work_for(template_id: u64, target: Target) -> (TemplateUpdate, TemplateUpdate) {
    let template = Template {
        template_id,
        future_template: true,
        version: 0x2000_0000,
        coinbase_tx_version: 2,
        coinbase_prefix: vec![3, 1, 2, 3],
        coinbase_tx_input_sequence: u32::MAX,
        coinbase_tx_value_remaining: 312_500_000,
        coinbase_tx_outputs_count: 0,
        coinbase_tx_outputs: Vec::new(),
        coinbase_tx_locktime: 0,
        merkle_path: vec![[5; 32]; 12],
    };
    let tip = PrevHash {
        template_id,
        prev_hash: [template_id as u8; 32],
        header_timestamp: NTIME,
        nbits: 0x207f_ffff,
        target,
    };
    (TemplateUpdate::NewTemplate(template.into()), TemplateUpdate::SetNewPrevHash(tip.into()))
}
