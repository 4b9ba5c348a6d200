//! One connection to the pool and its devices: made, driven, and made again when it breaks.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use adit_codec::frame::FrameHeader;
use adit_codec::message::flags::REQUIRES_STANDARD_JOBS;
use adit_codec::tlv::WORKER_HASHRATE_TRACKING;
use adit_hasher::Target;
use adit_proto::mining::client::{
    Client, ClientConfig, ClientEvent, ClientFault, ClientLimits, ClientOutbox, Refusal, RequestId, Work,
};
use adit_proto::mining::server::ChannelId;

use super::hashing::{Lane, Turn};
use super::search::Slice;
use super::shared::{Shared, add, lock};
use crate::connection::{ConnectionError, PoolAddress, Reader, Writer, connect};

/// How long the reading thread waits before it looks at timeouts and at the end of the miner.
const READ_TIMEOUT: Duration = Duration::from_millis(500);
/// Pauses between attempts to connect: doubled each time.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Connections do not all come back at once: their pauses differ by up to this.
const BACKOFF_SPREAD_MS: usize = 97;
/// Time for answers before a connection is left because the pool asks for it.
const LEAVE_GRACE: Duration = Duration::from_secs(1);
/// Times that the pool may close the channels of a connection, by device, before the miner connects anew.
const REOPENINGS_MAX: usize = 16;

/// What a device is to hash, and on which connection its shares belong.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    pub(super) work: Arc<Work>,
    generation: u64,
}

/// A device as both sides see it: the connection assigns work, the hashing threads take turns.
#[derive(Debug)]
pub(super) struct Device {
    number: usize,
    extended: bool,
    user_identity: String,
    pub(super) slot: Mutex<Option<Assignment>>,
    /// Rises with every change of the slot.
    pub(super) epoch: AtomicU64,
    pub(super) outstanding: AtomicUsize,
    pub(super) turn: Mutex<Turn>,
}

/// A connection that stands.
#[derive(Debug)]
struct Link {
    client: Client,
    writer: Writer,
    generation: u64,
    openings: HashMap<RequestId, usize>,
    devices: HashMap<ChannelId, usize>,
    reopenings: usize,
    /// The pool sent us away: where to, and until when answers are waited for.
    leaving: Option<(PoolAddress, Instant)>,
}

/// One connection's share of the miner.
#[derive(Debug)]
pub(super) struct Session {
    shared: Arc<Shared>,
    number: usize,
    devices: Vec<Device>,
    link: Mutex<Option<Link>>,
    generation: AtomicU64,
}

/// Why a connection is over.
#[derive(Debug)]
enum End {
    Connection(ConnectionError),
    Fault(ClientFault),
    SetupRefused(String),
    ExtensionsRequired(Vec<u16>),
    OpenRefused(String),
    OpenTimedOut,
    ChannelsClosed(String),
    Refused(Refusal),
    Redirected(PoolAddress),
}

impl From<ConnectionError> for End {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

impl From<ClientFault> for End {
    fn from(fault: ClientFault) -> Self {
        Self::Fault(fault)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => write!(f, "{error}"),
            Self::Fault(fault) => write!(f, "the pool breaks the protocol: {fault}"),
            Self::SetupRefused(code) => write!(f, "the pool refused the connection: {code}"),
            Self::ExtensionsRequired(extensions) => {
                write!(f, "the pool requires the extensions {extensions:?}")
            }
            Self::OpenRefused(code) => write!(f, "the pool refused a channel: {code}"),
            Self::OpenTimedOut => f.write_str("the pool did not answer the opening of a channel"),
            Self::ChannelsClosed(code) => write!(f, "the pool keeps closing channels: {code}"),
            Self::Refused(refusal) => write!(f, "no channel can be opened: {refusal}"),
            Self::Redirected(address) => write!(f, "the pool sent us to {address}"),
        }
    }
}

impl Session {
    /// The connection of this number with its devices.
    pub(super) fn new(shared: &Arc<Shared>, number: usize) -> Self {
        let config = &shared.config;
        let first = number * config.devices_per_connection;
        let numbers = first..config.devices.min(first + config.devices_per_connection);
        let device = |number| Device {
            number,
            extended: config.kind.is_extended(number),
            user_identity: match config.devices {
                1 => config.user_identity.clone(),
                _ => format!("{}.{}", config.user_identity, number + 1),
            },
            slot: Mutex::default(),
            epoch: AtomicU64::new(0),
            outstanding: AtomicUsize::new(0),
            turn: Mutex::default(),
        };
        Self {
            shared: Arc::clone(shared),
            number,
            devices: numbers.map(device).collect(),
            link: Mutex::new(None),
            generation: AtomicU64::new(0),
        }
    }

    /// Its devices for the hashing threads.
    pub(super) fn lanes(self: &Arc<Self>) -> impl Iterator<Item = Lane> + use<> {
        let session = Arc::clone(self);
        (0..self.devices.len()).map(move |device| Lane { session: Arc::clone(&session), device })
    }

    pub(super) fn device(&self, index: usize) -> &Device {
        &self.devices[index]
    }

    /// Connects, serves, and connects again until the miner stops.
    pub(super) fn run(&self) {
        let url = &self.shared.config.url;
        let home = PoolAddress { host: url.host.clone(), port: url.port };
        let mut address = home.clone();
        let spread = Duration::from_millis((self.number * 31 % BACKOFF_SPREAD_MS) as u64);
        let mut backoff = BACKOFF_MIN;
        while !self.shared.is_stopping() {
            let Err(end) = self.serve(&address, &mut backoff);
            self.drop_link();
            if self.shared.is_stopping() {
                return;
            }
            if let End::Redirected(elsewhere) = end {
                address = elsewhere;
                continue;
            }
            add(&self.shared.counters.connection_errors, 1);
            let message = format!("{address}: {end}");
            if matches!(&end, End::Connection(error) if error.is_wrong_authority()) && address == home {
                self.shared.finish(Some(message));
                return;
            }
            self.shared.note_error(message);
            address = home.clone();
            self.shared.pause(backoff + spread);
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// One connection from its beginning to its end.
    fn serve(&self, address: &PoolAddress, backoff: &mut Duration) -> Result<std::convert::Infallible, End> {
        let (mut reader, writer) = connect(address, &self.shared.config.url.authority, READ_TIMEOUT)?;
        add(&self.shared.counters.connections, 1);
        // It stays with this thread; what others send goes through outboxes of their own.
        let mut out = ClientOutbox::new();
        self.begin(address, writer, &mut out)?;
        loop {
            self.receive(&mut reader, address, &mut out)?;
            if self.shared.is_stopping() {
                return Err(ConnectionError::Closed.into());
            }
            let mut guard = lock(&self.link);
            let Some(link) = guard.as_mut() else { return Err(ConnectionError::Closed.into()) };
            let now = self.shared.now();
            if link.client.poll_timeout().is_some_and(|timeout| timeout <= now) {
                link.client.handle_timeout(now, &mut out)?;
                self.handle_events(link, address, &mut out)?;
            }
            link.flush(&mut out)?;
            if !link.devices.is_empty() {
                *backoff = BACKOFF_MIN;
            }
            let quiet = link.client.outstanding() == 0;
            if let Some((elsewhere, _)) = link.leaving.take_if(|(_, until)| quiet || *until <= Instant::now())
            {
                return Err(End::Redirected(elsewhere));
            }
        }
    }

    /// Takes the connection as the session's, and sends SetupConnection.
    fn begin(&self, address: &PoolAddress, writer: Writer, out: &mut ClientOutbox) -> Result<(), End> {
        let mut client = Client::new(self.client_config(address))
            .expect("the texts are short and the limits are positive");
        client.handle_connected(self.shared.now(), out);
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let mut link = Link {
            client,
            writer,
            generation,
            openings: HashMap::new(),
            devices: HashMap::new(),
            reopenings: 0,
            leaving: None,
        };
        link.flush(out)?;
        *lock(&self.link) = Some(link);
        Ok(())
    }

    fn client_config(&self, address: &PoolAddress) -> ClientConfig {
        let config = &self.shared.config;
        ClientConfig {
            // A name on the wire has at most 255 bytes; a longer one cannot have been resolved.
            endpoint_host: address.host.bytes().take(255).collect(),
            endpoint_port: address.port,
            vendor: b"adit".to_vec(),
            hardware_version: b"adit-loadgen miner".to_vec(),
            firmware: env!("CARGO_PKG_VERSION").into(),
            device_id: Vec::new(),
            flags: if config.requires_standard_jobs { REQUIRES_STANDARD_JOBS } else { 0 },
            requested_extensions: if config.worker_names {
                vec![WORKER_HASHRATE_TRACKING]
            } else {
                Vec::new()
            },
            limits: ClientLimits::default(),
        }
    }

    /// Waits for frames and hands them to the client.
    fn receive(&self, reader: &mut Reader, address: &PoolAddress, out: &mut ClientOutbox) -> Result<(), End> {
        reader.receive(|header: FrameHeader, payload: &[u8]| {
            let mut guard = lock(&self.link);
            let Some(link) = guard.as_mut() else { return Err(End::Connection(ConnectionError::Closed)) };
            link.client.handle_frame(header, payload, self.shared.now(), out)?;
            self.handle_events(link, address, out)
        })
    }

    fn handle_events(
        &self,
        link: &mut Link,
        address: &PoolAddress,
        out: &mut ClientOutbox,
    ) -> Result<(), End> {
        let events: Vec<ClientEvent> = out.drain_events().collect();
        for event in events {
            self.handle_event(link, event, address, out)?;
        }
        Ok(())
    }

    fn handle_event(
        &self,
        link: &mut Link,
        event: ClientEvent,
        address: &PoolAddress,
        out: &mut ClientOutbox,
    ) -> Result<(), End> {
        match event {
            ClientEvent::SetupRefused { error_code, .. } => return Err(End::SetupRefused(error_code)),
            ClientEvent::ExtensionsRequired(extensions) => return Err(End::ExtensionsRequired(extensions)),
            ClientEvent::Ready => {
                // Ready comes again after extensions were negotiated anew: then the channels are there.
                let open = link.devices.len() + link.openings.len();
                for device in open..self.devices.len() {
                    self.open(link, device, out)?;
                }
            }
            ClientEvent::ChannelOpened { request, channel } => {
                add(&self.shared.counters.channels_opened, 1);
                if let Some(device) = link.openings.remove(&request) {
                    link.devices.insert(channel, device);
                }
            }
            ClientEvent::OpenRefused { error_code, .. } => return Err(End::OpenRefused(error_code)),
            ClientEvent::OpenTimedOut { .. } => return Err(End::OpenTimedOut),
            ClientEvent::NewWork { channel } => self.assign(link, channel),
            ClientEvent::ShareAcknowledged { channel, submitted_at, .. } => {
                self.shared.record_latency(self.shared.now().since(submitted_at));
                self.release(link, channel, 1);
            }
            ClientEvent::SharesAccepted { count, difficulty_sum, .. } => {
                self.shared.count_accepted(count, difficulty_sum);
            }
            ClientEvent::ShareRejected { channel, submitted_at, error_code, .. } => {
                self.shared.record_latency(self.shared.now().since(submitted_at));
                self.shared.count_rejected(error_code);
                self.release(link, channel, 1);
            }
            ClientEvent::ChannelClosed { channel, reason_code, unanswered } => {
                self.reopen(link, channel, reason_code, unanswered, out)?;
            }
            ClientEvent::Reconnect { host, port } => {
                let elsewhere = PoolAddress {
                    host: host.unwrap_or_else(|| address.host.clone()),
                    port: port.unwrap_or(address.port),
                };
                link.leaving = Some((elsewhere, Instant::now() + LEAVE_GRACE));
                self.devices.iter().for_each(|device| self.set_work(device, None));
            }
            ClientEvent::SetUp { .. }
            | ClientEvent::ExtensionsNegotiated(_)
            | ClientEvent::ExtensionsReset { .. }
            | ClientEvent::FutureJob { .. }
            | ClientEvent::TargetChanged { .. }
            | ClientEvent::ExtranoncePrefixChanged { .. }
            | ClientEvent::GroupChanged { .. }
            | ClientEvent::UpdateRefused { .. }
            | ClientEvent::UnknownChannelMessage { .. } => {}
        }
        Ok(())
    }

    fn open(&self, link: &mut Link, index: usize, out: &mut ClientOutbox) -> Result<(), End> {
        let Shared { config, nominal_hash_rate, .. } = &*self.shared;
        let device = &self.devices[index];
        let (user, now) = (device.user_identity.as_bytes(), self.shared.now());
        let client = &mut link.client;
        let request = if device.extended {
            client.open_extended(user, *nominal_hash_rate, Target::MAX, config.min_extranonce_size, now, out)
        } else {
            client.open_standard(user, *nominal_hash_rate, Target::MAX, now, out)
        };
        link.openings.insert(request.map_err(End::Refused)?, index);
        Ok(())
    }

    /// The pool closed a channel: its device asks for another one, but not for ever.
    fn reopen(
        &self,
        link: &mut Link,
        channel: ChannelId,
        reason: String,
        unanswered: usize,
        out: &mut ClientOutbox,
    ) -> Result<(), End> {
        add(&self.shared.counters.lost, unanswered as u64);
        self.release(link, channel, unanswered);
        let Some(index) = link.devices.remove(&channel) else { return Ok(()) };
        self.set_work(&self.devices[index], None);
        link.reopenings += 1;
        if link.reopenings > REOPENINGS_MAX * self.devices.len() {
            return Err(End::ChannelsClosed(reason));
        }
        self.shared.note_error(format!("the pool closed a channel: {reason}"));
        if link.client.is_ready() { self.open(link, index, out) } else { Err(End::ChannelsClosed(reason)) }
    }

    /// Shares of a channel were answered, or never will be.
    fn release(&self, link: &Link, channel: ChannelId, count: usize) {
        if let Some(index) = link.devices.get(&channel) {
            self.devices[*index].outstanding.fetch_sub(count, Ordering::Relaxed);
        }
    }

    /// Gives a channel's device what is to be hashed now.
    fn assign(&self, link: &Link, channel: ChannelId) {
        let Some(index) = link.devices.get(&channel) else { return };
        if link.leaving.is_some() {
            return;
        }
        let work = link.client.work(channel, &self.shared.config.hasher);
        let generation = link.generation;
        self.set_work(
            &self.devices[*index],
            work.map(|work| Assignment { work: Arc::new(work), generation }),
        );
    }

    fn set_work(&self, device: &Device, assignment: Option<Assignment>) {
        let mining = &self.shared.counters.devices_mining;
        let mut slot = lock(&device.slot);
        match (slot.is_some(), assignment.is_some()) {
            (false, true) => mining.fetch_add(1, Ordering::Relaxed),
            (true, false) => mining.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        let has_work = assignment.is_some();
        *slot = assignment;
        device.epoch.fetch_add(1, Ordering::Release);
        drop(slot);
        if has_work {
            self.shared.ring();
        }
    }

    /// Sends shares that a device found, unless their job or connection is over.
    pub(super) fn submit(
        &self,
        index: usize,
        assignment: &Assignment,
        slice: &Slice,
        extranonce: &[u8],
        nonces: &[u32],
        out: &mut ClientOutbox,
    ) {
        let device = &self.devices[index];
        let counters = &self.shared.counters;
        let mut guard = lock(&self.link);
        let Some(link) = guard.as_mut().filter(|link| link.generation == assignment.generation) else {
            add(&counters.discarded, nonces.len() as u64);
            return;
        };
        let client = &mut link.client;
        let (channel, job) = (assignment.work.channel, assignment.work.job_id);
        for &nonce in nonces {
            let now = self.shared.now();
            let sent = if device.extended {
                let worker = format!("device-{}", device.number + 1);
                let worker = Some(worker.as_bytes());
                client.submit_extended(
                    channel,
                    job,
                    nonce,
                    slice.ntime,
                    slice.version,
                    extranonce,
                    worker,
                    now,
                    out,
                )
            } else {
                client.submit_standard(channel, job, nonce, slice.ntime, slice.version, now, out)
            };
            match sent {
                Ok(_) => {
                    add(&counters.submitted, 1);
                    device.outstanding.fetch_add(1, Ordering::Relaxed);
                }
                Err(refusal) => {
                    add(&counters.discarded, 1);
                    if !matches!(refusal, Refusal::UnknownJob | Refusal::UnknownChannel) {
                        self.shared.note_error(format!("a share was not sent: {refusal}"));
                    }
                }
            }
        }
        if link.flush(out).is_err() {
            // The reading thread learns of it and connects again.
            link.writer.close();
        }
    }

    /// The connection is over: devices have no work, and shares under way are lost, unless the miner itself ended it.
    fn drop_link(&self) {
        let Some(link) = lock(&self.link).take() else { return };
        if !self.shared.is_stopping() {
            add(&self.shared.counters.lost, link.client.outstanding() as u64);
        }
        link.writer.close();
        for device in &self.devices {
            self.set_work(device, None);
            device.outstanding.store(0, Ordering::Relaxed);
        }
    }

    /// Closes the channels and the connection.
    pub(super) fn end(&self) {
        let mut guard = lock(&self.link);
        let Some(link) = guard.as_mut() else { return };
        let mut out = ClientOutbox::new();
        for channel in link.devices.keys() {
            // A channel that the pool closed meanwhile needs no closing.
            let _ = link.client.close_channel(*channel, b"shutdown", &mut out);
        }
        // The connection ends in any case.
        let _ = link.flush(&mut out);
        link.writer.close();
    }
}

impl Link {
    /// Sends what the client wants sent.
    fn flush(&mut self, out: &mut ClientOutbox) -> Result<(), ConnectionError> {
        let sent = self.writer.send(out.frames().map(|(_, _, frame)| frame));
        out.clear_frames();
        sent
    }
}
