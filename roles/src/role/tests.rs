//! The order in which a role ends.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use adit_codec::noise::{ACT2_LEN, Aead, EphemeralKey, Initiator};
use adit_engine::EngineLimits;
use adit_engine::service::Distribution;
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::{ClassId, Limits, ServerConfig};

use super::*;
use crate::keys;
use crate::nodes::{SourceUpdate, Submission, TemplateTransactions};

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Has no work.
struct Idle;

impl TemplateSource for Idle {
    fn name(&self) -> &str {
        "idle"
    }

    fn updates(&self) -> Receiver<SourceUpdate> {
        crossbeam::channel::never()
    }

    fn want(&self, _: ClassId, _: Reserve) {}

    fn unwant(&self, _: ClassId) {}

    fn submit(&self, _: Arc<Solution>) -> Receiver<Submission> {
        crossbeam::channel::never()
    }

    fn submit_block(&self, _: Arc<[u8]>) -> Receiver<Submission> {
        crossbeam::channel::never()
    }

    fn transactions(&self, _: u64) -> Option<TemplateTransactions> {
        None
    }

    fn shutdown(self: Box<Self>) {}
}

fn start() -> Role<Distribution> {
    let config = EngineConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        cpus: vec![0],
        aead: Aead::detect(),
        service: ServerConfig { first_template_id: 1, limits: Limits::default() },
        limits: EngineLimits { connections_max: 10, ..EngineLimits::default() },
    };
    let authority = Authority::Present {
        secret: keys::generate_authority(),
        static_secret: None,
        validity: Duration::from_secs(3_600),
    };
    Role::start(config, authority, Box::new(Idle), Crowd::Few).unwrap()
}

/// A client whose handshake is done.
fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (_initiator, act1) = Initiator::new(EphemeralKey::new(&[7; 64]).unwrap());
    stream.write_all(&act1).unwrap();
    stream.read_exact(&mut [0; ACT2_LEN]).unwrap();
    stream
}

#[test]
fn feeding_ends_after_accepting_and_before_clients_are_told() {
    const GRACE: Duration = Duration::from_secs(10);
    let mut role = start();
    let engine = Arc::clone(&role.running().engine);
    let mut client = connect(engine.local_addr());
    let (told, is_client_served) = bounded(1);
    role.feed("probe", move |stopped| {
        let _ = stopped.recv();
        let ended = Instant::now();
        client.set_nonblocking(true).unwrap();
        let nothing_read = client.read(&mut [0; 8]).map_err(|error| error.kind());
        let is_closed = TcpStream::connect(engine.local_addr()).is_err();
        told.send((ended, is_closed && nothing_read == Err(ErrorKind::WouldBlock))).unwrap();
    })
    .unwrap();
    let begun = Instant::now();
    let report = role.end(GRACE).unwrap();
    let (feeding_ended, is_served) = is_client_served.recv_timeout(PATIENCE).unwrap();
    assert!(is_served, "it is served as long as the engine is fed");
    assert!(feeding_ended - begun >= Duration::from_secs(1), "{:?}", feeding_ended - begun);
    assert_eq!((report.connections_cut, report.threads_failed), (0, 0), "{report:?}");
    assert_eq!(role.end(GRACE), None);
}

#[test]
fn the_engine_ends_in_order_though_a_thread_keeps_it() {
    let mut role = start();
    let (engine, kept) = (Arc::clone(&role.running().engine), Arc::clone(&role.running().engine));
    role.feed("waiting", move |_| {
        // Waits for what only the engine's end brings.
        engine.outputs().iter().for_each(drop);
    })
    .unwrap();
    let mut client = connect(kept.local_addr());
    let reader = std::thread::spawn(move || client.read(&mut [0; 8]));
    let report = role.end(Duration::from_secs(4)).unwrap();
    assert_eq!((report.connections_cut, report.threads_failed), (0, 0), "{report:?}");
    assert_eq!(reader.join().unwrap().unwrap(), 0, "the client was told, not cut off");
    assert!(TcpStream::connect(kept.local_addr()).is_err());
}
