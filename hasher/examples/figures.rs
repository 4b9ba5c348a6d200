//! What hashing costs on this machine: nanoseconds a message for each backend, by batch size.
//!
//! Each figure is the least of many short runs, so other work on the machine hardly matters; a median on a busy machine is
//! two to three times as much. `cargo run --release -p adit-hasher --example figures`

use std::hint::black_box;
use std::time::Instant;

use adit_hasher::{Backend, BatchHash, CoinbaseJob, Digest, Hasher, Target};
use sha2::{Digest as _, Sha256};

const RUNS: usize = 3000;
const SIZES: [usize; 10] = [1, 2, 4, 5, 8, 9, 16, 32, 64, 256];
const EXTRANONCE_LEN: usize = 20;
const NONCES: u32 = 1024;

/// The least time of a run, in nanoseconds a message.
fn least_ns(messages: usize, mut run: impl FnMut()) -> f64 {
    let least = (0..RUNS).map(|_| {
        let begin = Instant::now();
        run();
        begin.elapsed()
    });
    least.min().unwrap_or_default().as_secs_f64() * 1e9 / messages as f64
}

fn line(what: &str, figure: impl Fn(usize) -> f64) {
    print!("  {what:<24}");
    for size in SIZES {
        print!("{:>8.0}", figure(size));
    }
    println!();
}

fn main() {
    println!("detected: {}\nns a message, by batch size", Hasher::detect().describe());
    line("", |size| size as f64);
    println!("sha2");
    line("headers", |size| {
        let headers = vec![[7u8; 80]; size];
        least_ns(size, || {
            for header in black_box(&headers) {
                black_box(Sha256::digest(Sha256::digest(header)));
            }
        })
    });
    for backend in Backend::ALL {
        let Some(hasher) = Hasher::forced(backend) else {
            println!("{backend}: not on this CPU");
            continue;
        };
        println!("{backend}");
        line("headers", |size| {
            let (headers, mut digests) = (vec![[7; 80]; size], vec![Digest::default(); size]);
            // The clock is too coarse for a single small batch.
            let batches = (64 / size).max(1);
            least_ns(size * batches, || {
                for _ in 0..batches {
                    hasher.header_digests(black_box(&headers), &mut digests);
                    black_box(&mut digests);
                }
            })
        });
        for depth in [0, 4, 8, 12] {
            let job = CoinbaseJob::new(&[1; 102], EXTRANONCE_LEN, &[2; 125], &vec![[3; 32]; depth])
                .expect("a job within the limits");
            line(&format!("merkle roots, depth {depth}"), |size| {
                let (extranonces, mut roots) = (vec![5; EXTRANONCE_LEN * size], vec![[0; 32]; size]);
                let batches = (16 / size).max(1);
                least_ns(size * batches, || {
                    for _ in 0..batches {
                        hasher.merkle_roots(&job, black_box(&extranonces), &mut roots);
                        black_box(&mut roots);
                    }
                })
            });
        }
        let (target, mut found) = (Target::from_le_bytes([0; 32]), Vec::new());
        let nonce = least_ns(NONCES as usize, || {
            hasher.scan_nonces(black_box(&[5; 80]), 0, NONCES, &target, &mut found, 1);
        });
        println!("  a nonce {nonce:.1}");
    }
}
