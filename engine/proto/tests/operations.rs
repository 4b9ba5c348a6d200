//! Random sequences of everything that can happen. Clients know only what they were sent (the mirrors check the
//! specification's rules on every frame) and foretell every verdict from that.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use adit_codec::frame::FrameHeader;
use adit_codec::message::{CloseChannel, SubmitSharesExtended, SubmitSharesStandard, UpdateChannel};
use adit_hasher::Target;
use adit_proto::mining::server::{ChannelId, ConnectionId, Event};
use common::mirror::{Channel, Mirror};
use common::{HEADER_TIMESTAMP, World, config, prev_hash, template};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Connect { standard_jobs: bool },
    Disconnect(usize),
    OpenStandard(usize),
    OpenExtended(usize, u16),
    Close(usize, usize),
    CloseGroup(usize, usize),
    CloseByOperator(usize, usize),
    Share { connection: usize, channel: usize, job: usize, nonce: u32, kind: u8 },
    Update(usize, usize, u8),
    SetTarget(usize, usize, u8),
    SetGroupTarget(usize, usize, u8),
    SetPrefix(usize, usize),
    Regroup(usize, usize),
    Template { future: bool },
    Tip { newest: bool },
    UnknownTip,
    FanOut(usize),
    Settle,
    Advance(u16),
    Garbage(usize, u8, Vec<u8>),
}

fn op() -> impl Strategy<Value = Op> {
    let at = 0..4_usize;
    let pick = 0..8_usize;
    prop_oneof![
        2 => any::<bool>().prop_map(|standard_jobs| Op::Connect { standard_jobs }),
        1 => at.clone().prop_map(Op::Disconnect),
        4 => at.clone().prop_map(Op::OpenStandard),
        4 => (at.clone(), 0..26_u16).prop_map(|(at, size)| Op::OpenExtended(at, size)),
        2 => (at.clone(), pick.clone()).prop_map(|(at, channel)| Op::Close(at, channel)),
        1 => (at.clone(), pick.clone()).prop_map(|(at, channel)| Op::CloseGroup(at, channel)),
        1 => (at.clone(), pick.clone()).prop_map(|(at, channel)| Op::CloseByOperator(at, channel)),
        24 => (at.clone(), pick.clone(), pick.clone(), 0..6_u32, 0..8_u8).prop_map(
            |(connection, channel, job, nonce, kind)| Op::Share { connection, channel, job, nonce, kind }
        ),
        2 => (at.clone(), pick.clone(), 0..4_u8).prop_map(|(at, channel, kind)| Op::Update(at, channel, kind)),
        3 => (at.clone(), pick.clone(), 0..3_u8).prop_map(|(at, channel, kind)| Op::SetTarget(at, channel, kind)),
        1 => (at.clone(), pick.clone(), 0..3_u8)
            .prop_map(|(at, channel, kind)| Op::SetGroupTarget(at, channel, kind)),
        2 => (at.clone(), pick.clone()).prop_map(|(at, channel)| Op::SetPrefix(at, channel)),
        1 => (at.clone(), pick).prop_map(|(at, channel)| Op::Regroup(at, channel)),
        4 => any::<bool>().prop_map(|future| Op::Template { future }),
        2 => any::<bool>().prop_map(|newest| Op::Tip { newest }),
        1 => Just(Op::UnknownTip),
        6 => (1..4_usize).prop_map(Op::FanOut),
        6 => Just(Op::Settle),
        3 => (0..20_000_u16).prop_map(Op::Advance),
        1 => (at, any::<u8>(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(at, msg_type, payload)| Op::Garbage(at, msg_type, payload)),
    ]
}

/// Targets that digests meet always, every other time, one time in four.
fn target(kind: u8) -> Target {
    let mut bytes = [0xff; 32];
    bytes[31] = [0xff, 0x7f, 0x3f][usize::from(kind % 3)];
    Target::from_le_bytes(bytes)
}

struct Client {
    id: ConnectionId,
    mirror: Mirror,
    /// What every channel submitted on the tip: digests that met their target.
    seen: BTreeMap<u32, BTreeSet<[u8; 32]>>,
    /// Verdicts that are still to come, by sequence number; `None` for an acceptance.
    awaited: BTreeMap<u32, (u32, Option<&'static str>)>,
    alive: bool,
}

/// The simulation: the server, its clients, and what the source of templates knows.
struct Run {
    world: World,
    clients: Vec<Client>,
    next_template: u64,
    next_tip: u8,
    futures: Vec<u64>,
    tip: [u8; 32],
    block_target: Target,
    sequence_number: u32,
    solutions: u64,
}

impl Run {
    fn new() -> Self {
        let mut config = config();
        config.limits.jobs_max = 1_000;
        config.limits.errors_max = u32::MAX;
        config.limits.channels_per_connection_max = 6;
        config.limits.first_channel_timeout = Duration::from_secs(1_000_000);
        config.limits.idle_timeout = Duration::from_secs(1_000_000);
        Self {
            world: World::new(config),
            clients: Vec::new(),
            next_template: 1,
            next_tip: 1,
            futures: Vec::new(),
            tip: [0; 32],
            block_target: target(2),
            sequence_number: 0,
            solutions: 0,
        }
    }

    fn client(&self, at: usize) -> Option<usize> {
        let alive: Vec<usize> = (0..self.clients.len()).filter(|i| self.clients[*i].alive).collect();
        alive.get(at % alive.len().max(1)).copied()
    }

    fn channel(&self, at: usize, channel: usize) -> Option<(usize, &Channel)> {
        let client = self.client(at)?;
        let channels = &self.clients[client].mirror.channels;
        channels.values().nth(channel % channels.len().max(1)).map(|channel| (client, channel))
    }

    fn announce(&mut self, future: bool) -> u64 {
        let id = self.next_template;
        self.next_template += 1;
        self.world.template(template(id, future)).expect("a good template");
        id
    }

    fn tip(&mut self, template_id: u64) -> bool {
        let mut tip = prev_hash(template_id, self.next_tip);
        self.next_tip += 1;
        tip.target = self.block_target;
        self.tip = tip.prev_hash;
        self.futures.clear();
        self.clients.iter_mut().for_each(|client| client.seen.clear());
        self.world.tip(tip).is_ok()
    }

    /// The verdict on a share of a known channel for a job of the mirror's; counts it as seen and as a block.
    fn foretell(
        &mut self,
        client: usize,
        channel: &Channel,
        job: u32,
        extranonce: &[u8],
        nonce: u32,
    ) -> Option<&'static str> {
        let active = channel.jobs[&job].active.expect("picked among the active");
        if channel.prev.as_ref().is_none_or(|prev| prev.prev_hash != self.tip) {
            return Some("stale-share");
        }
        let version = channel.jobs[&job].version;
        let digest = channel.digest(job, extranonce, version, active.min_ntime, nonce);
        let seen = self.clients[client].seen.entry(channel.id).or_default();
        let verdict = if !active.target.is_met_by(&digest) {
            Some("difficulty-too-low")
        } else if seen.insert(digest.0) {
            None
        } else {
            Some("duplicate-share")
        };
        if verdict != Some("duplicate-share") && self.block_target.is_met_by(&digest) {
            self.solutions += 1;
        }
        verdict
    }

    fn share(&mut self, at: usize, channel: usize, job: usize, nonce: u32, kind: u8) {
        let Some((client, channel)) = self.channel(at, channel) else { return };
        let channel = channel.clone();
        let active: Vec<u32> =
            channel.jobs.iter().filter(|(_, job)| job.active.is_some()).map(|(id, _)| *id).collect();
        let Some(&job) = active.get(job % active.len().max(1)) else { return };
        self.sequence_number += 1;
        let sequence_number = self.sequence_number;
        let id = self.clients[client].id;
        let extranonce = vec![nonce as u8 / 2; channel.extranonce_size];
        let stale = channel.prev.as_ref().is_none_or(|prev| prev.prev_hash != self.tip);
        let current = |code: &'static str| Some(if stale { "stale-share" } else { code });
        let standard = (!channel.extended).then(|| channel.standard(job, sequence_number, nonce));
        let extended = channel.extended.then(|| channel.extended(job, sequence_number, nonce, &extranonce));
        // Most are good; a few have one thing wrong.
        let expected = match kind {
            0 => Some("invalid-job-id"),
            1 => current("ntime-out-of-range"),
            2 => current("invalid-non-rollable-version-bit"),
            3 => Some("invalid-channel-id"),
            _ => self.foretell(client, &channel, job, &extranonce, nonce),
        };
        let job_id = if kind == 0 { 1_000_000 } else { job };
        // Below what any job may have: a channel that opens later is told a later first ntime than its job's.
        let ntime_of = |ntime: u32| if kind == 1 { HEADER_TIMESTAMP - 1 } else { ntime };
        let bits = u32::from(kind == 2);
        self.clients[client].awaited.insert(sequence_number, (channel.id, expected));
        match (standard, extended) {
            (Some(share), _) if kind == 3 => {
                let SubmitSharesStandard { channel_id, sequence_number, job_id, nonce, ntime, version } =
                    share;
                let other = SubmitSharesExtended {
                    channel_id,
                    sequence_number,
                    job_id,
                    nonce,
                    ntime,
                    version,
                    extranonce: &[],
                };
                self.world.send(id, &other);
            }
            (Some(share), _) => {
                let (ntime, version) = (ntime_of(share.ntime), share.version ^ bits);
                self.world.send(id, &SubmitSharesStandard { job_id, ntime, version, ..share });
            }
            (_, Some(share)) if kind == 3 => {
                let SubmitSharesExtended {
                    channel_id, sequence_number, job_id, nonce, ntime, version, ..
                } = share;
                let other =
                    SubmitSharesStandard { channel_id, sequence_number, job_id, nonce, ntime, version };
                self.world.send(id, &other);
            }
            (_, Some(share)) => {
                let (ntime, version) = (ntime_of(share.ntime), share.version ^ bits);
                self.world.send(id, &SubmitSharesExtended { job_id, ntime, version, ..share });
            }
            (None, None) => {}
        }
    }

    fn forget_channel(&mut self, client: usize, id: u32) {
        let client = &mut self.clients[client];
        client.mirror.close(id);
        client.awaited.retain(|_, (channel, _)| *channel != id);
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Connect { standard_jobs } => {
                if self.clients.iter().filter(|client| client.alive).count() < 4 {
                    self.read();
                    let id = self.world.connect(u32::from(standard_jobs));
                    let mirror = Mirror { standard_jobs, ..Mirror::default() };
                    let (seen, awaited) = (BTreeMap::new(), BTreeMap::new());
                    self.clients.push(Client { id, mirror, seen, awaited, alive: true });
                }
            }
            Op::Disconnect(at) => {
                if let Some(client) = self.client(at) {
                    self.clients[client].alive = false;
                    let id = self.clients[client].id;
                    self.world.server.handle_disconnect(id, &mut self.world.out);
                }
            }
            Op::OpenStandard(at) => {
                if let Some(client) = self.client(at) {
                    self.world.open_standard(self.clients[client].id);
                }
            }
            Op::OpenExtended(at, size) => {
                if let Some(client) = self.client(at) {
                    self.world.open_extended(self.clients[client].id, size);
                }
            }
            Op::Share { connection, channel, job, nonce, kind } => {
                self.share(connection, channel, job, nonce, kind);
            }
            Op::Template { future } => {
                let id = self.announce(future);
                if future {
                    self.futures.push(id);
                }
            }
            Op::Tip { newest } => {
                let named = if newest { self.futures.last() } else { self.futures.first() };
                if let Some(named) = named.copied() {
                    assert!(self.tip(named), "the template is pending");
                }
            }
            Op::UnknownTip => {
                assert!(!self.tip(1_000_000), "nobody knows that template");
            }
            Op::FanOut(budget) => {
                self.world.server.poll_fan_out(budget, &self.world.hashes, &mut self.world.out);
            }
            Op::Settle => self.world.settle(),
            Op::Advance(millis) => {
                self.world.advance(f64::from(millis) / 1e3);
                self.world.timeout();
            }
            Op::Garbage(at, msg_type, ref payload) => {
                if let Some(client) = self.client(at) {
                    let header = FrameHeader {
                        extension_type: 0x4000,
                        channel_msg: msg_type % 2 == 0,
                        msg_type,
                        payload_len: payload.len() as u32,
                    };
                    self.world.send_raw(self.clients[client].id, header, payload);
                }
            }
            _ => self.run_on_channel(op),
        }
        self.read();
    }

    fn run_on_channel(&mut self, op: &Op) {
        let (&Op::Close(at, channel)
        | &Op::CloseGroup(at, channel)
        | &Op::CloseByOperator(at, channel)
        | &Op::Update(at, channel, _)
        | &Op::SetTarget(at, channel, _)
        | &Op::SetGroupTarget(at, channel, _)
        | &Op::SetPrefix(at, channel)
        | &Op::Regroup(at, channel)) = op
        else {
            return;
        };
        let Some((client, channel)) = self.channel(at, channel) else { return };
        let channel = channel.clone();
        let id = self.clients[client].id;
        let (server, hashes, out) = (&mut self.world.server, &self.world.hashes, &mut self.world.out);
        match *op {
            Op::Close(..) => {
                self.world.send(id, &CloseChannel { channel_id: channel.id, reason_code: b"bye" });
                self.forget_channel(client, channel.id);
            }
            Op::CloseGroup(..) => {
                self.world.send(id, &CloseChannel { channel_id: channel.group, reason_code: b"bye" });
                let channels = self.clients[client].mirror.channels.values();
                let members: Vec<u32> = channels.filter(|c| c.group == channel.group).map(|c| c.id).collect();
                for member in members {
                    self.forget_channel(client, member);
                }
            }
            Op::CloseByOperator(..) => {
                server.close_channel(id, ChannelId(channel.id), "rest", self.world.now, out).expect("open");
                self.read();
                self.clients[client].awaited.retain(|_, (awaiting, _)| *awaiting != channel.id);
            }
            Op::Update(_, _, kind) => {
                let maximum_target = &target(kind).to_le_bytes();
                let nominal_hash_rate = if kind == 3 { f32::NAN } else { f32::from(kind) };
                let channel_id = channel.id;
                self.world.send(id, &UpdateChannel { channel_id, nominal_hash_rate, maximum_target });
            }
            Op::SetTarget(_, _, kind) => {
                server.set_target(id, ChannelId(channel.id), target(kind), hashes, out).expect("open");
            }
            Op::SetGroupTarget(_, _, kind) => {
                server.set_target(id, ChannelId(channel.group), target(kind), hashes, out).expect("open");
            }
            Op::SetPrefix(..) => {
                server.set_extranonce_prefix(id, ChannelId(channel.id), hashes, out).expect("open");
            }
            Op::Regroup(..) => {
                let size = |c: &Channel| c.extranonce_prefix.len() + c.extranonce_size;
                let channels = self.clients[client].mirror.channels.values();
                let alike: Vec<ChannelId> =
                    channels.filter(|c| size(c) == size(&channel)).map(|c| ChannelId(c.id)).take(3).collect();
                // Refused where standard jobs are required; that is said elsewhere.
                let _ = server.set_group_channel(id, &alike, hashes, out);
            }
            _ => {}
        }
    }

    /// Hands all frames to their clients and compares the answers with what they foretold.
    fn read(&mut self) {
        let frames = self.world.take();
        for client in &mut self.clients {
            let own: Vec<_> = frames.iter().filter(|frame| frame.to == client.id).cloned().collect();
            if !client.alive {
                continue;
            }
            client.mirror.read_reordered(&own);
            for (channel, sequence_number, code) in client.mirror.errors.drain(..) {
                let expected = client.awaited.remove(&sequence_number);
                assert_eq!(expected, Some(leak((channel, Some(code.as_str())))), "share {sequence_number}");
            }
            for (channel, last, count, _) in client.mirror.successes.drain(..) {
                let mut accepted = 0;
                client.awaited.retain(|sequence_number, (of, verdict)| {
                    let done = *of == channel && verdict.is_none() && *sequence_number <= last;
                    accepted += u32::from(done);
                    !done
                });
                assert_eq!(accepted, count, "channel {channel}");
            }
        }
    }

    fn finish(mut self) {
        self.world.fan_out();
        self.world.settle();
        self.read();
        for client in &self.clients {
            assert!(!client.alive || client.awaited.is_empty(), "unanswered: {:?}", client.awaited);
        }
        let live = self.clients.iter().filter(|client| client.alive);
        let open: usize = live.map(|client| client.mirror.channels.len()).sum();
        assert_eq!(self.world.server.channel_count(), open);
        // Everybody has caught up with the tip, or was left without work by a tip whose template is not there.
        for client in self.clients.iter().filter(|client| client.alive) {
            let tips: BTreeSet<_> =
                client.mirror.channels.values().map(|c| c.prev.as_ref().map(|prev| prev.prev_hash)).collect();
            assert!(tips.len() <= 2, "{tips:?}");
        }
        assert_eq!(self.world.server.counters().solutions, self.solutions);
        for client in self.clients.iter().filter(|client| client.alive) {
            self.world.server.handle_disconnect(client.id, &mut self.world.out);
        }
        self.world.take();
        let counters = *self.world.server.counters();
        assert_eq!(counters.channels_opened, counters.channels_closed);
        assert_eq!((self.world.server.connection_count(), self.world.server.channel_count()), (0, 0));
        let events = self.world.take_events();
        let count = |kind: fn(&Event) -> bool| events.iter().filter(|event| kind(event)).count() as u64;
        assert_eq!(count(|event| matches!(event, Event::ChannelOpened { .. })), counters.channels_opened);
        assert_eq!(count(|event| matches!(event, Event::ChannelClosed { .. })), counters.channels_closed);
        assert_eq!(count(|event| matches!(event, Event::Solution(_))), counters.solutions);
        assert_eq!(count(|event| matches!(event, Event::Close { .. })), 0, "nobody broke the protocol");
    }
}

/// Verdicts are compared with the codes that were foretold, which live as long as the program.
fn leak((channel, code): (u32, Option<&str>)) -> (u32, Option<&'static str>) {
    const CODES: [&str; 7] = [
        "stale-share",
        "difficulty-too-low",
        "duplicate-share",
        "invalid-job-id",
        "ntime-out-of-range",
        "invalid-non-rollable-version-bit",
        "invalid-channel-id",
    ];
    let known = code.map(|code| *CODES.iter().find(|known| **known == code).unwrap_or(&"unforeseen"));
    (channel, known)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn clients_foretell_every_verdict(ops in prop::collection::vec(op(), 1..160)) {
        let mut run = Run::new();
        for op in &ops {
            run.run(op);
        }
        run.finish();
    }

    #[test]
    fn no_frame_can_break_a_server(
        frames in prop::collection::vec((0..3_u16, 0..0x80_u8, prop::collection::vec(any::<u8>(), 0..150)), 1..40)
    ) {
        let mut world = World::with_work(config());
        let mut id = world.connect(0);
        world.open_standard(id);
        world.open_extended(id, 8);
        for (extension_type, msg_type, payload) in frames {
            let payload_len = payload.len() as u32;
            let header = FrameHeader { extension_type, channel_msg: false, msg_type, payload_len };
            world.send_raw(id, header, &payload);
            world.settle();
            world.take();
            if world.take_events().iter().any(|event| matches!(event, Event::Close { .. })) {
                world.server.handle_disconnect(id, &mut world.out);
                prop_assert_eq!(world.server.channel_count(), 0);
                id = world.connect(0);
                world.open_standard(id);
                world.open_extended(id, 8);
            }
        }
    }
}
