//! The listening socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::Wake;

/// Connections that the kernel completes before we accept them; the kernel caps it at `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// A listening socket whose connections inherit: no delay (Nagle's algorithm adds 40 ms to a first job), and a bound on how
/// long the kernel tries to deliver what a peer does not acknowledge.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    wake: Arc<Wake>,
}

/// What [`Listener::wait`] returned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// There may be a connection to accept.
    Connection,
    /// Woken, or the time is over.
    Woken,
}

impl Listener {
    /// Binds and listens. `delivery_timeout` is the bound on unacknowledged bytes; `wake` ends [`Self::wait`].
    ///
    /// # Errors
    /// The address is in use, not ours or not allowed.
    pub fn bind(address: SocketAddr, delivery_timeout: Duration, wake: Arc<Wake>) -> io::Result<Self> {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let fd = socket.as_raw_fd();
        set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        let millis = libc::c_int::try_from(delivery_timeout.as_millis()).unwrap_or(libc::c_int::MAX);
        set_option(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, millis)?;
        // SAFETY: takes integers; `fd` is open. Listening again only changes the backlog.
        if unsafe { libc::listen(fd, BACKLOG) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket, wake })
    }

    /// The address with the port that was bound.
    ///
    /// # Errors
    /// None that a bound socket can have.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits for a connection, for a wake, or for `timeout`.
    pub fn wait(&self, timeout: Duration) -> Ready {
        let mut fds = [
            libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: self.wake.raw_fd(), events: libc::POLLIN, revents: 0 },
        ];
        let millis = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `fds` is an array of two initialised entries whose descriptors are open.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), 2, millis) };
        if ready > 0 && fds[1].revents != 0 {
            self.wake.acknowledge();
            self.wake.drain();
        }
        if ready > 0 && fds[0].revents != 0 { Ready::Connection } else { Ready::Woken }
    }

    /// The next connection, if there is one.
    ///
    /// # Errors
    /// As accept(2): WouldBlock when none waits, EMFILE when descriptors ran out.
    pub fn accept(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        let (stream, peer) = self.socket.accept()?;
        Ok((OwnedFd::from(stream), peer))
    }
}

pub(super) fn set_option(fd: i32, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of_val(&value)).expect("4 bytes");
    // SAFETY: the option's value is read from `value`, which has `len` bytes.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_inherit_the_options() {
        let wake = Arc::new(Wake::new().unwrap());
        let listener =
            Listener::bind("127.0.0.1:0".parse().unwrap(), Duration::from_millis(1234), Arc::clone(&wake))
                .unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(listener.wait(Duration::from_secs(5)), Ready::Connection);
        let (fd, peer) = listener.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        for (name, expected) in [(libc::TCP_NODELAY, 1), (libc::TCP_USER_TIMEOUT, 1234)] {
            let (mut value, mut len) = (0i32, 4);
            // SAFETY: both out-pointers are to live integers of the stated size.
            let result = unsafe {
                libc::getsockopt(
                    fd.as_raw_fd(),
                    libc::IPPROTO_TCP,
                    name,
                    (&raw mut value).cast(),
                    &raw mut len,
                )
            };
            assert_eq!((result, value), (0, expected));
        }
        wake.wake();
        assert_eq!(listener.wait(Duration::from_secs(5)), Ready::Woken);
    }
}
