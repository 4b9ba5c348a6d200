//! Scenarios: an upstream played by frames that the codec writes.

use std::vec;
use std::vec::Vec;

use adit_codec::frame::{FrameHeader, HEADER_LEN};
use adit_codec::message::{
    Message, NewExtendedMiningJob, NewMiningJob, OpenExtendedMiningChannelSuccess,
    OpenStandardMiningChannelSuccess, Protocol, SetNewPrevHash, SetupConnectionSuccess,
};
use adit_codec::seq::Seq;
use adit_codec::{Encode, encode_frame, frame_len};
use adit_hasher::{Digest, Portable, Target, merkle_root_from_path};

use super::*;
use crate::mining::server::{ChannelId, JobId};
use crate::time::Instant;

mod hostile;
mod jobs;
mod requests;
mod setup;
mod shares;

const PATH: [[u8; 32]; 2] = [[0x11; 32], [0x22; 32]];
const COINBASE_PREFIX: &[u8] = &[0xaa; 70];
const COINBASE_SUFFIX: &[u8] = &[0xbb; 41];
const GROUP: ChannelId = ChannelId(16);

fn config(flags: u32, extensions: &[u16]) -> ClientConfig {
    ClientConfig {
        endpoint_host: b"pool.example".to_vec(),
        endpoint_port: 3333,
        vendor: b"test".to_vec(),
        hardware_version: b"1".to_vec(),
        firmware: b"2".to_vec(),
        device_id: Vec::new(),
        flags,
        requested_extensions: extensions.to_vec(),
        limits: ClientLimits::default(),
    }
}

/// A client and the upstream that it believes in.
struct Scenario {
    client: Client,
    out: ClientOutbox,
    now: Instant,
}

impl Scenario {
    fn new(config: ClientConfig) -> Self {
        Self {
            client: Client::new(config).unwrap(),
            out: ClientOutbox::new(),
            now: Instant::from_nanos(1_000),
        }
    }

    /// Set up, without extensions.
    fn ready() -> Self {
        Self::ready_with(config(0, &[]), 0)
    }

    fn ready_with(config: ClientConfig, server_flags: u32) -> Self {
        let mut scenario = Self::new(config);
        scenario.client.handle_connected(scenario.now, &mut scenario.out);
        scenario.receive(&SetupConnectionSuccess { used_version: 2, flags: server_flags }).unwrap();
        assert!(scenario.client.is_ready());
        scenario.forget();
        scenario
    }

    /// Opens a standard channel in [`GROUP`] with a prefix of 16 bytes.
    fn with_standard(mut self, channel: u32) -> Self {
        let request = self.client.open_standard(b"user", 1e3, Target::MAX, self.now, &mut self.out).unwrap();
        self.receive(&OpenStandardMiningChannelSuccess {
            request_id: request.0,
            channel_id: channel,
            target: &[0x7f; 32],
            extranonce_prefix: &[channel as u8; 16],
            group_channel_id: GROUP.0,
        })
        .unwrap();
        self.forget();
        self
    }

    /// Opens an extended channel in [`GROUP`] with a prefix of 10 and 6 bytes to roll.
    fn with_extended(mut self, channel: u32) -> Self {
        let request =
            self.client.open_extended(b"user", 1e3, Target::MAX, 6, self.now, &mut self.out).unwrap();
        self.receive(&OpenExtendedMiningChannelSuccess {
            request_id: request.0,
            channel_id: channel,
            target: &[0x7f; 32],
            extranonce_size: 6,
            extranonce_prefix: &[channel as u8; 10],
            group_channel_id: GROUP.0,
        })
        .unwrap();
        self.forget();
        self
    }

    fn receive<M: Encode>(&mut self, message: &M) -> Result<(), ClientFault> {
        let mut frame = vec![0; frame_len(message)];
        encode_frame(message, &mut frame).unwrap();
        self.receive_frame(&frame)
    }

    fn receive_frame(&mut self, frame: &[u8]) -> Result<(), ClientFault> {
        let (header, payload) = frame.split_first_chunk::<HEADER_LEN>().unwrap();
        self.client.handle_frame(FrameHeader::parse(header), payload, self.now, &mut self.out)
    }

    fn events(&mut self) -> Vec<ClientEvent> {
        self.out.drain_events().collect()
    }

    /// The frames sent since the last look.
    fn sent(&mut self) -> Vec<Vec<u8>> {
        let frames = self.out.frames().map(|(_, _, frame)| frame.to_vec()).collect();
        self.out.clear_frames();
        frames
    }

    fn forget(&mut self) {
        self.events();
        self.sent();
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + core::time::Duration::from_secs(seconds);
    }

    fn standard_job(&mut self, channel: u32, job_id: u32, min_ntime: Option<u32>) -> Result<(), ClientFault> {
        let merkle_root = &[job_id as u8; 32];
        self.receive(&NewMiningJob {
            channel_id: channel,
            job_id,
            min_ntime,
            version: 0x2000_0000,
            merkle_root,
        })
    }

    fn extended_job(&mut self, channel: u32, job_id: u32, min_ntime: Option<u32>) -> Result<(), ClientFault> {
        self.receive(&extended_job(channel, job_id, min_ntime))
    }

    fn prev_hash(&mut self, channel: u32, job_id: u32) -> Result<(), ClientFault> {
        let prev_hash = &[0x99; 32];
        self.receive(&SetNewPrevHash {
            channel_id: channel,
            job_id,
            prev_hash,
            min_ntime: 1_000,
            nbits: 0x207f_ffff,
        })
    }

    fn work(&self, channel: u32) -> Work {
        self.client.work(ChannelId(channel), &Portable).unwrap()
    }
}

fn extended_job(channel_id: u32, job_id: u32, min_ntime: Option<u32>) -> NewExtendedMiningJob<'static> {
    NewExtendedMiningJob {
        channel_id,
        job_id,
        min_ntime,
        version: 0x2000_0000,
        version_rolling_allowed: true,
        merkle_path: Seq::from(&PATH[..]),
        coinbase_tx_prefix: COINBASE_PREFIX,
        coinbase_tx_suffix: COINBASE_SUFFIX,
    }
}

/// The merkle root as the specification describes it, hashed in one go.
fn root_of(full_extranonce: &[u8]) -> [u8; 32] {
    let coinbase = [COINBASE_PREFIX, full_extranonce, COINBASE_SUFFIX].concat();
    merkle_root_from_path(&Digest::of(&coinbase).0, &PATH)
}

/// Reads a sent frame.
fn message(frame: &[u8]) -> Message<'_> {
    let (header, payload) = frame.split_first_chunk::<HEADER_LEN>().unwrap();
    Message::decode(FrameHeader::parse(header), payload, Protocol::Mining).unwrap().message
}
