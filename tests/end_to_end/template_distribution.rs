//! A template provider and a pool as two processes over the Template Distribution Protocol; real miners find blocks that
//! the provider's node accepts.

use std::path::Path;
use std::time::Duration;

use adit_codec::url::PoolUrl;
use adit_tests::pool::PAYOUT_ANYONE;
use adit_tests::process::{PATIENCE, Program, free_port, own_program};
use adit_tests::template_provider::{TemplateProvider, authority_key, write_config};
use tempfile::TempDir;

const HEIGHT_PATIENCE: Duration = Duration::from_secs(120);

/// A pool that has its templates from `provider`.
fn start_pool(directory: &Path, provider: &PoolUrl) -> (Program, PoolUrl) {
    let config = write_config(
        directory,
        "pool.toml",
        &format!(
            "[pool]\nlisten = \"127.0.0.1:0\"\npayout = \"{PAYOUT_ANYONE}\"\n\
             [authority]\nsecret_key_file = \"{}\"\n\
             [journal]\ndir = \"{}\"\n\
             [template_source]\nkind = \"sv2\"\nchain = \"regtest\"\nurl = \"{provider}\"\n\
             [vardiff]\ndifficulty_min = 0.0\nshares_per_minute = 120.0\n\
             [engine]\ncpus = [0, 1]\n\
             [log]\nlevel = \"debug\"\n",
            authority_key(directory, "pool.key"),
            directory.join("pool-journal").display(),
        ),
    );
    let mut program = Program::start(&own_program("adit"), &["pool", "--config", &config]);
    let url = program.wait_for_word("stratum2+tcp://").parse().expect("the pool prints its URL");
    (program, url)
}

fn lines(program: &Program, text: &str) -> Vec<String> {
    program.lines().into_iter().filter(|line| line.contains(text)).collect()
}

#[test]
fn a_pool_finds_blocks_for_a_provider_in_another_process_and_outlives_its_death() {
    let directory = TempDir::new().expect("a temporary directory");
    let port = free_port();
    let mut provider = TemplateProvider::start(directory.path(), port);
    let (mut pool, url) = start_pool(directory.path(), &provider.url);
    let mut miner = Program::start(
        &own_program("adit-loadgen"),
        &["mine", &url.to_string(), "--devices", "4", "--kind", "mixed", "--hash-rate-limit", "20000"],
    );
    provider.wait_for_height(10, HEIGHT_PATIENCE);
    let first = lines(&pool, "block accepted");
    assert!(!first.is_empty(), "the tips tell the pool that its blocks are accepted");
    for height in 1..=10 {
        let coinbase = &provider.node.block(height).txdata[0];
        assert_eq!(coinbase.output[0].script_pubkey.as_bytes(), [0x51], "the pool is paid");
        let script = coinbase.input[0].script_sig.as_bytes();
        assert!(script.windows(6).any(|bytes| bytes == b"/Adit/"), "the pool's tag is in its blocks");
    }

    // The provider dies without a word and comes back with its chain.
    provider.program.signal("KILL");
    provider.program.wait(PATIENCE);
    pool.wait_for("the loss of its templates", PATIENCE, |line| {
        line.contains("template source down").then_some(())
    });
    drop(provider);
    let provider = TemplateProvider::start(directory.path(), port);
    let height = provider.node.height();
    provider.wait_for_height(height + 5, HEIGHT_PATIENCE);
    assert_eq!(lines(&pool, "template source up").len(), 2);
    assert!(lines(&pool, "block accepted").len() > first.len());
    assert_eq!(lines(&pool, "block rejected"), [""; 0]);
    assert_eq!(lines(&pool, "disconnected after"), [""; 0], "no miner lost its connection");

    miner.signal("TERM");
    assert!(miner.wait(PATIENCE).success(), "{:?}", miner.lines());
    pool.signal("TERM");
    assert!(pool.wait(PATIENCE).success(), "{}", pool.lines().join("\n"));
}
