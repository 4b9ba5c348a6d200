//! Runs targets without libFuzzer: the corpus as it is, then mutations of it, for a bounded time.
//!
//! The mutations are drawn from a fixed seed, so that a run of a given length can be repeated. `ADIT_FUZZ_SECONDS` sets
//! the time for each target, `ADIT_FUZZ_SEED` the seed. An input that breaks a target is printed in hexadecimal; put it
//! into the corpus.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Seconds for each target where the environment does not say otherwise.
const SECONDS: u64 = 2;
/// Longest mutated input.
const INPUT_LEN_MAX: usize = 4096;

/// Runs `target` over `corpus` and mutations of it, and returns how many inputs it took.
///
/// # Panics
/// The corpus is missing or empty, or the target breaks.
pub fn run(corpus: &Path, target: fn(&[u8])) -> u64 {
    let inputs = read_corpus(corpus);
    for input in &inputs {
        attempt(target, input);
    }

    let mut random = Random(environment("ADIT_FUZZ_SEED").unwrap_or(0x5eed));
    let deadline = Instant::now() + Duration::from_secs(environment("ADIT_FUZZ_SECONDS").unwrap_or(SECONDS));
    let mut runs = inputs.len() as u64;
    let mut input = Vec::new();
    while Instant::now() < deadline {
        for _ in 0..64 {
            input.clear();
            let original: &Vec<u8> = random.pick(&inputs);
            input.extend_from_slice(original);
            for _ in 0..=random.below(4) {
                mutate(&mut input, &inputs, &mut random);
            }
            input.truncate(INPUT_LEN_MAX);
            attempt(target, &input);
            runs += 1;
        }
    }
    runs
}

/// The committed inputs of a target.
///
/// # Panics
/// There are none.
pub fn read_corpus(corpus: &Path) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("readable").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{}: no inputs", corpus.display());
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

fn environment(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name}: {value} is no number")))
}

/// Runs a target, and prints the input if it breaks.
fn attempt(target: fn(&[u8]), input: &[u8]) {
    struct Broken<'i>(&'i [u8]);
    impl Drop for Broken<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
                eprintln!("broken by {} bytes: {hex}", self.0.len());
            }
        }
    }
    let _guard = Broken(input);
    target(input);
}

/// Changes an input in one of the ways that find what lengths and limits hide.
fn mutate(input: &mut Vec<u8>, inputs: &[Vec<u8>], random: &mut Random) {
    const TELLING: [u8; 10] = [0, 1, 2, 0x1f, 0x20, 0x21, 0x7f, 0x80, 0xfe, 0xff];
    let at = random.below(input.len() + 1);
    match (random.below(8), input.get_mut(at)) {
        (0, Some(byte)) => *byte ^= 1 << random.below(8),
        (1, Some(byte)) => *byte = *random.pick(&TELLING),
        (2, Some(byte)) => *byte = random.next() as u8,
        (3, Some(_)) => {
            input.remove(at);
        }
        (4, Some(_)) => input.truncate(at),
        (5, _) => input.insert(at, random.next() as u8),
        (6, _) => {
            let other = random.pick(inputs);
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            let end = at + random.below(input.len() - at + 1);
            let piece = input[at..end].to_vec();
            input.splice(at..at, piece);
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not zero; the slight bias does not matter here.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<'s, T>(&mut self, from: &'s [T]) -> &'s T {
        &from[self.below(from.len())]
    }
}
