//! A server, its clients, the time between them, and a template source.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use adit_codec::frame::{FrameHeader, HEADER_LEN};
use adit_hasher::Portable;
use adit_proto::mining::server::{CloseReason, ConnectionId, Event, Server, ServerConfig, ServerOutbox};
use adit_proto::template::{PrevHash, Template, TemplateUpdate};
use adit_proto::{Instant, Priority};

use super::common;
use super::peer::Peer;
use super::random::Random;

pub struct World {
    pub server: Server,
    pub out: ServerOutbox,
    pub now: Instant,
    pub random: Random,
    pub peers: Vec<Peer>,
    pub closed: Vec<CloseReason>,
    start: Instant,
    next_template: u64,
    next_tip: u8,
}

impl World {
    /// A server with work, and no clients.
    pub fn new(config: ServerConfig, seed: u64) -> Self {
        let now = Instant::ZERO + Duration::from_secs(1_000);
        let mut world = Self {
            server: Server::new(config, now),
            out: ServerOutbox::new(),
            now,
            random: Random::new(seed),
            peers: Vec::new(),
            closed: Vec::new(),
            start: now,
            next_template: 1,
            next_tip: 1,
        };
        world.new_tip();
        world
    }

    pub fn add(&mut self, mut peer: Peer) -> usize {
        let id = self.server.handle_connect(self.now);
        peer.connect(id, self.now);
        self.peers.push(peer);
        self.peers.len() - 1
    }

    pub fn disconnect(&mut self, peer: usize) {
        if let Some(id) = self.peers[peer].connection {
            self.server.handle_disconnect(id, &mut self.out);
            self.peers[peer].disconnect();
        }
    }

    pub fn reconnect(&mut self, peer: usize) {
        if self.peers[peer].connection.is_none() {
            let id = self.server.handle_connect(self.now);
            self.peers[peer].connect(id, self.now);
        }
    }

    fn update(&mut self, update: TemplateUpdate) {
        self.server.handle_template(&update, self.now).expect("a good template");
    }

    pub fn new_template(&mut self, future: bool) -> u64 {
        let template_id = self.next_template;
        self.next_template += 1;
        let template: Template = common::template(template_id, future);
        self.update(TemplateUpdate::NewTemplate(Arc::new(template)));
        template_id
    }

    /// A tip, with a template that was announced or with a new one.
    pub fn new_tip(&mut self) {
        let template_id = self.new_template(true);
        let elapsed = self.now.since(self.start).as_secs() as u32;
        let tip = PrevHash {
            header_timestamp: common::HEADER_TIMESTAMP + elapsed,
            ..common::prev_hash(template_id, self.next_tip)
        };
        self.next_tip = self.next_tip.wrapping_add(1);
        self.update(TemplateUpdate::SetNewPrevHash(Arc::new(tip)));
    }

    /// Lets time pass: frames arrive, devices hash, the server settles.
    pub fn step(&mut self, passed: Duration) {
        self.now = self.now + passed;
        let now = self.now;
        if self.server.poll_timeout().is_some_and(|timeout| timeout <= now) {
            self.server.handle_timeout(now, &Portable, &mut self.out);
        }
        for peer in &mut self.peers {
            peer.receive(now, &mut self.random);
            peer.hash(passed, now, &mut self.random);
            let Some(id) = peer.connection else { continue };
            while peer.to_server.front().is_some_and(|(arrival, _)| *arrival <= now) {
                let (_, frame) = peer.to_server.pop_front().expect("there is one");
                let (header, payload) = frame.split_first_chunk::<HEADER_LEN>().expect("a frame");
                let header = FrameHeader::parse(header);
                self.server.handle_frame(id, header, payload, now, &Portable, &mut self.out);
            }
        }
        // Slices of random size, so that frames of a fan-out and answers mix.
        let budget = 1 + self.random.below(4) as usize;
        self.server.settle(&Portable, now, &mut self.out);
        while self.server.poll_fan_out(budget, &Portable, &mut self.out) {}
        self.deliver();
    }

    /// Puts what the server sends on the wires: work before replies, as drivers may.
    pub fn deliver(&mut self) {
        let connections: BTreeMap<ConnectionId, usize> = self
            .peers
            .iter()
            .enumerate()
            .filter_map(|(index, peer)| Some((peer.connection?, index)))
            .collect();
        for turn in [Priority::Work, Priority::Reply] {
            for (to, _, frame) in self.out.frames().filter(|(_, priority, _)| *priority == turn) {
                if let Some(peer) = connections.get(&to).map(|index| &mut self.peers[*index]) {
                    let arrival = self.now + peer.latency;
                    peer.to_client.push_back((arrival, frame.to_vec()));
                }
            }
        }
        self.out.clear_frames();
        let events: Vec<Event> = self.out.drain_events().collect();
        for event in events {
            match event {
                Event::Close { connection, reason } => {
                    self.closed.push(reason);
                    if let Some(index) = connections.get(&connection) {
                        self.disconnect(*index);
                    }
                }
                Event::Solution(_) => panic!("nothing meets the tips' targets"),
                _ => {}
            }
        }
    }

    pub fn run(&mut self, time: Duration, step: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(step);
        }
    }

    /// Refused shares of all open channels, by code.
    pub fn rejected(&self) -> BTreeMap<String, u64> {
        let mut codes = BTreeMap::new();
        for device in self.peers.iter().flat_map(|peer| peer.devices.values()) {
            for (code, count) in &device.rejected {
                *codes.entry(code.clone()).or_default() += count;
            }
        }
        codes
    }
}
