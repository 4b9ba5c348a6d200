//! Sockets over io_uring: bytes in, bytes out, nothing of what they mean.
//!
//! A [`Transport`] belongs to one thread. It holds the sockets as direct descriptors, so they use no file descriptors, in the
//! tables of one or more [`Ring`]s: the kernel caps a table at RLIMIT_NOFILE, and a transport takes as many rings as its
//! sockets need. Multishot receives fill buffers that the sockets of a ring share; a [`Handler`] sees the bytes where they lie,
//! and may change them there. Each socket has at most one send under way, or the order would be lost.
//!
//! The life of a socket: [`Transport::attach`]; any number of [`Handler::handle_received`] and sends, each answered by
//! [`Handler::handle_sent`]; perhaps one [`Handler::handle_ended`]; [`Transport::close`]; [`Handler::handle_closed`],
//! after which its id is given to another.
//!
//! Bounds: sockets (the tables), receive buffers (see [`Sizes`]), work per [`Transport::poll`] ([`Budget`]), of which no socket
//! takes more than a turn's bytes while others wait (`turns`). What waits to be
//! sent is the owner's: one buffer per socket is lent to the kernel at a time.
//!
//! All `unsafe` of the engine is in this folder.

mod buffers;
mod dial;
mod listen;
mod operation;
mod ring;
#[cfg(test)]
mod tests;
mod turns;
mod wake;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

pub use dial::dial;
pub use listen::{BACKLOG, Listener, Ready};
pub use ring::{Ring, RingCounters};
pub use wake::{Waiter, Wake};

/// A socket of a transport; dense, reused after [`Handler::handle_closed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u32);

impl SocketId {
    /// For tables of the owner.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Why nothing more will be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed its side: it may still read.
    Peer,
    /// The connection is lost; the error number.
    Lost(i32),
}

/// Who owns what the bytes mean.
pub trait Handler {
    /// Bytes arrived. They are the handler's until it returns.
    fn handle_received(&mut self, socket: SocketId, bytes: &mut [u8]);
    /// The whole buffer of the last send has been taken over by the kernel, or the send has failed (then
    /// [`Handler::handle_ended`] follows or came before). The buffer comes back.
    fn handle_sent(&mut self, socket: SocketId, buffer: Vec<u8>, result: Result<(), i32>);
    /// Nothing more will be received. Called at most once.
    fn handle_ended(&mut self, socket: SocketId, ended: Ended);
    /// The socket is gone, its id free. Follows [`Transport::close`].
    fn handle_closed(&mut self, socket: SocketId);
}

/// How large a transport's structures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Sockets that the transport can hold.
    pub sockets_max: u32,
    /// Sockets per ring; the kernel allows at most RLIMIT_NOFILE.
    pub table_len: u32,
    /// Receive buffers of each ring; a power of two. They cost memory only once they are used.
    pub buffers: u16,
    /// Bytes of a receive buffer.
    pub buffer_len: usize,
    /// Entries of each submission queue. Ring memory counts against RLIMIT_MEMLOCK: 64 bytes each.
    pub submissions: u32,
    /// Entries of each completion queue, 16 bytes each.
    pub completions: u32,
}

impl Sizes {
    /// Sizes for `sockets_max` sockets under the present RLIMIT_NOFILE.
    #[must_use]
    pub fn for_sockets(sockets_max: u32) -> Self {
        let sockets_max = sockets_max.max(1);
        let table_len = open_files_max().clamp(1, TABLE_LEN_MAX).min(sockets_max);
        Self {
            sockets_max,
            table_len,
            buffers: BUFFERS,
            buffer_len: 4096,
            submissions: 512,
            completions: 4096,
        }
    }

    /// How many rings that takes.
    #[must_use]
    pub fn rings(&self) -> u32 {
        self.sockets_max.div_ceil(self.table_len)
    }
}

/// The longest table that is asked for: the kernel allots 8 bytes per entry at once.
pub(crate) const TABLE_LEN_MAX: u32 = 1 << 17;

/// Receive buffers of a ring: 2 MiB, enough that one look at the ring rarely finds them all in use.
const BUFFERS: u16 = 512;

/// The most rings of one transport.
pub const RINGS_MAX: u32 = 64;

/// The soft limit on open files, which also caps each ring's table.
#[must_use]
pub fn open_files_max() -> u32 {
    soft_limit(libc::RLIMIT_NOFILE).map_or(1024, |limit| u32::try_from(limit).unwrap_or(u32::MAX))
}

/// The soft limit on locked memory, in bytes.
#[must_use]
pub fn locked_memory_max() -> u64 {
    soft_limit(libc::RLIMIT_MEMLOCK).unwrap_or(u64::MAX)
}

fn soft_limit(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live struct of the type that the call fills in.
    let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
    (result == 0).then_some(limit.rlim_cur)
}

/// Makes a small ring and drops it again, to learn why none could be made before threads depend on it.
///
/// # Errors
/// As [`Transport::new`].
pub fn probe() -> io::Result<()> {
    ring::build(Sizes { submissions: 2, completions: 4, ..Sizes::for_sockets(1) })?
        .submitter()
        .register_files_sparse(1)
}

/// The running kernel's version.
#[must_use]
pub fn kernel_version() -> Option<(u32, u32)> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// How much one [`Transport::poll`] may do before it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Completions.
    pub completions: usize,
    /// Received bytes.
    pub bytes: usize,
}

/// The sockets of one thread.
pub struct Transport {
    /// The first is the one that is waited on.
    rings: Vec<Ring>,
    wake: Arc<Wake>,
    table_len: u32,
    /// Which ring is served first in the next poll, so that none starves.
    first: usize,
    /// Whether the last poll used its budget up.
    is_cut_short: bool,
}

impl Transport {
    /// Makes the rings. Completions and other threads end waits through `wake`.
    ///
    /// # Errors
    /// io_uring is forbidden (EPERM), missing (ENOSYS), or out of lockable memory (ENOMEM); the table is too long (EMFILE).
    pub fn new(sizes: Sizes, wake: &Arc<Wake>) -> io::Result<Self> {
        let count = sizes.rings();
        if count > RINGS_MAX {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let mut rings = Vec::with_capacity(count as usize);
        for index in 0..count {
            let first = index * sizes.table_len;
            let len = sizes.table_len.min(sizes.sockets_max - first);
            rings.push(Ring::new(first, Sizes { table_len: len, ..sizes }, wake, index == 0)?);
        }
        Ok(Self { rings, wake: Arc::clone(wake), table_len: sizes.table_len, first: 0, is_cut_short: false })
    }

    /// Takes a connected socket over. Its file descriptor is closed; the socket lives on in the table.
    ///
    /// # Errors
    /// ENFILE if every slot is taken, else as `io_uring_register`.
    pub fn attach(&mut self, socket: OwnedFd) -> io::Result<SocketId> {
        let ring = self
            .rings
            .iter_mut()
            .find(|ring| ring.has_room())
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENFILE))?;
        ring.attach(socket)
    }

    /// Sends all of `buffer`, which comes back with [`Handler::handle_sent`].
    ///
    /// # Panics
    /// If a send of this socket is under way, or the socket is being closed.
    pub fn send(&mut self, socket: SocketId, buffer: Vec<u8>) {
        self.ring(socket).send(socket, buffer);
    }

    /// Tells the peer that nothing more will be sent. Call it when no send is under way.
    pub fn shutdown_write(&mut self, socket: SocketId) {
        self.ring(socket).shutdown_write(socket);
    }

    /// Receives nothing more from a socket, as a reader that is too slow: its peer fills the kernel's buffers and then waits.
    /// What has been received already still comes.
    pub fn pause(&mut self, socket: SocketId) {
        self.ring(socket).pause(socket);
    }

    /// Receives again after [`Self::pause`].
    pub fn resume(&mut self, socket: SocketId) {
        self.ring(socket).resume(socket);
    }

    /// Gives the socket up, whatever is under way. Only [`Handler::handle_closed`] follows, and [`Handler::handle_sent`]
    /// if a send was under way.
    pub fn close(&mut self, socket: SocketId) {
        self.ring(socket).close(socket);
    }

    /// Submits what waits and hands completions to `handler`, as far as `budget` goes. Returns whether there was anything.
    ///
    /// # Errors
    /// As `io_uring_enter`: the ring is of no use any more.
    pub fn poll(&mut self, handler: &mut impl Handler, mut budget: Budget) -> io::Result<bool> {
        let count = self.rings.len();
        let mut worked = false;
        for offset in 0..count {
            let index = (self.first + offset) % count;
            worked |= self.rings[index].poll(handler, &mut budget)?;
        }
        self.first = (self.first + 1) % count;
        self.is_cut_short = budget.completions == 0 || budget.bytes == 0;
        Ok(worked)
    }

    /// Whether the last poll used its budget up, so that the next finds more at once.
    #[must_use]
    pub fn is_cut_short(&self) -> bool {
        self.is_cut_short
    }

    /// Submits what waits, without looking for completions.
    ///
    /// # Errors
    /// As [`Self::poll`].
    pub fn submit(&mut self) -> io::Result<()> {
        self.rings.iter_mut().try_for_each(Ring::submit)
    }

    /// Sleeps in the kernel until something completes, a [`Wake`] comes, or `timeout` is over; not at all while a wake is not
    /// acknowledged. It blocks the thread, and its executor with it: for short waits.
    ///
    /// # Errors
    /// As [`Self::poll`].
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        // It came after its receiver had looked at the links, and its completion was taken with the others.
        if self.wake.is_pending() {
            return Ok(());
        }
        let (waited, others) = self.rings.split_at_mut(1);
        if others.iter_mut().all(Ring::prepare_wait) && waited[0].is_quiet() {
            waited[0].wait(timeout)?;
        }
        Ok(())
    }

    /// Whether nothing waits to be submitted or to be taken.
    pub fn is_quiet(&mut self) -> bool {
        self.rings.iter_mut().all(Ring::is_quiet)
    }

    /// Lets completions signal the [`Wake`], until the next poll. Returns whether it is right to wait for it now: nothing
    /// has completed.
    pub fn prepare_wait(&mut self) -> bool {
        self.rings.iter_mut().all(Ring::prepare_wait)
    }

    /// Sockets that are attached and not yet closed.
    #[must_use]
    pub fn sockets(&self) -> u32 {
        self.rings.iter().map(Ring::sockets).sum()
    }

    /// Sums over the rings.
    #[must_use]
    pub fn counters(&self) -> RingCounters {
        let mut sum = RingCounters::default();
        for ring in &self.rings {
            let counters = ring.counters();
            sum.buffers_exhausted += counters.buffers_exhausted;
            sum.overflows += counters.overflows;
            sum.enters += counters.enters;
            sum.receives += counters.receives;
        }
        sum
    }

    fn ring(&mut self, socket: SocketId) -> &mut Ring {
        &mut self.rings[(socket.0 / self.table_len) as usize]
    }
}
