//! Standard jobs for many connections: their merkle roots are computed side by side, and each is its channel's own.

mod common;

use std::cell::RefCell;

use adit_codec::frame::{FrameHeader, HEADER_LEN};
use adit_codec::message::OpenStandardMiningChannel;
use adit_codec::{encode_frame, frame_len};
use adit_hasher::{BatchHash, CoinbaseJob, Digest, HeaderBytes, Portable, Target, merkle_root_from_path};
use adit_proto::mining::server::{ChannelId, ConnectionId};
use common::mirror::{Body, Mirror};
use common::{World, config, prev_hash, template};

const CONNECTIONS: usize = 150;

/// Hashes, and counts how many merkle roots were asked for at a time.
#[derive(Default)]
struct Counting(RefCell<Vec<usize>>);

impl BatchHash for Counting {
    fn merkle_roots(&self, job: &CoinbaseJob, extranonces: &[u8], roots: &mut [[u8; 32]]) {
        self.0.borrow_mut().push(roots.len());
        Portable.merkle_roots(job, extranonces, roots);
    }

    fn header_digests(&self, headers: &[HeaderBytes], digests: &mut [Digest]) {
        Portable.header_digests(headers, digests);
    }

    fn scan_nonces(
        &self,
        header: &HeaderBytes,
        first_nonce: u32,
        count: u32,
        target: &Target,
        found: &mut Vec<u32>,
        max_found: usize,
    ) -> u32 {
        Portable.scan_nonces(header, first_nonce, count, target, found, max_found)
    }
}

/// Connections that require standard jobs, the last of which has some channels more; and one in a group, which is told
/// what roots are made of.
struct Devices {
    world: World,
    mirrors: Vec<(ConnectionId, Mirror)>,
}

impl Devices {
    fn new() -> Self {
        let mut world = World::with_work(config());
        let mirrors = (0..=CONNECTIONS)
            .map(|index| {
                let standard_jobs = index < CONNECTIONS;
                let id = world.connect(u32::from(standard_jobs));
                for _ in 0..if index == CONNECTIONS - 1 { 5 } else { 1 } {
                    world.open_standard(id);
                }
                let mut mirror = Mirror { standard_jobs, ..Mirror::default() };
                mirror.read_all(&world.take());
                (id, mirror)
            })
            .collect();
        Self { world, mirrors }
    }

    fn read(&mut self) {
        for frame in self.world.take() {
            let mirror = self.mirrors.iter_mut().find(|(id, _)| *id == frame.to);
            mirror.expect("a connection of this test").1.read(&frame);
        }
    }

    /// Holds every channel's merkle root of a job against the coinbase that the group was told; how many there are.
    fn check_roots(&self, job: u32) -> usize {
        let (_, grouped) = self.mirrors.last().expect("the group");
        let Body::Coinbase { prefix, suffix, path, .. } = &grouped.channels[&64].jobs[&job].body else {
            panic!("a group has extended jobs");
        };
        let channels = self.mirrors[..CONNECTIONS].iter().flat_map(|(_, mirror)| mirror.channels.values());
        channels
            .map(|channel| {
                let job = &channel.jobs[&job];
                let coinbase = [prefix, job.extranonce_prefix.as_slice(), suffix].concat();
                let root = merkle_root_from_path(&Digest::of(&coinbase).0, path);
                assert_eq!(job.body, Body::Root(root), "channel {} of {CONNECTIONS} connections", channel.id);
            })
            .count()
    }
}

#[test]
fn roots_of_many_connections_are_computed_together() {
    let mut devices = Devices::new();
    let hashes = Counting::default();
    devices.world.template(template(2, true)).expect("a good template");
    devices.world.tip(prev_hash(2, 2)).expect("a known template");
    devices.world.template(template(3, false)).expect("a good template");
    while devices.world.server.poll_fan_out(7, &hashes, &mut devices.world.out) {}
    devices.read();
    let channels = CONNECTIONS + 4;
    assert_eq!((devices.check_roots(2), devices.check_roots(3)), (channels, channels));
    let asked = hashes.0.into_inner();
    assert_eq!(asked.iter().sum::<usize>(), 2 * channels, "none twice: {asked:?}");
    // The first batch of the round's end is short, for each of two jobs.
    assert!(asked.len() <= 2 * channels.div_ceil(64) + 2, "{asked:?}");
}

#[test]
fn what_changes_meanwhile_gets_no_wrong_root() {
    let mut devices = Devices::new();
    let hashes = Counting::default();
    devices.world.template(template(2, false)).expect("a good template");
    assert!(devices.world.server.poll_fan_out(1, &hashes, &mut devices.world.out));
    devices.read();
    let told = |devices: &Devices| {
        let has = |mirror: &Mirror| mirror.channels[&64].jobs.contains_key(&2);
        devices.mirrors[..CONNECTIONS].iter().filter(|(_, mirror)| has(mirror)).count()
    };
    assert_eq!(told(&devices), 1, "and the roots of others are there");
    // Every third of them is told out of its turn, and gets another prefix, under which the next job is announced.
    for (id, _) in devices.mirrors.iter().step_by(3) {
        let out = &mut devices.world.out;
        devices.world.server.set_extranonce_prefix(*id, ChannelId(64), &hashes, out).expect("it is open");
    }
    devices.read();
    devices.world.template(template(3, false)).expect("a good template");
    while devices.world.server.poll_fan_out(7, &hashes, &mut devices.world.out) {}
    devices.read();
    let channels = CONNECTIONS + 4;
    assert_eq!((devices.check_roots(2), devices.check_roots(3)), (channels, channels));
    let replaced = devices.mirrors[..CONNECTIONS].iter().filter(|(_, mirror)| {
        let jobs = &mirror.channels[&64].jobs;
        jobs[&2].extranonce_prefix != jobs[&3].extranonce_prefix
    });
    assert_eq!(replaced.count(), CONNECTIONS / 3);
}

#[test]
fn who_leaves_is_not_waited_for() {
    let mut devices = Devices::new();
    let hashes = Counting::default();
    devices.world.template(template(2, false)).expect("a good template");
    assert!(devices.world.server.poll_fan_out(1, &hashes, &mut devices.world.out));
    devices.read();
    let gone: Vec<_> = devices.mirrors.extract_if(..CONNECTIONS - 1, |(id, _)| id.slot % 2 == 0).collect();
    for (id, _) in &gone {
        devices.world.server.handle_disconnect(*id, &mut devices.world.out);
    }
    devices.world.take_events();
    // Others come to their places, whose channels have prefixes of their own.
    for _ in 0..gone.len() {
        let id = devices.world.connect(1);
        devices.world.open_standard(id);
        devices.mirrors.insert(0, (id, Mirror { standard_jobs: true, ..Mirror::default() }));
        devices.read();
    }
    devices.world.template(template(3, false)).expect("a good template");
    while devices.world.server.poll_fan_out(7, &hashes, &mut devices.world.out) {}
    devices.read();
    assert_eq!(devices.check_roots(3), CONNECTIONS + 4);
    let mut messages = 0;
    for (_, mirror) in &devices.mirrors {
        messages += mirror.channels.values().filter(|channel| channel.last_job == Some(3)).count();
    }
    assert_eq!(messages, CONNECTIONS + 5);
}

/// Opens standard channels on a connection, one after the other.
fn open(world: &mut World, id: ConnectionId, count: u32, hashes: &Counting) {
    for request_id in 0..count {
        let message = OpenStandardMiningChannel {
            request_id,
            user_identity: b"farm",
            nominal_hash_rate: 1.0,
            max_target: &[0xff; 32],
        };
        let mut frame = vec![0; frame_len(&message)];
        encode_frame(&message, &mut frame).expect("it fits");
        let header = FrameHeader::parse(frame[..HEADER_LEN].try_into().expect("six bytes"));
        world.server.handle_frame(id, header, &frame[HEADER_LEN..], world.now, hashes, &mut world.out);
    }
}

#[test]
fn channels_that_open_one_after_the_other_have_their_roots_computed_together() {
    let mut world = World::with_work(config());
    let hashes = Counting::default();
    let id = world.connect(0);
    let mut mirror = Mirror::default();
    open(&mut world, id, 300, &hashes);
    // Other channels take prefixes in between.
    for _ in 0..5 {
        world.open_extended(id, 4);
        open(&mut world, id, 3, &hashes);
    }
    mirror.read_all(&world.take());
    let asked = hashes.0.borrow().clone();
    let opened = 315;
    assert!(asked.len() <= 14, "{asked:?}");
    // For nothing are those that extended channels took, and the rest of the last batch.
    assert!(asked.iter().sum::<usize>() < opened + 5 + 64, "{asked:?}");
    // The group is told what the roots are made of when the job is repeated.
    world.advance(31.0);
    world.timeout();
    world.fan_out();
    mirror.read_all(&world.take());
    let standard: Vec<_> = mirror.channels.values().filter(|channel| !channel.extended).collect();
    assert_eq!(standard.len(), opened);
    for channel in standard {
        let Body::Coinbase { prefix, suffix, path, .. } = &channel.jobs[&2].body else {
            panic!("a group has extended jobs");
        };
        let coinbase = [prefix, channel.jobs[&1].extranonce_prefix.as_slice(), suffix].concat();
        let root = merkle_root_from_path(&Digest::of(&coinbase).0, path);
        assert_eq!(channel.jobs[&1].body, Body::Root(root), "channel {}", channel.id);
    }
}
