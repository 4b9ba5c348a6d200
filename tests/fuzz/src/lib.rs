//! The fuzz targets as plain functions, one module for each package that they test.
//!
//! Each function takes any bytes and panics where a promise is broken. They are run in two ways, from one source:
//! - by libFuzzer: `cargo +nightly fuzz run --fuzz-dir tests/fuzz message` (targets are `fuzz_targets/*.rs`, one line
//!   each);
//! - by the package's tests on the stable compiler, which include the module's file and [`stable`], and run the
//!   committed corpus (`corpus/<target>/`) and mutations of it for a bounded time.
//!
//! A new target: a function in the package's module here, a file in `fuzz_targets`, a `[[bin]]`, a corpus, and a line
//! in the package's `tests/fuzz_stable.rs`.

pub mod codec;
pub mod noise;
pub mod stable;
