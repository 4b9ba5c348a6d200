//! The reference implementation's mining device: a standard channel on a connection that requires standard jobs.

use std::time::Duration;

use adit_tests::pool::Pool;
use adit_tests::process::{Program, peer_program};

const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn the_reference_mining_device_finds_blocks_that_the_node_accepts() {
    // The device reads its clock once for each job, one minute ahead. Every share is a block here, and a block's time must lie
    // above the median of those before: jobs come each second, and shares not much faster.
    let pool = Pool::start("vardiff.shares_per_minute = 40.0\njobs.interval_s = 1.0");
    let address = format!("{}:{}", pool.url.host, pool.url.port);
    let key = pool.url.authority.to_string();
    let args = [
        "--address-pool",
        &address,
        "--pubkey-pool",
        &key,
        "--id-device",
        "device",
        "--id-user",
        "reference",
    ];
    let _device = Program::start(&peer_program("mining_device"), &[&args[..], &["--cores", "1"]].concat());
    pool.wait_for_height(5, PATIENCE);
    let accepted = pool.log_lines("block accepted");
    assert!(accepted.iter().any(|line| line.contains("reference")), "{accepted:?}");
    for height in 1..=5 {
        let block = pool.node.block(height);
        assert_eq!(block.txdata[0].output[0].script_pubkey.as_bytes(), [0x51], "the pool is paid");
    }
    pool.stop();
}
