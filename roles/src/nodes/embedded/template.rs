//! From the tip and a selection to a template.

use adit_hasher::{Target, merkle_path};
use adit_proto::distribution::Reserve;
use adit_proto::template::{PrevHash, Template};
use bitcoin::hashes::Hash;

use super::kernel::Tip;
use super::rules::Chain;
use super::selection::{Room, Selection};
use crate::nodes::coinbase::{
    BLOCK_SIGOPS_MAX, BLOCK_WEIGHT_MAX, COINBASE_SEQUENCE, COINBASE_TX_VERSION, height_push,
    witness_commitment,
};

/// Header version of every template: BIP9 with no deployment signalled.
const VERSION: u32 = 0x2000_0000;

/// What the transactions may take; `None` if there is nothing left for them.
pub(super) fn room(reserve: Reserve) -> Option<Room> {
    Some(Room {
        weight: BLOCK_WEIGHT_MAX.checked_sub(reserve.reserved_weight).filter(|weight| *weight > 0)?,
        sigops: BLOCK_SIGOPS_MAX - u64::from(reserve.max_additional_sigops),
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
    // The coinbase's own txid has no influence on its path.
    let txids = selection.entries.iter().map(|entry| entry.checked.txid.to_byte_array());
    let txids: Vec<[u8; 32]> = std::iter::once([0; 32]).chain(txids).collect();
    Template {
        template_id,
        future_template,
        version: VERSION,
        coinbase_tx_version: COINBASE_TX_VERSION,
        coinbase_prefix: height_push(height),
        coinbase_tx_input_sequence: COINBASE_SEQUENCE,
        coinbase_tx_value_remaining: chain.subsidy_sat(height) + selection.fees_sat,
        coinbase_tx_outputs_count: 1,
        coinbase_tx_outputs: witness_commitment(selection.entries.iter().map(|entry| entry.wtxid)),
        coinbase_tx_locktime: height - 1,
        merkle_path: merkle_path(&txids),
    }
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
