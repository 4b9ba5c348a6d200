//! Whether a found block is in the journal: known to the three threads, so that the log says what is true.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

/// Whether a block is in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Recorded {
    /// The journal has not come to it yet.
    Waiting,
    /// It has reached the disk.
    Written,
    /// The journal could not take it.
    Missing,
}

impl fmt::Display for Recorded {
    /// As a sentence about the block.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "it is on its way to the journal",
            Self::Written => "it is in the journal",
            Self::Missing => "it is not in the journal",
        })
    }
}

/// What is known of one block.
#[derive(Debug)]
pub(super) struct Mark(AtomicU8);

impl Mark {
    pub(super) fn new(recorded: Recorded) -> Self {
        Self(AtomicU8::new(recorded as u8))
    }

    pub(super) fn set(&self, recorded: Recorded) {
        self.0.store(recorded as u8, Ordering::Release);
    }

    pub(super) fn recorded(&self) -> Recorded {
        const WAITING: u8 = Recorded::Waiting as u8;
        const WRITTEN: u8 = Recorded::Written as u8;
        match self.0.load(Ordering::Acquire) {
            WAITING => Recorded::Waiting,
            WRITTEN => Recorded::Written,
            _ => Recorded::Missing,
        }
    }
}
