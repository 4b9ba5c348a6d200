//! The effects of a state machine, kept until its driver takes them.
//!
//! One [`Outbox`] serves a shard: its memory is reused tick after tick, so that emitting a frame allocates nothing once
//! the arena has grown to the largest tick. Frames broadcast to many connections are encoded once and shared.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Range;

use adit_codec::{Encode, encode_frame, frame_len};

/// How a frame stands to others that wait, unsealed, on the same connection.
///
/// A frame overtakes waiting frames of a lower priority, never one of its own: jobs, their activation and targets keep
/// their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Answers to shares and whatever can wait behind work.
    Reply,
    /// Setup, channel openings, jobs, `SetNewPrevHash`, targets, prefixes: what a miner needs to do valid work.
    Work,
}

/// Where a frame's bytes lie.
#[derive(Clone, Debug)]
enum Bytes {
    Arena(Range<usize>),
    Shared(Rc<[u8]>),
}

#[derive(Clone, Debug)]
struct Entry<C> {
    to: C,
    priority: Priority,
    bytes: Bytes,
}

/// Plaintext frames (header and payload) on their way to connections `C`, and events `E`, in the order in which they
/// were emitted.
#[derive(Debug)]
pub struct Outbox<C, E> {
    arena: Vec<u8>,
    entries: Vec<Entry<C>>,
    events: Vec<E>,
}

impl<C, E> Default for Outbox<C, E> {
    fn default() -> Self {
        Self { arena: Vec::new(), entries: Vec::new(), events: Vec::new() }
    }
}

impl<C: Copy, E> Outbox<C, E> {
    /// An empty outbox; it allocates with its first frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Encodes `message` as a frame for `to`.
    ///
    /// # Panics
    /// Never for messages whose fields respect their types' bounds, which the state machines guarantee.
    pub fn send<M: Encode>(&mut self, to: C, priority: Priority, message: &M) {
        let start = self.arena.len();
        self.arena.resize(start + frame_len(message), 0);
        let written = encode_frame(message, &mut self.arena[start..])
            .expect("a state machine emits encodable messages");
        self.arena.truncate(start + written);
        self.entries.push(Entry { to, priority, bytes: Bytes::Arena(start..start + written) });
    }

    /// Queues a frame that was encoded already, header included, for one more connection.
    pub fn send_shared(&mut self, to: C, priority: Priority, frame: Rc<[u8]>) {
        self.entries.push(Entry { to, priority, bytes: Bytes::Shared(frame) });
    }

    /// Queues a copy of frame bytes, header included.
    pub fn send_bytes(&mut self, to: C, priority: Priority, frame: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(frame);
        self.entries.push(Entry { to, priority, bytes: Bytes::Arena(start..self.arena.len()) });
    }

    /// Reports an event to the driver.
    pub fn report(&mut self, event: E) {
        self.events.push(event);
    }

    /// The waiting frames, oldest first: connection, priority, header and payload.
    pub fn frames(&self) -> impl Iterator<Item = (C, Priority, &[u8])> {
        self.entries.iter().map(|entry| {
            let bytes = match &entry.bytes {
                Bytes::Arena(range) => &self.arena[range.clone()],
                Bytes::Shared(frame) => frame,
            };
            (entry.to, entry.priority, bytes)
        })
    }

    /// Takes the events, oldest first.
    pub fn drain_events(&mut self) -> impl Iterator<Item = E> {
        self.events.drain(..)
    }

    /// Whether neither a frame nor an event waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.events.is_empty()
    }

    /// Forgets the frames, keeps the memory: called by the driver once it has taken them.
    pub fn clear_frames(&mut self) {
        self.entries.clear();
        self.arena.clear();
    }
}
