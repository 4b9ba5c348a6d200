//! The fuzz target `handshake` on the stable compiler: the committed corpus and mutations of it, for a bounded time.
#![cfg(feature = "noise")]

#[path = "../../tests/fuzz/src/noise.rs"]
#[allow(unreachable_pub, reason = "public in the crate that cargo-fuzz builds")]
mod noise;
#[path = "../../tests/fuzz/src/stable.rs"]
#[allow(unreachable_pub, reason = "public in the crate that cargo-fuzz builds")]
mod stable;

use std::path::Path;

#[test]
fn handshake() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/handshake");
    let runs = stable::run(&corpus, noise::handshake);
    println!("handshake: {runs} inputs");
    assert!(runs > 100, "only {runs} inputs");
}
