//! Instructions of the hot paths, counted by callgrind and compared with committed figures.
//!
//! A [`cases::Case`] prepares what it needs and hands one closure to [`counted_region`]; nothing else is counted. Each runs in a
//! process of its own under valgrind ([`callgrind`]), so that no case changes the memory of another. [`record`] reads and
//! writes the committed figures, [`compare`] judges.
//!
//! What counts are worth: they repeat within half a percent, most of them to the instruction, under any load and from any
//! target directory. They are not time: a cache miss counts as nothing, and a division as one. And valgrind 3.19 emulates a
//! CPU that has AVX2 but neither AVX-512 nor the SHA extensions, so kernels with those are never counted. Every case
//! therefore names the backends that it runs; none measures which is faster.

pub mod callgrind;
pub mod cases;
pub mod compare;
pub mod record;

use std::hint::black_box;

/// Runs what is counted. Callgrind collects from this function's entry to its return, by its name: there must be no other
/// function whose name contains it.
#[inline(never)]
pub fn counted_region(body: &mut dyn FnMut()) {
    body();
    // A call in tail position would be a jump, and the return somewhere else.
    black_box(&body);
}
