//! The transport against plain sockets: an echo, and everything that a peer can do to it.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::*;

const BUDGET: Budget = Budget { completions: 64, bytes: 1 << 20 };
/// The longest time in which nothing at all may come of running a transport.
const STALLED_MAX: Duration = Duration::from_secs(10);

/// Sends back what it receives, one send per socket at a time.
#[derive(Default)]
struct Echo {
    waiting: HashMap<SocketId, Vec<u8>>,
    sending: HashMap<SocketId, usize>,
    ended: Vec<(SocketId, Ended)>,
    closed: Vec<SocketId>,
    received: usize,
    send_errors: Vec<i32>,
    /// Receive only.
    silent: bool,
}

impl Handler for Echo {
    fn handle_received(&mut self, socket: SocketId, bytes: &mut [u8]) {
        self.received += bytes.len();
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
        if !self.silent {
            self.waiting.entry(socket).or_default().extend_from_slice(bytes);
        }
    }

    fn handle_sent(&mut self, socket: SocketId, buffer: Vec<u8>, result: Result<(), i32>) {
        assert_eq!(self.sending.remove(&socket), Some(buffer.len()));
        self.send_errors.extend(result.err());
    }

    fn handle_ended(&mut self, socket: SocketId, ended: Ended) {
        self.ended.push((socket, ended));
    }

    fn handle_closed(&mut self, socket: SocketId) {
        self.closed.push(socket);
    }
}

struct Bench {
    transport: Transport,
    echo: Echo,
    listener: TcpListener,
    _wake: Arc<Wake>,
}

impl Bench {
    fn new(sizes: Sizes) -> Self {
        let wake = Arc::new(Wake::new().unwrap());
        let transport = Transport::new(sizes, &wake).unwrap();
        Self {
            transport,
            echo: Echo::default(),
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            _wake: wake,
        }
    }

    fn connect(&mut self) -> (TcpStream, SocketId) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (server, _) = self.listener.accept().unwrap();
        (client, self.transport.attach(OwnedFd::from(server)).unwrap())
    }

    fn step(&mut self) {
        self.transport.poll(&mut self.echo, BUDGET).unwrap();
        let ready: Vec<_> =
            self.echo.waiting.keys().filter(|id| !self.echo.sending.contains_key(id)).copied().collect();
        for id in ready {
            let bytes = self.echo.waiting.remove(&id).unwrap();
            self.echo.sending.insert(id, bytes.len());
            self.transport.send(id, bytes);
        }
        self.transport.submit().unwrap();
    }

    /// Runs as long as something comes of it: how long it takes in all depends on what else the machine does.
    fn run_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let (mut seen, mut since) = (self.progress(), Instant::now());
        while !done(self) {
            self.step();
            std::thread::yield_now();
            let progress = self.progress();
            if progress != seen {
                (seen, since) = (progress, Instant::now());
            }
            assert!(since.elapsed() < STALLED_MAX, "the transport does not get there: {seen:?}");
        }
    }

    /// What changes whenever a peer or the kernel gets further: bytes received, sends under way, ends, closes.
    fn progress(&self) -> [usize; 4] {
        [self.echo.received, self.echo.sending.len(), self.echo.ended.len(), self.echo.closed.len()]
    }
}

fn small() -> Sizes {
    Sizes { sockets_max: 64, table_len: 64, buffers: 64, buffer_len: 512, submissions: 16, completions: 64 }
}

#[test]
fn echoes_in_order_on_many_sockets_and_several_rings() {
    // Seven sockets per table, and far fewer entries and buffers than operations.
    let mut bench = Bench::new(Sizes { table_len: 7, ..small() });
    let mut clients: Vec<_> = (0..60).map(|_| bench.connect()).collect();
    let ids: std::collections::HashSet<_> = clients.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids.len(), 60);
    for (index, (client, _)) in clients.iter_mut().enumerate() {
        let message: Vec<u8> = (0..5000u32).map(|byte| (byte as usize * 7 + index) as u8).collect();
        client.write_all(&message).unwrap();
    }
    bench.run_until(|bench| {
        bench.echo.received == 60 * 5000 && bench.echo.waiting.is_empty() && bench.echo.sending.is_empty()
    });
    for (index, (client, _)) in clients.iter_mut().enumerate() {
        let mut answer = vec![0; 5000];
        client.read_exact(&mut answer).unwrap();
        assert!(answer.iter().enumerate().all(|(byte, &value)| value == !((byte * 7 + index) as u8)));
    }
    assert_eq!(bench.transport.sockets(), 60);
}

#[test]
fn a_full_table_refuses_and_a_closed_slot_is_reused() {
    let mut bench = Bench::new(Sizes { sockets_max: 3, table_len: 2, ..small() });
    let mut held: VecDeque<_> = (0..3).map(|_| bench.connect()).collect();
    let extra = TcpStream::connect(bench.listener.local_addr().unwrap()).unwrap();
    let (server, _) = bench.listener.accept().unwrap();
    let refused = bench.transport.attach(OwnedFd::from(server)).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ENFILE));
    drop(extra);
    for _ in 0..50 {
        let (mut client, id) = held.pop_front().unwrap();
        bench.transport.close(id);
        bench.transport.close(id);
        bench.run_until(|bench| bench.echo.closed.last() == Some(&id));
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        let (client, reused) = bench.connect();
        assert_eq!(reused, id);
        held.push_back((client, reused));
        bench.echo.closed.clear();
    }
    assert_eq!(bench.transport.sockets(), 3);
}

#[test]
fn reports_a_half_close_and_still_sends() {
    let mut bench = Bench::new(small());
    let (mut client, id) = bench.connect();
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    bench.run_until(|bench| !bench.echo.ended.is_empty() && bench.echo.sending.is_empty());
    assert_eq!(bench.echo.ended, [(id, Ended::Peer)]);
    let mut answer = [0; 10];
    client.read_exact(&mut answer).unwrap();
    bench.transport.close(id);
    bench.run_until(|bench| bench.echo.closed == [id]);
}

#[test]
fn reports_a_reset() {
    let mut bench = Bench::new(small());
    let (client, id) = bench.connect();
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the option's value is a live `linger` of the stated size.
    let result = unsafe {
        use std::os::fd::AsRawFd;
        libc::setsockopt(
            client.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as u32,
        )
    };
    assert_eq!(result, 0);
    drop(client);
    bench.run_until(|bench| !bench.echo.ended.is_empty());
    assert_eq!(bench.echo.ended, [(id, Ended::Lost(libc::ECONNRESET))]);
    bench.transport.close(id);
    bench.run_until(|bench| bench.echo.closed == [id]);
}

/// A quarter of a megabyte from each of four sockets through 64 buffers of 16 bytes, read in the pace of a slow machine.
fn squeeze(completions: u32) -> RingCounters {
    let mut bench = Bench::new(Sizes { buffer_len: 16, completions, submissions: 4, ..small() });
    bench.echo.silent = true;
    let clients: Vec<_> = (0..4).map(|_| bench.connect().0).collect();
    let writers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || {
                client.write_all(&vec![7; 1 << 18]).unwrap();
                client
            })
        })
        .collect();
    bench.run_until(|bench| {
        std::thread::sleep(Duration::from_micros(50));
        bench.echo.received == 4 << 18
    });
    for writer in writers {
        writer.join().unwrap();
    }
    bench.transport.counters()
}

#[test]
fn runs_out_of_buffers_and_recovers() {
    let counters = squeeze(4096);
    assert!(counters.buffers_exhausted > 0, "the test must exhaust the buffers: {counters:?}");
}

#[test]
fn overflows_the_completion_queue_and_recovers() {
    let counters = squeeze(16);
    assert!(counters.overflows > 0, "the test must overflow the queue: {counters:?}");
}

/// Bytes in the order in which they were handed over.
#[derive(Default)]
struct Order(Vec<(SocketId, usize)>);

impl Handler for Order {
    fn handle_received(&mut self, socket: SocketId, bytes: &mut [u8]) {
        self.0.push((socket, bytes.len()));
    }

    fn handle_sent(&mut self, _: SocketId, _: Vec<u8>, _: Result<(), i32>) {}
    fn handle_ended(&mut self, _: SocketId, _: Ended) {}
    fn handle_closed(&mut self, _: SocketId) {}
}

#[test]
fn a_quiet_socket_waits_for_a_turn_of_each_flood_and_no_more() {
    const FLOODS: usize = 6;
    const FLOOD_LEN: usize = 120_000;
    let mut bench = Bench::new(Sizes { buffers: 512, buffer_len: 4096, completions: 4096, ..small() });
    let mut floods: Vec<_> = (0..FLOODS).map(|_| bench.connect()).collect();
    let (mut quiet, quiet_id) = bench.connect();
    for (flood, _) in &mut floods {
        flood.write_all(&vec![1; FLOOD_LEN]).unwrap();
    }
    quiet.write_all(b"a share").unwrap();
    let mut order = Order::default();
    let deadline = Instant::now() + Duration::from_secs(10);
    while order.0.iter().map(|(_, len)| len).sum::<usize>() < FLOODS * FLOOD_LEN + 7 {
        assert!(Instant::now() < deadline, "the transport did not get there");
        bench.transport.poll(&mut order, Budget { completions: 256, bytes: 128 << 10 }).unwrap();
    }
    let before: usize = order.0.iter().take_while(|(id, _)| *id != quiet_id).map(|(_, len)| len).sum();
    let turns = FLOODS * (turns::TURN_BYTES as usize + 4096);
    assert!(before <= turns, "{before} bytes of floods came before it, in turns at most {turns}");
}

#[test]
fn what_a_flood_holds_keeps_its_order_and_is_given_up_with_it() {
    // All buffers of the ring are fewer than a flood's turn and what it may hold.
    let mut bench = Bench::new(Sizes { buffers: 16, buffer_len: 4096, ..small() });
    let (mut client, id) = bench.connect();
    let message: Vec<u8> = (0..600_000u32).map(|byte| (byte / 3) as u8).collect();
    let sent = message.clone();
    let writer = std::thread::spawn(move || {
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).map(|_| answer)
    });
    bench.run_until(|bench| {
        !bench.echo.ended.is_empty() && bench.echo.waiting.is_empty() && bench.echo.sending.is_empty()
    });
    assert_eq!((bench.echo.received, &bench.echo.ended[..]), (message.len(), &[(id, Ended::Peer)][..]));
    bench.transport.shutdown_write(id);
    bench.run_until(|bench| bench.transport.is_quiet());
    let answer = writer.join().unwrap().unwrap();
    assert!(
        answer.iter().zip(&message).all(|(answer, byte)| *answer == !*byte) && answer.len() == message.len()
    );
    bench.transport.close(id);
    bench.echo.silent = true;
    // A budget that is used up at once: nearly all is held when the socket closes.
    let (mut flood, id) = bench.connect();
    flood.set_nonblocking(true).unwrap();
    while flood.write(&[1; 4096]).is_ok() {}
    for _ in 0..3 {
        bench.transport.poll(&mut bench.echo, Budget { completions: 64, bytes: 1 }).unwrap();
    }
    bench.transport.close(id);
    bench.run_until(|bench| bench.echo.closed.len() == 2);
    // Its buffers are back: others receive.
    bench.echo.received = 0;
    let (mut client, _) = bench.connect();
    client.write_all(&[7; 100_000]).unwrap();
    bench.run_until(|bench| bench.echo.received == 100_000);
}

#[test]
fn closes_under_a_send_that_nobody_reads_and_under_a_flood() {
    let mut bench = Bench::new(small());
    bench.echo.silent = true;
    let (_client, reader) = bench.connect();
    bench.echo.sending.insert(reader, 32 << 20);
    bench.transport.send(reader, vec![1; 32 << 20]);
    let (mut flooding, flooded) = bench.connect();
    let flood = std::thread::spawn(move || while flooding.write_all(&[9; 4096]).is_ok() {});
    bench.run_until(|bench| bench.echo.received > 1 << 20);
    assert!(bench.echo.sending.contains_key(&reader), "32 MiB do not fit into the kernel");
    bench.transport.close(reader);
    bench.transport.close(flooded);
    bench.run_until(|bench| bench.echo.closed.len() == 2);
    assert!(bench.echo.sending.is_empty(), "the buffer came back");
    flood.join().unwrap();
    assert_eq!(bench.transport.sockets(), 0);
}

#[test]
fn a_paused_socket_receives_nothing_until_it_is_resumed() {
    let mut bench = Bench::new(small());
    bench.echo.silent = true;
    let (mut client, paused) = bench.connect();
    let (mut other, _) = bench.connect();
    for round in 1..=20 {
        bench.echo.received = 0;
        bench.transport.pause(paused);
        bench.transport.pause(paused);
        // Bytes of another socket, that the pause has come to the kernel first.
        other.write_all(&[1; 10]).unwrap();
        bench.run_until(|bench| bench.echo.received == 10);
        client.write_all(&[2; 100]).unwrap();
        other.write_all(&[1; 10]).unwrap();
        bench.run_until(|bench| bench.echo.received == 20);
        bench.transport.resume(paused);
        if round % 2 == 0 {
            // A pause that is taken back at once changes nothing.
            bench.transport.pause(paused);
            bench.transport.resume(paused);
        }
        bench.run_until(|bench| bench.echo.received == 120);
    }
    bench.transport.pause(paused);
    client.write_all(&[2; 100]).unwrap();
    bench.transport.close(paused);
    bench.transport.resume(paused);
    bench.run_until(|bench| bench.echo.closed == [paused]);
}

#[test]
fn a_socket_may_be_attached_before_it_is_connected() {
    let mut bench = Bench::new(small());
    let dial = |address: std::net::SocketAddr| {
        let fd = connecting(address);
        bench.transport.attach(fd).unwrap()
    };
    let address = bench.listener.local_addr().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
    let [socket, refused] = [address, nobody].map(dial);
    for id in [socket, refused] {
        bench.echo.sending.insert(id, 3);
        bench.transport.send(id, b"abc".to_vec());
    }
    bench.transport.submit().unwrap();
    let (mut server, _) = bench.listener.accept().unwrap();
    let mut received = [0; 3];
    server.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"abc");
    bench.echo.silent = true;
    server.write_all(b"defg").unwrap();
    bench.run_until(|bench| bench.echo.received == 4 && !bench.echo.ended.is_empty());
    assert_eq!(bench.echo.ended, [(refused, Ended::Lost(libc::ECONNREFUSED))]);
}

/// A socket that has begun to connect.
fn connecting(address: std::net::SocketAddr) -> OwnedFd {
    use std::os::fd::FromRawFd;
    let std::net::SocketAddr::V4(address) = address else { panic!("an IPv4 address") };
    let to = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: takes integers; the descriptor is checked and then owned.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0) };
    assert!(fd >= 0);
    // SAFETY: `fd` is open and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: `to` is a socket address of the stated length; the calls take integers otherwise.
    unsafe {
        libc::connect(fd, (&raw const to).cast(), size_of_val(&to) as libc::socklen_t);
        assert_eq!(libc::fcntl(fd, libc::F_SETFL, 0), 0);
    }
    socket
}

#[test]
fn is_dropped_with_sockets_open_and_a_send_under_way() {
    let mut bench = Bench::new(small());
    let (mut client, reader) = bench.connect();
    bench.transport.send(reader, vec![1; 32 << 20]);
    bench.transport.submit().unwrap();
    let begun = Instant::now();
    drop(bench);
    assert!(begun.elapsed() < Duration::from_secs(1));
    let mut count = 0;
    let mut bytes = vec![0; 1 << 20];
    while let Ok(len @ 1..) = client.read(&mut bytes) {
        assert!(bytes[..len].iter().all(|&byte| byte == 1));
        count += len;
    }
    assert!(count < 32 << 20);
}

/// Waits in every way for one byte, twenty times, in a transport whose sockets lie in its second ring.
#[test]
fn completions_end_waits_of_both_kinds() {
    let wake = Arc::new(Wake::new().unwrap());
    let mut transport = Transport::new(Sizes { sockets_max: 4, table_len: 2, ..small() }, &wake).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        transport.attach(OwnedFd::from(listener.accept().unwrap().0)).unwrap();
    }
    let mut echo = Echo { silent: true, ..Echo::default() };
    for round in 1..=40 {
        while transport.poll(&mut echo, BUDGET).unwrap() {}
        clear(&wake);
        let mut client = clients[round % 4].try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(2));
            client.write_all(b"x").unwrap();
        });
        if round % 2 == 0 {
            wait_in_the_ring(&mut transport, &mut echo, round);
        } else {
            while !transport.prepare_wait() {
                transport.poll(&mut echo, BUDGET).unwrap();
            }
            wait_for_the_eventfd(&wake, round);
        }
        writer.join().unwrap();
        while echo.received < round {
            transport.poll(&mut echo, BUDGET).unwrap();
        }
    }
}

/// Takes what was signalled until now.
fn clear(wake: &Wake) {
    wake.wake();
    wake.drain();
    wake.acknowledge();
}

fn wait_in_the_ring(transport: &mut Transport, echo: &mut Echo, round: usize) {
    let begun = Instant::now();
    while echo.received < round {
        transport.wait(Duration::from_secs(5)).unwrap();
        transport.poll(echo, BUDGET).unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "nothing ended the wait in round {round}");
}

fn wait_for_the_eventfd(wake: &Wake, round: usize) {
    let fd = wake.raw_fd();
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one initialised entry whose descriptor is open.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 5000) }, 1, "no signal in round {round}");
    wake.drain();
}

#[test]
fn other_threads_end_waits_of_both_kinds() {
    let wake = Arc::new(Wake::new().unwrap());
    let mut transport = Transport::new(small(), &wake).unwrap();
    let mut echo = Echo::default();
    for round in 0..40 {
        wake.acknowledge();
        while transport.poll(&mut echo, BUDGET).unwrap() {}
        clear(&wake);
        let waker = Arc::clone(&wake);
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(2));
            waker.wake();
        });
        let begun = Instant::now();
        if round % 2 == 0 {
            while !transport.poll(&mut echo, BUDGET).unwrap() {
                transport.wait(Duration::from_secs(5)).unwrap();
            }
        } else {
            while !transport.prepare_wait() {
                transport.poll(&mut echo, BUDGET).unwrap();
            }
            wait_for_the_eventfd(&wake, round);
        }
        assert!(begun.elapsed() < Duration::from_secs(4), "nothing ended the wait in round {round}");
        thread.join().unwrap();
    }
    let begun = Instant::now();
    wake.acknowledge();
    while transport.poll(&mut echo, BUDGET).unwrap() {}
    transport.wait(Duration::from_millis(20)).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(15), "{:?}", begun.elapsed());
}

#[test]
fn a_wake_whose_completion_was_taken_is_not_slept_over() {
    let wake = Arc::new(Wake::new().unwrap());
    let mut transport = Transport::new(small(), &wake).unwrap();
    let mut echo = Echo::default();
    for _ in 0..5 {
        wake.acknowledge();
        // Here its receiver would look at the links.
        wake.wake();
        while !transport.poll(&mut echo, BUDGET).unwrap() {}
        while transport.poll(&mut echo, BUDGET).unwrap() {}
        let begun = Instant::now();
        transport.wait(Duration::from_secs(5)).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(4), "slept over a wake");
    }
}
