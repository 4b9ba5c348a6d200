//! The hasher's boundary: headers by batch size, merkle roots by depth and lanes, a template's transactions, nonce scans; each
//! backend that this CPU can run beside the choice that `Hasher::detect` makes and beside the crates `sha2`, `bitcoin_hashes` and
//! `ring`.
//!
//! `cargo bench -p adit-bench --bench hasher`; throughput is in messages, so criterion's `elem/s` is headers, roots or
//! nonces per second.

use std::hint::black_box;
use std::time::Duration;

use adit_hasher::{Backend, BatchHash, CoinbaseJob, Digest, Hasher, Target, merkle_path};
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, measurement::WallTime};
use sha2::Sha256;

/// A full extranonce as SRI's pool grants it.
const EXTRANONCE_LEN: usize = 20;

/// A coinbase of 247 bytes, as a pool with one payout and a witness commitment sends it.
const COINBASE_PREFIX_LEN: usize = 102;
const COINBASE_SUFFIX_LEN: usize = 125;

fn hashers() -> Vec<(String, Hasher)> {
    let detected = Hasher::detect();
    println!("detected: {}", detected.describe());
    let forced =
        Backend::ALL.into_iter().filter_map(|backend| Some((backend.to_string(), Hasher::forced(backend)?)));
    forced.chain([("detected".to_owned(), detected)]).collect()
}

fn sha2_double(message: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    Sha256::digest(Sha256::digest(message)).into()
}

fn bitcoin_double(message: &[u8]) -> [u8; 32] {
    use bitcoin::hashes::{Hash as _, sha256d};
    sha256d::Hash::hash(message).to_byte_array()
}

fn ring_double(message: &[u8]) -> [u8; 32] {
    let once = ring::digest::digest(&ring::digest::SHA256, message);
    let twice = ring::digest::digest(&ring::digest::SHA256, once.as_ref());
    twice.as_ref().try_into().expect("32 bytes")
}

/// Double-SHA256 of one message.
type Double = fn(&[u8]) -> [u8; 32];

/// What one would take otherwise.
const CRATES: [(&str, Double); 3] =
    [("sha2", sha2_double), ("bitcoin_hashes", bitcoin_double), ("ring", ring_double)];

fn group<'a>(criterion: &'a mut Criterion, name: &str, messages: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(messages as u64));
    group
}

fn headers(criterion: &mut Criterion, hashers: &[(String, Hasher)]) {
    for size in [1usize, 2, 4, 5, 8, 9, 16, 32, 64, 256] {
        let headers: Vec<[u8; 80]> = (0..size).map(|i| [i as u8; 80]).collect();
        let mut digests = vec![Digest::default(); size];
        let mut group = group(criterion, "headers", size);
        for (name, hasher) in hashers {
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    hasher.header_digests(black_box(&headers), &mut digests);
                    black_box(&mut digests);
                });
            });
        }
        for (name, double) in CRATES {
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    for (header, digest) in black_box(&headers).iter().zip(&mut digests) {
                        digest.0 = double(header);
                    }
                    black_box(&mut digests);
                });
            });
        }
        group.finish();
    }
}

fn root_of(coinbase: &[u8], path: &[[u8; 32]], double: Double) -> [u8; 32] {
    let mut node = [0; 64];
    path.iter().fold(double(coinbase), |root, sibling| {
        node[..32].copy_from_slice(&root);
        node[32..].copy_from_slice(sibling);
        double(&node)
    })
}

fn merkle_roots(criterion: &mut Criterion, hashers: &[(String, Hasher)]) {
    let (prefix, suffix) = ([1; COINBASE_PREFIX_LEN], [2; COINBASE_SUFFIX_LEN]);
    for depth in [0usize, 4, 8, 12] {
        let path = vec![[3; 32]; depth];
        let job = CoinbaseJob::new(&prefix, EXTRANONCE_LEN, &suffix, &path).expect("a job within the limits");
        for size in [1usize, 2, 4, 8, 16, 64] {
            let extranonces: Vec<u8> = (0..size * EXTRANONCE_LEN).map(|i| i as u8).collect();
            let mut roots = vec![[0; 32]; size];
            let mut group = group(criterion, &format!("merkle roots, depth {depth}"), size);
            for (name, hasher) in hashers {
                group.bench_function(BenchmarkId::new(name, size), |bencher| {
                    bencher.iter(|| {
                        hasher.merkle_roots(&job, black_box(&extranonces), &mut roots);
                        black_box(&mut roots);
                    });
                });
            }
            for (name, double) in CRATES {
                group.bench_function(BenchmarkId::new(name, size), |bencher| {
                    let mut coinbase = [&prefix[..], &[0; EXTRANONCE_LEN], &suffix].concat();
                    bencher.iter(|| {
                        let rows = black_box(&extranonces).chunks_exact(EXTRANONCE_LEN);
                        for (extranonce, root) in rows.zip(&mut roots) {
                            coinbase[COINBASE_PREFIX_LEN..][..EXTRANONCE_LEN].copy_from_slice(extranonce);
                            *root = root_of(&coinbase, &path, double);
                        }
                        black_box(&mut roots);
                    });
                });
            }
            group.finish();
        }
    }
}

/// What a new tip's template costs whoever checks its transactions: 4,000 of 222 bytes, and trees over them.
fn templates(criterion: &mut Criterion, hashers: &[(String, Hasher)]) {
    const TRANSACTIONS: usize = 4_000;
    let raws: Vec<[u8; 222]> = (0..TRANSACTIONS).map(|i| [i as u8; 222]).collect();
    let raws: Vec<&[u8]> = raws.iter().map(|raw| &raw[..]).collect();
    let mut digests = vec![[0; 32]; TRANSACTIONS];
    let mut messages = group(criterion, "messages of 222 bytes", TRANSACTIONS);
    for (name, hasher) in hashers {
        messages.bench_function(name, |bencher| {
            bencher.iter(|| hasher.message_digests(black_box(&raws), &mut digests));
        });
    }
    messages.bench_function("sha2", |bencher| {
        bencher.iter(|| {
            for (raw, digest) in black_box(&raws).iter().zip(&mut digests) {
                *digest = sha2_double(raw);
            }
        });
    });
    messages.finish();
    let mut trees = group(criterion, "merkle path", TRANSACTIONS);
    trees.bench_function("detected", |bencher| bencher.iter(|| merkle_path(black_box(&digests))));
    trees.finish();
}

fn scans(criterion: &mut Criterion, hashers: &[(String, Hasher)]) {
    const NONCES: u32 = 4096;
    // Nothing meets it: the whole range is tried.
    let target = Target::from_le_bytes([0; 32]);
    let mut group = group(criterion, "nonces", NONCES as usize);
    for (name, hasher) in hashers {
        let mut found = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| hasher.scan_nonces(black_box(&[5; 80]), 0, NONCES, &target, &mut found, 1));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
        .sample_size(20)
        .without_plots()
        .configure_from_args();
    let hashers = hashers();
    headers(&mut criterion, &hashers);
    merkle_roots(&mut criterion, &hashers);
    templates(&mut criterion, &hashers);
    scans(&mut criterion, &hashers);
    criterion.final_summary();
}
