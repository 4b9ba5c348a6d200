//! The node of the other tests: it holds what they build on.

use adit_tests::node::{BitcoinNode, SUBSIDY, spendable};
use bitcoin::{Amount, Script};

#[test]
fn a_chain_outlives_a_crash_and_its_coins_can_be_spent() {
    let mut node = BitcoinNode::start();
    node.fund(1);
    let parent = node.spend_coinbase(1, Amount::from_sat(1_000));
    let child = node.spend(&parent, Amount::from_sat(500));
    node.generate(1);
    let height = node.rpc.height();
    let mined = node.rpc.block(height);
    assert_eq!(mined.txdata[1..], [parent, child]);
    assert!(mined.check_witness_commitment());
    assert_eq!(mined.txdata[0].output[0].value, SUBSIDY + Amount::from_sat(1_500));
    assert_eq!(mined.txdata[0].output[0].script_pubkey, spendable());

    node.flush();
    node.kill();
    node.restart();
    assert_eq!(node.cli(&["getbestblockhash"]), mined.block_hash().to_string());
    assert!(node.ipc_socket().exists() && node.cookie_file().exists());
    node.stop();
    node.restart();
    assert_eq!(node.rpc.height(), height);
}

#[test]
fn two_nodes_agree_on_the_longer_chain() {
    let (one, other) = (BitcoinNode::start(), BitcoinNode::start_listening());
    one.connect(&other);
    one.generate(2);
    other.wait_for_tip_of(&one);
    one.disconnect(&other);
    let lost = one.generate(1)[0];
    let tip = other.generate_to(Script::from_bytes(&[0x51]), 2)[1];
    one.connect(&other);
    one.wait_for_tip_of(&other);
    assert_eq!(one.cli(&["getbestblockhash"]), tip.to_string());
    let beside = one.rpc.call("getblockheader", &[lost.to_string().into()]);
    assert_eq!(beside["confirmations"], -1);
}
