//! Templates and tips, as every template source gives them to the shards.
//!
//! The fields are those of the Template Distribution Protocol's NewTemplate and SetNewPrevHash (specification 7.2 and
//! 7.3), whatever the source: a state machine cannot tell an embedded node from a remote template provider. Both are
//! immutable and shared between the shards behind an `Arc`.

use alloc::vec::Vec;

use adit_hasher::Target;

/// A block template without its transactions (specification 7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Rises strictly, also across restarts and sources.
    pub template_id: u64,
    /// Whether it waits for a [`PrevHash`] that names it.
    pub future_template: bool,
    /// Header version; the bits of BIP323 are free.
    pub version: u32,
    /// Transaction version of the coinbase.
    pub coinbase_tx_version: u32,
    /// Up to 8 bytes that open the coinbase's scriptSig (the height of BIP34).
    pub coinbase_prefix: Vec<u8>,
    /// Sequence number of the coinbase's input.
    pub coinbase_tx_input_sequence: u32,
    /// What the outputs added by the pool may spend, in satoshis.
    pub coinbase_tx_value_remaining: u64,
    /// How many outputs `coinbase_tx_outputs` holds.
    pub coinbase_tx_outputs_count: u32,
    /// Serialised outputs, without a count, that stand last in the coinbase (the witness commitment).
    pub coinbase_tx_outputs: Vec<u8>,
    /// Lock time of the coinbase.
    pub coinbase_tx_locktime: u32,
    /// Hashes from the deepest up that lead from the coinbase's txid to the merkle root.
    pub merkle_path: Vec<[u8; 32]>,
}

/// A new tip and the template to mine on it (specification 7.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrevHash {
    /// The future template that becomes active.
    pub template_id: u64,
    /// Hash of the block to build on, in header order.
    pub prev_hash: [u8; 32],
    /// The nTime at which miners start, in seconds since 1970.
    pub header_timestamp: u32,
    /// Compact target for the header.
    pub nbits: u32,
    /// A header whose hash meets this is a block; it decides, not `nbits`.
    pub target: Target,
}

/// What a template source tells the shards, in order.
#[derive(Clone, Debug)]
pub enum TemplateUpdate {
    /// A template, to be announced at once (future, or active on the present tip).
    NewTemplate(alloc::sync::Arc<Template>),
    /// A new tip.
    SetNewPrevHash(alloc::sync::Arc<PrevHash>),
}
