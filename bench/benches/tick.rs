//! A shard's tick without sockets: received bytes in, sealed bytes out, for batches of shares over many connections, beside
//! the reference implementation's crates called in its pool's order.
//!
//! `cargo bench -p adit-bench --bench tick`. Each connection sends one share per tick: open, deframe, admit, hash, judge,
//! answer, seal. As a proxy's, all shares come from one connection in one piece. The clients' side (sealing the shares) is made
//! ahead, outside of what is timed. Wall time of one thread; the figure is per share.

mod sri;

use std::hint::black_box;
use std::time::{Duration, Instant};

use adit_aead::Aead;
use adit_bench::detached::World;
use adit_codec::frame::HEADER_LEN;
use adit_codec::noise::sealed_len;
use adit_engine::EngineLimits;
use adit_engine::transport::SocketId;
use adit_hasher::Hasher;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, measurement::WallTime};
use sri::{Downstream, Session};

/// Levels of merkle path, on both sides.
const DEPTH: usize = 12;

/// Shares after which both sides begin anew, or what remembers a proxy's shares would outgrow the caches.
const SHARES_PER_TIP: u32 = 100_000;

const BATCHES: [usize; 4] = [1, 16, 64, 256];

fn extended_world(connections: usize) -> World {
    let limits = EngineLimits { handshakes_per_second_max: u32::MAX, ..EngineLimits::default() };
    let mut world = World::empty(limits, Hasher::detect(), Aead::detect());
    for socket in 0..connections as u32 {
        world.join_extended(SocketId(socket));
    }
    world
}

/// From tick to tick other connections, so that their state comes from memory as it does in a pool.
fn ours(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, world: &mut World) {
    let connections = world.clients.len();
    let mut first = 0;
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new(format!("{name}, adit"), batch), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                let mut frames = vec![Vec::new(); batch];
                let mut sent = Vec::with_capacity(batch);
                for _ in 0..iterations {
                    world.seal_shares(first, &mut frames);
                    let begun = Instant::now();
                    world.share_tick(first, &mut frames, &mut sent);
                    spent += begun.elapsed();
                    assert_eq!(sent.len(), batch, "each connection is answered");
                    world.complete(&mut sent);
                    first = (first + batch) % connections;
                }
                spent
            });
        });
    }
}

/// A proxy's shares, which are opened as runs and answered together.
fn our_proxy(group: &mut BenchmarkGroup<'_, WallTime>, name: &str) {
    let mut world = extended_world(1);
    let mut number = 0;
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new(format!("{name}, adit"), batch), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                let mut received = vec![Vec::new()];
                let mut sent = Vec::new();
                for _ in 0..iterations {
                    if number >= SHARES_PER_TIP {
                        (world, number) = (extended_world(1), 0);
                    }
                    number += batch as u32;
                    received[0].clear();
                    for _ in 0..batch {
                        world.clients[0].share(&mut received[0]);
                    }
                    let begun = Instant::now();
                    world.share_tick(0, &mut received, &mut sent);
                    spent += begun.elapsed();
                    assert_eq!(sent.len(), 1, "one answer");
                    world.complete(&mut sent);
                }
                spent
            });
        });
    }
}

struct Theirs {
    connections: Vec<(Session, Downstream)>,
    template_id: u64,
    /// The shares of each connection so far.
    number: u32,
    first: usize,
}

impl Theirs {
    fn new(connections: usize, is_extended: bool) -> Self {
        let mut allocator = sri::allocator();
        let connections = (0..connections as u32)
            .map(|number| (Session::new(number), Downstream::new(&mut allocator, false, is_extended)))
            .collect();
        let mut new = Self { connections, template_id: 0, number: 0, first: 0 };
        new.take_work();
        new
    }

    fn take_work(&mut self) {
        self.template_id += 1;
        let (template, tip) = sri::work(self.template_id, DEPTH);
        for (_, downstream) in &mut self.connections {
            downstream.take_work(&template, &tip);
        }
        self.number = 0;
    }

    /// The time of one tick with one share from each of `frames.len()` connections, or with all of them from one.
    fn tick(&mut self, frames: &mut [Vec<u8>], shares_per_frame: usize) -> Duration {
        if self.number >= SHARES_PER_TIP {
            self.take_work();
        }
        let connections = self.connections.len();
        for (offset, bytes) in frames.iter_mut().enumerate() {
            let (session, downstream) = &mut self.connections[(self.first + offset) % connections];
            bytes.clear();
            for _ in 0..shares_per_frame {
                self.number += 1;
                let share = downstream.share(self.number);
                let start = bytes.len();
                bytes.resize(start + sealed_len(share.len() - HEADER_LEN), 0);
                session.client.sealer.seal_frame_into(&share, &mut bytes[start..]).expect("there is room");
            }
        }
        let begun = Instant::now();
        for (offset, bytes) in frames.iter().enumerate() {
            let (session, downstream) = &mut self.connections[(self.first + offset) % connections];
            let mut answers = Vec::with_capacity(shares_per_frame);
            session.receive(bytes, |msg_type, payload| answers.push(downstream.receive(msg_type, payload)));
            for answer in answers {
                black_box(session.send(answer));
            }
        }
        let spent = begun.elapsed();
        self.first = (self.first + frames.len()) % connections;
        spent
    }
}

fn theirs(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, theirs: &mut Theirs, is_proxy: bool) {
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        let (frames, shares_per_frame) = if is_proxy { (1, batch) } else { (batch, 1) };
        let mut frames = vec![Vec::new(); frames];
        group.bench_function(BenchmarkId::new(format!("{name}, SRI's crates"), batch), |bencher| {
            bencher.iter_custom(|iterations| {
                (0..iterations).map(|_| theirs.tick(&mut frames, shares_per_frame)).sum()
            });
        });
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30)
        .without_plots()
        .configure_from_args();
    let mut group = criterion.benchmark_group("tick");
    let name = "standard shares, 1000 connections";
    ours(&mut group, name, &mut World::new(1_000));
    theirs(&mut group, name, &mut Theirs::new(1_000, false), false);
    let name = "standard shares, 16000 connections";
    ours(&mut group, name, &mut World::new(16_000));
    let name = "extended shares, 1000 connections";
    ours(&mut group, name, &mut extended_world(1_000));
    theirs(&mut group, name, &mut Theirs::new(1_000, true), false);
    let name = "extended shares, one proxy";
    our_proxy(&mut group, name);
    theirs(&mut group, name, &mut Theirs::new(1, true), true);
    group.finish();
    criterion.final_summary();
}
