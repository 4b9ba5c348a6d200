//! Which kernel is fastest here. CPUs differ by more than their features: one that splits 512-bit instructions in two, or
//! lowers its clock for them, may be faster with narrower ones.

use std::hint::black_box;
use std::time::{Duration, Instant};
use std::vec::Vec;

use crate::aead::LanesFrom;
use crate::arch::{Kernel, Lanes};
use crate::{Backend, LANES, SEALED_HEADER_LEN, TAG_LEN};

/// After this time no further round of measurements begins, once there were some. All of them take about 0.3 ms on an idle
/// CPU.
const CALIBRATION_TIME_MAX: Duration = Duration::from_millis(2);

/// Rounds of measurements, of which the least counts: every disturbance adds. And how many there are in any case, so that
/// no single disturbance decides.
const ROUNDS: usize = 24;
const ROUNDS_MIN: usize = 3;

/// Frames per measurement, so that reading the clock does not matter.
const FRAMES: u64 = 8;

/// Runs per measurement.
const RUNS: usize = 4;

/// The payload that is measured with: SubmitSharesStandard's, the frame that comes most.
const PAYLOAD_LEN: usize = 24;

/// The kernel with the least time for a frame. Of equal ones the widest wins, and so it does if the clock is too coarse.
pub(crate) fn fastest() -> Kernel {
    let mut kernels: Vec<(Kernel, Duration)> =
        Backend::ALL.into_iter().rev().filter_map(Kernel::of).map(|kernel| (kernel, Duration::MAX)).collect();
    let begin = Instant::now();
    for round in 1..=ROUNDS {
        // Kernels take turns: a change of the clock rate meets them all.
        for (kernel, least) in &mut kernels {
            *least = measure(*kernel).min(*least);
        }
        if round >= ROUNDS_MIN && begin.elapsed() > CALIBRATION_TIME_MAX {
            break;
        }
    }
    kernels.into_iter().min_by_key(|(_, least)| *least).map_or(Kernel::Ring, |(kernel, _)| kernel)
}

/// The kernel for several frames that goes with `kernel`, from the number on from which a pass of it is faster than one
/// frame after the other. A pass over up to half the lanes costs the same however full it is, and so does one over more.
pub(crate) fn lanes(kernel: Kernel) -> Option<LanesFrom> {
    let lanes = Lanes::of(kernel.backend())?;
    let run = sealed_run(kernel);
    let (mut single, mut half, mut full) = (Duration::MAX, Duration::MAX, Duration::MAX);
    let begin = Instant::now();
    for round in 1..=ROUNDS {
        single = single
            .min(time(&run, |bytes| kernel.open_frame(black_box(&[7; 32]), 0, bytes, PAYLOAD_LEN).is_ok()));
        half = half.min(time(&run, |bytes| {
            lanes.open_run(LANES / 2, black_box(&[7; 32]), 0, bytes, PAYLOAD_LEN) > 0
        }));
        full = full
            .min(time(&run, |bytes| lanes.open_run(LANES, black_box(&[7; 32]), 0, bytes, PAYLOAD_LEN) > 0));
        if round >= ROUNDS_MIN && begin.elapsed() > CALIBRATION_TIME_MAX {
            break;
        }
    }
    let (one_by_one, middle) = (|count: usize| single * count as u32, LANES / 2);
    let half_min = (1..=middle).find(|count| half < one_by_one(*count));
    // What is beyond half the lanes goes one by one, unless all lanes are faster.
    let half = half_min.map_or_else(|| one_by_one(middle), |_| half);
    let full_min = (middle + 1..=LANES).find(|count| full < half + one_by_one(count - middle));
    let never = LANES + 1;
    let count_min =
        |count: Option<usize>| u8::try_from(count.unwrap_or(never)).expect("at most LANES and one");
    let from = LanesFrom { lanes, half_min: count_min(half_min), full_min: count_min(full_min) };
    (half_min.is_some() || full_min.is_some()).then_some(from)
}

type Run = [u8; LANES * (SEALED_HEADER_LEN + PAYLOAD_LEN + TAG_LEN)];

/// As many frames as there are lanes, of one connection.
fn sealed_run(kernel: Kernel) -> Run {
    let mut run = [0; _];
    let frames = run.chunks_exact_mut(SEALED_HEADER_LEN + PAYLOAD_LEN + TAG_LEN);
    for (nonce, frame) in (0..).step_by(2).zip(frames) {
        let (header, payload) = frame.split_first_chunk_mut().expect("a frame has a header");
        header[3] = PAYLOAD_LEN as u8;
        kernel.seal_frame(&[7; 32], nonce, header, payload);
    }
    run
}

/// What opening the front of a run takes.
fn time(run: &Run, mut open: impl FnMut(&mut [u8]) -> bool) -> Duration {
    let mut copies = [*black_box(run); RUNS];
    let start = Instant::now();
    for copy in &mut copies {
        black_box(open(copy));
    }
    start.elapsed()
}

fn measure(kernel: Kernel) -> Duration {
    let (mut header, mut payload) = ([0x5a; SEALED_HEADER_LEN], [0x5a; PAYLOAD_LEN + TAG_LEN]);
    let start = Instant::now();
    for nonce in 0..FRAMES {
        kernel.seal_frame(black_box(&[7; 32]), nonce, &mut header, &mut payload);
        black_box((&mut header, &mut payload));
    }
    start.elapsed()
}
