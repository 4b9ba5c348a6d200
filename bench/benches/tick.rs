//! A shard's tick without sockets: received bytes in, sealed bytes out, for batches of shares over many connections.
//!
//! Each connection sends one standard share per tick: open, deframe, admit, hash, judge, answer, seal. The clients' side (sealing
//! the shares) is made ahead, outside of what is timed. Wall time of one thread; the figure is per share.

#![allow(missing_docs, reason = "criterion's macros make public items")]

#[path = "../../engine/tests/common/detached.rs"]
mod detached;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use detached::World;

fn tick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tick");
    for connections in [1_000, 16_000] {
        let mut world = World::new(connections);
        // From tick to tick other connections, so that their state comes from memory as it does in a pool.
        let mut first = 0;
        for batch in [1, 16, 64, 256] {
            group.throughput(Throughput::Elements(batch as u64));
            let id = BenchmarkId::new(format!("standard shares, {connections} connections"), batch);
            group.bench_function(id, |bencher| {
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
    group.finish();
}

criterion_group!(benches, tick);
criterion_main!(benches);
