//! What a server reports to its driver.

use alloc::boxed::Box;
use alloc::vec::Vec;

use adit_hasher::{Digest, HeaderBytes, Target};

/// A connection of one shard. The generation keeps a late event for a closed connection from reaching its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// Slot in the shard's tables; reused.
    pub slot: u32,
    /// Rises with each reuse of the slot.
    pub generation: u32,
}

/// A channel on a connection, as the wire names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u32);

/// A job, as the wire names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u32);

/// A share that is a block: all that a template source needs to build and submit it (specification 7.7), and who found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution {
    /// Template that the job was made from.
    pub template_id: u64,
    /// The winning header.
    pub header: HeaderBytes,
    /// Its hash.
    pub digest: Digest,
    /// The target that it met.
    pub target: Target,
    /// The full coinbase transaction, with its witness where the template commits to one.
    pub coinbase_tx: Vec<u8>,
    /// Hashes from the deepest up that lead from the coinbase's txid to the header's merkle root.
    pub merkle_path: Vec<[u8; 32]>,
    /// `user_identity` of the channel, bytes as received.
    pub user_identity: Vec<u8>,
    /// Worker named in the share (extension 0x0002); empty without.
    pub worker_identity: Vec<u8>,
}

/// Why a server ends a connection. One line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// A frame that does not decode, or that the protocol does not allow here.
    Protocol(ProtocolFault),
    /// SetupConnection was answered with an Error.
    SetupRefused(&'static str),
    /// A required extension was not requested.
    ExtensionRequired(u16),
    /// No SetupConnection in time.
    SetupTimeout,
    /// No open channel for too long.
    NoChannel,
    /// No frame for too long.
    Idle,
    /// Too many refused shares or invalid requests.
    TooManyErrors,
    /// The operator asked for it.
    Operator,
}

/// A peer's breach of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolFault {
    /// Does not decode.
    Malformed(adit_codec::DecodeError),
    /// Known message that has no place in this state or direction; its name.
    Unexpected(&'static str),
}

/// What the driver must know. Frames are in the outbox beside.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A block: leaves the shard before any frame of the same tick.
    Solution(Box<Solution>),
    /// SetupConnection was accepted.
    SetUp {
        /// Which connection.
        connection: ConnectionId,
        /// `vendor`, as received.
        vendor: Vec<u8>,
        /// `firmware`, as received.
        firmware: Vec<u8>,
    },
    /// A channel was opened.
    ChannelOpened {
        /// Which connection.
        connection: ConnectionId,
        /// Its id on that connection.
        channel: ChannelId,
        /// Whether it is an extended channel.
        extended: bool,
        /// `user_identity`, as received.
        user_identity: Vec<u8>,
        /// Announced hash rate, in hashes per second.
        nominal_hash_rate: f32,
    },
    /// A channel was closed, by either side or with its connection.
    ChannelClosed {
        /// Which connection.
        connection: ConnectionId,
        /// Its id on that connection.
        channel: ChannelId,
    },
    /// The connection is over for the server: send what waits, then close.
    Close {
        /// Which connection.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
}

/// What a server has done since it was made; monotone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    /// Shares that met their target.
    pub shares_accepted: u64,
    /// Sum of the difficulties assigned to accepted shares.
    pub difficulty_accepted: f64,
    /// Shares refused, by [`ShareError`](super::ShareError) as index.
    pub shares_rejected: [u64; super::ShareError::COUNT],
    /// Blocks among the shares.
    pub solutions: u64,
    /// Channels opened.
    pub channels_opened: u64,
    /// Channels closed.
    pub channels_closed: u64,
    /// SetTarget messages sent because of the share rate.
    pub retargets: u64,
    /// Frames of unknown extensions, dropped unread (specification 3.4.1).
    pub frames_discarded: u64,
}
