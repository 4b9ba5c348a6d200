//! What a template must be, whoever gives it: the bounds of specification 7.2 and of consensus.

use core::fmt;

use adit_codec::message::NewTemplate;

use crate::mining::server::config::COINBASE_PREFIX_LEN_MAX;
use crate::template::Template;

/// The longest merkle path that is accepted: 2^32 transactions are more than any block holds.
pub const MERKLE_PATH_LEN_MAX: usize = 32;
/// The longest B0_64K.
pub(super) const B0_64K_LEN_MAX: usize = 65_535;
/// All satoshis that will ever be.
const MONEY_MAX: u64 = 2_100_000_000_000_000;

/// What is wrong with a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateFault {
    /// `coinbase_prefix` has more than 8 bytes.
    CoinbasePrefixTooLong(usize),
    /// `coinbase_tx_outputs` are longer than a message can carry.
    OutputsTooLong(usize),
    /// `coinbase_tx_outputs` are not as many whole outputs as `coinbase_tx_outputs_count` says.
    OutputsMalformed,
    /// `merkle_path` has more than [`MERKLE_PATH_LEN_MAX`] hashes.
    MerklePathTooLong(usize),
    /// `coinbase_tx_value_remaining` is more than there will ever be.
    ValueTooHigh(u64),
}

impl fmt::Display for TemplateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CoinbasePrefixTooLong(len) => {
                write!(f, "coinbase_prefix: {len} bytes, at most {COINBASE_PREFIX_LEN_MAX}")
            }
            Self::OutputsTooLong(len) => {
                write!(f, "coinbase_tx_outputs: {len} bytes, at most {B0_64K_LEN_MAX}")
            }
            Self::OutputsMalformed => {
                f.write_str("coinbase_tx_outputs: not as many whole outputs as the count says")
            }
            Self::MerklePathTooLong(len) => {
                write!(f, "merkle_path: {len} hashes, at most {MERKLE_PATH_LEN_MAX}")
            }
            Self::ValueTooHigh(value) => {
                write!(f, "coinbase_tx_value_remaining: {value} satoshis, at most {MONEY_MAX}")
            }
        }
    }
}

/// A template as its message, to be sent.
pub(super) fn message_of(template: &Template, template_id: u64) -> NewTemplate<'_> {
    NewTemplate {
        template_id,
        future_template: template.future_template,
        version: template.version,
        coinbase_tx_version: template.coinbase_tx_version,
        coinbase_prefix: &template.coinbase_prefix,
        coinbase_tx_input_sequence: template.coinbase_tx_input_sequence,
        coinbase_tx_value_remaining: template.coinbase_tx_value_remaining,
        coinbase_tx_outputs_count: template.coinbase_tx_outputs_count,
        coinbase_tx_outputs: &template.coinbase_tx_outputs,
        coinbase_tx_locktime: template.coinbase_tx_locktime,
        merkle_path: template.merkle_path.as_slice().into(),
    }
}

/// A received message as template.
pub(super) fn template_of(message: &NewTemplate<'_>) -> Template {
    Template {
        template_id: message.template_id,
        future_template: message.future_template,
        version: message.version,
        coinbase_tx_version: message.coinbase_tx_version,
        coinbase_prefix: message.coinbase_prefix.into(),
        coinbase_tx_input_sequence: message.coinbase_tx_input_sequence,
        coinbase_tx_value_remaining: message.coinbase_tx_value_remaining,
        coinbase_tx_outputs_count: message.coinbase_tx_outputs_count,
        coinbase_tx_outputs: message.coinbase_tx_outputs.into(),
        coinbase_tx_locktime: message.coinbase_tx_locktime,
        merkle_path: message.merkle_path.iter().collect(),
    }
}

/// Judges a template by itself. The message is a view: nothing is copied before it is found good.
pub(super) fn check(message: &NewTemplate<'_>) -> Result<(), TemplateFault> {
    let prefix_len = message.coinbase_prefix.len();
    if prefix_len > COINBASE_PREFIX_LEN_MAX {
        return Err(TemplateFault::CoinbasePrefixTooLong(prefix_len));
    }
    let path_len = message.merkle_path.len();
    if path_len > MERKLE_PATH_LEN_MAX {
        return Err(TemplateFault::MerklePathTooLong(path_len));
    }
    if message.coinbase_tx_value_remaining > MONEY_MAX {
        return Err(TemplateFault::ValueTooHigh(message.coinbase_tx_value_remaining));
    }
    let outputs = message.coinbase_tx_outputs;
    if outputs.len() > B0_64K_LEN_MAX {
        return Err(TemplateFault::OutputsTooLong(outputs.len()));
    }
    check_outputs(outputs, message.coinbase_tx_outputs_count).ok_or(TemplateFault::OutputsMalformed)
}

/// Whether the bytes are `count` whole outputs. An output takes nine bytes at least, so the bytes bound the walk.
fn check_outputs(mut rest: &[u8], count: u32) -> Option<()> {
    for _ in 0..count {
        let (_value, after) = rest.split_at_checked(8)?;
        let (first, after) = after.split_first()?;
        let len_bytes = match first {
            0xfd => 2,
            0xfe => 4,
            0xff => 8,
            _ => 0,
        };
        let (number, after) = after.split_at_checked(len_bytes)?;
        let len = match number {
            [] => u64::from(*first),
            _ => number.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)),
        };
        let (_script, after) = after.split_at_checked(usize::try_from(len).ok()?)?;
        rest = after;
    }
    rest.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    fn template() -> Template {
        Template {
            template_id: 7,
            future_template: true,
            version: 0x2000_0000,
            coinbase_tx_version: 2,
            coinbase_prefix: vec![3, 1, 2, 3],
            coinbase_tx_input_sequence: u32::MAX,
            coinbase_tx_value_remaining: 5_000_000_000,
            coinbase_tx_outputs_count: 1,
            coinbase_tx_outputs: output(38),
            coinbase_tx_locktime: 9,
            merkle_path: vec![[5; 32]; 3],
        }
    }

    fn output(script_len: u8) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        bytes.push(script_len);
        bytes.resize(9 + usize::from(script_len), 0x6a);
        bytes
    }

    fn judge(change: impl FnOnce(&mut Template)) -> Result<(), TemplateFault> {
        let mut template = template();
        change(&mut template);
        check(&message_of(&template, 7))
    }

    #[test]
    fn message_and_template_hold_the_same() {
        assert_eq!(template_of(&message_of(&template(), 7)), template());
        assert_eq!(template_of(&message_of(&template(), 8)).template_id, 8);
    }

    #[test]
    fn bounds_hold_exactly() {
        assert_eq!(judge(|_| {}), Ok(()));
        assert_eq!(judge(|t| t.coinbase_prefix = vec![1; 8]), Ok(()));
        assert_eq!(judge(|t| t.coinbase_prefix = vec![1; 9]), Err(TemplateFault::CoinbasePrefixTooLong(9)));
        assert_eq!(judge(|t| t.merkle_path = vec![[0; 32]; 32]), Ok(()));
        assert_eq!(judge(|t| t.merkle_path = vec![[0; 32]; 33]), Err(TemplateFault::MerklePathTooLong(33)));
        assert_eq!(judge(|t| t.coinbase_tx_value_remaining = MONEY_MAX), Ok(()));
        assert_eq!(
            judge(|t| t.coinbase_tx_value_remaining = MONEY_MAX + 1),
            Err(TemplateFault::ValueTooHigh(MONEY_MAX + 1))
        );
        assert_eq!(
            judge(|t| t.coinbase_tx_outputs = vec![0; 65_536]),
            Err(TemplateFault::OutputsTooLong(65_536))
        );
    }

    #[test]
    fn outputs_are_as_many_as_counted() {
        let malformed = Err(TemplateFault::OutputsMalformed);
        assert_eq!(judge(|t| t.coinbase_tx_outputs_count = 0), malformed);
        assert_eq!(judge(|t| t.coinbase_tx_outputs_count = 2), malformed);
        assert_eq!(judge(|t| t.coinbase_tx_outputs_count = u32::MAX), malformed);
        let cut = |t: &mut Template| t.coinbase_tx_outputs.truncate(10);
        assert_eq!(judge(cut), malformed);
        for (len_bytes, first) in [(2, 0xfd), (4, 0xfe), (8, 0xff)] {
            let mut bytes = vec![0; 8];
            bytes.push(first);
            bytes.push(1);
            bytes.resize(8 + 1 + len_bytes, 0);
            bytes.push(0x51);
            assert_eq!(judge(|t| t.coinbase_tx_outputs = bytes.clone()), Ok(()));
            bytes[9..9 + len_bytes].fill(0xff);
            assert_eq!(judge(|t| t.coinbase_tx_outputs = bytes), malformed);
        }
        let none = |t: &mut Template| (t.coinbase_tx_outputs_count, t.coinbase_tx_outputs) = (0, vec![]);
        assert_eq!(judge(none), Ok(()));
    }
}
