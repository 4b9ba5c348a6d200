//! The thread that accepts connections, checks limits and places each on the shard with the fewest.
//!
//! It waits for no handshake: what a connection costs here is one accept and one push into a link. Bounds: one entry
//! per address that has a connection, swept when the table has doubled.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::{SendTimeoutError, Sender, TrySendError};
use crossbeam::utils::CachePadded;

use crate::counters::{AcceptorCounters, Counter};
use crate::limits::EngineLimits;
use crate::log::{LogEvent, RefuseReason};
use crate::topology::{NewSocket, SHARDS_MAX, SOCKET_PATIENCE, ShardDoor, Stop};
use crate::transport::{Listener, Ready};

/// Connections accepted between two looks at the stop flag.
const ACCEPTS_MAX: usize = 256;
/// How often refusals are reported, and the longest sleep while there are some to report.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The longest sleep.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// Connections that come sooner after the last ones are a storm: they are gathered for this long before they are accepted.
/// One by one, each would wake this thread, which takes the CPU from a shard where there are no more CPUs than shards: a tenth
/// of what joining costs.
const GATHERING: Duration = Duration::from_micros(500);
/// What is left to the shards to recover when the system is short of descriptors or memory.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(5);
/// Entries below which the table of addresses is not swept.
const ADDRESSES_UNSWEPT: usize = 1024;

/// Held by a connection as long as it lives: the references to it count the connections of an address.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressTicket(#[expect(dead_code, reason = "held for its reference count")] Arc<()>);

/// Connections per address.
#[derive(Debug, Default)]
struct Addresses {
    tickets: HashMap<IpAddr, Arc<()>>,
    /// How many entries the last sweep left.
    swept_len: usize,
}

impl Addresses {
    /// Counts one more connection of `address`, unless it has `max` already.
    fn admit(&mut self, address: IpAddr, max: u32) -> Option<AddressTicket> {
        if self.tickets.len() >= 2 * self.swept_len.max(ADDRESSES_UNSWEPT) {
            self.tickets.retain(|_, ticket| Arc::strong_count(ticket) > 1);
            self.swept_len = self.tickets.len();
        }
        let ticket = self.tickets.entry(address_block(address)).or_default();
        (Arc::strong_count(ticket) <= max as usize).then(|| AddressTicket(Arc::clone(ticket)))
    }
}

/// What counts as one address: an IPv4 address, or the /64 that one IPv6 subscriber has.
pub(crate) fn address_block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        address => address,
    }
}

/// A shard as the acceptor sees it.
struct Place {
    door: ShardDoor,
    /// Sockets that it was given.
    placed: u64,
    failed: bool,
}

impl Place {
    /// Whether its shard takes connections. A shard that failed has let go of those that it had.
    fn serves(&self) -> bool {
        !self.failed && !self.door.counters.is_over()
    }

    fn connections(&self) -> u64 {
        self.placed.saturating_sub(self.door.counters.load(Counter::ConnectionsGone))
    }
}

#[derive(Clone, Copy)]
struct Refused {
    count: u64,
    last: Option<SocketAddr>,
    reported: Option<Instant>,
}

/// The accepting thread's state.
pub(crate) struct Acceptor {
    listener: Listener,
    places: Vec<Place>,
    addresses: Addresses,
    limits: EngineLimits,
    counters: Arc<CachePadded<AcceptorCounters>>,
    log: Sender<LogEvent>,
    stop: Arc<Stop>,
    /// Given up when descriptors run out, so that a connection can be accepted to be closed.
    reserve: Option<File>,
    refused: [Refused; RefuseReason::COUNT],
}

impl Acceptor {
    pub(crate) fn new(
        listener: Listener,
        doors: Vec<ShardDoor>,
        limits: EngineLimits,
        counters: Arc<CachePadded<AcceptorCounters>>,
        log: Sender<LogEvent>,
        stop: Arc<Stop>,
    ) -> Self {
        let places = doors.into_iter().map(|door| Place { door, placed: 0, failed: false }).collect();
        let refused = [Refused { count: 0, last: None, reported: None }; RefuseReason::COUNT];
        let reserve = File::open("/dev/null").ok();
        Self {
            listener,
            places,
            addresses: Addresses::default(),
            limits,
            counters,
            log,
            stop,
            reserve,
            refused,
        }
    }

    /// Accepts until it is told to stop.
    pub(crate) fn run(mut self) {
        let mut accepted: Option<Instant> = None;
        while !self.stop.requested.load(Ordering::Acquire) {
            let unreported = self.refused.iter().any(|refused| refused.count > 0);
            let timeout = if unreported { REPORT_INTERVAL } else { WAIT_MAX };
            if self.listener.wait(timeout) == Ready::Connection {
                if accepted.is_some_and(|accepted| accepted.elapsed() < GATHERING) {
                    std::thread::sleep(GATHERING);
                }
                for _ in 0..ACCEPTS_MAX {
                    if !self.accept() {
                        break;
                    }
                }
                accepted = Some(Instant::now());
            }
            self.report();
        }
    }

    /// Takes one connection. Returns false when none waits.
    fn accept(&mut self) -> bool {
        match self.listener.accept() {
            Ok((socket, peer)) => {
                self.place(socket, peer);
                true
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => self.shed(),
                Some(libc::ENOBUFS | libc::ENOMEM) => {
                    std::thread::sleep(SHORTAGE_PAUSE);
                    false
                }
                // The peer has gone while it waited, or its network has.
                Some(
                    libc::ECONNABORTED | libc::EPROTO | libc::EINTR | libc::ENETDOWN | libc::EHOSTUNREACH,
                ) => true,
                _ => {
                    error.kind() != io::ErrorKind::WouldBlock && {
                        std::thread::sleep(SHORTAGE_PAUSE);
                        false
                    }
                }
            },
        }
    }

    /// Descriptors ran out: closes the connection that waits, which poll would report again and again.
    fn shed(&mut self) -> bool {
        drop(self.reserve.take());
        let accepted = self.listener.accept();
        let shed = accepted.is_ok();
        if let Ok((socket, peer)) = accepted {
            drop(socket);
            self.refuse(RefuseReason::NoDescriptor, peer);
        }
        self.reserve = File::open("/dev/null").ok();
        std::thread::sleep(SHORTAGE_PAUSE);
        shed
    }

    fn place(&mut self, socket: OwnedFd, peer: SocketAddr) {
        let serving = self.places.iter().filter(|place| place.serves());
        let connections: u64 = serving.map(Place::connections).sum();
        if connections >= u64::from(self.limits.connections_max) {
            return self.refuse(RefuseReason::Full, peer);
        }
        let Some(ticket) = self.addresses.admit(peer.ip(), self.limits.connections_per_address_max) else {
            return self.refuse(RefuseReason::AddressFull, peer);
        };
        let mut socket = NewSocket { socket, peer, ticket };
        // From the least to the most loaded shard; the number of shards is small.
        let mut tried = [false; SHARDS_MAX];
        while let Some(index) = self.least_loaded(&tried) {
            let place = &mut self.places[index];
            match place.door.sockets.try_send(socket) {
                Ok(()) => return self.placed(index),
                Err(TrySendError::Disconnected(back)) => {
                    place.failed = true;
                    socket = back;
                }
                Err(TrySendError::Full(back)) => socket = back,
            }
            tried[index] = true;
        }
        let Some(index) = self.least_loaded(&[]) else {
            return self.refuse(RefuseReason::Busy, peer);
        };
        match self.places[index].door.sockets.send_timeout(socket, SOCKET_PATIENCE) {
            Ok(()) => self.placed(index),
            Err(SendTimeoutError::Timeout(_) | SendTimeoutError::Disconnected(_)) => {
                self.refuse(RefuseReason::Busy, peer);
            }
        }
    }

    fn least_loaded(&self, tried: &[bool]) -> Option<usize> {
        (0..self.places.len())
            .filter(|&index| self.places[index].serves() && !tried.get(index).copied().unwrap_or(false))
            .min_by_key(|&index| self.places[index].connections())
    }

    fn placed(&mut self, index: usize) {
        let place = &mut self.places[index];
        place.placed += 1;
        place.door.wake.wake();
        self.counters.add_accepted();
    }

    fn refuse(&mut self, reason: RefuseReason, peer: SocketAddr) {
        self.counters.add_refused(reason);
        let refused = &mut self.refused[reason as usize];
        refused.count += 1;
        refused.last = Some(peer);
    }

    /// One line per reason and interval.
    fn report(&mut self) {
        let now = Instant::now();
        for reason in RefuseReason::ALL {
            let refused = &mut self.refused[reason as usize];
            let Some(peer) = refused.last else {
                continue;
            };
            if refused.reported.is_some_and(|reported| now - reported < REPORT_INTERVAL) {
                continue;
            }
            let count = std::mem::take(&mut refused.count);
            refused.last = None;
            refused.reported = Some(now);
            // A full link loses the line, not the count: it is in the counters.
            let _ = self.log.try_send(LogEvent::ConnectionsRefused { reason, peer, count });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_failed_holds_no_place() {
        use crate::counters::CounterBoard;
        use crate::identity::{Identity, IdentityCell};
        use crate::topology::Links;
        use crate::transport::Wake;
        use adit_codec::keys::{AuthoritySecretKey, StaticKeyPair};

        let static_key = StaticKeyPair::new(&[7; 64]).unwrap();
        let authority = AuthoritySecretKey::from_bytes(&[9; 32]).unwrap();
        let certificate = authority.certify(static_key.public_key(), 0, u32::MAX, &[0; 32]);
        let identity = Arc::new(IdentityCell::new(Identity { static_key, certificate }));
        let (board, stop) = (CounterBoard::new(2), Arc::new(Stop::default()));
        let links = Links::<crate::service::Mining>::new(2, &board, &identity, &stop).unwrap();
        let wake = Arc::new(Wake::new().unwrap());
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), Duration::from_secs(1), wake).unwrap();
        let address = listener.local_addr().unwrap();
        let limits = EngineLimits { connections_max: 1, ..EngineLimits::default() };
        let counters = Arc::clone(&board.acceptor);
        let mut acceptor = Acceptor::new(listener, links.doors, limits, counters, links.log.0, stop);
        let place_one = |acceptor: &mut Acceptor| {
            let client = std::net::TcpStream::connect(address).unwrap();
            acceptor.place(OwnedFd::from(client), address);
        };
        place_one(&mut acceptor);
        place_one(&mut acceptor);
        assert_eq!((links.shards[0].sockets.len(), links.shards[1].sockets.len()), (1, 0));
        assert_eq!(board.read().refused(RefuseReason::Full), 1);
        board.shards[0].set_over();
        place_one(&mut acceptor);
        assert_eq!((links.shards[0].sockets.len(), links.shards[1].sockets.len()), (1, 1));
    }

    #[test]
    fn counts_connections_by_their_tickets() {
        let mut addresses = Addresses::default();
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let first = addresses.admit(address, 2).unwrap();
        let _second = addresses.admit(address, 2).unwrap();
        assert!(addresses.admit(address, 2).is_none());
        assert!(addresses.admit("192.0.2.8".parse().unwrap(), 2).is_some());
        drop(first);
        assert!(addresses.admit(address, 2).is_some());
    }

    #[test]
    fn one_subscriber_is_one_address() {
        let block = |text: &str| address_block(text.parse().unwrap());
        assert_eq!(block("2001:db8:1:2::1"), block("2001:db8:1:2:ffff::9"));
        assert_ne!(block("2001:db8:1:2::1"), block("2001:db8:1:3::1"));
        assert_eq!(block("::ffff:192.0.2.7"), block("192.0.2.7"));
    }

    #[test]
    fn the_table_of_addresses_is_swept() {
        let mut addresses = Addresses::default();
        let kept = addresses.admit(IpAddr::from([10, 255, 255, 255]), 1).unwrap();
        for index in 0..100_000u32 {
            addresses.admit(IpAddr::from(index.to_be_bytes()), 1).unwrap();
        }
        assert!(addresses.tickets.len() <= 2 * ADDRESSES_UNSWEPT, "{}", addresses.tickets.len());
        assert!(addresses.admit(IpAddr::from([10, 255, 255, 255]), 1).is_none());
        drop(kept);
    }
}
