//! The reference implementation's pool, with `adit tp` on a Bitcoin Core as its template provider.

use std::time::Duration;

use adit_tests::node::{BitcoinNode, SUBSIDY};
use adit_tests::process::{PATIENCE, Program, free_port, own_program, peer_program};
use bitcoin::Amount;
use tempfile::TempDir;

const FEE: Amount = Amount::from_sat(42_000);
const BLOCK_PATIENCE: Duration = Duration::from_secs(120);
/// The reference implementation's key pair of its examples.
const POOL_KEY: &str = "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72";
const POOL_SECRET: &str = "mkDLTBBRxdBv998612qipDYoTK3YUrqLe8uWw7gu3iXbSrn2n";

#[test]
fn the_reference_pool_finds_a_block_with_our_templates() {
    let node = BitcoinNode::start();
    node.fund(1);
    let spend = node.spend_coinbase(1, FEE);
    let directory = TempDir::new().expect("a temporary directory");
    let path =
        |name: &str| directory.path().join(name).to_str().expect("temporary paths are text").to_owned();
    let adit = own_program("adit");
    let mut generate = Program::start(&adit, &["key", "generate", "--out", &path("authority.key")]);
    assert!(generate.wait(PATIENCE).success(), "{:?}", generate.lines());
    let config = format!(
        "[tp]\n\
         listen = \"127.0.0.1:0\"\n\
         [authority]\n\
         secret_key_file = \"authority.key\"\n\
         [[template_source]]\n\
         kind = \"core-ipc\"\n\
         chain = \"regtest\"\n\
         data_dir = \"{}\"\n",
        node.directory().display()
    );
    std::fs::write(path("tp.toml"), config).expect("the directory can be written to");
    let mut tp = Program::start(&adit, &["tp", "--config", &path("tp.toml")]);
    let url = tp.wait_for_word("stratum2+tcp://");
    let (address, key) =
        url.strip_prefix("stratum2+tcp://").and_then(|rest| rest.split_once('/')).expect("address and key");

    let port = free_port();
    let config = format!(
        "listen_address = \"127.0.0.1:{port}\"\n\
         authority_public_key = \"{POOL_KEY}\"\n\
         authority_secret_key = \"{POOL_SECRET}\"\n\
         cert_validity_sec = 3600\n\
         coinbase_reward_script = \"raw(51)\"\n\
         server_id = 1\n\
         pool_signature = \"reference\"\n\
         shares_per_minute = 60.0\n\
         share_batch_size = 1\n\
         supported_extensions = []\n\
         required_extensions = []\n\
         [template_provider_type.Sv2Tp]\n\
         address = \"{address}\"\n\
         public_key = \"{key}\"\n"
    );
    std::fs::write(path("pool.toml"), config).expect("the directory can be written to");
    let mut pool = Program::start(&peer_program("pool_sv2"), &["-c", &path("pool.toml")]);
    tp.wait_for("the pool's constraints", PATIENCE, |line| {
        line.contains("gets templates of class 0").then_some(())
    });
    let deadline = std::time::Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(std::time::Instant::now() < deadline, "the reference pool does not listen");
        std::thread::sleep(Duration::from_millis(100));
    }
    let address = format!("127.0.0.1:{port}");
    let device =
        ["--address-pool", &address, "--pubkey-pool", POOL_KEY, "--id-device", "d", "--id-user", "u"];
    let _device = Program::start(&peer_program("mining_device"), &[&device[..], &["--cores", "1"]].concat());
    // The first block may be of the empty template that comes first.
    let block = tp.wait_for("the block with the transaction", BLOCK_PATIENCE, |line| {
        let (_, rest) = line.split_once("block accepted height=")?;
        let block = node.rpc.block(rest.split(' ').next()?.parse().ok()?);
        block.txdata[1..].contains(&spend).then_some(block)
    });
    let hash = block.block_hash().to_string();
    pool.wait_for("the next tip", PATIENCE, |line| {
        (line.contains("Received: SetNewPrevHash") && line.contains(&hash)).then_some(())
    });
    let payout = &block.txdata[0].output[0];
    assert_eq!((payout.script_pubkey.to_hex_string().as_str(), payout.value), ("51", SUBSIDY + FEE));
    assert!(!tp.lines().iter().any(|line| line.contains("refused")), "{:?}", tp.lines());
    tp.signal("TERM");
    assert!(tp.wait(PATIENCE).success(), "{:?}", tp.lines());
}
