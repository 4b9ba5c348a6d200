//! How a shard is woken: one eventfd, signalled by other threads when they have put something into its links, and by its
//! rings' completions.
//!
//! The shard waits for it in two ways: in its first ring, which polls the eventfd, or in its executor, which reads it. One
//! eventfd for all, because the kernel drops a signal that one eventfd's wake-up causes on another, all but the first (seen with
//! Linux 6.18). A wake that is already on its way costs no system call.

use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use glommio::io::BufferedFile;
use glommio::timer::Timer;

/// A new eventfd that blocks its readers.
fn eventfd() -> io::Result<File> {
    // SAFETY: takes two integers, touches no memory of ours. Without EFD_NONBLOCK, because a ring's read shall wait.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` is open and nobody else's: it was made above.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// The waking end: shared by all who hand something to one shard.
#[derive(Debug)]
pub struct Wake {
    eventfd: File,
    /// A signal is on its way, and its receiver has not looked at its links since.
    pending: AtomicBool,
}

impl Wake {
    /// A new eventfd.
    ///
    /// # Errors
    /// Out of file descriptors or memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self { eventfd: eventfd()?, pending: AtomicBool::new(false) })
    }

    /// Makes the receiver look at its links. Call it after what it shall find there was put there.
    pub fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // It cannot block: the counter would have to reach 2^64 - 2. It cannot fail otherwise.
            let _ = (&self.eventfd).write(&1u64.to_ne_bytes());
        }
    }

    /// Called by the receiver before it looks at its links: what comes later signals again.
    pub fn acknowledge(&self) {
        self.pending.swap(false, Ordering::AcqRel);
    }

    /// Whether something was handed over since [`Self::acknowledge`].
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// The waiting end, to be made on the receiver's glommio executor.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn waiter(&self) -> io::Result<Waiter> {
        let fd = self.eventfd.as_fd().try_clone_to_owned()?.into_raw_fd();
        // SAFETY: `fd` is open and its ownership passes to the file, which closes it.
        let file = unsafe { BufferedFile::from_raw_fd(fd) };
        Ok(Waiter { file: Rc::new(file), read: None })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// Takes what was signalled; for a receiver that polls the descriptor instead of awaiting it.
    pub(super) fn drain(&self) {
        use std::io::Read;
        let mut count = [0; 8];
        let _ = (&self.eventfd).read(&mut count);
    }

    pub(super) fn raw_fd(&self) -> i32 {
        self.eventfd.as_raw_fd()
    }
}

/// The end of a [`Wake`] that waits in an executor.
pub struct Waiter {
    file: Rc<BufferedFile>,
    /// A read that was begun stays begun from one wait to the next, so that a timer that fires costs no cancellation.
    read: Option<Pin<Box<dyn Future<Output = bool>>>>,
}

impl Waiter {
    /// Waits for a signal, at most `timeout`. Returns whether the eventfd still works.
    pub async fn wait(&mut self, timeout: Duration) -> bool {
        let mut timer = Timer::new(timeout);
        poll_fn(|context| {
            let read = self.read.get_or_insert_with(|| {
                let file = Rc::clone(&self.file);
                Box::pin(async move { file.read_at(0, 8).await.is_ok() })
            });
            if let Poll::Ready(worked) = read.as_mut().poll(context) {
                self.read = None;
                return Poll::Ready(worked);
            }
            Pin::new(&mut timer).poll(context).map(|_| true)
        })
        .await
    }

    /// Closes the descriptor now; dropping would leave that to an executor that may be about to end.
    pub async fn close(mut self) {
        self.read = None;
        if let Some(file) = Rc::into_inner(self.file) {
            let _ = file.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_once_until_acknowledged() {
        let wake = Wake::new().unwrap();
        let count = || {
            let mut count = [0; 8];
            use std::io::Read;
            (&wake.eventfd).read_exact(&mut count).unwrap();
            u64::from_ne_bytes(count)
        };
        wake.wake();
        wake.wake();
        assert_eq!(count(), 1);
        wake.acknowledge();
        wake.wake();
        assert_eq!(count(), 1);
    }
}
