//! What a template fixes of its coinbase, whoever makes it.

use adit_hasher::{Digest, merkle_root};
use bitcoin::consensus::serialize;
use bitcoin::script::{Instruction, read_scriptint_non_minimal};
use bitcoin::{Amount, Script, ScriptBuf, Transaction, TxOut};

/// Transaction version of the coinbase.
pub(super) const COINBASE_TX_VERSION: u32 = 2;
/// Lets the coinbase's lock time count: with it every coinbase of a chain differs (BIP54).
pub(super) const COINBASE_SEQUENCE: u32 = 0xffff_fffe;
/// Weight units of the heaviest block.
pub(super) const BLOCK_WEIGHT_MAX: u64 = 4_000_000;
/// Cost of a block's signature operations.
pub(super) const BLOCK_SIGOPS_MAX: u64 = 80_000;
const _: () =
    assert!(BLOCK_SIGOPS_MAX > u16::MAX as u64, "a block has room for whatever a reserve can ask for");
/// Satoshis that there will ever be.
pub(super) const MONEY_MAX_SAT: u64 = 21_000_000 * 100_000_000;
/// What every witness commitment begins with: OP_RETURN, a push of 36 bytes, the tag (BIP141).
pub(super) const COMMITMENT_START: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
/// The coinbase's witness: the commitment covers these 32 bytes.
const WITNESS_RESERVED: [u8; 32] = [0; 32];

/// The script of the output that commits to the witnesses of a block whose transactions but the coinbase have these wtxids
/// (BIP141).
pub(super) fn commitment_script(wtxids: impl Iterator<Item = [u8; 32]>) -> ScriptBuf {
    // The coinbase's own counts as zero.
    let wtxids: Vec<[u8; 32]> = std::iter::once([0; 32]).chain(wtxids).collect();
    let mut preimage = [0; 64];
    preimage[..32].copy_from_slice(&merkle_root(&wtxids));
    preimage[32..].copy_from_slice(&WITNESS_RESERVED);
    let mut script = COMMITMENT_START.to_vec();
    script.extend_from_slice(&Digest::of(&preimage).0);
    ScriptBuf::from_bytes(script)
}

/// The serialised output with the [`commitment_script`]. Blocks without witnesses have it too: a signet block must.
pub(super) fn witness_commitment(wtxids: impl Iterator<Item = [u8; 32]>) -> Vec<u8> {
    serialize(&TxOut { value: Amount::ZERO, script_pubkey: commitment_script(wtxids) })
}

/// The height as the coinbase's scriptSig must begin (BIP34): the shortest push of it.
pub(super) fn height_push(height: u32) -> Vec<u8> {
    match height {
        0 => vec![0x00],
        1..=16 => vec![0x50 + height as u8],
        _ => {
            let mut number = height.to_le_bytes().to_vec();
            while number.last() == Some(&0) {
                number.pop();
            }
            // The top bit is the sign.
            if number.last().is_some_and(|byte| byte & 0x80 != 0) {
                number.push(0);
            }
            number.insert(0, number.len() as u8);
            number
        }
    }
}

/// The height that a coinbase's scriptSig begins with (BIP34); none for the genesis' own, which nobody mines. What follows
/// need not be there: a template has the beginning only.
pub(super) fn pushed_height(script_sig: &[u8]) -> Option<u32> {
    let height = match Script::from_bytes(script_sig).instructions().next()?.ok()? {
        Instruction::PushBytes(bytes) => read_scriptint_non_minimal(bytes.as_bytes()).ok()?,
        Instruction::Op(code) => match code.to_u8() {
            number @ 0x51..=0x60 => i64::from(number) - 0x50,
            _ => return None,
        },
    };
    u32::try_from(height).ok().filter(|height| *height > 0)
}

/// The height that a coinbase begins with.
pub(super) fn height_of(coinbase: &Transaction) -> Option<u32> {
    pushed_height(coinbase.input.first()?.script_sig.as_bytes())
}

/// What a coinbase's outputs are worth together.
pub(super) fn paid_sat(coinbase: &Transaction) -> u64 {
    coinbase.output.iter().fold(0, |sum, output| sum.saturating_add(output.value.to_sat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::script::Builder;

    #[test]
    fn height_is_pushed_as_scripts_do() {
        for height in (0..70_000).chain([8_388_607, 8_388_608, 16_777_216, 0x7fff_ffff]) {
            let push = Builder::new().push_int(i64::from(height)).into_script();
            assert_eq!(height_push(height), push.as_bytes(), "{height}");
        }
    }

    #[test]
    fn a_pushed_height_is_read_again() {
        for height in [1, 16, 17, 127, 128, 255, 256, 32_768, 900_000, 8_388_608] {
            assert_eq!(pushed_height(&height_push(height)), Some(height));
            let script = [height_push(height), vec![8; 9]].concat();
            assert_eq!(pushed_height(&script), Some(height));
            let input =
                vec![bitcoin::TxIn { script_sig: ScriptBuf::from_bytes(script), ..Default::default() }];
            let (version, lock_time) =
                (bitcoin::transaction::Version::TWO, bitcoin::absolute::LockTime::ZERO);
            let coinbase = Transaction { version, lock_time, input, output: Vec::new() };
            assert_eq!(height_of(&coinbase), Some(height));
        }
        let too_long = vec![5, 1, 1, 1, 1, 1];
        for nothing in
            [vec![], vec![0], vec![0x76], vec![2, 1], vec![5, 1, 1], too_long, vec![1, 0x80], vec![1, 0x81]]
        {
            assert_eq!(pushed_height(&nothing), None, "{nothing:?}");
        }
    }
}
