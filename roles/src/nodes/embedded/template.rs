//! From the tip and a selection to a template.

use adit_hasher::{Digest, Target, merkle_path, merkle_root};
use adit_proto::distribution::Reserve;
use adit_proto::template::{PrevHash, Template};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, ScriptBuf, TxOut};

use super::kernel::Tip;
use super::rules::{Chain, height_push};
use super::selection::{Room, Selection};

/// Header version of every template: BIP9 with no deployment signalled.
const VERSION: u32 = 0x2000_0000;
/// Transaction version of the coinbase.
const COINBASE_TX_VERSION: u32 = 2;
/// Lets the coinbase's lock time count: with it every coinbase of a chain differs (BIP54).
const COINBASE_SEQUENCE: u32 = 0xffff_fffe;
/// Weight units of the heaviest block.
const BLOCK_WEIGHT_MAX: u64 = 4_000_000;
/// Cost of a block's signature operations.
const BLOCK_SIGOPS_MAX: u64 = 80_000;
/// What every witness commitment begins with: OP_RETURN, a push of 36 bytes, the tag.
const COMMITMENT_START: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
/// The coinbase's witness: the commitment covers these 32 bytes.
const WITNESS_RESERVED: [u8; 32] = [0; 32];

/// What the transactions may take; `None` if there is nothing left for them.
pub(super) fn room(reserve: Reserve) -> Option<Room> {
    Some(Room {
        weight: BLOCK_WEIGHT_MAX.checked_sub(reserve.reserved_weight).filter(|weight| *weight > 0)?,
        sigops: BLOCK_SIGOPS_MAX.checked_sub(u64::from(reserve.max_additional_sigops))?,
    })
}

/// A template for the block at `height` with the selected transactions. An empty selection depends on nothing but the
/// height, so such a template can be made before its tip is known.
pub(super) fn build(
    chain: Chain,
    height: u32,
    template_id: u64,
    future_template: bool,
    selection: &Selection<'_>,
) -> Template {
    // The coinbase's own txid has no influence on its path, and its wtxid counts as zero.
    let ids = |of: &dyn Fn(&super::mempool::Entry) -> [u8; 32]| -> Vec<[u8; 32]> {
        std::iter::once([0; 32]).chain(selection.entries.iter().map(|entry| of(entry))).collect()
    };
    let txids = ids(&|entry| entry.checked.txid.to_byte_array());
    let wtxids = ids(&|entry| entry.wtxid);
    Template {
        template_id,
        future_template,
        version: VERSION,
        coinbase_tx_version: COINBASE_TX_VERSION,
        coinbase_prefix: height_push(height),
        coinbase_tx_input_sequence: COINBASE_SEQUENCE,
        coinbase_tx_value_remaining: chain.subsidy_sat(height) + selection.fees_sat,
        coinbase_tx_outputs_count: 1,
        coinbase_tx_outputs: witness_commitment(&wtxids),
        coinbase_tx_locktime: height - 1,
        merkle_path: merkle_path(&txids),
    }
}

/// The serialised output that commits to the witnesses of a block with these wtxids, the coinbase's zero first (BIP141).
/// Blocks without witnesses have it too: a signet block must.
fn witness_commitment(wtxids: &[[u8; 32]]) -> Vec<u8> {
    let mut preimage = [0; 64];
    preimage[..32].copy_from_slice(&merkle_root(wtxids));
    preimage[32..].copy_from_slice(&WITNESS_RESERVED);
    let mut script = COMMITMENT_START.to_vec();
    script.extend_from_slice(&Digest::of(&preimage).0);
    serialize(&TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) })
}

/// The announcement of `tip` that activates a future template.
pub(super) fn prev_hash(chain: Chain, tip: &Tip, nbits: u32, template_id: u64, now_unix: u32) -> PrevHash {
    PrevHash {
        template_id,
        prev_hash: tip.hash.0,
        header_timestamp: now_unix.max(chain.min_time(&tip.last, tip.median_time_past)),
        nbits,
        // `nbits` comes of the chain's rules: it always names a target.
        target: Target::from_nbits(nbits).unwrap_or(Target::from_le_bytes([0; 32])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commitment of a block without other transactions, as Bitcoin Core's own blocks carry it.
    #[test]
    fn empty_block_has_the_well_known_commitment() {
        let template = build(Chain::Regtest, 1, 7, true, &Selection::default());
        let expected =
            "0000000000000000266a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9";
        assert_eq!(hex::encode(&template.coinbase_tx_outputs), expected);
        assert_eq!(template.coinbase_prefix, [0x51]);
        assert_eq!(template.coinbase_tx_value_remaining, 5_000_000_000);
        assert!(template.merkle_path.is_empty());
    }
}
