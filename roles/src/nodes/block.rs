//! From a solution to a serialised block.

use std::fmt;
use std::sync::Arc;

use adit_hasher::{HeaderBytes, merkle_root_from_path};
use bitcoin::consensus::{Encodable, deserialize};
use bitcoin::hashes::Hash;
use bitcoin::{Transaction, VarInt};

/// A template's transactions without the coinbase: serialised with witness, in block order, shared with whoever else
/// holds them.
#[derive(Clone, Debug, Default)]
pub struct TemplateTransactions(Arc<[Arc<[u8]>]>);

impl TemplateTransactions {
    /// Takes serialised transactions in block order.
    pub fn new(transactions: impl IntoIterator<Item = Arc<[u8]>>) -> Self {
        Self(transactions.into_iter().collect())
    }

    /// The serialised transactions in block order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.0.iter().map(|raw| &**raw)
    }

    /// The serialised transactions in block order, shared.
    pub fn shared(&self) -> Arc<[Arc<[u8]>]> {
        Arc::clone(&self.0)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the block has nothing but its coinbase.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a solution gives no block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// The coinbase is no transaction; the decoder's words.
    Coinbase(String),
    /// The header names another merkle root than coinbase and path give.
    MerkleRoot,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coinbase(error) => write!(f, "bad-coinbase, coinbase_tx does not decode: {error}"),
            Self::MerkleRoot => f.write_str(
                "bad-txnmrklroot, the header's merkle root is not that of coinbase_tx and the template",
            ),
        }
    }
}

impl std::error::Error for BlockError {}

/// The txid of a serialised coinbase, with or without witness.
///
/// # Errors
/// Bytes that are not exactly one transaction.
pub fn coinbase_txid(coinbase_tx: &[u8]) -> Result<[u8; 32], BlockError> {
    let coinbase: Transaction =
        deserialize(coinbase_tx).map_err(|error| BlockError::Coinbase(error.to_string()))?;
    Ok(coinbase.compute_txid().to_byte_array())
}

/// Header, coinbase and transactions as one serialised block, once the header is found to commit to them: `merkle_path`
/// is the template's own, so a coinbase or a path that was mixed up is noticed here.
///
/// # Errors
/// A coinbase that does not decode, or another merkle root.
pub fn assemble_block(
    header: &HeaderBytes,
    coinbase_tx: &[u8],
    merkle_path: &[[u8; 32]],
    transactions: &TemplateTransactions,
) -> Result<Vec<u8>, BlockError> {
    let root = merkle_root_from_path(&coinbase_txid(coinbase_tx)?, merkle_path);
    if header[36..68] != root {
        return Err(BlockError::MerkleRoot);
    }
    let count = VarInt::from(transactions.len() + 1);
    let len =
        header.len() + count.size() + coinbase_tx.len() + transactions.iter().map(<[u8]>::len).sum::<usize>();
    let mut block = Vec::with_capacity(len);
    block.extend_from_slice(header);
    count.consensus_encode(&mut block).expect("a vector takes any bytes");
    block.extend_from_slice(coinbase_tx);
    for raw in transactions.iter() {
        block.extend_from_slice(raw);
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::consensus::serialize;
    use bitcoin::constants::genesis_block;
    use bitcoin::{Network, block::Header};

    #[test]
    fn genesis_is_assembled_from_its_parts() {
        let genesis = genesis_block(Network::Regtest);
        let header: HeaderBytes =
            serialize::<Header>(&genesis.header).try_into().expect("a header has 80 bytes");
        let coinbase = serialize(&genesis.txdata[0]);
        let block = assemble_block(&header, &coinbase, &[], &TemplateTransactions::default());
        assert_eq!(block, Ok(serialize(&genesis)));

        let wrong = assemble_block(&header, &coinbase, &[[1; 32]], &TemplateTransactions::default());
        assert_eq!(wrong, Err(BlockError::MerkleRoot));
        let torn = assemble_block(&header, &coinbase[..40], &[], &TemplateTransactions::default());
        assert!(matches!(torn, Err(BlockError::Coinbase(_))));
    }
}
