//! A client, its devices, and the wires to and from the server.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use adit_codec::frame::{FrameHeader, HEADER_LEN};
use adit_hasher::{BatchHash, Portable, Target};
use adit_proto::Instant;
use adit_proto::mining::client::{
    BIP323_VERSION_MASK, ChannelKind, Client, ClientConfig, ClientEvent, ClientLimits, ClientOutbox, Refusal,
    RequestId,
};
use adit_proto::mining::server::{ChannelId, ConnectionId};

use super::random::Random;

/// A device that mines on a channel of its own.
pub struct Device {
    /// Hashes per second, of virtual time.
    pub hash_rate: f64,
    /// What it may compute and has not.
    due: f64,
    /// Never begins again: two jobs can share a header space.
    nonce: u32,
    pub accepted: u64,
    pub rejected: BTreeMap<String, u64>,
}

/// What a device shall be, until its channel is open.
#[derive(Clone, Copy)]
pub struct Order {
    pub extended: bool,
    pub hash_rate: f64,
}

pub struct Peer {
    pub client: Client,
    pub connection: Option<ConnectionId>,
    pub devices: BTreeMap<ChannelId, Device>,
    pub orders: Vec<Order>,
    pub events: Vec<ClientEvent>,
    /// Frames under way, with the time of their arrival.
    pub to_server: VecDeque<(Instant, Vec<u8>)>,
    pub to_client: VecDeque<(Instant, Vec<u8>)>,
    /// Shares of former connections: accepted, refused and never answered.
    pub accepted_before: u64,
    pub latency: Duration,
    openings: BTreeMap<RequestId, Order>,
    flags: u32,
    out: ClientOutbox,
}

fn config(flags: u32) -> ClientConfig {
    ClientConfig {
        endpoint_host: b"pool".to_vec(),
        endpoint_port: 1,
        vendor: b"two-ended".to_vec(),
        hardware_version: Vec::new(),
        firmware: Vec::new(),
        device_id: Vec::new(),
        flags,
        requested_extensions: vec![2],
        limits: ClientLimits::default(),
    }
}

impl Peer {
    pub fn new(flags: u32, orders: Vec<Order>, latency: Duration) -> Self {
        Self {
            client: Client::new(config(flags)).expect("a good configuration"),
            connection: None,
            devices: BTreeMap::new(),
            orders,
            events: Vec::new(),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            accepted_before: 0,
            latency,
            openings: BTreeMap::new(),
            flags,
            out: ClientOutbox::new(),
        }
    }

    pub fn connect(&mut self, connection: ConnectionId, now: Instant) {
        self.connection = Some(connection);
        self.client.handle_connected(now, &mut self.out);
        self.flush(now);
    }

    /// The connection is gone, with all that was under way.
    pub fn disconnect(&mut self) {
        self.connection = None;
        self.accepted_before += self.client.counters().shares_accepted;
        self.client = Client::new(config(self.flags)).expect("a good configuration");
        self.devices.clear();
        self.openings.clear();
        self.to_server.clear();
        self.to_client.clear();
        self.out = ClientOutbox::new();
    }

    pub fn shares_accepted(&self) -> u64 {
        self.accepted_before + self.client.counters().shares_accepted
    }

    /// Delivers what has arrived, and what is due.
    pub fn receive(&mut self, now: Instant, random: &mut Random) {
        while self.to_client.front().is_some_and(|(arrival, _)| *arrival <= now) {
            let (_, frame) = self.to_client.pop_front().expect("there is one");
            let (header, payload) = frame.split_first_chunk::<HEADER_LEN>().expect("a frame");
            let result = self.client.handle_frame(FrameHeader::parse(header), payload, now, &mut self.out);
            result.unwrap_or_else(|fault| panic!("the server's fault: {fault}"));
            self.handle_events(now, random);
        }
        if self.client.poll_timeout().is_some_and(|timeout| timeout <= now) {
            let result = self.client.handle_timeout(now, &mut self.out);
            result.unwrap_or_else(|fault| panic!("the server's fault: {fault}"));
            self.handle_events(now, random);
        }
        self.flush(now);
    }

    fn handle_events(&mut self, now: Instant, random: &mut Random) {
        let events: Vec<ClientEvent> = self.out.drain_events().collect();
        for event in events {
            match &event {
                ClientEvent::Ready => {
                    let open = self.devices.len() + self.openings.len();
                    for order in self.orders.clone().into_iter().skip(open) {
                        self.open(order, now);
                    }
                }
                ClientEvent::ChannelOpened { request, channel } => {
                    let order = self.openings.remove(request).expect("it was asked for");
                    let device = Device {
                        hash_rate: order.hash_rate,
                        due: 0.0,
                        nonce: random.next() as u32,
                        accepted: 0,
                        rejected: BTreeMap::new(),
                    };
                    self.devices.insert(*channel, device);
                }
                ClientEvent::OpenRefused { error_code, .. } => panic!("an opening was refused: {error_code}"),
                ClientEvent::OpenTimedOut { .. } => panic!("an opening was not answered"),
                ClientEvent::UpdateRefused { error_code, .. } => {
                    panic!("an update was refused: {error_code}")
                }
                ClientEvent::SetupRefused { error_code, .. } => panic!("setup was refused: {error_code}"),
                ClientEvent::SharesAccepted { channel, count, .. } => {
                    if let Some(device) = self.devices.get_mut(channel) {
                        device.accepted += u64::from(*count);
                    }
                }
                ClientEvent::ShareRejected { channel, error_code, .. } => {
                    if let Some(device) = self.devices.get_mut(channel) {
                        *device.rejected.entry(error_code.clone()).or_default() += 1;
                    }
                }
                ClientEvent::ChannelClosed { channel, .. } => {
                    self.devices.remove(channel);
                }
                _ => {}
            }
            self.events.push(event);
        }
    }

    pub fn open(&mut self, order: Order, now: Instant) {
        let Self { client, out, .. } = self;
        let hash_rate = order.hash_rate as f32;
        let request = if order.extended {
            client.open_extended(b"user.x", hash_rate, Target::MAX, 6, now, out)
        } else {
            client.open_standard(b"user.s", hash_rate, Target::MAX, now, out)
        };
        self.openings.insert(request.expect("the client is ready"), order);
        self.flush(now);
    }

    pub fn close(&mut self, channel: ChannelId, now: Instant) {
        self.client.close_channel(channel, b"done", &mut self.out).expect("the channel is open");
        let client = &self.client;
        self.devices.retain(|channel, _| client.channel(*channel).is_some());
        self.flush(now);
    }

    pub fn update(&mut self, channel: ChannelId, hash_rate: f64, now: Instant) {
        let result = self.client.update_channel(channel, hash_rate as f32, Target::MAX, &mut self.out);
        result.expect("the channel is open");
        self.flush(now);
    }

    /// Every device hashes for a while, and submits what it finds.
    pub fn hash(&mut self, passed: Duration, now: Instant, random: &mut Random) {
        let channels: Vec<ChannelId> = self.devices.keys().copied().collect();
        for channel in channels {
            self.hash_one(channel, passed, now, random);
        }
        self.flush(now);
    }

    fn hash_one(&mut self, channel: ChannelId, passed: Duration, now: Instant, random: &mut Random) {
        let Some(work) = self.client.work(channel, &Portable) else { return };
        let device = self.devices.get_mut(&channel).expect("a device");
        device.due += device.hash_rate * passed.as_secs_f64();
        let count = device.due as u32;
        device.due -= f64::from(count);
        let ntime = work.min_ntime + random.below(u64::from(work.ntime_max(now) - work.min_ntime) + 1) as u32;
        let rolled =
            if work.version_rolling_allowed { random.next() as u32 & BIP323_VERSION_MASK } else { 0 };
        let version = work.version ^ rolled;
        let extranonce: Vec<u8> = (0..work.extranonce_size()).map(|_| random.next() as u8).collect();
        let header = work.header(&extranonce, version, ntime, 0).expect("the size is right");

        let mut found = Vec::new();
        // A nonce range that ends at the last nonce would be cut short.
        if device.nonce > u32::MAX - count {
            device.nonce = 0;
        }
        Portable.scan_nonces(&header, device.nonce, count, &work.target, &mut found, usize::MAX);
        device.nonce += count;
        let extended =
            self.client.channel(channel).map(|channel| channel.kind()) != Some(ChannelKind::Standard);
        for nonce in found {
            let Self { client, out, .. } = self;
            let job = work.job_id;
            let submitted = if extended {
                client.submit_extended(channel, job, nonce, ntime, version, &extranonce, Some(b"w"), now, out)
            } else {
                client.submit_standard(channel, job, nonce, ntime, version, now, out)
            };
            assert!(matches!(submitted, Ok(_) | Err(Refusal::TooManyOutstanding)), "{submitted:?}");
        }
    }

    /// Puts what the client sends on the wire.
    fn flush(&mut self, now: Instant) {
        let arrival = now + self.latency;
        self.to_server.extend(self.out.frames().map(|(_, _, frame)| (arrival, frame.to_vec())));
        self.out.clear_frames();
    }
}
