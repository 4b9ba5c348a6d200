//! The codes that refuse a share, a channel or a connection.
//!
//! The strings are those of the reference implementation where the meaning is the same, so that clients that act on them
//! do the right thing.

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
    /// `ntime` below the job's or too far above.
    NtimeOutOfRange,
    /// Version bits changed that BIP323 does not free.
    InvalidVersionBits,
    /// The job's version may not be changed at all.
    VersionRollingNotAllowed,
    /// The same header was submitted before.
    Duplicate,
    /// The hash does not meet the target of the job on the channel.
    DifficultyTooLow,
    /// More shares on this tip than the channel's bound.
    TooManyShares,
}

impl ShareError {
    /// How many there are.
    pub const COUNT: usize = 10;
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
        }
    }
}
