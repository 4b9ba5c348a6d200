//! The Mining Protocol's server without shard and cipher, for what is measured of the protocol alone.

use std::sync::Arc;

use adit_codec::frame::{FrameHeader, HEADER_LEN};
use adit_codec::message::{
    Message, OpenExtendedMiningChannel, OpenStandardMiningChannel, Protocol, SetupConnection,
    SubmitSharesExtended, SubmitSharesStandard,
};
use adit_codec::{Encode, encode_frame, frame_len};
use adit_hasher::BatchHash;
use adit_proto::Instant;
use adit_proto::mining::server::{ConnectionId, Server, ServerOutbox};
use adit_proto::template::TemplateUpdate;

use crate::detached::{NTIME, server_config, work};

/// The flag of SetupConnection for a client that cannot take group jobs.
pub const REQUIRES_STANDARD_JOBS: u32 = 1;

/// Bytes of extranonce in each extended share.
pub const EXTRANONCE_LEN: usize = 8;

/// A server with work, in virtual time.
#[derive(Debug)]
pub struct PlainServer<H> {
    /// The server itself.
    pub server: Server,
    /// Its effects.
    pub out: ServerOutbox,
    hasher: H,
    depth: usize,
}

/// A client's channel, on a connection of its own.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    connection: ConnectionId,
    channel_id: u32,
    job_id: u32,
    version: u32,
    is_extended: bool,
}

/// A share as a frame.
pub type ShareFrame = Vec<u8>;

impl<H: BatchHash> PlainServer<H> {
    /// A server on a tip whose target nothing meets, with jobs of so many levels of merkle path.
    #[must_use]
    pub fn new(hasher: H, depth: usize) -> Self {
        let server = Server::new(server_config(), Instant::ZERO);
        let mut new = Self { server, out: ServerOutbox::new(), hasher, depth };
        new.take_work(1);
        new
    }

    /// A template and its tip come; nobody is told yet.
    pub fn take_work(&mut self, template_id: u64) {
        let (mut template, tip) = work(template_id);
        if let TemplateUpdate::NewTemplate(template) = &mut template {
            Arc::make_mut(template).merkle_path = vec![[5; 32]; self.depth];
        }
        for update in [template, tip] {
            self.server.handle_template(&update, Instant::ZERO).expect("a good template and its tip");
        }
    }

    /// Emits what all connections must know of the work.
    pub fn fan_out(&mut self) {
        while self.server.poll_fan_out(128, &self.hasher, &mut self.out) {}
    }

    /// A connection with one channel, which has work.
    ///
    /// # Panics
    /// If the server refuses it.
    pub fn open(&mut self, flags: u32, is_extended: bool) -> Channel {
        let connection = self.server.handle_connect(Instant::ZERO);
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
        self.receive(connection, &frame(&setup));
        let opening = if is_extended {
            frame(&OpenExtendedMiningChannel {
                request_id: 1,
                user_identity: b"bench",
                nominal_hash_rate: 1.0,
                max_target: &[0xff; 32],
                min_extranonce_size: EXTRANONCE_LEN as u16,
            })
        } else {
            frame(&OpenStandardMiningChannel {
                request_id: 1,
                user_identity: b"bench",
                nominal_hash_rate: 1.0,
                max_target: &[0xff; 32],
            })
        };
        self.receive(connection, &opening);
        let mut channel = Channel { connection, channel_id: 0, job_id: 0, version: 0, is_extended };
        for (_, _, frame) in self.out.frames() {
            let (header, payload) = split(frame);
            match Message::decode(header, payload, Protocol::Mining).expect("well formed").message {
                Message::OpenStandardMiningChannelSuccess(success) => channel.channel_id = success.channel_id,
                Message::OpenExtendedMiningChannelSuccess(success) => {
                    assert_eq!(usize::from(success.extranonce_size), EXTRANONCE_LEN);
                    channel.channel_id = success.channel_id;
                }
                Message::NewMiningJob(job) => (channel.job_id, channel.version) = (job.job_id, job.version),
                Message::NewExtendedMiningJob(job) => {
                    (channel.job_id, channel.version) = (job.job_id, job.version);
                }
                _ => {}
            }
        }
        self.out.clear_frames();
        assert!(channel.channel_id != 0 && channel.job_id != 0, "the channel is open and has work");
        channel
    }

    /// A frame of a channel's client comes in.
    pub fn receive_share(&mut self, channel: &Channel, frame: &[u8]) {
        self.receive(channel.connection, frame);
    }

    /// Judges the shares that have come, and answers.
    pub fn settle(&mut self) {
        self.server.settle(&self.hasher, Instant::ZERO, &mut self.out);
    }

    /// Forgets the frames, as a driver that has sent them.
    pub fn forget_frames(&mut self) {
        self.out.clear_frames();
        self.out.drain_events().for_each(drop);
    }

    fn receive(&mut self, connection: ConnectionId, frame: &[u8]) {
        let (header, payload) = split(frame);
        self.server.handle_frame(connection, header, payload, Instant::ZERO, &self.hasher, &mut self.out);
    }
}

impl Channel {
    /// A share that no other number gives.
    #[must_use]
    pub fn share(&self, number: u32) -> ShareFrame {
        let mut extranonce = [0; EXTRANONCE_LEN];
        extranonce[..4].copy_from_slice(&number.to_le_bytes());
        if self.is_extended {
            return frame(&SubmitSharesExtended {
                channel_id: self.channel_id,
                sequence_number: number,
                job_id: self.job_id,
                nonce: number,
                ntime: NTIME,
                version: self.version,
                extranonce: &extranonce,
            });
        }
        frame(&SubmitSharesStandard {
            channel_id: self.channel_id,
            sequence_number: number,
            job_id: self.job_id,
            nonce: number,
            ntime: NTIME,
            version: self.version,
        })
    }
}

/// A message's frame, header included.
///
/// # Panics
/// If a field is longer than its type allows.
pub fn frame<M: Encode>(message: &M) -> Vec<u8> {
    let mut frame = vec![0; frame_len(message)];
    let len = encode_frame(message, &mut frame).expect("a correct message");
    assert_eq!(len, frame.len());
    frame
}

fn split(frame: &[u8]) -> (FrameHeader, &[u8]) {
    let (header, payload) = frame.split_first_chunk::<HEADER_LEN>().expect("a frame has a header");
    (FrameHeader::parse(header), payload)
}
