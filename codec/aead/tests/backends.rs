//! Every backend against `ring`, the oracle.
#![allow(clippy::unwrap_used, reason = "a test may panic, also outside its #[test] function")]

use std::time::{Duration, Instant};

use adit_aead::{
    Aead, Backend, Forged, HEADER_LEN, KEY_LEN, LANES, OpenJob, Opening, SEALED_HEADER_LEN, SMALL_LEN_MAX,
    TAG_LEN, payload_len,
};
use proptest::{collection::vec, prelude::*, sample::Index};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Payloads on both sides of what the kernels take.
const LEN_MAX: usize = 2 * SMALL_LEN_MAX + 1;

type Key = [u8; KEY_LEN];

/// All that this CPU can run. What it cannot is named, so that a log of the tests shows what they did not reach.
fn aeads() -> Vec<(Backend, Aead)> {
    let mut aeads = vec![(Aead::detect().backend(), Aead::detect())];
    for backend in Backend::ALL {
        match Aead::forced(backend) {
            Some(aead) => aeads.push((backend, aead)),
            None => println!("{backend}: not on this CPU"),
        }
    }
    aeads
}

/// What `ring` makes of a text: ciphertext, then tag.
fn sealed_by_ring(key: &Key, nonce: u64, associated: &[u8], text: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap());
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&nonce.to_le_bytes());
    let mut out = text.to_vec();
    let nonce = Nonce::assume_unique_for_key(bytes);
    key.seal_in_place_append_tag(nonce, Aad::from(associated), &mut out).unwrap();
    out
}

/// A plaintext header for a payload of this length, its other bytes without a pattern.
fn header(len: usize) -> [u8; HEADER_LEN] {
    let [low, middle, high, _] = (len as u32).to_le_bytes();
    [0x5c, 0x80, len as u8 ^ 0x1a, low, middle, high]
}

/// Bytes without a pattern.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| ((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_mul(i + 0x1234_5677) >> 29) as u8)
        .collect()
}

fn key(seed: u64) -> Key {
    bytes(seed, KEY_LEN).try_into().unwrap()
}

fn frame_by_ring(key: &Key, nonce: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = sealed_by_ring(key, nonce, &[], &header(payload.len()));
    if !payload.is_empty() {
        frame.extend(sealed_by_ring(key, nonce.wrapping_add(1), &[], payload));
    }
    frame
}

fn frame_sealed(aead: &Aead, key: &Key, nonce: u64, payload: &[u8]) -> Vec<u8> {
    let mut sealed_header = [0xee; SEALED_HEADER_LEN];
    sealed_header[..HEADER_LEN].copy_from_slice(&header(payload.len()));
    let mut sealed_payload = payload.to_vec();
    if !payload.is_empty() {
        sealed_payload.extend([0xee; TAG_LEN]);
    }
    aead.seal_frame(key, nonce, &mut sealed_header, &mut sealed_payload);
    [&sealed_header[..], &sealed_payload].concat()
}

/// Seals and opens one frame and its two texts with `aead`, against `ring`'s bytes.
fn check_frame(aead: &Aead, key: &Key, nonce: u64, payload: &[u8]) {
    let sealed = frame_by_ring(key, nonce, payload);
    assert_eq!(frame_sealed(aead, key, nonce, payload), sealed);

    // What follows the frame is not touched.
    let mut opened = [&sealed[..], &[0xaa; 40]].concat();
    assert_eq!(aead.open_frame(key, nonce, &mut opened, payload.len()), Ok(Opening::Frame));
    assert_eq!(opened[..HEADER_LEN], header(payload.len()));
    let rest = if payload.is_empty() { SEALED_HEADER_LEN } else { sealed.len() };
    assert_eq!(&opened[SEALED_HEADER_LEN..][..payload.len()], payload);
    assert_eq!(opened[rest..], [0xaa; 40]);

    let mut text = payload.to_vec();
    let tag = aead.seal(key, nonce, &[], &mut text);
    let expected = sealed_by_ring(key, nonce, &[], payload);
    assert_eq!([&text[..], &tag].concat(), expected);
    assert_eq!(aead.open(key, nonce, &[], &mut text, &tag), Ok(()));
    assert_eq!(text, payload);
}

#[test]
fn frames_of_every_length() {
    for (_, aead) in aeads() {
        for len in 0..=LEN_MAX {
            for seed in 0..4 {
                check_frame(&aead, &key(seed), seed << 40 | len as u64, &bytes(seed + 7, len));
            }
        }
        check_frame(&aead, &key(9), 1, &bytes(10, 65_519));
    }
}

/// Counters whose successor carries into all of their words, or begins anew.
#[test]
fn nonces_at_their_edges() {
    let edges =
        [0, u32::MAX.into(), u64::from(u32::MAX) << 32, i64::MAX.cast_unsigned(), u64::MAX - 1, u64::MAX];
    for (_, aead) in aeads() {
        for nonce in edges {
            check_frame(&aead, &key(1), nonce, &bytes(2, 24));
        }
    }
}

/// Texts whose ciphertexts are all ones or all zeros, so that Poly1305's blocks are as large or as small as they can be.
#[test]
fn ciphertexts_of_one_bit() {
    for len in 0..=SMALL_LEN_MAX {
        for byte in [0, 0xff] {
            for seed in 0..8 {
                // Sealing zeros gives the keystream; sealing that once more gives zeros.
                let mut text = sealed_by_ring(&key(seed), 5, &[], &vec![0; len]);
                text.truncate(len);
                text.iter_mut().for_each(|b| *b ^= byte);
                let sealed = sealed_by_ring(&key(seed), 5, &[], &text);
                assert_eq!(sealed[..len], vec![byte; len]);
                for (_, aead) in aeads() {
                    let mut opened = sealed[..len].to_vec();
                    let tag = sealed[len..].try_into().unwrap();
                    assert_eq!(aead.open(&key(seed), 5, &[], &mut opened, tag), Ok(()));
                    assert_eq!(aead.seal(&key(seed), 5, &[], &mut opened), *tag);
                }
            }
        }
    }
}

/// RFC 8439, appendix A.1, test vector 2: block 1 of key and nonce zero. The RFC's other vectors have nonces that Noise has
/// not, or are in the modules' own tests.
#[test]
fn the_keystream_meets_rfc_8439() {
    let block = hex::decode(
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed\
         29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
    )
    .unwrap();
    for (backend, aead) in aeads() {
        let mut text = [0; SMALL_LEN_MAX];
        aead.seal(&[0; KEY_LEN], 0, &[], &mut text);
        assert_eq!(text[..], block, "{backend}");
    }
}

/// A flip of any bit of any byte is noticed, and shows no plaintext.
#[test]
fn flipped_bits_are_refused() {
    for (backend, aead) in aeads() {
        for len in [0, 1, 15, 16, 17, 24, 40, 63, 64, 65, 100] {
            let sealed = frame_by_ring(&key(3), 8, &bytes(4, len));
            for at in 0..sealed.len() {
                for bit in 0..8 {
                    let mut forged = sealed.clone();
                    forged[at] ^= 1 << bit;
                    let before = forged.clone();
                    let result = aead.open_frame(&key(3), 8, &mut forged, LEN_MAX);
                    assert_eq!(result, Err(Forged), "{backend}, {len} bytes, byte {at}");
                    let is_in_header = at < SEALED_HEADER_LEN;
                    let header_shown = if is_in_header { &before[..HEADER_LEN] } else { &header(len) };
                    let is_zeroed = |shown: &[u8]| shown.iter().all(|byte| *byte == 0);
                    let shown = &forged[..HEADER_LEN];
                    assert!(shown == header_shown || is_zeroed(shown));
                    let shown = &forged[SEALED_HEADER_LEN..];
                    assert!(shown == &before[SEALED_HEADER_LEN..] || is_zeroed(&shown[..len]));
                }
            }
        }
    }
}

/// Another nonce, another key, a payload in the place of another.
#[test]
fn texts_out_of_place_are_refused() {
    for (_, aead) in aeads() {
        let sealed = frame_by_ring(&key(3), 8, &bytes(4, 24));
        for (wrong_key, nonce) in [(key(3), 7), (key(3), 9), (key(3), 8 | 1 << 32), (key(4), 8)] {
            assert_eq!(aead.open_frame(&wrong_key, nonce, &mut sealed.clone(), LEN_MAX), Err(Forged));
        }
        let other = frame_by_ring(&key(3), 10, &bytes(4, 24));
        let mut mixed = [&sealed[..SEALED_HEADER_LEN], &other[SEALED_HEADER_LEN..]].concat();
        assert_eq!(aead.open_frame(&key(3), 8, &mut mixed, LEN_MAX), Err(Forged));
    }
}

/// What is cut off or over the limit leaves the payload as it is, whatever it holds; a cut header is refused.
#[test]
fn payloads_that_are_not_taken() {
    for (_, aead) in aeads() {
        for len in [1, 24, 64, 65, 100] {
            let sealed = frame_by_ring(&key(5), 1, &bytes(6, len));
            for end in 0..sealed.len() {
                let mut cut = sealed[..end].to_vec();
                let result = aead.open_frame(&key(5), 1, &mut cut, LEN_MAX);
                if end < SEALED_HEADER_LEN {
                    assert_eq!((result, &cut[..]), (Err(Forged), &sealed[..end]));
                } else {
                    assert_eq!(result, Ok(Opening::Header));
                    assert_eq!(payload_len(cut.first_chunk().unwrap()), len);
                    assert_eq!(cut[SEALED_HEADER_LEN..], sealed[SEALED_HEADER_LEN..end]);
                }
            }
            for (len_max, expected) in [(len - 1, Opening::Header), (len, Opening::Frame)] {
                let mut bytes = sealed.clone();
                assert_eq!(aead.open_frame(&key(5), 1, &mut bytes, len_max), Ok(expected));
                let is_sealed = bytes[SEALED_HEADER_LEN..] == sealed[SEALED_HEADER_LEN..];
                assert_eq!(is_sealed, expected == Opening::Header);
            }
        }
    }
}

#[test]
fn associated_data_goes_to_ring() {
    for (_, aead) in aeads() {
        let sealed = sealed_by_ring(&key(1), 2, b"hash", b"text");
        let mut text = *b"text";
        let tag = aead.seal(&key(1), 2, b"hash", &mut text);
        assert_eq!([&text[..], &tag].concat(), sealed);
        assert_eq!(aead.open(&key(1), 2, b"hask", &mut text.clone(), &tag), Err(Forged));
        assert_eq!(aead.open(&key(1), 2, b"hash", &mut text, &tag), Ok(()));
        assert_eq!(&text, b"text");
    }
}

proptest! {
    #[test]
    fn random_frames(
        key in any::<[u8; KEY_LEN]>(),
        nonce in any::<u64>(),
        payload in vec(any::<u8>(), 0..=LEN_MAX),
        at in any::<Index>(),
        flip in 1..=255_u8,
    ) {
        for (_, aead) in aeads() {
            check_frame(&aead, &key, nonce, &payload);
            let mut forged = frame_by_ring(&key, nonce, &payload);
            let at = at.index(forged.len());
            forged[at] ^= flip;
            prop_assert_eq!(aead.open_frame(&key, nonce, &mut forged, LEN_MAX), Err(Forged));
        }
    }

    /// Runs with anything in them, and with one byte changed.
    #[test]
    fn random_runs(
        key in any::<[u8; KEY_LEN]>(),
        nonce in any::<u64>(),
        lens in vec(prop_oneof![8 => 1..=SMALL_LEN_MAX, 1 => 0..=LEN_MAX], 0..12),
        at in any::<Index>(),
        flip in any::<u8>(),
        len_max in prop_oneof![4 => Just(LEN_MAX), 1 => 0..=LEN_MAX],
    ) {
        let mut run = run_by_ring(&key, nonce, &lens);
        if !run.is_empty() {
            let at = at.index(run.len());
            run[at] ^= flip;
        }
        for (_, aead) in aeads() {
            check_run(&aead, &key, nonce, &run, len_max);
        }
    }

    #[test]
    fn random_sealed_runs(
        key in any::<[u8; KEY_LEN]>(),
        nonce in any::<u64>(),
        lens in vec(prop_oneof![8 => 1..=SMALL_LEN_MAX, 1 => 0..=LEN_MAX], 0..12),
    ) {
        for (_, aead) in aeads() {
            check_sealed_run(&aead, &key, nonce, &lens);
        }
    }

    /// Batches with anything in them: whole frames, cut ones, changed ones, limits.
    #[test]
    fn random_batches(
        jobs in vec(
            (any::<[u8; KEY_LEN]>(), any::<u64>(), vec(any::<u8>(), 0..=LEN_MAX), 0..400_usize, any::<Index>(), 0..=LEN_MAX),
            0..20,
        ),
    ) {
        let jobs: Vec<_> = jobs
            .into_iter()
            .map(|(key, nonce, payload, how, at, len_max)| {
                let mut bytes = frame_by_ring(&key, nonce, &payload);
                let at = at.index(bytes.len());
                match how {
                    0..100 => bytes[at] ^= 1 << (how % 8),
                    100..150 => bytes.truncate(at),
                    _ => {}
                }
                (key, nonce, bytes, if how < 300 { LEN_MAX } else { len_max })
            })
            .collect();
        for (_, aead) in aeads() {
            check_batch(&aead, &jobs);
        }
    }

    /// Nothing that a stranger sends opens, and nothing panics.
    #[test]
    fn random_bytes_are_refused(mut bytes in vec(any::<u8>(), 0..200), nonce in any::<u64>()) {
        for (_, aead) in aeads() {
            prop_assert_eq!(aead.open_frame(&[7; KEY_LEN], nonce, &mut bytes, LEN_MAX), Err(Forged));
        }
    }
}

/// What [`Aead::open_frame`] makes of a job, and what it leaves of its bytes.
fn opened_alone(key: &Key, nonce: u64, bytes: &[u8], len_max: usize) -> (Result<Opening, Forged>, Vec<u8>) {
    let mut bytes = bytes.to_vec();
    let outcome = Aead::forced(Backend::Ring).unwrap().open_frame(key, nonce, &mut bytes, len_max);
    (outcome, bytes)
}

/// Opens jobs in one batch, and holds each against what becomes of it alone.
fn check_batch(aead: &Aead, jobs: &[(Key, u64, Vec<u8>, usize)]) {
    let mut bytes: Vec<Vec<u8>> = jobs.iter().map(|(_, _, bytes, _)| bytes.clone()).collect();
    let mut open_jobs: Vec<OpenJob<'_>> = jobs
        .iter()
        .zip(&mut bytes)
        .map(|((key, nonce, ..), bytes)| OpenJob { key, nonce: *nonce, bytes, payload_len_max: 0 })
        .collect();
    for (job, (.., len_max)) in open_jobs.iter_mut().zip(jobs) {
        job.payload_len_max = *len_max;
    }
    let mut outcomes = vec![Ok(Opening::Header); jobs.len()];
    aead.open_frames(&mut open_jobs, &mut outcomes);
    for ((outcome, bytes), (key, nonce, sealed, len_max)) in outcomes.into_iter().zip(bytes).zip(jobs) {
        let (expected, plain) = opened_alone(key, *nonce, sealed, *len_max);
        assert_eq!(outcome, expected);
        if outcome.is_ok() {
            assert_eq!(bytes, plain);
        } else {
            let from = SEALED_HEADER_LEN.min(sealed.len());
            assert!(
                bytes[from..] == sealed[from..]
                    || bytes[from..].iter().all(|byte| *byte == 0)
                    || bytes[from..] == plain[from..]
            );
        }
    }
}

/// Every length and every size of a batch, each frame under its own key.
#[test]
fn batches_of_every_size() {
    for (_, aead) in aeads() {
        for size in 0..=2 * LANES + 1 {
            for shift in 0..=LEN_MAX {
                let job = |i: usize| {
                    let (nonce, len) = (u64::MAX - i as u64, (shift + 9 * i) % (LEN_MAX + 1));
                    (
                        key(i as u64),
                        nonce,
                        frame_by_ring(&key(i as u64), nonce, &bytes(i as u64, len)),
                        LEN_MAX,
                    )
                };
                check_batch(&aead, &(0..size).map(job).collect::<Vec<_>>());
            }
        }
    }
}

/// A forged frame in a batch is refused and its neighbours are not: every lane, every byte.
#[test]
fn forgeries_in_batches() {
    for (_, aead) in aeads() {
        for lane in 0..LANES {
            for len in [0, 24, 64, 70] {
                let sealed = frame_by_ring(&key(1), 2, &bytes(3, len));
                for at in 0..sealed.len() {
                    let mut jobs = vec![(key(1), 2, sealed.clone(), LEN_MAX); LANES];
                    jobs[lane].2[at] ^= 1 << (at % 8);
                    check_batch(&aead, &jobs);
                }
            }
        }
    }
}

/// Frames of one connection, one after the other.
fn run_by_ring(key: &Key, nonce: u64, lens: &[usize]) -> Vec<u8> {
    let mut nonce = nonce;
    let mut run = Vec::new();
    for (i, len) in lens.iter().enumerate() {
        run.extend(frame_by_ring(key, nonce, &bytes(i as u64, *len)));
        nonce = nonce.wrapping_add(if *len == 0 { 1 } else { 2 });
    }
    run
}

/// What a run opens is what opening one by one opens, what it leaves is as it was, and it takes no frame that it should
/// not. Returns how many frames it took.
fn check_run(aead: &Aead, key: &Key, nonce: u64, run: &[u8], len_max: usize) -> usize {
    let mut opened = run.to_vec();
    let count = aead.open_run(key, nonce, &mut opened, len_max);
    let mut alone = run.to_vec();
    let (mut at, mut frame_nonce) = (0, nonce);
    for _ in 0..count {
        let outcome =
            Aead::forced(Backend::Ring).unwrap().open_frame(key, frame_nonce, &mut alone[at..], len_max);
        assert_eq!(outcome, Ok(Opening::Frame));
        let len = payload_len(alone[at..].first_chunk().unwrap());
        assert!((1..=SMALL_LEN_MAX).contains(&len));
        at += SEALED_HEADER_LEN + len + TAG_LEN;
        frame_nonce = frame_nonce.wrapping_add(2);
    }
    for (i, (opened, alone)) in opened.iter().zip(&alone).enumerate() {
        // The tags are nobody's business; they are not compared, as a backend may or may not leave them.
        assert!(opened == alone, "byte {i} of a run of {count}");
    }
    count
}

#[test]
fn runs_of_every_length() {
    for (backend, aead) in aeads() {
        let mut most = 0;
        for len in 1..=SMALL_LEN_MAX + 1 {
            for count in 0..=LANES + 2 {
                let run = run_by_ring(&key(2), 77, &vec![len; count]);
                for cut in [0, 1, TAG_LEN, SEALED_HEADER_LEN + len] {
                    let run = &run[..run.len().saturating_sub(cut)];
                    let taken = check_run(&aead, &key(2), 77, run, SMALL_LEN_MAX);
                    let whole = run.len() / (SEALED_HEADER_LEN + len + TAG_LEN);
                    assert!(taken <= whole.min(LANES) && (len <= SMALL_LEN_MAX || taken == 0));
                    most = most.max(taken);
                }
            }
        }
        println!("{backend}: runs of up to {most}");
        assert!(most == 0 || most == LANES);
    }
}

/// An empty frame, a long one, one over the limit: a run ends before it.
#[test]
fn runs_end_before_what_they_do_not_take() {
    for (_, aead) in aeads() {
        for odd in [0, SMALL_LEN_MAX + 1, 100, 40] {
            for at in 0..LANES {
                let mut lens = [24; LANES + 1];
                lens[at] = odd;
                let run = run_by_ring(&key(2), u64::MAX - 4, &lens);
                let taken = check_run(&aead, &key(2), u64::MAX - 4, &run, 30);
                assert!(taken == 0 || taken == at, "{taken} {at}");
            }
        }
    }
}

/// A run ends before a frame with a flipped bit, wherever it is: also where the flip makes its header announce another
/// length, so that all frames behind it are looked for in wrong places.
#[test]
fn runs_end_before_a_forgery() {
    for (_, aead) in aeads() {
        let len = 24;
        let sealed_len = SEALED_HEADER_LEN + len + TAG_LEN;
        let run = run_by_ring(&key(2), 3, &[len; LANES]);
        for at in 0..run.len() {
            for bit in 0..8 {
                let mut forged = run.clone();
                forged[at] ^= 1 << bit;
                let mut opened = forged.clone();
                let taken = aead.open_run(&key(2), 3, &mut opened, SMALL_LEN_MAX);
                assert!(taken == 0 || taken == at / sealed_len, "{taken} frames, byte {at}");
                assert_eq!(opened[taken * sealed_len..], forged[taken * sealed_len..]);
            }
        }
    }
}

/// Frames as they lie before they are sealed, one after the other; the room for tags has anything in it.
fn plain_run(lens: &[usize]) -> Vec<u8> {
    let mut run = Vec::new();
    for (i, len) in lens.iter().enumerate() {
        run.extend(header(*len));
        run.extend([0xee; TAG_LEN]);
        run.extend(bytes(i as u64, *len));
        run.extend(&[0xee; TAG_LEN][..if *len == 0 { 0 } else { TAG_LEN }]);
    }
    run
}

/// What a run seals are `ring`'s bytes, and what it leaves is as it was. Returns how many frames it took.
fn check_sealed_run(aead: &Aead, key: &Key, nonce: u64, lens: &[usize]) -> usize {
    let plain = plain_run(lens);
    let mut sealed = plain.clone();
    let (count, len) = aead.seal_run(key, nonce, &mut sealed);
    let expected = run_by_ring(key, nonce, &lens[..count]);
    assert_eq!(len, expected.len());
    assert_eq!(sealed[..len], expected);
    assert_eq!(sealed[len..], plain[len..]);
    count
}

#[test]
fn runs_of_every_length_are_sealed() {
    for (backend, aead) in aeads() {
        let mut most = 0;
        for len in 0..=SMALL_LEN_MAX + 1 {
            for count in 0..=LANES + 2 {
                let taken = check_sealed_run(&aead, &key(2), u64::MAX - 9, &vec![len; count]);
                assert!(taken <= count.min(LANES) && ((1..=SMALL_LEN_MAX).contains(&len) || taken == 0));
                most = most.max(taken);
            }
        }
        println!("{backend}: sealed runs of up to {most}");
        assert!(most == 0 || most == LANES);
        // Each length in each lane, beside others.
        for shift in 0..SMALL_LEN_MAX {
            let lens: Vec<usize> = (0..LANES).map(|lane| (shift + 9 * lane) % SMALL_LEN_MAX + 1).collect();
            assert_eq!(check_sealed_run(&aead, &key(5), shift as u64, &lens), most);
        }
    }
}

/// An empty frame, a long one, one that is not all there: a run ends before it.
#[test]
fn sealed_runs_end_before_what_they_do_not_take() {
    for (_, aead) in aeads() {
        for at in 0..LANES {
            for odd in [0, SMALL_LEN_MAX + 1, 100] {
                let mut lens = [24; LANES + 1];
                lens[at] = odd;
                let taken = check_sealed_run(&aead, &key(2), 4, &lens);
                assert!(taken <= at, "{taken} {at}");
            }
            let plain = plain_run(&[24; LANES]);
            let cut = &plain[..(at + 1) * plain.len() / LANES - 1];
            let mut sealed = cut.to_vec();
            let (taken, len) = aead.seal_run(&key(2), 4, &mut sealed);
            assert!(taken <= at, "{taken} {at}");
            assert_eq!(sealed[len..], cut[len..]);
        }
    }
}

#[test]
fn backends_have_names() {
    for backend in Backend::ALL {
        assert_eq!(backend.to_string().parse(), Ok(backend));
        assert_eq!(backend.is_supported(), Aead::forced(backend).is_some());
    }
    let error = "sse9".parse::<Backend>().unwrap_err().to_string();
    assert!(Backend::ALL.iter().all(|backend| error.contains(&backend.to_string())), "{error}");
    assert!(Backend::Ring.is_supported(), "it is for every CPU");
    let detected = Aead::detect().backend();
    assert_eq!(Aead::forced(detected).map(|aead| aead.backend()), Some(detected));
    for (backend, aead) in aeads() {
        assert!(aead.describe().starts_with(&backend.to_string()), "{}", aead.describe());
    }
}

/// A kernel whose instructions were not inlined calls a function for each: some microseconds a frame. The least of many
/// runs is held against a bound that is an order of magnitude above what the kernels take.
#[test]
fn kernels_are_inlined() {
    for (backend, frame_ns_max) in [(Backend::Avx2, 1000), (Backend::Avx512, 700)] {
        let Some(aead) = Aead::forced(backend) else { continue };
        let (mut header, mut payload) = ([0; SEALED_HEADER_LEN], [0; 24 + TAG_LEN]);
        let least = (0..1000)
            .map(|_| {
                let begin = Instant::now();
                for nonce in 0..8 {
                    aead.seal_frame(&[1; KEY_LEN], nonce, &mut header, &mut payload);
                }
                begin.elapsed() / 8
            })
            .min();
        println!("{backend}: {least:?}");
        assert!(least.unwrap() < Duration::from_nanos(frame_ns_max), "{backend}: {least:?}");
    }
}
