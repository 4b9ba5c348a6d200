//! The way of a job: one template and its tip to the frames of many connections, as group jobs and as standard jobs, beside
//! the reference implementation's job factory and channels.
//!
//! `cargo bench -p adit-bench --bench jobs`. Each connection has one channel and is sent two frames: the job, and the
//! SetNewPrevHash that activates it. `frames` ends with the encoded frames, `sealed` with what goes to the sockets.
//! Throughput is in connections.

mod sri;

use std::hint::black_box;
use std::time::{Duration, Instant};

use adit_aead::Aead;
use adit_bench::detached::{World, work};
use adit_bench::plain::{PlainServer, REQUIRES_STANDARD_JOBS};
use adit_engine::EngineLimits;
use adit_engine::transport::SocketId;
use adit_hasher::Hasher;
use codec_sv2::Encoder;
use criterion::{BenchmarkId, Criterion, Throughput};
use sri::{Downstream, Session};

/// Levels of merkle path, on both sides.
const DEPTH: usize = 12;

fn flags(requires_standard_jobs: bool) -> u32 {
    if requires_standard_jobs { REQUIRES_STANDARD_JOBS } else { 0 }
}

fn plain_server(connections: usize, requires_standard_jobs: bool) -> PlainServer<Hasher> {
    let mut server = PlainServer::new(Hasher::detect(), DEPTH);
    for _ in 0..connections {
        server.open(flags(requires_standard_jobs), false);
    }
    server
}

fn world(connections: usize, requires_standard_jobs: bool) -> World {
    let limits = EngineLimits { handshakes_per_second_max: u32::MAX, ..EngineLimits::default() };
    let mut world = World::empty(limits, Hasher::detect(), Aead::detect());
    for socket in 0..connections as u32 {
        world.join(SocketId(socket), flags(requires_standard_jobs), 1);
    }
    world
}

fn downstreams(connections: usize, requires_standard_jobs: bool) -> Vec<Downstream> {
    let mut allocator = sri::allocator();
    (0..connections).map(|_| Downstream::new(&mut allocator, requires_standard_jobs, false)).collect()
}

fn fan_out(criterion: &mut Criterion, requires_standard_jobs: bool) {
    let jobs = if requires_standard_jobs { "standard jobs" } else { "group jobs" };
    let mut group = criterion.benchmark_group(format!("a tip, {jobs}"));
    for connections in [1, 32, 1_000] {
        group.throughput(Throughput::Elements(connections as u64));
        let mut template_id = 1;
        let mut server = plain_server(connections, requires_standard_jobs);
        group.bench_function(BenchmarkId::new("frames, adit", connections), |bencher| {
            bencher.iter(|| {
                template_id += 1;
                server.take_work(template_id);
                server.fan_out();
                black_box(&server.out);
                server.forget_frames();
            });
        });
        let mut theirs = downstreams(connections, requires_standard_jobs);
        let mut encoder = Encoder::new();
        group.bench_function(BenchmarkId::new("frames, channels_sv2", connections), |bencher| {
            bencher.iter(|| {
                template_id += 1;
                let (template, tip) = sri::work(template_id, DEPTH);
                for downstream in &mut theirs {
                    for frame in downstream.take_work(&template, &tip) {
                        black_box(encoder.encode(frame).expect("room for the frame"));
                    }
                }
            });
        });
        let mut world = world(connections, requires_standard_jobs);
        let mut sent = Vec::with_capacity(2 * connections);
        group.bench_function(BenchmarkId::new("sealed, adit", connections), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    template_id += 1;
                    let (template, tip) = work(template_id);
                    let begun = Instant::now();
                    world.work_tick(&[template, tip], &mut sent);
                    spent += begun.elapsed();
                    assert_eq!(sent.len(), connections, "one send for each connection");
                    world.complete(&mut sent);
                }
                spent
            });
        });
        let mut sessions: Vec<Session> = (0..connections as u32).map(Session::new).collect();
        group.bench_function(
            BenchmarkId::new("sealed, channels_sv2 and codec_sv2", connections),
            |bencher| {
                bencher.iter(|| {
                    template_id += 1;
                    let (template, tip) = sri::work(template_id, DEPTH);
                    for (downstream, session) in theirs.iter_mut().zip(&mut sessions) {
                        for frame in downstream.take_work(&template, &tip) {
                            black_box(session.send(frame));
                        }
                    }
                });
            },
        );
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
        .sample_size(20)
        .without_plots()
        .configure_from_args();
    fan_out(&mut criterion, false);
    fan_out(&mut criterion, true);
    criterion.final_summary();
}
