//! The coinbase transaction: what stands before and after the extranonce, and the whole of it for a block.
//!
//! scriptSig = `coinbase_prefix` of the template, push of the pool's tag, push of the full extranonce. Within pushes no
//! byte can count as a signature operation. Outputs: the pool's payout, then the template's. Prefix and suffix carry no
//! BIP141 fields (specification 3.7.1), so that their hash is the txid; [`transaction`] puts them back for a block.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::config::{CoinbasePolicy, SCRIPT_SIG_LEN_MAX};
use crate::template::Template;

/// What precedes the scriptSig's length: version, one input, the null outpoint.
const BEFORE_SCRIPT_SIG_LEN: usize = 4 + 1 + 36;
/// Version alone: where the marker and flag of BIP141 belong.
const VERSION_LEN: usize = 4;
const LOCKTIME_LEN: usize = 4;
const MARKER_AND_FLAG: [u8; 2] = [0, 1];
/// OP_RETURN, push of 36 bytes, and the header of BIP141's commitment.
const WITNESS_COMMITMENT: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
const WITNESS_COMMITMENT_LEN: usize = 38;
/// The longest data that one opcode byte pushes.
const PUSH_LEN_MAX: usize = 75;

/// What is wrong with a template's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutputsMalformed;

/// The serialised transaction up to the extranonce, whose size is `extranonce_len`.
pub(super) fn prefix(template: &Template, pool_tag: &[u8], extranonce_len: usize) -> Box<[u8]> {
    let tag_push_len = if pool_tag.is_empty() { 0 } else { 1 };
    let script_sig_len = template.coinbase_prefix.len() + tag_push_len + pool_tag.len() + 1 + extranonce_len;
    debug_assert!(script_sig_len <= SCRIPT_SIG_LEN_MAX && pool_tag.len() <= PUSH_LEN_MAX);
    let mut bytes = Vec::with_capacity(BEFORE_SCRIPT_SIG_LEN + 1 + script_sig_len - extranonce_len);
    bytes.extend_from_slice(&template.coinbase_tx_version.to_le_bytes());
    bytes.push(1);
    bytes.extend_from_slice(&[0; 32]);
    bytes.extend_from_slice(&[0xff; 4]);
    bytes.push(script_sig_len as u8);
    bytes.extend_from_slice(&template.coinbase_prefix);
    if !pool_tag.is_empty() {
        bytes.push(pool_tag.len() as u8);
        bytes.extend_from_slice(pool_tag);
    }
    bytes.push(extranonce_len as u8);
    bytes.into_boxed_slice()
}

/// The serialised transaction after the extranonce.
pub(super) fn suffix(template: &Template, policy: &CoinbasePolicy) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(64 + policy.payout_script.len() + template.coinbase_tx_outputs.len());
    bytes.extend_from_slice(&template.coinbase_tx_input_sequence.to_le_bytes());
    push_compact_size(u64::from(template.coinbase_tx_outputs_count) + 1, &mut bytes);
    bytes.extend_from_slice(&template.coinbase_tx_value_remaining.to_le_bytes());
    push_compact_size(policy.payout_script.len() as u64, &mut bytes);
    bytes.extend_from_slice(&policy.payout_script);
    bytes.extend_from_slice(&template.coinbase_tx_outputs);
    bytes.extend_from_slice(&template.coinbase_tx_locktime.to_le_bytes());
    bytes.into_boxed_slice()
}

/// The transaction as it stands in a block: with BIP141's fields if its outputs commit to witnesses.
pub(super) fn transaction(prefix: &[u8], extranonce: &[u8], suffix: &[u8], witness: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(prefix.len() + extranonce.len() + suffix.len() + 40);
    let (version, inputs) = prefix.split_at(VERSION_LEN);
    let (outputs, locktime) = suffix.split_at(suffix.len() - LOCKTIME_LEN);
    bytes.extend_from_slice(version);
    if witness {
        bytes.extend_from_slice(&MARKER_AND_FLAG);
    }
    bytes.extend_from_slice(inputs);
    bytes.extend_from_slice(extranonce);
    bytes.extend_from_slice(outputs);
    if witness {
        // One item, the witness reserved value: 32 zero bytes (specification 3.7.4).
        bytes.extend_from_slice(&[1, 32]);
        bytes.extend_from_slice(&[0; 32]);
    }
    bytes.extend_from_slice(locktime);
    bytes
}

/// Walks serialised outputs and says whether one commits to witnesses (BIP141).
///
/// # Errors
/// The bytes are not `count` whole outputs.
pub(super) fn commits_to_witnesses(outputs: &[u8], count: u32) -> Result<bool, OutputsMalformed> {
    let mut rest = outputs;
    let mut commits = false;
    for _ in 0..count {
        let (_value, after) = rest.split_at_checked(8).ok_or(OutputsMalformed)?;
        let (len, after) = take_compact_size(after).ok_or(OutputsMalformed)?;
        let len = usize::try_from(len).map_err(|_| OutputsMalformed)?;
        let (script, after) = after.split_at_checked(len).ok_or(OutputsMalformed)?;
        commits |= script.len() >= WITNESS_COMMITMENT_LEN && script.starts_with(&WITNESS_COMMITMENT);
        rest = after;
    }
    if rest.is_empty() { Ok(commits) } else { Err(OutputsMalformed) }
}

fn push_compact_size(value: u64, bytes: &mut Vec<u8>) {
    match value {
        0..=0xfc => bytes.push(value as u8),
        0xfd..=0xffff => {
            bytes.push(0xfd);
            bytes.extend_from_slice(&(value as u16).to_le_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&(value as u32).to_le_bytes());
        }
        _ => {
            bytes.push(0xff);
            bytes.extend_from_slice(&value.to_le_bytes());
        }
    }
}

fn take_compact_size(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let len = match first {
        0xfd => 2,
        0xfe => 4,
        0xff => 8,
        _ => return Some((u64::from(*first), rest)),
    };
    let (number, rest) = rest.split_at_checked(len)?;
    Some((number.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)), rest))
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn template(outputs: Vec<u8>, count: u32) -> Template {
        Template {
            template_id: 1,
            future_template: true,
            version: 0x2000_0000,
            coinbase_tx_version: 2,
            coinbase_prefix: vec![2, 0xd2, 0x04],
            coinbase_tx_input_sequence: 0xffff_fffe,
            coinbase_tx_value_remaining: 5_000_000_000,
            coinbase_tx_outputs_count: count,
            coinbase_tx_outputs: outputs,
            coinbase_tx_locktime: 77,
            merkle_path: Vec::new(),
        }
    }

    fn output(script: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        push_compact_size(script.len() as u64, &mut bytes);
        bytes.extend_from_slice(script);
        bytes
    }

    #[test]
    fn the_script_sig_length_covers_every_extranonce_size() {
        let template = template(Vec::new(), 0);
        for len in 1..=32_usize {
            let prefix = prefix(&template, b"adit", len);
            let script_sig = usize::from(prefix[BEFORE_SCRIPT_SIG_LEN]);
            assert_eq!(script_sig, prefix.len() - BEFORE_SCRIPT_SIG_LEN - 1 + len);
            assert_eq!(usize::from(*prefix.last().expect("a push")), len);
            assert_eq!(
                &prefix[BEFORE_SCRIPT_SIG_LEN + 1..][..8],
                &[2, 0xd2, 0x04, 4, b'a', b'd', b'i', b't']
            );
        }
        let untagged = prefix(&template, b"", 8);
        assert_eq!(&untagged[BEFORE_SCRIPT_SIG_LEN..], &[12, 2, 0xd2, 0x04, 8]);
    }

    #[test]
    fn a_witness_adds_36_bytes_and_nothing_else() {
        let mut commitment = WITNESS_COMMITMENT.to_vec();
        commitment.extend_from_slice(&[9; 32]);
        let template = template(output(&commitment), 1);
        let policy = CoinbasePolicy { payout_script: vec![0x51], pool_tag: b"t".to_vec() };
        let (prefix, suffix) = (prefix(&template, b"t", 8), suffix(&template, &policy));
        let extranonce = [5; 8];
        let bare = transaction(&prefix, &extranonce, &suffix, false);
        assert_eq!(bare, [&prefix[..], &extranonce, &suffix].concat());
        let full = transaction(&prefix, &extranonce, &suffix, true);
        assert_eq!(full.len(), bare.len() + 36);
        assert_eq!(&full[..6], &[2, 0, 0, 0, 0, 1]);
        let witness_at = full.len() - 4 - 34;
        assert_eq!(full[witness_at..witness_at + 2], [1, 32]);
        assert_eq!(full[witness_at + 2..full.len() - 4], [0; 32]);
        assert_eq!(full[full.len() - 4..], 77_u32.to_le_bytes());
    }

    #[test]
    fn outputs_are_walked_to_their_end() {
        let mut commitment = WITNESS_COMMITMENT.to_vec();
        commitment.extend_from_slice(&[9; 32]);
        let long = output(&[0x6a; 300]);
        let both = [long.clone(), output(&commitment)].concat();
        assert_eq!(commits_to_witnesses(&both, 2), Ok(true));
        assert_eq!(commits_to_witnesses(&long, 1), Ok(false));
        assert_eq!(commits_to_witnesses(&[], 0), Ok(false));
        assert_eq!(commits_to_witnesses(&output(&commitment[..37]), 1), Ok(false));
        assert_eq!(commits_to_witnesses(&both, 1), Err(OutputsMalformed));
        assert_eq!(commits_to_witnesses(&both, 3), Err(OutputsMalformed));
        for len in 0..both.len() {
            assert_eq!(commits_to_witnesses(&both[..len], 2), Err(OutputsMalformed));
        }
        let mut endless = vec![0; 8];
        endless.extend_from_slice(&[0xff; 9]);
        assert_eq!(commits_to_witnesses(&endless, 1), Err(OutputsMalformed));
        assert_eq!(commits_to_witnesses(&[], u32::MAX), Err(OutputsMalformed));
    }

    #[test]
    fn compact_sizes_come_back() {
        for value in [0, 0xfc, 0xfd, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            let mut bytes = Vec::new();
            push_compact_size(value, &mut bytes);
            assert_eq!(take_compact_size(&bytes), Some((value, &[][..])));
        }
    }
}
