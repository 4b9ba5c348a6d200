//! From a node's template to the protocol's, with the bounds of both.

use adit_hasher::{HeaderBytes, Target};
use adit_proto::distribution::MERKLE_PATH_LEN_MAX;
use adit_proto::template::{PrevHash, Template};
use bitcoin_capnp_types::capnp::data_list;
use bitcoin_capnp_types::mining_capnp::{block_template, coinbase_tx};

use super::fault::Fault;
use crate::nodes::coinbase::MONEY_MAX_SAT;

/// Bytes of the coinbase's beginning that the protocol carries.
const COINBASE_PREFIX_LEN_MAX: usize = 8;
/// Bytes of outputs that the protocol carries.
const OUTPUTS_LEN_MAX: usize = 65_535;
/// What a coinbase's witness is taken to hold: a template whose commitment covers anything else cannot be mined by the
/// protocol's means.
const WITNESS_RESERVED: [u8; 32] = [0; 32];

/// What is read of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeaderFields {
    pub(super) version: u32,
    pub(super) prev_hash: [u8; 32],
    pub(super) ntime: u32,
    pub(super) nbits: u32,
    pub(super) nonce: u32,
}

impl HeaderFields {
    /// The fields of a header.
    pub(super) fn of(header: &HeaderBytes) -> Self {
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let mut prev_hash = [0; 32];
        prev_hash.copy_from_slice(&header[4..36]);
        Self { version: word(0), prev_hash, ntime: word(68), nbits: word(72), nonce: word(76) }
    }

    /// Reads a node's answer; the target must be one.
    pub(super) fn read(call: &'static str, bytes: &[u8]) -> Result<Self, Fault> {
        let header = bytes
            .first_chunk()
            .filter(|header: &&HeaderBytes| header.len() == bytes.len())
            .ok_or(Fault::Malformed { call, what: "a header of other than 80 bytes" })?;
        let this = Self::of(header);
        Target::from_nbits(this.nbits)
            .map_err(|_| Fault::Malformed { call, what: "nbits that name no target" })?;
        Ok(this)
    }
}

/// What a template says of its coinbase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CoinbaseFields {
    version: u32,
    sequence: u32,
    prefix: Vec<u8>,
    value_remaining_sat: u64,
    outputs_count: u32,
    outputs: Vec<u8>,
    lock_time: u32,
}

impl CoinbaseFields {
    /// Reads a node's answer, within the protocol's bounds.
    pub(super) fn read(call: &'static str, from: coinbase_tx::Reader<'_>) -> Result<Self, Fault> {
        let malformed = |what| Fault::Malformed { call, what };
        let unreadable = |_| malformed("a field that cannot be read");
        let prefix = from.get_script_sig_prefix().map_err(unreadable)?;
        if prefix.len() > COINBASE_PREFIX_LEN_MAX {
            return Err(malformed("more than 8 bytes that open the coinbase"));
        }
        let witness = from.get_witness().map_err(unreadable)?;
        if !witness.is_empty() && witness != WITNESS_RESERVED {
            return Err(malformed("a witness other than 32 zero bytes"));
        }
        let value_remaining_sat = u64::try_from(from.get_block_reward_remaining())
            .ok()
            .filter(|value| *value <= MONEY_MAX_SAT)
            .ok_or(malformed("a reward that cannot be"))?;
        let required = from.get_required_outputs().map_err(unreadable)?;
        let mut outputs = Vec::new();
        for output in required.iter() {
            outputs.extend_from_slice(output.map_err(unreadable)?);
            if outputs.len() > OUTPUTS_LEN_MAX {
                return Err(malformed("more than 65,535 bytes of outputs"));
            }
        }
        Ok(Self {
            version: from.get_version(),
            sequence: from.get_sequence(),
            prefix: prefix.to_vec(),
            value_remaining_sat,
            outputs_count: required.len(),
            outputs,
            lock_time: from.get_lock_time(),
        })
    }
}

/// Reads a merkle path; it comes from the deepest up, as the protocol has it.
pub(super) fn read_merkle_path(
    call: &'static str,
    path: data_list::Reader<'_>,
) -> Result<Vec<[u8; 32]>, Fault> {
    if path.len() as usize > MERKLE_PATH_LEN_MAX {
        return Err(Fault::Malformed { call, what: "more than 32 hashes" });
    }
    let hash = |read: Result<&[u8], _>| read.ok().and_then(|bytes| bytes.try_into().ok());
    path.iter()
        .map(|read| hash(read).ok_or(Fault::Malformed { call, what: "a hash of other than 32 bytes" }))
        .collect()
}

/// A template that the node holds for us.
pub(super) struct NodeTemplate {
    pub(super) client: block_template::Client,
    pub(super) header: HeaderFields,
    pub(super) coinbase: CoinbaseFields,
    pub(super) merkle_path: Vec<[u8; 32]>,
}

impl NodeTemplate {
    /// Subsidy and fees.
    pub(super) fn value_sat(&self) -> u64 {
        self.coinbase.value_remaining_sat
    }

    /// As the protocol has it.
    pub(super) fn announcement(&self, template_id: u64, future_template: bool) -> Template {
        let coinbase = &self.coinbase;
        Template {
            template_id,
            future_template,
            version: self.header.version,
            coinbase_tx_version: coinbase.version,
            coinbase_prefix: coinbase.prefix.clone(),
            coinbase_tx_input_sequence: coinbase.sequence,
            coinbase_tx_value_remaining: coinbase.value_remaining_sat,
            coinbase_tx_outputs_count: coinbase.outputs_count,
            coinbase_tx_outputs: coinbase.outputs.clone(),
            coinbase_tx_locktime: coinbase.lock_time,
            merkle_path: self.merkle_path.clone(),
        }
    }

    /// The tip that it builds on, which activates it.
    pub(super) fn activation(&self, template_id: u64) -> PrevHash {
        let HeaderFields { prev_hash, ntime, nbits, .. } = self.header;
        let target =
            Target::from_nbits(nbits).expect("nbits that name no target were refused when they were read");
        PrevHash { template_id, prev_hash, header_timestamp: ntime, nbits, target }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::consensus::serialize;
    use bitcoin::constants::genesis_block;
    use bitcoin::{Network, block::Header};
    use bitcoin_capnp_types::capnp::message::Builder;

    const CALL: &str = "test";

    #[test]
    fn headers_are_read_and_bounded() {
        let genesis = genesis_block(Network::Regtest).header;
        let mut raw = serialize::<Header>(&genesis);
        let fields = HeaderFields::read(CALL, &raw).unwrap();
        assert_eq!((fields.version, fields.ntime), (1, genesis.time));
        assert_eq!((fields.nbits, fields.nonce), (genesis.bits.to_consensus(), genesis.nonce));
        assert_eq!(fields.prev_hash, [0; 32]);
        raw.push(0);
        assert!(matches!(HeaderFields::read(CALL, &raw), Err(Fault::Malformed { .. })));
        raw.truncate(80);
        raw[72..76].fill(0);
        assert!(matches!(HeaderFields::read(CALL, &raw), Err(Fault::Malformed { .. })), "no target");
    }

    /// What a coinbase with these parts is read as.
    fn read(
        prefix: &[u8],
        witness: &[u8],
        reward_sat: i64,
        outputs: &[&[u8]],
    ) -> Result<CoinbaseFields, Fault> {
        let mut message = Builder::new_default();
        let mut coinbase: coinbase_tx::Builder<'_> = message.init_root();
        coinbase.set_version(2);
        coinbase.set_sequence(0xffff_fffe);
        coinbase.set_script_sig_prefix(prefix);
        coinbase.set_witness(witness);
        coinbase.set_block_reward_remaining(reward_sat);
        coinbase.set_lock_time(7);
        let mut required = coinbase.reborrow().init_required_outputs(outputs.len() as u32);
        (0..).zip(outputs).for_each(|(at, output)| required.set(at, output));
        CoinbaseFields::read(CALL, coinbase.into_reader())
    }

    #[test]
    fn coinbases_are_read_and_bounded() {
        let fields = read(&[1, 8], &[0; 32], 50, &[&[1, 2], &[3]]).unwrap();
        assert_eq!((fields.prefix, fields.value_remaining_sat, fields.lock_time), (vec![1, 8], 50, 7));
        assert_eq!((fields.outputs_count, fields.outputs), (2, vec![1, 2, 3]));
        assert!(read(&[], &[], 0, &[]).is_ok());
        assert!(read(&[0; 8], &[], 0, &[]).is_ok());
        assert!(read(&[0; 9], &[], 0, &[]).is_err());
        assert!(read(&[], &[1; 32], 0, &[]).is_err(), "a commitment that the engine would not meet");
        assert!(read(&[], &[], -1, &[]).is_err());
        assert!(read(&[], &[], MONEY_MAX_SAT as i64 + 1, &[]).is_err());
        assert!(read(&[], &[], 0, &[&[0; 40_000], &[0; 40_000]]).is_err());
    }
}
