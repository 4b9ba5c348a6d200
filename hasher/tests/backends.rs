//! Every backend against the oracle, and the oracle against another implementation of SHA-256.
#![cfg(feature = "kernels")]

use std::time::{Duration, Instant};

use adit_hasher::{
    Backend, BatchHash, COINBASE_PART_LEN_MAX, CoinbaseJob, CoinbaseJobError, Digest, EXTRANONCE_LEN_MAX,
    Hasher, HeaderBytes, MERKLE_PATH_LEN_MAX, Portable, Target, merkle_path, merkle_root,
    merkle_root_from_path,
};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

/// Twice the lanes of the widest kernel, and one.
const BATCH_MAX: usize = 33;

/// All that this CPU can run. What it cannot is named, so that a log of the tests shows what they did not reach.
fn hashers() -> Vec<(String, Hasher)> {
    let mut hashers = vec![(format!("detected: {}", Hasher::detect().describe()), Hasher::detect())];
    for backend in Backend::ALL {
        match Hasher::forced(backend) {
            Some(hasher) => hashers.push((backend.to_string(), hasher)),
            None => println!("{backend}: not on this CPU"),
        }
    }
    hashers
}

fn double_sha256(message: &[u8]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(message)).into()
}

/// Bytes without a pattern.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 32);
    for counter in 0u64.. {
        if out.len() >= len {
            break;
        }
        out.extend_from_slice(&Sha256::digest([seed.to_le_bytes(), counter.to_le_bytes()].concat()));
    }
    out.truncate(len);
    out
}

fn headers(seed: u64, count: usize) -> Vec<HeaderBytes> {
    bytes(seed, 80 * count).as_chunks().0.to_vec()
}

fn merkle_root_by_hand(coinbase: &[u8], path: &[[u8; 32]]) -> [u8; 32] {
    path.iter().fold(double_sha256(coinbase), |left, right| double_sha256(&[left, *right].concat()))
}

#[test]
fn one_message_of_every_length() {
    for len in 0..=260 {
        let message = bytes(1, len);
        assert_eq!(Digest::of(&message).0, double_sha256(&message), "{len} bytes");
    }
}

/// One full pass and one that is padded of every kernel, against known good: short enough for Miri, which also runs
/// instructions that the machine has not (see the module `arch`).
#[test]
fn every_kernel_once() {
    let (prefix, suffix, path) = (bytes(20, 50), bytes(21, 30), [[6; 32]]);
    let job = CoinbaseJob::new(&prefix, 32, &suffix, &path).unwrap();
    for backend in Backend::ALL {
        let Some(hasher) = Hasher::forced(backend) else { continue };
        for size in [1, 2, 5, 16] {
            let headers = headers(22, size);
            let mut digests = vec![Digest::default(); size];
            hasher.header_digests(&headers, &mut digests);
            for (header, digest) in headers.iter().zip(digests) {
                assert_eq!(digest.0, double_sha256(header), "{backend}");
            }
        }
        for size in [7, 16] {
            let extranonces = bytes(23, 32 * size);
            let mut roots = vec![[0; 32]; size];
            hasher.merkle_roots(&job, &extranonces, &mut roots);
            for (extranonce, root) in extranonces.chunks(32).zip(roots) {
                assert_eq!(
                    root,
                    merkle_root_by_hand(&[&prefix, extranonce, &suffix].concat(), &path),
                    "{backend}"
                );
            }
        }
        let header = headers(24, 1)[0];
        let digests = nonces_by_hand(&header, 3..=22);
        // A target that is one of the digests: it is met by itself, and by about half of the others.
        let target = Target::from_le_bytes(digests[4].1.0);
        let mut found = Vec::new();
        assert_eq!(hasher.scan_nonces(&header, 3, 20, &target, &mut found, 20), 20);
        let meet: Vec<u32> =
            digests.iter().filter(|(_, digest)| target.is_met_by(digest)).map(|(nonce, _)| *nonce).collect();
        assert!(meet.contains(&7));
        assert_eq!(found, meet, "{backend}");
        println!("{backend}: checked");
    }
}

#[test]
fn headers_at_every_batch_size() {
    for (name, hasher) in hashers() {
        for size in 0..=BATCH_MAX {
            let headers = headers(size as u64, size);
            let (mut expected, mut digests) = (vec![Digest::default(); size], vec![Digest::default(); size]);
            Portable.header_digests(&headers, &mut expected);
            hasher.header_digests(&headers, &mut digests);
            assert_eq!(digests, expected, "{name}, {size} headers");
            for (header, digest) in headers.iter().zip(digests) {
                assert_eq!(digest.0, double_sha256(header), "{name}");
            }
        }
    }
}

/// Words of all ones and all zeros drive the additions' carries to both ends.
#[test]
fn headers_at_the_edges_of_the_additions() {
    let mut headers: Vec<HeaderBytes> = vec![[0; 80], [0xff; 80], [0x80; 80], [0x7f; 80]];
    for word in 0..20 {
        for (rest, value) in [(0u8, 0xffu8), (0xff, 0), (0, 0x80), (0xff, 0x7f)] {
            let mut header = [rest; 80];
            header[4 * word..4 * word + 4].fill(value);
            headers.push(header);
        }
    }
    for (name, hasher) in hashers() {
        let mut digests = vec![Digest::default(); headers.len()];
        hasher.header_digests(&headers, &mut digests);
        for (header, digest) in headers.iter().zip(digests) {
            assert_eq!(digest.0, double_sha256(header), "{name}");
        }
    }
}

/// Every length on both sides of a block's border, alone and among others.
#[test]
fn messages_of_every_length() {
    let lengths = (0..=260).chain([1_000, 65_535]);
    let messages: Vec<Vec<u8>> = lengths.map(|len| bytes(30 + len as u64, len)).collect();
    let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    for (name, hasher) in hashers() {
        let mut digests = vec![[0; 32]; messages.len()];
        hasher.message_digests(&messages, &mut digests);
        for (message, digest) in messages.iter().zip(digests) {
            assert_eq!(digest, double_sha256(message), "{name}, {} bytes", message.len());
            let mut alone = [[0; 32]];
            hasher.message_digests(&[message], &mut alone);
            assert_eq!(alone[0], digest, "{name}, {} bytes", message.len());
        }
    }
}

#[test]
fn messages_at_every_batch_size() {
    // Three, two and five blocks, taking turns.
    let messages: Vec<Vec<u8>> =
        (0..3 * BATCH_MAX).map(|index| bytes(index as u64, [130, 64, 300][index % 3])).collect();
    let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let expected: Vec<[u8; 32]> = messages.iter().map(|message| double_sha256(message)).collect();
    for (name, hasher) in hashers() {
        for size in 0..=messages.len() {
            let mut digests = vec![[0; 32]; size];
            hasher.message_digests(&messages[..size], &mut digests);
            assert_eq!(digests, expected[..size], "{name}, {size} messages");
        }
    }
}

#[test]
fn merkle_roots_at_every_batch_size() {
    for (name, hasher) in hashers() {
        for size in 0..=BATCH_MAX {
            for (prefix_len, len, suffix_len, depth) in [(102, 20, 120, 3), (60, 8, 70, 0), (41, 0, 3, 2)] {
                let (prefix, suffix) = (bytes(2, prefix_len), bytes(3, suffix_len));
                let path: Vec<[u8; 32]> = bytes(4, 32 * depth).as_chunks().0.to_vec();
                let extranonces = bytes(5, len * size);
                let job = CoinbaseJob::new(&prefix, len, &suffix, &path).unwrap();
                let (mut expected, mut roots) = (vec![[1; 32]; size], vec![[2; 32]; size]);
                Portable.merkle_roots(&job, &extranonces, &mut expected);
                hasher.merkle_roots(&job, &extranonces, &mut roots);
                assert_eq!(roots, expected, "{name}, {size} lanes of {len} bytes");
            }
        }
    }
}

/// Every place of the extranonce within a block, every length, and tails that end on each side of a block's border.
#[test]
fn coinbases_split_everywhere() {
    let coinbase = bytes(6, 64 * 2 + 64 + EXTRANONCE_LEN_MAX + 130);
    let path: [[u8; 32]; 1] = [[7; 32]];
    let hashers = hashers();
    for prefix_len in 0..=128 {
        for len in 0..=EXTRANONCE_LEN_MAX {
            for suffix_len in
                [0, 1, (119 - (prefix_len + len) % 64) % 64, (120 - (prefix_len + len) % 64) % 64, 130]
            {
                let (prefix, rest) = coinbase.split_at(prefix_len);
                let (extranonce, rest) = rest.split_at(len);
                let suffix = &rest[..suffix_len];
                let second: Vec<u8> = extranonce.iter().map(|byte| !byte).collect();
                let job = CoinbaseJob::new(prefix, len, suffix, &path).unwrap();
                let expected = [extranonce, &second, extranonce]
                    .map(|extranonce| merkle_root_by_hand(&[prefix, extranonce, suffix].concat(), &path));
                for (name, hasher) in &hashers {
                    let mut roots = [[0; 32]; 3];
                    hasher.merkle_roots(&job, &[extranonce, &second, extranonce].concat(), &mut roots);
                    assert_eq!(roots, expected, "{name}: {prefix_len} + {len} + {suffix_len}");
                }
            }
        }
    }
}

#[test]
fn jobs_have_limits() {
    let job = |prefix: usize, len, suffix: usize, depth| {
        CoinbaseJob::new(&vec![0; prefix], len, &vec![0; suffix], &vec![[0; 32]; depth])
    };
    let job_max =
        job(COINBASE_PART_LEN_MAX, EXTRANONCE_LEN_MAX, COINBASE_PART_LEN_MAX, MERKLE_PATH_LEN_MAX).unwrap();
    let mut root = [[0; 32]];
    Hasher::detect().merkle_roots(&job_max, &[9; 32], &mut root);
    let coinbase = [vec![0; COINBASE_PART_LEN_MAX], vec![9; 32], vec![0; COINBASE_PART_LEN_MAX]].concat();
    assert_eq!(root[0], merkle_root_by_hand(&coinbase, &[[0; 32]; MERKLE_PATH_LEN_MAX]));

    let error = |result: Result<CoinbaseJob, CoinbaseJobError>| result.unwrap_err();
    assert_eq!(error(job(0, 33, 0, 0)), CoinbaseJobError::ExtranonceTooLong { len: 33 });
    assert_eq!(error(job(65_536, 32, 0, 0)), CoinbaseJobError::CoinbaseTooLong { len: 65_536 });
    assert_eq!(error(job(0, 32, 70_000, 0)), CoinbaseJobError::CoinbaseTooLong { len: 70_000 });
    assert_eq!(error(job(0, 32, 0, 33)), CoinbaseJobError::MerklePathTooLong { len: 33 });
    assert_eq!(error(job(0, 33, 0, 0)).to_string(), "extranonce: 33 bytes, at most 32");
}

/// The digests of a header with each nonce of a range, ascending.
fn nonces_by_hand(header: &HeaderBytes, nonces: std::ops::RangeInclusive<u32>) -> Vec<(u32, Digest)> {
    nonces
        .map(|nonce| {
            let mut header = *header;
            header[76..].copy_from_slice(&nonce.to_le_bytes());
            (nonce, Digest(double_sha256(&header)))
        })
        .collect()
}

#[test]
fn scans_find_what_a_loop_finds() {
    let header = headers(8, 1)[0];
    for (name, hasher) in
        hashers().into_iter().chain([("oracle".into(), Hasher::forced(Backend::Portable).unwrap())])
    {
        for first in [0, 1, 0x1234_5678, u32::MAX - 200, u32::MAX - 33, u32::MAX - 7, u32::MAX] {
            for count in [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 201, 1000] {
                let tried = u64::from(count).min((1 << 32) - u64::from(first)) as u32;
                let digests =
                    if tried == 0 { vec![] } else { nonces_by_hand(&header, first..=first + (tried - 1)) };
                // About one in 16 meets the first target, all meet the second, none the third.
                for top in [0x0f, 0xff, 0] {
                    let mut target = [0xff; 32];
                    target[31] = top;
                    if top == 0 {
                        target = [0; 32];
                    }
                    let target = Target::from_le_bytes(target);
                    let meet: Vec<u32> = digests
                        .iter()
                        .filter(|(_, digest)| target.is_met_by(digest))
                        .map(|(nonce, _)| *nonce)
                        .collect();
                    for max_found in [0, 1, 3, 2000] {
                        let mut found = Vec::new();
                        let returned =
                            hasher.scan_nonces(&header, first, count, &target, &mut found, max_found);
                        let expected = &meet[..meet.len().min(max_found)];
                        assert_eq!(found, expected, "{name}: {count} from {first}, {max_found} wanted");
                        let stopped = match (max_found, expected.last()) {
                            (0, _) => 0,
                            (_, Some(last)) if expected.len() == max_found => last - first + 1,
                            _ => tried,
                        };
                        assert_eq!(returned, stopped, "{name}: {count} from {first}, {max_found} wanted");
                    }
                }
            }
        }
    }
}

/// The target equal to a digest, one above, one below, and with each single byte changed.
#[test]
fn scans_compare_exactly() {
    let header = headers(9, 1)[0];
    let digests = nonces_by_hand(&header, 0..=40);
    for (name, hasher) in hashers() {
        for (nonce, digest) in &digests {
            for at in 0..32 {
                for change in [-1i8, 0, 1] {
                    let mut target = digest.0;
                    target[at] = target[at].wrapping_add_signed(change);
                    let target = Target::from_le_bytes(target);
                    let mut found = Vec::new();
                    hasher.scan_nonces(&header, *nonce, 1, &target, &mut found, 1);
                    let meets = digest.0.iter().rev().cmp(target.as_le_bytes().iter().rev()).is_le();
                    assert_eq!(
                        found.contains(nonce),
                        meets,
                        "{name}: nonce {nonce}, byte {at}, change {change}"
                    );
                    assert!(change != 0 || meets);
                }
            }
        }
    }
}

#[test]
fn found_is_appended_to() {
    let header = headers(10, 1)[0];
    for (name, hasher) in hashers() {
        let mut found = vec![77];
        assert_eq!(hasher.scan_nonces(&header, 5, 100, &Target::MAX, &mut found, 1), 0, "{name}");
        assert_eq!(hasher.scan_nonces(&header, 5, 100, &Target::MAX, &mut found, 3), 2, "{name}");
        assert_eq!(found, [77, 5, 6], "{name}");
    }
}

#[test]
fn trees_of_every_size() {
    for size in (0..=40).chain([64, 127, 129, 1_000]) {
        let txids: Vec<[u8; 32]> = bytes(11, 32 * size).as_chunks().0.to_vec();
        let mut level = txids.clone();
        while level.len() > 1 {
            level = level
                .chunks(2)
                .map(|pair| double_sha256(&[pair[0], pair[pair.len() - 1]].concat()))
                .collect();
        }
        let root = level.first().copied().unwrap_or_default();
        assert_eq!(merkle_root(&txids), root, "{size}");
        let path = merkle_path(&txids);
        if let Some(coinbase) = txids.first() {
            assert_eq!(merkle_root_from_path(coinbase, &path), root, "{size}");
            let mut other = txids.clone();
            other[0] = [0; 32];
            assert_eq!(merkle_path(&other), path, "the first id has no influence");
            assert_eq!(merkle_root(&other), merkle_root_from_path(&[0; 32], &path));
        }
        assert_eq!(path.len(), size.max(1).next_power_of_two().ilog2() as usize);
    }
}

#[test]
fn backends_have_names() {
    for backend in Backend::ALL {
        assert_eq!(backend.to_string().parse(), Ok(backend));
        assert_eq!(backend.is_supported(), Hasher::forced(backend).is_some());
    }
    assert!(Backend::Portable.is_supported());
    let error = "avx1024".parse::<Backend>().unwrap_err();
    assert!(Backend::ALL.iter().all(|backend| error.to_string().contains(&backend.to_string())), "{error}");
    assert_eq!(Hasher::forced(Backend::Portable).unwrap().describe(), "1.. portable");
    assert_eq!(Hasher::detect().describe(), Hasher::detect().describe());
}

#[test]
#[should_panic(expected = "one digest for each header")]
fn headers_without_digests() {
    Hasher::detect().header_digests(&[[0; 80]; 2], &mut [Digest::default(); 1]);
}

#[test]
#[should_panic(expected = "one extranonce of 8 bytes for each of 3 merkle roots")]
fn extranonces_without_roots() {
    let job = CoinbaseJob::new(&[], 8, &[], &[]).unwrap();
    Hasher::detect().merkle_roots(&job, &[0; 16], &mut [[0; 32]; 3]);
}

/// A kernel whose instructions were not inlined calls a function for each: some 1,800 ns a header, and far more for the wide
/// ones. The limits are five times what a slow machine needs; the least of many tries is compared, so that other work on
/// the machine does not matter.
#[test]
fn kernels_are_inlined() {
    for (backend, header_ns_max) in [(Backend::ShaNi, 700), (Backend::Avx2, 900), (Backend::Avx512, 500)] {
        let Some(hasher) = Hasher::forced(backend) else { continue };
        let headers = headers(12, 256);
        let mut digests = vec![Digest::default(); headers.len()];
        let job = CoinbaseJob::new(&bytes(13, 100), 20, &bytes(14, 127), &[]).unwrap();
        let extranonces = bytes(15, 20 * headers.len());
        let mut roots = vec![[0; 32]; headers.len()];
        let mut least = [Duration::MAX; 3];
        for _ in 0..200 {
            let begin = Instant::now();
            hasher.header_digests(&headers, &mut digests);
            let first = Instant::now();
            hasher.merkle_roots(&job, &extranonces, &mut roots);
            let second = Instant::now();
            hasher.scan_nonces(&headers[0], 0, 256, &Target::from_le_bytes([0; 32]), &mut Vec::new(), 1);
            let times = [first - begin, second - first, second.elapsed()];
            least = std::array::from_fn(|i| least[i].min(times[i]));
        }
        // Headers are three compressions, these coinbases five, nonces two.
        for (what, least, factor) in
            [("headers", least[0], 3), ("roots", least[1], 5), ("nonces", least[2], 2)]
        {
            let each = least.as_nanos() / headers.len() as u128;
            assert!(each * 3 < header_ns_max * factor, "{backend}: {each} ns for each of the {what}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_job(
        prefix in proptest::collection::vec(any::<u8>(), 0..300),
        suffix in proptest::collection::vec(any::<u8>(), 0..300),
        len in 0usize..=EXTRANONCE_LEN_MAX,
        path in proptest::collection::vec(any::<[u8; 32]>(), 0..14),
        size in 0usize..40,
        seed: u64,
    ) {
        let extranonces = bytes(seed, len * size);
        let job = CoinbaseJob::new(&prefix, len, &suffix, &path).unwrap();
        let expected: Vec<[u8; 32]> = (0..size)
            .map(|i| merkle_root_by_hand(&[&prefix[..], &extranonces[i * len..][..len], &suffix].concat(), &path))
            .collect();
        for (name, hasher) in hashers() {
            let mut roots = vec![[0; 32]; size];
            hasher.merkle_roots(&job, &extranonces, &mut roots);
            prop_assert_eq!(&roots, &expected, "{}", name);
        }
    }
}
