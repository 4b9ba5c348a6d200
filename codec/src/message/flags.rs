//! The flags of SetupConnection and its answers (spec 5.3.1, 6.4.1). Template Distribution has none.

/// Mining, from the client: it cannot use extended jobs.
pub const REQUIRES_STANDARD_JOBS: u32 = 1 << 0;
/// Mining, from the client: it will send SetCustomMiningJob.
pub const REQUIRES_WORK_SELECTION: u32 = 1 << 1;
/// Mining, from the client: it must be allowed to roll the version.
pub const REQUIRES_VERSION_ROLLING: u32 = 1 << 2;

/// Mining, from the server: the version must not be changed.
pub const REQUIRES_FIXED_VERSION: u32 = 1 << 0;
/// Mining, from the server: no standard channels.
pub const REQUIRES_EXTENDED_CHANNELS: u32 = 1 << 1;

/// Job Declaration, from the client: it reveals its transactions (Full-Template mode).
pub const DECLARE_TX_DATA: u32 = 1 << 0;
