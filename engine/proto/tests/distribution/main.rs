//! The Template Distribution Protocol: each side by raw frames, both ends in virtual time, and both under random input.
#![allow(clippy::unwrap_used, reason = "a test that stops is a test that failed")]

mod client;
mod server;
mod turmoil;
mod world;

use std::sync::Arc;
use std::time::Duration;

use adit_codec::frame::{FrameHeader, HEADER_LEN};
use adit_codec::message::{Message, Protocol, SetupConnection};
use adit_codec::{Encode, encode_frame, frame_len};
use adit_hasher::Target;
use adit_proto::Instant;
use adit_proto::distribution::Constraints;
use adit_proto::distribution::client::{ClientConfig, ClientLimits};
use adit_proto::template::{PrevHash, Template, TemplateUpdate};

pub(crate) fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

pub(crate) fn encode<M: Encode>(message: &M) -> Vec<u8> {
    let mut frame = vec![0; frame_len(message)];
    encode_frame(message, &mut frame).unwrap();
    frame
}

pub(crate) fn split(frame: &[u8]) -> (FrameHeader, &[u8]) {
    let (header, payload) = frame.split_first_chunk::<HEADER_LEN>().unwrap();
    let header = FrameHeader::parse(header);
    assert_eq!(header.payload_len as usize, payload.len());
    (header, payload)
}

pub(crate) fn decode(frame: &[u8]) -> Message<'_> {
    let (header, payload) = split(frame);
    assert!(!header.channel_msg, "no message of this protocol is a channel's");
    let decoded = Message::decode(header, payload, Protocol::TemplateDistribution).unwrap();
    assert!(decoded.trailing.is_empty());
    decoded.message
}

pub(crate) fn setup(protocol: u8, versions: (u16, u16), flags: u32) -> SetupConnection<'static> {
    SetupConnection {
        protocol,
        min_version: versions.0,
        max_version: versions.1,
        flags,
        endpoint_host: b"localhost",
        endpoint_port: 8336,
        vendor: b"test",
        hardware_version: b"",
        firmware: b"1",
        device_id: b"",
    }
}

/// A template whose version is its id, so that it is known whatever id it is shown under.
pub(crate) fn template(template_id: u64, future_template: bool) -> Template {
    let mut output = vec![0; 8];
    output.extend([2, 0x6a, 0x00]);
    Template {
        template_id,
        future_template,
        version: template_id as u32,
        coinbase_tx_version: 2,
        coinbase_prefix: vec![1, 9],
        coinbase_tx_input_sequence: u32::MAX,
        coinbase_tx_value_remaining: 5_000_000_000,
        coinbase_tx_outputs_count: 1,
        coinbase_tx_outputs: output,
        coinbase_tx_locktime: 0,
        merkle_path: vec![[7; 32]],
    }
}

pub(crate) fn new_template(template_id: u64, future_template: bool) -> TemplateUpdate {
    TemplateUpdate::NewTemplate(Arc::new(template(template_id, future_template)))
}

pub(crate) fn new_tip(template_id: u64, tip: u8) -> TemplateUpdate {
    TemplateUpdate::SetNewPrevHash(Arc::new(PrevHash {
        template_id,
        prev_hash: [tip; 32],
        header_timestamp: 1_700_000_000,
        nbits: 0x207f_ffff,
        target: Target::from_le_bytes([0x7f; 32]),
    }))
}

pub(crate) fn client_config(constraints: Constraints) -> ClientConfig {
    ClientConfig {
        endpoint_host: b"localhost".to_vec(),
        endpoint_port: 8336,
        vendor: b"test".to_vec(),
        hardware_version: Vec::new(),
        firmware: b"1".to_vec(),
        device_id: Vec::new(),
        constraints,
        limits: ClientLimits::default(),
    }
}
