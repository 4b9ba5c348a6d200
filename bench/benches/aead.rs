//! The AEAD's boundary: share frames opened, one by one, as a batch of several connections, and as a run of one; an answer sealed.
//! Each backend that this CPU can run, what is detected, and the crates `ring` and `chacha20poly1305` as one would use them, side by
//! side. Throughput is in frames.
//!
//! `cargo bench -p adit-bench --bench aead`

use std::hint::black_box;
use std::time::Duration;

use adit_aead::{Aead, Backend, HEADER_LEN, OpenJob, Opening, SEALED_HEADER_LEN, TAG_LEN};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, measurement::WallTime};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Payloads: SubmitSharesStandard, SubmitSharesExtended with 8 bytes of extranonce, SetNewPrevHash, and the longest that is
/// small.
const PAYLOAD_LENS: [usize; 4] = [24, 33, 48, 64];

/// Frames that are opened in one go, each with a key of its own.
const FRAMES: usize = 8;

/// Room for a sealed frame.
const FRAME_LEN_MAX: usize = SEALED_HEADER_LEN + 64 + TAG_LEN;

type Frame = [u8; FRAME_LEN_MAX];

fn aeads() -> Vec<(String, Aead)> {
    let detected = Aead::detect();
    println!("detected: {}", detected.describe());
    let forced = Backend::ALL
        .into_iter()
        .filter_map(|backend| Some((format!("adit, {backend}"), Aead::forced(backend)?)));
    forced.chain([("adit, detected".to_owned(), detected)]).collect()
}

fn key(connection: usize) -> [u8; 32] {
    [connection as u8 + 1; 32]
}

/// A plaintext frame: the header, room for its tag, the payload, room for its tag.
fn plain_frame(payload_len: usize) -> Frame {
    let mut frame = [0x5a; FRAME_LEN_MAX];
    frame[..HEADER_LEN].copy_from_slice(&[0, 0x80, 0x1a, payload_len as u8, 0, 0]);
    frame
}

fn sealed_frame(connection: usize, payload_len: usize) -> Frame {
    let mut frame = plain_frame(payload_len);
    seal_with_adit(&Aead::detect(), connection, &mut frame, payload_len);
    frame
}

fn seal_with_adit(aead: &Aead, connection: usize, frame: &mut Frame, payload_len: usize) {
    let (header, payload) = frame.split_first_chunk_mut().expect("a frame has a header");
    aead.seal_frame(black_box(&key(connection)), 0, header, &mut payload[..payload_len + TAG_LEN]);
}

fn ring_nonce(nonce: u8) -> Nonce {
    Nonce::assume_unique_for_key([0, 0, 0, 0, nonce, 0, 0, 0, 0, 0, 0, 0])
}

/// The key made once a frame, as a connection would that keeps 32 bytes.
fn ring_key(connection: usize) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, black_box(&key(connection))).expect("32 bytes"))
}

fn open_with_ring(connection: usize, frame: &mut Frame, payload_len: usize) {
    let key = ring_key(connection);
    let (header, payload) = frame.split_at_mut(SEALED_HEADER_LEN);
    key.open_in_place(ring_nonce(0), Aad::empty(), header).expect("an untouched header");
    key.open_in_place(ring_nonce(1), Aad::empty(), &mut payload[..payload_len + TAG_LEN])
        .expect("an untouched payload");
}

fn seal_with_ring(connection: usize, frame: &mut Frame, payload_len: usize) {
    let key = ring_key(connection);
    let (header, payload) = frame.split_at_mut(SEALED_HEADER_LEN);
    for (nonce, text, len) in [(0, header, HEADER_LEN), (1, payload, payload_len)] {
        let (text, room) = text.split_at_mut(len);
        let tag = key.seal_in_place_separate_tag(ring_nonce(nonce), Aad::empty(), text).expect("short texts");
        room[..TAG_LEN].copy_from_slice(tag.as_ref());
    }
}

fn crate_nonce(nonce: u8) -> chacha20poly1305::Nonce {
    [0, 0, 0, 0, nonce, 0, 0, 0, 0, 0, 0, 0].into()
}

fn open_with_crate(connection: usize, frame: &mut Frame, payload_len: usize) {
    let cipher = ChaCha20Poly1305::new(black_box(&key(connection).into()));
    let (header, payload) = frame.split_at_mut(SEALED_HEADER_LEN);
    for (nonce, sealed, len) in [(0, header, HEADER_LEN), (1, payload, payload_len)] {
        let (text, tag) = sealed[..len + TAG_LEN].split_at_mut(len);
        cipher
            .decrypt_in_place_detached(&crate_nonce(nonce), &[], text, (&*tag).into())
            .expect("an untouched text");
    }
}

fn seal_with_crate(connection: usize, frame: &mut Frame, payload_len: usize) {
    let cipher = ChaCha20Poly1305::new(black_box(&key(connection).into()));
    let (header, payload) = frame.split_at_mut(SEALED_HEADER_LEN);
    for (nonce, text, len) in [(0, header, HEADER_LEN), (1, payload, payload_len)] {
        let (text, room) = text.split_at_mut(len);
        let tag = cipher.encrypt_in_place_detached(&crate_nonce(nonce), &[], text).expect("short texts");
        room[..TAG_LEN].copy_from_slice(&tag);
    }
}

fn group<'a>(criterion: &'a mut Criterion, name: &str, frames: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(frames as u64));
    group
}

/// One frame after the other, each of another connection. The frames are copied within what is measured, which takes 2 ns
/// each.
fn opens(criterion: &mut Criterion, aeads: &[(String, Aead)]) {
    for len in PAYLOAD_LENS {
        let sealed: [Frame; FRAMES] = core::array::from_fn(|connection| sealed_frame(connection, len));
        let mut group = group(criterion, "open frames one by one", FRAMES);
        let mut bench = |name: &str, open: &dyn Fn(usize, &mut Frame)| {
            group.bench_function(BenchmarkId::new(name, len), |bencher| {
                bencher.iter(|| {
                    let mut frames = *black_box(&sealed);
                    for (connection, frame) in frames.iter_mut().enumerate() {
                        open(connection, frame);
                    }
                    black_box(&mut frames);
                });
            });
        };
        for (name, aead) in aeads {
            bench(name, &|connection, frame| {
                aead.open_frame(black_box(&key(connection)), 0, frame, len)
                    .map(drop)
                    .expect("untouched frames");
            });
        }
        bench("ring", &|connection, frame| open_with_ring(connection, frame, len));
        bench("chacha20poly1305", &|connection, frame| open_with_crate(connection, frame, len));
        group.finish();
    }
}

/// The first frames of several connections, by size of the batch.
fn batches(criterion: &mut Criterion, aeads: &[(String, Aead)]) {
    const LEN: usize = 24;
    let sealed: [Frame; FRAMES] = core::array::from_fn(|connection| sealed_frame(connection, LEN));
    let keys: [[u8; 32]; FRAMES] = core::array::from_fn(key);
    for size in [1, 2, 4, FRAMES] {
        let mut group = group(criterion, "open a batch", size);
        for (name, aead) in aeads {
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    let mut frames = *black_box(&sealed);
                    let mut jobs = frames.each_mut().map(|bytes| OpenJob {
                        key: &keys[0],
                        nonce: 0,
                        bytes,
                        payload_len_max: LEN,
                    });
                    for (job, key) in jobs.iter_mut().zip(black_box(&keys)) {
                        job.key = key;
                    }
                    let mut outcomes = [Ok(Opening::Header); FRAMES];
                    aead.open_frames(&mut jobs[..size], &mut outcomes[..size]);
                    assert!(outcomes[..size].iter().all(|outcome| *outcome == Ok(Opening::Frame)));
                    black_box(&mut frames);
                });
            });
        }
        group.finish();
    }
}

/// Frames of one connection that lie one after the other, by their number. What no run takes is opened one by one.
fn runs(criterion: &mut Criterion, aeads: &[(String, Aead)]) {
    const LEN: usize = 24;
    const SEALED_LEN: usize = SEALED_HEADER_LEN + LEN + TAG_LEN;
    for count in [2, 4, 8, 32] {
        let mut sealed = vec![[0; SEALED_LEN]; count];
        for (nonce, frame) in (0..).step_by(2).zip(&mut sealed) {
            let (header, payload) = frame.split_first_chunk_mut().expect("a frame has a header");
            header[3] = LEN as u8;
            Aead::detect().seal_frame(&key(0), nonce, header, payload);
        }
        let sealed = sealed.as_flattened();
        let mut bytes = sealed.to_vec();
        let mut group = group(criterion, "open a run", count);
        for (name, aead) in aeads {
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| {
                    bytes.copy_from_slice(black_box(sealed));
                    let mut opened = 0;
                    while opened < count {
                        let (rest, nonce) = (&mut bytes[opened * SEALED_LEN..], 2 * opened as u64);
                        let taken = aead.open_run(&key(0), nonce, rest, LEN);
                        if taken == 0 {
                            aead.open_frame(&key(0), nonce, rest, LEN).expect("untouched frames");
                        }
                        opened += taken.max(1);
                    }
                    black_box(&mut bytes);
                });
            });
        }
        group.finish();
    }
}

/// The same the other way round: frames of one connection that are sealed where they lie.
fn sealed_runs(criterion: &mut Criterion, aeads: &[(String, Aead)]) {
    const LEN: usize = 24;
    const SEALED_LEN: usize = SEALED_HEADER_LEN + LEN + TAG_LEN;
    let mut plain = [0; SEALED_LEN];
    plain[3] = LEN as u8;
    for count in [2, 4, 8, 32] {
        let plain = plain.repeat(count);
        let mut bytes = plain.clone();
        let mut group = group(criterion, "seal a run", count);
        for (name, aead) in aeads {
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| {
                    bytes.copy_from_slice(black_box(&plain));
                    let mut sealed = 0;
                    while sealed < count {
                        let (rest, nonce) = (&mut bytes[sealed * SEALED_LEN..], 2 * sealed as u64);
                        let (taken, _) = aead.seal_run(&key(0), nonce, rest);
                        if taken == 0 {
                            let (header, rest) = rest.split_first_chunk_mut().expect("a frame has a header");
                            aead.seal_frame(&key(0), nonce, header, &mut rest[..LEN + TAG_LEN]);
                        }
                        sealed += taken.max(1);
                    }
                    black_box(&mut bytes);
                });
            });
        }
        group.finish();
    }
}

fn seals(criterion: &mut Criterion, aeads: &[(String, Aead)]) {
    for len in PAYLOAD_LENS {
        let plain = plain_frame(len);
        let mut group = group(criterion, "seal a frame", 1);
        let mut bench = |name: &str, seal: &dyn Fn(&mut Frame)| {
            group.bench_function(BenchmarkId::new(name, len), |bencher| {
                bencher.iter(|| {
                    let mut frame = *black_box(&plain);
                    seal(&mut frame);
                    black_box(&mut frame);
                });
            });
        };
        for (name, aead) in aeads {
            bench(name, &|frame| seal_with_adit(aead, 0, frame, len));
        }
        bench("ring", &|frame| seal_with_ring(0, frame, len));
        bench("chacha20poly1305", &|frame| seal_with_crate(0, frame, len));
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
        .sample_size(20)
        .without_plots()
        .configure_from_args();
    let aeads = aeads();
    opens(&mut criterion, &aeads);
    batches(&mut criterion, &aeads);
    runs(&mut criterion, &aeads);
    sealed_runs(&mut criterion, &aeads);
    seals(&mut criterion, &aeads);
    criterion.final_summary();
}
