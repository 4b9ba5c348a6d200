//! The encrypted transport beside SRI's: handshakes, and a share frame sealed and opened.
//!
//! Both run in one process, with the same frame. SRI's responder takes part whole, with its two key
//! generations and its signature for each connection; ours signs once and may have its ephemeral key ready.

use std::{hint::black_box, time::Duration};

use adit_codec::{
    frame::FrameHeader,
    keys::{AuthoritySecretKey, Certificate, StaticKeyPair},
    noise::{
        ACT1_LEN, ACT2_LEN, EphemeralKey, FRAME_OFFSET, Initiator, Responder, SecureDeframer, SpareBuffers,
        Transport, sealed_len,
    },
};
use codec_sv2::{Decrypted, Handshake, NoiseDecoder, NoiseEncoder, TransportEncryptState};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use framing_sv2::framing::SerializedFrame;

/// SubmitSharesStandard: the frame that a pool opens most.
const SHARE_PAYLOAD_LEN: usize = 24;
/// Frames that one received buffer brings.
const FRAMES_PER_BUFFER: usize = 64;
const AUTHORITY_SECRET: [u8; 32] = [7; 32];

struct Server {
    authority: AuthoritySecretKey,
    static_key: StaticKeyPair,
    certificate: Certificate,
}

fn server() -> Server {
    let authority = AuthoritySecretKey::from_bytes(&AUTHORITY_SECRET).expect("a valid secret");
    let static_key = StaticKeyPair::new(&[2; 64]).expect("a valid secret");
    let certificate = authority.certify(static_key.public_key(), 0, u32::MAX, &[3; 32]);
    Server { authority, static_key, certificate }
}

/// A different key each time, as in life.
fn ephemeral(count: &mut u64) -> EphemeralKey {
    *count += 1;
    let mut random = [0x41; 64];
    random[..8].copy_from_slice(&count.to_le_bytes());
    random[56..].copy_from_slice(&count.to_le_bytes());
    EphemeralKey::new(&random).expect("a valid secret")
}

fn respond(server: &Server, act1: &[u8; ACT1_LEN], ephemeral: EphemeralKey) -> ([u8; ACT2_LEN], Transport) {
    let mut act2 = [0; ACT2_LEN];
    let transport = Responder::respond(act1, &server.static_key, &server.certificate, ephemeral, &mut act2);
    (act2, transport)
}

fn pair() -> (Transport, Transport) {
    let server = server();
    let mut count = 0;
    let (initiator, act1) = Initiator::new(ephemeral(&mut count));
    let (act2, responding) = respond(&server, &act1, ephemeral(&mut count));
    let initiating =
        initiator.finish(&act2, Some(&server.authority.public_key()), 1, 0).expect("our own certificate");
    (initiating, responding)
}

fn their_responder(server: &Server) -> Handshake<noise_sv2::Responder> {
    let public = server.authority.public_key().to_bytes();
    let validity = Duration::from_secs(3600);
    let responder = noise_sv2::Responder::from_authority_kp(&public, &AUTHORITY_SECRET, validity);
    Handshake::responder(responder.expect("a valid pair"))
}

fn share_frame() -> Vec<u8> {
    let header = FrameHeader {
        extension_type: 0,
        channel_msg: true,
        msg_type: 0x1a,
        payload_len: SHARE_PAYLOAD_LEN as u32,
    };
    let mut frame = header.to_bytes().to_vec();
    frame.resize(frame.len() + SHARE_PAYLOAD_LEN, 0x5a);
    frame
}

fn handshake(criterion: &mut Criterion) {
    let server = server();
    let authority = server.authority.public_key();
    let mut count = 0;
    let (_, act1) = Initiator::new(ephemeral(&mut count));
    let mut group = criterion.benchmark_group("handshake");
    group.bench_function("ephemeral key", |b| b.iter(|| ephemeral(&mut count)));
    group.bench_function("respond", |b| {
        b.iter(|| {
            let ephemeral = ephemeral(&mut count);
            respond(&server, &act1, ephemeral)
        });
    });
    group.bench_function("respond, key made in idle time", |b| {
        b.iter_batched(
            || ephemeral(&mut count),
            |ephemeral| respond(&server, &act1, ephemeral),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("respond, noise_sv2", |b| {
        b.iter(|| their_responder(&server).step_1(black_box(act1)).expect("a handshake"));
    });
    group.bench_function("initiate and finish", |b| {
        b.iter_batched(
            || {
                let key = ephemeral(&mut count);
                let (_, act1) = Initiator::new(key);
                // The initiator is made again from the same randomness within the measured part.
                let again = count;
                let (act2, _) = respond(&server, &act1, ephemeral(&mut count));
                (again - 1, act2)
            },
            |(mut again, act2)| {
                let (initiator, _) = Initiator::new(ephemeral(&mut again));
                initiator.finish(&act2, Some(&authority), 1, 0).expect("our own certificate")
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn seal(criterion: &mut Criterion) {
    let frame = share_frame();
    let mut group = criterion.benchmark_group("seal one share frame");
    group.throughput(Throughput::Elements(1));
    let (mut ours, _) = pair();
    let mut out = vec![0; sealed_len(SHARE_PAYLOAD_LEN)];
    group.bench_function("adit, in place", |b| {
        b.iter(|| {
            out[FRAME_OFFSET..FRAME_OFFSET + frame.len()].copy_from_slice(&frame);
            ours.sealer.seal_frame(&mut out, frame.len()).expect("room and nonces")
        });
    });
    let mut encrypt = their_encrypt_state(&server()).0;
    let mut encoder = NoiseEncoder::new();
    group.bench_function("codec_sv2", |b| {
        b.iter_batched(
            || SerializedFrame::from_bytes(frame.clone()).expect("a frame"),
            |frame| encoder.encode_transport(frame, &mut encrypt).expect("nonces"),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Their sealing side, with our opening side of the same connection.
fn their_encrypt_state(server: &Server) -> (TransportEncryptState, Transport) {
    let mut count = 1000;
    let (initiator, act1) = Initiator::new(ephemeral(&mut count));
    let (act2, theirs) = their_responder(server).step_1(act1).expect("a handshake");
    let act2 = act2.payload().try_into().expect("234 bytes");
    let ours = initiator.finish(&act2, None, 0, 0).expect("a handshake");
    (theirs.split().0, ours)
}

fn sealed_shares(transport: &mut Transport) -> Vec<u8> {
    let frame = share_frame();
    let mut buffer = vec![0; FRAMES_PER_BUFFER * sealed_len(SHARE_PAYLOAD_LEN)];
    for out in buffer.chunks_mut(sealed_len(SHARE_PAYLOAD_LEN)) {
        transport.sealer.seal_frame_into(&frame, out).expect("room and nonces");
    }
    buffer
}

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open 64 share frames from one buffer");
    group.throughput(Throughput::Elements(FRAMES_PER_BUFFER as u64));
    group.bench_function("adit", |b| {
        let (mut from, to) = pair();
        let mut deframer = SecureDeframer::new(to.opener, 1 << 16);
        let mut spares = SpareBuffers::new(0);
        b.iter_batched(
            || sealed_shares(&mut from),
            |mut buffer| {
                let mut frames = deframer.frames(&mut buffer);
                while let Some(frame) = frames.next_frame(&mut spares).expect("untouched frames") {
                    black_box(frame);
                }
                drop(frames);
                buffer
            },
            // The counters of both sides go in step, so each buffer is opened in the order of its making.
            BatchSize::PerIteration,
        );
    });
    group.bench_function("adit, one by one", |b| {
        let (mut from, to) = pair();
        let mut deframer = SecureDeframer::new(to.opener, 1 << 16);
        b.iter_batched(
            || sealed_shares(&mut from),
            |mut buffer| {
                let mut input = &mut buffer[..];
                while let Some(frame) = deframer.next_frame(&mut input).expect("untouched frames") {
                    black_box(frame);
                }
                buffer
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("codec_sv2", |b| {
        let server = server();
        let mut count = 2000;
        let (initiator, act1) = Initiator::new(ephemeral(&mut count));
        let (act2, theirs) = their_responder(&server).step_1(act1).expect("a handshake");
        let act2 = act2.payload().try_into().expect("234 bytes");
        let mut ours = initiator.finish(&act2, None, 0, 0).expect("a handshake");
        let mut decrypt = Some(theirs.split().1);
        let mut decoder = NoiseDecoder::new();
        b.iter_batched(
            || sealed_shares(&mut ours),
            |buffer| {
                let mut rest = &buffer[..];
                while !rest.is_empty() {
                    let room = decoder.writable();
                    let (taken, after) = rest.split_at(room.len());
                    room.copy_from_slice(taken);
                    rest = after;
                    let state = decrypt.take().expect("the state comes back");
                    decrypt = Some(match decoder.next_transport_frame(state).expect("untouched frames") {
                        Decrypted::Frame(frame, state) => {
                            black_box(frame);
                            state
                        }
                        Decrypted::Incomplete(_, state) => state,
                    });
                }
                buffer
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, handshake, seal, open);
criterion_main!(benches);
