//! Miners find blocks through the pool.

use std::time::Duration;

use adit_tests::pool::Pool;
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::{Amount, ScriptBuf};

/// Debug builds on two busy cores mine slowly.
const PATIENCE: Duration = Duration::from_secs(120);
/// OP_TRUE, as the pool's configuration says.
const PAYOUT_SCRIPT: [u8; 1] = [0x51];
const SUBSIDY: Amount = Amount::from_sat(50 * 100_000_000);

/// Checks a block of the active chain as anyone could who has only the chain.
fn check_block(pool: &Pool, height: u64) {
    let block = pool.node.block(height);
    assert_eq!(block.header.prev_blockhash, pool.node.block(height - 1).block_hash());
    assert!(block.check_merkle_root() && block.check_witness_commitment());
    block.header.validate_pow(block.header.target()).expect("work was done");
    let coinbase = block.coinbase().expect("a block has a coinbase");
    let told = Builder::new().push_int(i64::try_from(height).expect("heights are small")).into_script();
    assert!(
        coinbase.input[0].script_sig.as_bytes().starts_with(told.as_bytes()),
        "the coinbase tells its height"
    );
    assert!(coinbase.input[0].script_sig.len() <= 100);
    assert!(
        coinbase.input[0].script_sig.as_bytes().windows(6).any(|bytes| bytes == b"/Adit/"),
        "the pool's tag is in its blocks"
    );
    assert_eq!(coinbase.output[0].value, SUBSIDY);
    assert_eq!(coinbase.output[0].script_pubkey, ScriptBuf::from_bytes(PAYOUT_SCRIPT.to_vec()));
    assert_eq!(coinbase.output.len(), 2, "payout and witness commitment");
}

#[test]
fn standard_and_extended_channels_over_two_shards_find_blocks() {
    let pool = Pool::start("vardiff.shares_per_minute = 120.0");
    let limits = ["--hash-rate-limit", "20000", "--nominal-hash-rate", "20000"];
    let run = |kind: &str, user: &str| {
        let args = [&["--devices", "4", "--kind", kind, "--user", user][..], &limits[..]].concat();
        pool.mine(&args)
    };
    let mut miners = [run("standard", "std"), run("extended", "ext")];
    pool.wait_for_height(20, PATIENCE);
    for miner in &mut miners {
        miner.signal("TERM");
        let status = miner.wait(PATIENCE);
        assert!(status.success(), "{status}: {:?}", miner.lines());
        // Every share is a block here, so a share may come late for its tip; nothing else may befall it.
        let summary = miner.lines();
        let refused = summary.iter().filter(|line| line.trim_start().starts_with("rejected"));
        assert!(refused.clone().all(|line| line.ends_with("stale-share")), "{summary:?}");
        assert!(summary.iter().any(|line| line.contains("0 outstanding, 0 lost")), "{summary:?}");
    }

    let height = pool.node.height();
    let tip = pool.node.call("getbestblockhash", &[]);
    assert_eq!(tip.as_str(), Some(pool.node.block(height).block_hash().to_string().as_str()));
    for height in 1..=height {
        check_block(&pool, height);
    }
    // Both kinds of channel found some of them.
    for user in ["std", "ext"] {
        assert!(
            !pool
                .log_lines("block accepted")
                .iter()
                .filter(|line| line.contains(user))
                .collect::<Vec<_>>()
                .is_empty()
        );
    }
    // Eight connections, on both shards.
    for shard in ["(shard 0)", "(shard 1)"] {
        assert!(pool.log_lines(shard).len() >= 3, "{:?}", pool.log_lines("connected (shard"));
    }
    assert_eq!(pool.log_lines("block rejected"), [""; 0], "the node accepts what the pool submits");
    pool.stop();
}

#[test]
fn a_restart_continues_the_chain() {
    let pool = Pool::start("vardiff.shares_per_minute = 600.0");
    let mine_to = |pool: &Pool, height| {
        let mut miner = pool.mine(&["--devices", "2", "--kind", "mixed", "--hash-rate-limit", "20000"]);
        pool.wait_for_height(height, PATIENCE);
        miner.signal("TERM");
        miner.wait(PATIENCE);
    };
    mine_to(&pool, 3);
    let (height, url) = (pool.node.height(), pool.url.clone());
    let hash = pool.node.block(height).block_hash();
    assert_ne!(hash.to_byte_array(), [0; 32]);

    let pool = Pool::start_in(pool.stop(), "vardiff.shares_per_minute = 600.0");
    assert_eq!(pool.node.block(height).block_hash(), hash, "the chain is still there");
    assert_eq!(pool.url.authority, url.authority, "miners need not change their configuration");
    mine_to(&pool, height + 3);
    check_block(&pool, height + 1);
    pool.stop();
}
