//! See `adit_fuzz::noise::handshake`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| adit_fuzz::noise::handshake(bytes));
