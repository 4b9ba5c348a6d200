//! The codec's boundary: messages decoded from a frame's payload and encoded into a caller's slice, beside the reference
//! implementation's crates.
//!
//! `cargo bench -p adit-bench --bench codec`. Their decoding wants a mutable payload and so gets a fresh copy for each round,
//! which both sides pay; the copy alone is measured beside them.

use std::hint::black_box;

use adit_codec::frame::HEADER_LEN;
use adit_codec::message::{
    Message, MessageKind, NewExtendedMiningJob, Protocol, SubmitSharesExtended, SubmitSharesStandard,
    SubmitSharesSuccess,
};
use adit_codec::{Encode, encode_frame, frame_len};
use codec_sv2::Encoder;
use criterion::{BatchSize, Criterion, Throughput};
use framing_sv2::framing::MessageFrame;
use parsers_sv2::Mining;

/// A message's frame, header included.
fn frame<M: Encode>(message: &M) -> Vec<u8> {
    let mut frame = vec![0; frame_len(message)];
    let len = encode_frame(message, &mut frame).expect("a correct message");
    assert_eq!(len, frame.len());
    frame
}

fn decode<M: Encode>(criterion: &mut Criterion, message: &M) {
    let kind: MessageKind = M::KIND;
    let frame = frame(message);
    let payload = &frame[HEADER_LEN..];
    let header = kind.header(payload.len() as u32);
    let mut group = criterion.benchmark_group(format!("decode/{}", kind.name()));
    group.throughput(Throughput::Elements(1));
    group.bench_function("copy alone", |bencher| {
        bencher.iter_batched_ref(
            || payload.to_vec(),
            |payload| black_box(payload).len(),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("adit", |bencher| {
        bencher.iter_batched_ref(
            || payload.to_vec(),
            |payload| {
                let decoded = Message::decode(black_box(header), payload, Protocol::Mining);
                black_box(&decoded);
                decoded.is_ok()
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("parsers_sv2", |bencher| {
        bencher.iter_batched_ref(
            || payload.to_vec(),
            |payload| {
                let decoded = Mining::try_from((black_box(header.msg_type), payload.as_mut_slice()));
                black_box(&decoded);
                decoded.is_ok()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Their message is the one that they decode from our frame. Their encoder gives each frame a buffer of its pool.
fn encode<M: Encode>(criterion: &mut Criterion, message: &M) {
    let mut out = vec![0; frame_len(message)];
    let mut group = criterion.benchmark_group(format!("encode/{}", M::KIND.name()));
    group.throughput(Throughput::Elements(1));
    group.bench_function("adit", |bencher| {
        bencher.iter(|| encode_frame(black_box(message), black_box(&mut out)).expect("room for the frame"));
    });
    let mut payload = frame(message)[HEADER_LEN..].to_vec();
    let msg_type = M::KIND.header(payload.len() as u32).msg_type;
    let theirs =
        Mining::try_from((msg_type, payload.as_mut_slice())).expect("a correct message").into_owned();
    let mut encoder = Encoder::new();
    group.bench_function("parsers_sv2 and codec_sv2", |bencher| {
        bencher.iter_batched(
            || theirs.clone(),
            |message| {
                let frame = MessageFrame::try_from(message).expect("a short message");
                encoder.encode(frame).expect("room for the frame")
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let standard = SubmitSharesStandard {
        channel_id: 64,
        sequence_number: 7,
        job_id: 9,
        nonce: 0x1234_5678,
        ntime: 1_790_000_000,
        version: 0x2000_0000,
    };
    let extended = SubmitSharesExtended {
        channel_id: 64,
        sequence_number: 7,
        job_id: 9,
        nonce: 0x1234_5678,
        ntime: 1_790_000_000,
        version: 0x2000_0000,
        extranonce: &[7; 8],
    };
    let merkle_path = [[5; 32]; 12];
    let job = NewExtendedMiningJob {
        channel_id: 16,
        job_id: 9,
        min_ntime: None,
        version: 0x2000_0000,
        version_rolling_allowed: true,
        merkle_path: merkle_path[..].into(),
        coinbase_tx_prefix: &[1; 64],
        coinbase_tx_suffix: &[2; 120],
    };
    let success = SubmitSharesSuccess {
        channel_id: 64,
        last_sequence_number: 7,
        new_submits_accepted_count: 1,
        new_shares_sum: 1_000,
    };
    decode(&mut criterion, &standard);
    decode(&mut criterion, &extended);
    decode(&mut criterion, &job);
    encode(&mut criterion, &extended);
    encode(&mut criterion, &job);
    encode(&mut criterion, &success);
    criterion.final_summary();
}
