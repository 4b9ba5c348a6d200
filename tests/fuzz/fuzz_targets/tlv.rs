//! See `adit_fuzz::codec::tlv`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| adit_fuzz::codec::tlv(bytes));
