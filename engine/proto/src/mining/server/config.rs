//! What an operator chooses, validated by the layers above.

use alloc::vec::Vec;
use core::time::Duration;

use super::owed::Acknowledgement;

/// One core's part of the engine; it owns a slice of the extranonce space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u8);

/// How a full extranonce is laid out: node, shard and channel bytes are the prefix, what follows belongs to the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtranonceLayout {
    /// Which machine of the pool this is.
    pub node: u16,
    /// Where the counter of channels starts: differs from restart to restart, so that no prefix is handed out twice on
    /// one tip.
    pub first_slot: u64,
}

/// The outputs that the pool adds to every coinbase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoinbasePolicy {
    /// Script that receives everything a template leaves to spend.
    pub payout_script: Vec<u8>,
    /// ASCII bytes pushed into the scriptSig to name the pool; at most [`POOL_TAG_LEN_MAX`].
    pub pool_tag: Vec<u8>,
}

/// The longest scriptSig that consensus allows a coinbase.
pub const SCRIPT_SIG_LEN_MAX: usize = 100;
/// The longest `coinbase_prefix` of a template (specification 7.2).
pub const COINBASE_PREFIX_LEN_MAX: usize = 8;
/// The longest full extranonce (specification 3.1: B0_32).
pub const EXTRANONCE_LEN_MAX: usize = 32;
/// The longest pool tag: what the rest of the scriptSig leaves.
pub const POOL_TAG_LEN_MAX: usize = 50;
// The tag and the extranonce are each pushed with one opcode byte.
const _: () =
    assert!(COINBASE_PREFIX_LEN_MAX + 1 + POOL_TAG_LEN_MAX + 1 + EXTRANONCE_LEN_MAX <= SCRIPT_SIG_LEN_MAX);

/// How the server sets targets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VardiffConfig {
    /// Shares per minute that a channel shall find; 6 by default, up to 1e9 for load tests.
    pub shares_per_minute: f64,
    /// Hash rate assumed of a channel that announces none, in hashes per second.
    pub hash_rate_default: f64,
    /// The smallest difficulty that the server sets of its own accord, whatever hash rate a client announces or shows: a share
    /// takes `2^32` times as many hashes, which bounds the shares that a given power can send. 0 for none. A client's own
    /// maximum target wins where it is harder, an operator's command always.
    pub difficulty_min: f64,
    /// Whether targets follow the shares that arrive; without it a channel keeps the target of its announcements.
    pub adjust: bool,
}

/// Bounds on what one peer can make a shard keep or do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Channels on one connection.
    pub channels_per_connection_max: u32,
    /// Channels on one shard. The last tenth is for connections that have none yet.
    pub channels_max: u32,
    /// Jobs on one tip that stay valid beside the future ones, at least 2; the oldest makes room, but for the one that
    /// the tip named. As many future jobs are kept.
    pub jobs_max: usize,
    /// Shares on one tip whose fingerprints are kept for a channel; a share above is refused.
    pub shares_per_tip_max: u32,
    /// Slots of all tables in which the fingerprints of shares on the present tip are kept, 8 bytes each; tables are 7/16 to 7/8
    /// full. A channel above its fair part finds the end sooner than others; see [`Room`](super::duplicates::Room).
    pub fingerprint_slots_max: usize,
    /// Refused shares and invalid requests within [`Limits::errors_window`] before the connection is closed; one more for
    /// each channel beyond the first.
    pub errors_max: u32,
    /// See [`Limits::errors_max`].
    pub errors_window: Duration,
    /// From the end of the handshake to SetupConnection.
    pub setup_timeout: Duration,
    /// From SetupConnection.Success to the first channel, and from the last channel's close to the next opening.
    pub first_channel_timeout: Duration,
    /// Without any frame from the peer.
    pub idle_timeout: Duration,
}

/// The settings of a [`Server`](super::Server).
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// Which shard this is.
    pub shard: ShardId,
    /// Where its extranonce prefixes lie.
    pub extranonce: ExtranonceLayout,
    /// Payout and tag.
    pub coinbase: CoinbasePolicy,
    /// Targets.
    pub vardiff: VardiffConfig,
    /// When accepted shares are acknowledged.
    pub acknowledgement: Acknowledgement,
    /// A job is repeated with a new id, and so takes new targets into effect, when none came for this long.
    pub job_interval: Duration,
    /// Whether channels may roll the version bits of BIP323.
    pub version_rolling: bool,
    /// How far above the specification's bound a share's ntime may lie, in seconds: clocks run apart.
    pub ntime_tolerance_s: u32,
    /// Extensions without which a client is refused.
    pub required_extensions: Vec<u16>,
    /// Bounds.
    pub limits: Limits,
}
