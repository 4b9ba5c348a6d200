//! One io_uring with its table of sockets and its receive buffers.
//!
//! Invariants: while an operation of a slot is under way its flag is set, and the slot is not reused; the bytes of a send
//! are neither changed nor freed before its completion; a ring that is dropped first waits until the kernel has let go of
//! every buffer, or leaves those buffers to it for ever.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::buffers::{GROUP, ReceiveBuffers};
use super::operation::{Operation, parse, user_data};
use super::turns::{HELD_MAX, HeldSockets, TURN_BYTES, Turn};
use super::{Budget, Ended, Handler, Sizes, SocketId, Wake};

/// Completions copied out of the queue at a time.
const CHUNK: usize = 32;

/// How long a ring that is dropped waits for the kernel.
const QUIESCE_ROUNDS: u32 = 100;
const QUIESCE_ROUND_NS: u32 = 10_000_000;

/// What is under way on a slot.
mod under_way {
    /// The multishot receive is armed.
    pub(super) const RECEIVE: u16 = 1;
    pub(super) const SEND: u16 = 1 << 1;
    pub(super) const CANCEL: u16 = 1 << 2;
    pub(super) const SHUTDOWN: u16 = 1 << 3;
    pub(super) const CLOSE: u16 = 1 << 4;
    /// Not an operation: the owner wants the socket closed.
    pub(super) const CLOSING: u16 = 1 << 5;
    /// Not an operation: a socket is attached.
    pub(super) const ATTACHED: u16 = 1 << 6;
    /// Not an operation: what was received beyond the socket's turn is held.
    pub(super) const HELD: u16 = 1 << 7;
    /// Not an operation: the owner wants nothing received.
    pub(super) const PAUSED: u16 = 1 << 8;
    pub(super) const OPERATIONS: u16 = RECEIVE | SEND | CANCEL | SHUTDOWN | CLOSE;
}

/// A place in the table of direct descriptors.
#[derive(Default)]
struct Slot {
    flags: u16,
    /// The buffer that is being sent.
    sending: Vec<u8>,
    /// How much of it the kernel has taken.
    sent: usize,
    turn: Turn,
}

impl Slot {
    fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

#[derive(Clone, Copy)]
struct Completion {
    user_data: u64,
    result: i32,
    flags: u32,
}

/// How often the unusual happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Receives that found no buffer and were armed again.
    pub buffers_exhausted: u64,
    /// Rounds in which the completion queue was full; the kernel keeps what did not fit.
    pub overflows: u64,
    /// System calls made.
    pub enters: u64,
    /// Portions of bytes received.
    pub receives: u64,
}

/// The poll of the wake's eventfd, by the ring that is waited on.
struct WakePoll {
    wake: Arc<Wake>,
    armed: bool,
}

/// One io_uring, its direct descriptors and its receive buffers.
pub struct Ring {
    io: IoUring,
    buffers: ReceiveBuffers,
    wake_poll: Option<WakePoll>,
    /// The first socket id of this ring.
    first: u32,
    /// As long as the most sockets that were open at once; the table may be longer.
    slots: Vec<Slot>,
    free: Vec<u32>,
    table_len: u32,
    /// Entries that found the submission queue full; at most two per slot.
    backlog: VecDeque<squeue::Entry>,
    /// Slots whose receive found no buffer.
    starved: Vec<u32>,
    /// Sockets that received more than their turn.
    held: HeldSockets,
    /// Counts polls, for the turns.
    polls: u32,
    counters: RingCounters,
}

impl Ring {
    /// Makes a ring whose sockets have the ids from `first` on; of `sizes`, `table_len` is this ring's own. The ring that is
    /// waited on polls the wake.
    ///
    /// # Errors
    /// See [`super::Transport::new`].
    pub fn new(first: u32, sizes: Sizes, wake: &Arc<Wake>, waited: bool) -> io::Result<Self> {
        let mut io = build(sizes)?;
        io.submitter().register_files_sparse(sizes.table_len)?;
        // Saves a look-up per system call; without it all works too.
        let _ = io.submitter().register_ring_fd();
        io.submitter().register_eventfd(wake.as_fd().as_raw_fd())?;
        let wake_poll = waited.then(|| WakePoll { wake: Arc::clone(wake), armed: false });
        let buffers = ReceiveBuffers::register(&io, sizes.buffers, sizes.buffer_len)?;
        io.completion().disable_eventfd();
        let mut ring = Self {
            io,
            buffers,
            wake_poll,
            first,
            slots: Vec::new(),
            free: Vec::new(),
            table_len: sizes.table_len,
            backlog: VecDeque::new(),
            starved: Vec::new(),
            held: HeldSockets::default(),
            polls: 0,
            counters: RingCounters::default(),
        };
        ring.poll_wake();
        Ok(ring)
    }

    /// Makes wakes complete something, unless they do.
    fn poll_wake(&mut self) {
        let Some(poll) = self.wake_poll.as_mut().filter(|poll| !poll.armed) else { return };
        poll.armed = true;
        let fd = Fd(poll.wake.as_fd().as_raw_fd());
        let events = u32::try_from(libc::POLLIN).expect("a small constant");
        let entry =
            opcode::PollAdd::new(fd, events).multi(true).build().user_data(user_data(Operation::Wake, 0));
        self.push(entry);
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty() || self.slots.len() < self.table_len as usize
    }

    pub(super) fn sockets(&self) -> u32 {
        u32::try_from(self.slots.len() - self.free.len()).expect("at most table_len")
    }

    pub(super) fn counters(&self) -> RingCounters {
        self.counters
    }

    pub(super) fn attach(&mut self, socket: OwnedFd) -> io::Result<SocketId> {
        let slot = match self.free.last() {
            Some(&slot) => slot,
            None => u32::try_from(self.slots.len()).expect("at most table_len"),
        };
        self.io.submitter().register_files_update(slot, &[socket.as_raw_fd()])?;
        if self.free.pop().is_none() {
            self.slots.push(Slot::default());
        }
        self.slots[slot as usize].flags = under_way::ATTACHED;
        self.receive(slot);
        Ok(SocketId(self.first + slot))
    }

    pub(super) fn send(&mut self, socket: SocketId, buffer: Vec<u8>) {
        let index = socket.0 - self.first;
        let slot = &mut self.slots[index as usize];
        assert!(
            !slot.is(under_way::SEND | under_way::CLOSING) && slot.is(under_way::ATTACHED),
            "one send at a time, on an open socket"
        );
        slot.flags |= under_way::SEND;
        slot.sending = buffer;
        slot.sent = 0;
        self.send_rest(index);
    }

    fn send_rest(&mut self, index: u32) {
        let slot = &self.slots[index as usize];
        let rest = &slot.sending[slot.sent..];
        let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        // The pointer stays valid until the completion: `sending` is left alone while SEND is set, and moving the slot
        // moves no heap memory.
        let entry = opcode::Send::new(Fixed(index), rest.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data(user_data(Operation::Send, index));
        self.push(entry);
    }

    pub(super) fn shutdown_write(&mut self, socket: SocketId) {
        let index = socket.0 - self.first;
        let slot = &mut self.slots[index as usize];
        if slot.is(under_way::SHUTDOWN | under_way::CLOSING) {
            return;
        }
        slot.flags |= under_way::SHUTDOWN;
        let entry = opcode::Shutdown::new(Fixed(index), libc::SHUT_WR)
            .build()
            .user_data(user_data(Operation::Shutdown, index));
        self.push(entry);
    }

    pub(super) fn close(&mut self, socket: SocketId) {
        let index = socket.0 - self.first;
        let slot = &mut self.slots[index as usize];
        if slot.is(under_way::CLOSING) || !slot.is(under_way::ATTACHED) {
            return;
        }
        slot.flags |= under_way::CLOSING;
        if slot.is(under_way::HELD) {
            slot.flags &= !under_way::HELD;
            let held = self.held.remove(index);
            held.into_iter().flat_map(|held| held.buffers).for_each(|(id, _)| self.buffers.give_back(id));
        }
        self.continue_close(index);
    }

    /// Cancels what is under way on a socket that is to be closed, and closes it once nothing is.
    fn continue_close(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if slot.is(under_way::RECEIVE | under_way::SEND) {
            // One operation after the other, each by its name: the kernel looks that up, while for all operations of a
            // socket it goes through those of the whole ring (closing 2,000 of 4,000 sockets took 1.5 s instead of 0.07 s in
            // a dev build, Linux 6.18).
            let operation = if slot.is(under_way::RECEIVE) { Operation::Receive } else { Operation::Send };
            self.cancel(index, operation);
        } else if !slot.is(under_way::OPERATIONS) {
            slot.flags |= under_way::CLOSE;
            let entry =
                opcode::Close::new(Fixed(index)).build().user_data(user_data(Operation::Close, index));
            self.push(entry);
        }
    }

    /// Receives no more until [`Self::resume`]; what the kernel has received already still comes.
    pub(super) fn pause(&mut self, socket: SocketId) {
        let index = socket.0 - self.first;
        let slot = &mut self.slots[index as usize];
        if slot.is(under_way::ATTACHED) && !slot.is(under_way::CLOSING | under_way::PAUSED) {
            slot.flags |= under_way::PAUSED;
            self.cancel_receive(index);
        }
    }

    /// The reverse of [`Self::pause`].
    pub(super) fn resume(&mut self, socket: SocketId) {
        let index = socket.0 - self.first;
        let slot = &mut self.slots[index as usize];
        if slot.is(under_way::PAUSED) {
            slot.flags &= !under_way::PAUSED;
            // Else the receive is armed again when its cancellation is through, or when what is held was handed over.
            if !slot.is(under_way::RECEIVE | under_way::CLOSING | under_way::HELD) {
                self.receive(index);
            }
        }
    }

    fn cancel_receive(&mut self, index: u32) {
        if self.slots[index as usize].is(under_way::RECEIVE) {
            self.cancel(index, Operation::Receive);
        }
    }

    /// Cancels an operation that is under way, unless a cancellation is. It can miss one that is just being carried out: the
    /// owner of the purpose repeats it until nothing is left.
    fn cancel(&mut self, index: u32, operation: Operation) {
        let slot = &mut self.slots[index as usize];
        if !slot.is(under_way::CANCEL) {
            slot.flags |= under_way::CANCEL;
            let entry = opcode::AsyncCancel::new(user_data(operation, index))
                .build()
                .user_data(user_data(Operation::Cancel, index));
            self.push(entry);
        }
    }

    fn receive(&mut self, index: u32) {
        if self.slots[index as usize].is(under_way::PAUSED) {
            return;
        }
        self.slots[index as usize].flags |= under_way::RECEIVE;
        let entry = opcode::RecvMulti::new(Fixed(index), GROUP)
            .build()
            .user_data(user_data(Operation::Receive, index));
        self.push(entry);
    }

    fn push(&mut self, entry: squeue::Entry) {
        if !self.backlog.is_empty() {
            self.backlog.push_back(entry);
            return;
        }
        // SAFETY: every buffer that an entry of this module names lives until its completion (see the invariants above).
        if unsafe { self.io.submission().push(&entry) }.is_err() {
            self.backlog.push_back(entry);
        }
    }

    /// Submits, and lets the kernel do the work that it has put off for this thread.
    fn enter(&mut self) -> io::Result<()> {
        loop {
            let mut queue = self.io.submission();
            while let Some(entry) = self.backlog.pop_front() {
                // SAFETY: as in `push`.
                if unsafe { queue.push(&entry) }.is_err() {
                    self.backlog.push_front(entry);
                    break;
                }
            }
            queue.sync();
            let overflow = queue.cq_overflow();
            if queue.is_empty() && !queue.taskrun() && !overflow {
                return Ok(());
            }
            drop(queue);
            self.counters.overflows += u64::from(overflow);
            self.counters.enters += 1;
            match self.io.submit() {
                // The completion queue is full, or memory is short: completions are taken first, then it goes on.
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN | libc::EINTR)) =>
                {
                    return Ok(());
                }
                result => result?,
            };
            if self.backlog.is_empty() {
                return Ok(());
            }
        }
    }

    pub(super) fn submit(&mut self) -> io::Result<()> {
        let mut queue = self.io.submission();
        queue.sync();
        if queue.is_empty() && self.backlog.is_empty() {
            return Ok(());
        }
        drop(queue);
        self.enter()
    }

    /// Takes what it does off the budget.
    pub(super) fn poll(&mut self, handler: &mut impl Handler, budget: &mut Budget) -> io::Result<bool> {
        self.io.completion().disable_eventfd();
        self.enter()?;
        self.polls = self.polls.wrapping_add(1);
        let mut worked = !self.held.is_empty();
        while budget.completions > 0 && budget.bytes > 0 {
            let mut chunk = [Completion { user_data: 0, result: 0, flags: 0 }; CHUNK];
            let mut len = 0;
            for (place, entry) in chunk.iter_mut().zip(self.io.completion()) {
                *place =
                    Completion { user_data: entry.user_data(), result: entry.result(), flags: entry.flags() };
                len += 1;
            }
            for completion in &chunk[..len] {
                let bytes = self.handle_completion(*completion, handler);
                budget.bytes = budget.bytes.saturating_sub(bytes);
            }
            budget.completions = budget.completions.saturating_sub(len);
            worked |= len > 0;
            if len < CHUNK {
                break;
            }
        }
        if !self.held.is_empty() {
            self.poll_held(handler, budget);
        }
        self.buffers.publish();
        let mut starved = std::mem::take(&mut self.starved);
        for index in starved.drain(..) {
            if self.slots[index as usize].is(under_way::CLOSING) {
                self.continue_close(index);
            } else {
                self.receive(index);
            }
        }
        self.starved = starved;
        Ok(worked)
    }

    /// Hands over what sockets hold, a turn of each after the other, as far as the budget goes; one turn even if it is used up,
    /// so that nobody waits for ever. Pauses those who hold too much nevertheless.
    fn poll_held(&mut self, handler: &mut impl Handler, budget: &mut Budget) {
        let mut allowance = TURN_BYTES;
        let mut is_first = true;
        while !self.held.is_empty() && (budget.bytes > 0 || is_first) {
            allowance = allowance.saturating_add(TURN_BYTES);
            for _ in 0..self.held.len() {
                if budget.bytes == 0 && !is_first {
                    break;
                }
                is_first = false;
                self.hand_over_turn(allowance, handler, budget);
            }
        }
        let too_many = self.held.iter().filter(|held| held.buffers.len() > HELD_MAX).map(|held| held.slot);
        for index in too_many.collect::<Vec<_>>() {
            self.cancel_receive(index);
        }
    }

    /// Hands over what the next of those who hold something may.
    fn hand_over_turn(&mut self, allowance: u32, handler: &mut impl Handler, budget: &mut Budget) {
        let Some(mut held) = self.held.pop() else { return };
        let index = held.slot;
        let socket = SocketId(self.first + index);
        let turn = &mut self.slots[index as usize].turn;
        while turn.has_room(self.polls, allowance)
            && let Some((id, len)) = held.buffers.pop_front()
        {
            turn.take(len);
            budget.bytes = budget.bytes.saturating_sub(len);
            handler.handle_received(socket, self.buffers.lent(id, len));
            self.buffers.give_back(id);
        }
        if !held.buffers.is_empty() {
            return self.held.put_back(held);
        }
        let slot = &mut self.slots[index as usize];
        slot.flags &= !under_way::HELD;
        match held.ended {
            Some(ended) => handler.handle_ended(socket, ended),
            // It was paused, or its receive ended for want of a buffer.
            None if !slot.is(under_way::RECEIVE) => self.receive(index),
            None => {}
        }
    }

    /// Submits, and sleeps until something completes or `timeout` is over.
    pub(super) fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        self.counters.enters += 1;
        let timeout = Timespec::from(timeout);
        match self.io.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout)) {
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
            Ok(_) => Ok(()),
        }
    }

    /// Whether nothing waits to be submitted or to be taken.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut completion = self.io.completion();
        completion.sync();
        let empty = completion.is_empty() && self.held.is_empty();
        drop(completion);
        let mut queue = self.io.submission();
        queue.sync();
        empty && queue.is_empty() && self.backlog.is_empty() && !queue.taskrun() && !queue.cq_overflow()
    }

    /// Lets completions signal; see [`super::Transport::prepare_wait`].
    pub(super) fn prepare_wait(&mut self) -> bool {
        self.io.completion().enable_eventfd();
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.is_quiet()
    }

    /// Returns how many bytes were handed over.
    fn handle_completion(&mut self, completion: Completion, handler: &mut impl Handler) -> usize {
        let Some((operation, index)) = parse(completion.user_data) else {
            return 0;
        };
        let result = completion.result;
        match operation {
            Operation::Receive => return self.handle_receive(index, completion, handler),
            Operation::Send => self.handle_send(index, result, handler),
            Operation::Cancel => self.finish(index, under_way::CANCEL),
            Operation::Shutdown => self.finish(index, under_way::SHUTDOWN),
            Operation::Wake => {
                if let Some(poll) = self.wake_poll.as_mut().filter(|_| !cqueue::more(completion.flags)) {
                    poll.armed = false;
                    self.poll_wake();
                }
            }
            Operation::Close => {
                self.slots[index as usize].flags = 0;
                self.free.push(index);
                handler.handle_closed(SocketId(self.first + index));
            }
        }
        0
    }

    fn finish(&mut self, index: u32, flag: u16) {
        let slot = &mut self.slots[index as usize];
        slot.flags &= !flag;
        if slot.is(under_way::CLOSING) {
            self.continue_close(index);
        } else if slot.is(under_way::PAUSED) {
            // A cancellation can miss a receive that is just being carried out.
            self.cancel_receive(index);
        }
    }

    fn handle_receive(&mut self, index: u32, completion: Completion, handler: &mut impl Handler) -> usize {
        let socket = SocketId(self.first + index);
        let closing = self.slots[index as usize].is(under_way::CLOSING);
        let len = usize::try_from(completion.result).unwrap_or(0);
        let mut handed_over = 0;
        if let Some(id) = cqueue::buffer_select(completion.flags) {
            self.counters.receives += 1;
            let slot = &mut self.slots[index as usize];
            if len == 0 || closing {
                self.buffers.give_back(id);
            } else if slot.is(under_way::HELD) || !slot.turn.has_room(self.polls, TURN_BYTES) {
                slot.flags |= under_way::HELD;
                self.held.push(index, id, len);
            } else {
                slot.turn.take(len);
                handed_over = len;
                handler.handle_received(socket, self.buffers.lent(id, len));
                self.buffers.give_back(id);
            }
        }
        if cqueue::more(completion.flags) {
            if closing {
                self.continue_close(index);
            }
            return handed_over;
        }
        self.slots[index as usize].flags &= !under_way::RECEIVE;
        if closing {
            self.continue_close(index);
            return handed_over;
        }
        let ended = match -completion.result {
            libc::ENOBUFS => {
                self.counters.buffers_exhausted += 1;
                None
            }
            // The last: a receive that was paused.
            ..0 | libc::EINTR | libc::EAGAIN | libc::ENOMEM | libc::ECANCELED => None,
            0 => Some(Ended::Peer),
            error => Some(Ended::Lost(error)),
        };
        let held = if self.slots[index as usize].is(under_way::HELD) { self.held.of(index) } else { None };
        match (held, ended) {
            // It is armed again, or its end told, once it holds nothing more.
            (Some(held), ended) => held.ended = ended,
            (None, Some(ended)) => handler.handle_ended(socket, ended),
            (None, None) if completion.result > 0 => self.receive(index),
            (None, None) => self.starved.push(index),
        }
        handed_over
    }

    fn handle_send(&mut self, index: u32, result: i32, handler: &mut impl Handler) {
        let slot = &mut self.slots[index as usize];
        let closing = slot.is(under_way::CLOSING);
        let outcome = match usize::try_from(result) {
            Ok(sent) => {
                slot.sent += sent;
                if slot.sent < slot.sending.len() && !closing {
                    return self.send_rest(index);
                }
                Ok(())
            }
            Err(_) if matches!(-result, libc::EINTR | libc::EAGAIN) && !closing => {
                return self.send_rest(index);
            }
            Err(_) => Err(-result),
        };
        let buffer = std::mem::take(&mut slot.sending);
        self.finish(index, under_way::SEND);
        handler.handle_sent(SocketId(self.first + index), buffer, outcome);
    }
}

/// Takes completions and forgets them: the end of a ring.
struct Discard;

impl Handler for Discard {
    fn handle_received(&mut self, _: SocketId, _: &mut [u8]) {}
    fn handle_sent(&mut self, _: SocketId, _: Vec<u8>, _: Result<(), i32>) {}
    fn handle_ended(&mut self, _: SocketId, _: Ended) {}
    fn handle_closed(&mut self, _: SocketId) {}
}

impl Drop for Ring {
    fn drop(&mut self) {
        for index in 0..u32::try_from(self.slots.len()).expect("at most table_len") {
            self.close(SocketId(self.first + index));
        }
        let patience = Timespec::from(Duration::from_nanos(QUIESCE_ROUND_NS.into()));
        for _ in 0..QUIESCE_ROUNDS {
            let mut budget = Budget { completions: usize::MAX, bytes: usize::MAX };
            let polled = self.poll(&mut Discard, &mut budget);
            if self.sockets() == 0 || polled.is_err() {
                break;
            }
            let _ = self.io.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&patience));
        }
        if self.sockets() > 0 {
            self.buffers.leak();
            for slot in &mut self.slots {
                std::mem::forget(std::mem::take(&mut slot.sending));
            }
        }
    }
}

/// The leanest kind of ring that the kernel has: DEFER_TASKRUN came with 6.1.
pub(super) fn build(sizes: Sizes) -> io::Result<IoUring> {
    let builder = |defer: bool| {
        let mut builder = IoUring::builder();
        builder
            .setup_cqsize(sizes.completions)
            .setup_submit_all()
            .setup_clamp()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .dontfork();
        if defer {
            builder.setup_defer_taskrun();
        }
        builder.build(sizes.submissions)
    };
    match builder(true) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => builder(false),
        result => result,
    }
}
