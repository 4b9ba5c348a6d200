//! See `adit_fuzz::codec::frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| adit_fuzz::codec::frame(bytes));
