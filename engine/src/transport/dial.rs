//! Sockets that connect, for those who play many clients.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use socket2::{Domain, Socket, Type};

use super::listen::set_option;

/// A socket that begins to connect to `peer`, from `source` if there is one, and that may be attached at once: the kernel holds
/// the first send back until it has connected.
///
/// # Errors
/// As socket(2), bind(2) and connect(2): no descriptor or port is left, or no route to the peer.
pub fn dial(peer: SocketAddr, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        // The port is chosen when it connects, for this peer alone: bind would go through all ports of the address that are in
        // use or were until a minute ago, which took more of a load generator's time than its handshakes.
        set_option(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.set_nonblocking(true)?;
    match socket.connect(&peer.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    // A ring fails operations on a socket that does not block instead of waiting for it.
    socket.set_nonblocking(false)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connects_from_the_address_that_was_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        for source in [None, Some(IpAddr::V4(Ipv4Addr::new(127, 0, 3, 4)))] {
            let dialed = TcpStream::from(dial(peer, source).unwrap());
            let (_, from) = listener.accept().unwrap();
            assert_eq!(from, dialed.local_addr().unwrap());
            assert!(source.is_none_or(|source| source == from.ip()) && from.port() != 0);
        }
        assert!(dial(peer, Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)))).is_err(), "not an address of ours");
    }
}
