//! Turns at receiving: what one socket may hand over in a poll before the others have had theirs.
//!
//! A socket's received buffers are handed over as they come, up to [`TURN_BYTES`] in a poll. What is beyond is held: the buffer
//! stays lent, nothing is copied, and it is handed over when the rest of the poll's budget allows it, in turns of the same
//! size. A socket that still holds [`HELD_MAX`] buffers at the end of a poll is paused: its receive is cancelled, and armed
//! again once it holds none, so that one flooding peer cannot take all buffers. Who stays within its turn costs a comparison.
//!
//! Invariants: the bytes of a socket keep their order, and its end comes behind them; a socket that closes holds nothing.
//! Bounds: a held buffer is one of the ring's, so no more are held than it has.

use std::collections::VecDeque;

use super::Ended;

/// What a socket may hand over in one poll before others have had their turn: 400 of the shortest frames. A busy proxy's
/// shares of a tick fit into it.
pub(super) const TURN_BYTES: u32 = 16 << 10;

/// Buffers that a socket may hold from one poll to the next without being paused.
pub(super) const HELD_MAX: usize = 8;

/// What a socket has handed over in the present poll.
#[derive(Clone, Copy, Default)]
pub(super) struct Turn {
    poll: u32,
    bytes: u32,
}

impl Turn {
    /// Whether more may be handed over in this poll, with `allowance` bytes for each socket.
    pub(super) fn has_room(&mut self, poll: u32, allowance: u32) -> bool {
        if self.poll != poll {
            *self = Self { poll, bytes: 0 };
        }
        self.bytes < allowance
    }

    pub(super) fn take(&mut self, len: usize) {
        self.bytes = self.bytes.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
    }
}

/// What a socket holds beyond its turn.
pub(super) struct Held {
    pub(super) slot: u32,
    /// Buffers and how much is in them, oldest first.
    pub(super) buffers: VecDeque<(u16, usize)>,
    /// What came behind them.
    pub(super) ended: Option<Ended>,
}

/// The sockets that hold something, in the order of their turns: few, and each holds a buffer.
#[derive(Default)]
pub(super) struct HeldSockets {
    queue: VecDeque<Held>,
}

impl HeldSockets {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Holds a buffer for `slot`.
    pub(super) fn push(&mut self, slot: u32, buffer: u16, len: usize) {
        match self.of(slot) {
            Some(held) => held.buffers.push_back((buffer, len)),
            None => self.queue.push_back(Held { slot, buffers: [(buffer, len)].into(), ended: None }),
        }
    }

    pub(super) fn of(&mut self, slot: u32) -> Option<&mut Held> {
        self.queue.iter_mut().find(|held| held.slot == slot)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn pop(&mut self) -> Option<Held> {
        self.queue.pop_front()
    }

    /// Back to the end of the queue: others are next.
    pub(super) fn put_back(&mut self, held: Held) {
        self.queue.push_back(held);
    }

    /// Takes what a slot that closes holds.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Held> {
        let index = self.queue.iter().position(|held| held.slot == slot)?;
        self.queue.remove(index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.queue.iter()
    }
}
