//! The codes that refuse a share or a channel, and what can be wrong with a template or an operator's command.
//!
//! The strings are those of the reference implementation where the meaning is the same, so that clients that act on them
//! do the right thing.

use core::fmt;

/// Why a share was refused: a verdict, not a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ShareError {
    /// No such channel on the connection, or one of the other kind.
    InvalidChannelId,
    /// The job was valid on an earlier tip.
    Stale,
    /// No such job.
    InvalidJobId,
    /// The extranonce has another size than the channel's.
    BadExtranonceSize,
    /// `ntime` below the tip's header timestamp or too far above.
    NtimeOutOfRange,
    /// Version bits changed that BIP323 does not free.
    InvalidVersionBits,
    /// The job's version may not be changed at all.
    VersionRollingNotAllowed,
    /// The same header was submitted before.
    Duplicate,
    /// The hash does not meet the target of the job on the channel.
    DifficultyTooLow,
    /// More shares on this tip than the channel's bound, or than the shard has room for.
    TooManyShares,
    /// The worker named in the share (extension 0x0002) is longer than 32 bytes, or its field is cut off.
    InvalidUserIdentity,
}

impl ShareError {
    /// How many there are.
    pub const COUNT: usize = 11;
    /// Every one, in order of its discriminant.
    pub const ALL: [Self; Self::COUNT] = [
        Self::InvalidChannelId,
        Self::Stale,
        Self::InvalidJobId,
        Self::BadExtranonceSize,
        Self::NtimeOutOfRange,
        Self::InvalidVersionBits,
        Self::VersionRollingNotAllowed,
        Self::Duplicate,
        Self::DifficultyTooLow,
        Self::TooManyShares,
        Self::InvalidUserIdentity,
    ];

    /// The `error_code` of SubmitShares.Error (specification 5.3.14).
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidChannelId => "invalid-channel-id",
            Self::Stale => "stale-share",
            Self::InvalidJobId => "invalid-job-id",
            Self::BadExtranonceSize => "bad-extranonce-size",
            Self::NtimeOutOfRange => "ntime-out-of-range",
            Self::InvalidVersionBits => "invalid-non-rollable-version-bit",
            Self::VersionRollingNotAllowed => "version-rolling-not-allowed",
            Self::Duplicate => "duplicate-share",
            Self::DifficultyTooLow => "difficulty-too-low",
            Self::TooManyShares => "too-many-shares",
            Self::InvalidUserIdentity => "invalid-user-identity",
        }
    }
}

/// Why a channel was not opened or changed: the `error_code` of OpenMiningChannel.Error and UpdateChannel.Error
/// (specification 5.3.6, 5.3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChannelError {
    /// No such channel on the connection.
    InvalidChannelId,
    /// Not a number, infinite or negative.
    InvalidNominalHashrate,
    /// A maximum target of zero, which nothing meets.
    MaxTargetOutOfRange,
    /// More than the pool's extranonce leaves to a channel.
    MinExtranonceSizeTooLarge,
    /// No room for more channels on the connection or the shard.
    ChannelCapacityExhausted,
    /// An extended channel on a connection that takes standard jobs only.
    ExtendedChannelsNotSupported,
}

impl ChannelError {
    /// The `error_code`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidChannelId => "invalid-channel-id",
            Self::InvalidNominalHashrate => "invalid-nominal-hashrate",
            Self::MaxTargetOutOfRange => "max-target-out-of-range",
            Self::MinExtranonceSizeTooLarge => "min-extranonce-size-too-large",
            Self::ChannelCapacityExhausted => "channel-capacity-exhausted",
            Self::ExtendedChannelsNotSupported => "extended-channels-not-supported-for-standard-jobs",
        }
    }
}

/// What is wrong with what a template source said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// The template's id is not above the last one's. The template was not used.
    NotRising(u64),
    /// `coinbase_prefix` has more than 8 bytes. The template was not used.
    CoinbasePrefixTooLong(u64),
    /// `coinbase_tx_outputs` are not as many whole outputs as `coinbase_tx_outputs_count` says. The template was not used.
    OutputsMalformed(u64),
    /// The outputs do not fit a job. The template was not used.
    CoinbaseTooLong(u64),
    /// More than 32 hashes. The template was not used.
    MerklePathTooLong(u64),
    /// SetNewPrevHash names a template that is not there. For another block than the present tip it took effect all the
    /// same: all jobs are stale, and work goes on with the next template.
    UnknownTemplate(u64),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRising(id) => write!(f, "template {id}: its id is not above the last one's; not used"),
            Self::CoinbasePrefixTooLong(id) => {
                write!(f, "template {id}: coinbase_prefix has more than 8 bytes; not used")
            }
            Self::OutputsMalformed(id) => {
                write!(f, "template {id}: coinbase_tx_outputs do not match their count; not used")
            }
            Self::CoinbaseTooLong(id) => {
                write!(f, "template {id}: the coinbase has more than 65535 bytes; not used")
            }
            Self::MerklePathTooLong(id) => {
                write!(f, "template {id}: merkle_path has more than 32 hashes; not used")
            }
            Self::UnknownTemplate(id) => {
                write!(f, "SetNewPrevHash names template {id}, which is not there; waiting for a template")
            }
        }
    }
}

impl core::error::Error for TemplateError {}

/// Why an operator's command was not carried out. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The connection is gone, or not set up.
    UnknownConnection,
    /// No such channel or group on the connection.
    UnknownChannel,
    /// The connection takes standard jobs only: group channels mean nothing to it (specification 5.3.22).
    RequiresStandardJobs,
    /// The channels differ in the size of their full extranonce (specification 5.2.3).
    MixedExtranonceSizes,
    /// No channels, or more than one message can name.
    ChannelCount,
    /// The connection has had all the groups that ids are left for.
    GroupsExhausted,
    /// A target of zero, which nothing meets.
    TargetOutOfRange,
    /// A reason or host longer than 255 bytes, or a reason with control characters (specification 3.5).
    InvalidText,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownConnection => "the connection is gone or not set up",
            Self::UnknownChannel => "no such channel or group on the connection",
            Self::RequiresStandardJobs => "the connection takes standard jobs only and has no groups",
            Self::MixedExtranonceSizes => "the channels differ in the size of their full extranonce",
            Self::ChannelCount => "a group is made of 1 to 65535 channels, each named once",
            Self::GroupsExhausted => "the connection has had 31 groups, more have no id",
            Self::TargetOutOfRange => "nothing can meet a target of zero",
            Self::InvalidText => "at most 255 bytes, and no control characters",
        })
    }
}

impl core::error::Error for CommandError {}
