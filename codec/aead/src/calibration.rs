//! Which kernel is fastest here. CPUs differ by more than their features: one that splits 512-bit instructions in two, or lowers
//! its clock for them, may be faster with narrower ones.

use std::hint::black_box;
use std::time::{Duration, Instant};
use std::vec::Vec;

use crate::arch::Kernel;
use crate::{Backend, SEALED_HEADER_LEN, TAG_LEN};

/// After this time no further round of measurements begins. All of them take about 0.2 ms on an idle CPU.
const CALIBRATION_TIME_MAX: Duration = Duration::from_millis(2);

/// Rounds of measurements, of which the least counts: every disturbance adds.
const ROUNDS: usize = 24;

/// Frames per measurement, so that reading the clock does not matter.
const FRAMES: u64 = 8;

/// The payload that is measured with: SubmitSharesStandard's, the frame that comes most.
const PAYLOAD_LEN: usize = 24;

/// The kernel with the least time for a frame. Of equal ones the widest wins, and so it does if the clock is too coarse.
pub(crate) fn fastest() -> Kernel {
    let mut kernels: Vec<(Kernel, Duration)> =
        Backend::ALL.into_iter().rev().filter_map(Kernel::of).map(|kernel| (kernel, Duration::MAX)).collect();
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        // Kernels take turns: a change of the clock rate meets them all.
        for (kernel, least) in &mut kernels {
            *least = measure(*kernel).min(*least);
        }
        if begin.elapsed() > CALIBRATION_TIME_MAX {
            break;
        }
    }
    kernels.into_iter().min_by_key(|(_, least)| *least).map_or(Kernel::Ring, |(kernel, _)| kernel)
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
