//! The buffers into which the kernel receives: shared by all sockets of a ring, chosen by the kernel, given back by us.
//!
//! Invariant: each buffer is either in the ring (the kernel's) or lent to us by one completion until
//! [`ReceiveBuffers::give_back`]. Bounds: `count` buffers of `len` bytes, whatever the number of sockets.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// The one buffer group of a ring.
pub(super) const GROUP: u16 = 0;

/// A provided-buffer ring and its buffers.
pub(super) struct ReceiveBuffers {
    /// Page-aligned array of `count` entries, whose first also holds the tail.
    entries: NonNull<BufRingEntry>,
    bytes: Box<[u8]>,
    count: u16,
    len: usize,
    tail: u16,
}

impl ReceiveBuffers {
    /// Allocates and registers `count` (a power of two) buffers of `len` bytes.
    pub(super) fn register(ring: &IoUring, count: u16, len: usize) -> io::Result<Self> {
        assert!(count.is_power_of_two() && count <= 1 << 15, "the kernel's rule for buffer rings");
        // SAFETY: an anonymous private mapping at an address of the kernel's choice; no memory of ours is touched.
        let mapping = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::mapping_len(count),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let entries = NonNull::new(mapping.cast::<BufRingEntry>()).expect("mmap never maps address 0");
        let bytes = vec![0; usize::from(count) * len].into_boxed_slice();
        let mut buffers = Self { entries, bytes, count, len, tail: 0 };
        // SAFETY: the mapping has `count` entries and is page-aligned; it lives until `buffers` is dropped, which `Ring` does
        // after the kernel has let go of it (see `Ring::drop`).
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, count, GROUP, 0)?;
        }
        for id in 0..count {
            buffers.give_back(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    const fn mapping_len(count: u16) -> usize {
        count as usize * size_of::<BufRingEntry>()
    }

    /// The first `len` bytes of a buffer that a completion has lent us.
    pub(super) fn lent(&mut self, id: u16, len: usize) -> &mut [u8] {
        let start = usize::from(id) * self.len;
        &mut self.bytes[start..start + len.min(self.len)]
    }

    /// Returns a buffer. The kernel sees it with the next [`Self::publish`].
    pub(super) fn give_back(&mut self, id: u16) {
        let start = usize::from(id) * self.len;
        let address = self.bytes[start..start + self.len].as_mut_ptr() as u64;
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: index < count, so the entry lies in the mapping. The kernel reads entries before the tail only, and this
        // one is at the tail. The tail shares the first entry's bytes, but not the fields written here.
        let entry = unsafe { &mut *self.entries.as_ptr().add(index) };
        entry.set_addr(address);
        entry.set_len(u32::try_from(self.len).expect("a buffer is smaller than 4 GiB"));
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given back.
    pub(super) fn publish(&mut self) {
        // SAFETY: the pointer is the first entry's address, which the mapping holds.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is a naturally aligned u16 within the mapping, and the kernel accesses it atomically too.
        let tail = unsafe { &*tail.cast::<AtomicU16>() };
        // Release: the entries become visible before the tail that covers them.
        tail.store(self.tail, Ordering::Release);
    }

    /// Leaves the memory to the kernel for ever, for the case that it does not let go of it.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.bytes));
        self.count = 0;
    }
}

impl Drop for ReceiveBuffers {
    fn drop(&mut self) {
        if self.count > 0 {
            // SAFETY: the mapping was made in `register` with this length, and nothing refers to it any more.
            unsafe { libc::munmap(self.entries.as_ptr().cast(), Self::mapping_len(self.count)) };
        }
    }
}
