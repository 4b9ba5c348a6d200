//! The server's boundary: shares from plaintext frame to answer, by merkle path depth and batch size, beside the reference
//! implementation's parser and its channels' `validate_share`.
//!
//! `cargo bench -p adit-bench --bench shares`. Each share of a batch is of another connection, is accepted and is answered.
//! Ours are admitted one by one and hashed as one batch; theirs are validated one by one. Neither side opens or seals.

mod sri;

use std::hint::black_box;
use std::time::{Duration, Instant};

use adit_bench::plain::{Channel, PlainServer};
use adit_hasher::Hasher;
use codec_sv2::Encoder;
use criterion::{BenchmarkId, Criterion, Throughput};
use sri::Downstream;

/// Shares of a channel on one tip: what remembers them stays of the same size on both sides.
const SHARES_PER_TIP: u32 = 1_000;

trait Side {
    fn new(connections: usize, depth: usize, is_extended: bool) -> Self;
    /// One share of each connection.
    fn shares(&self, number: u32) -> Vec<Vec<u8>>;
    fn receive(&mut self, shares: &mut [Vec<u8>]);
}

struct Ours {
    server: PlainServer<Hasher>,
    channels: Vec<Channel>,
}

impl Side for Ours {
    fn new(connections: usize, depth: usize, is_extended: bool) -> Self {
        let mut server = PlainServer::new(Hasher::detect(), depth);
        let channels = (0..connections).map(|_| server.open(0, is_extended)).collect();
        Self { server, channels }
    }

    fn shares(&self, number: u32) -> Vec<Vec<u8>> {
        self.channels.iter().map(|channel| channel.share(number)).collect()
    }

    fn receive(&mut self, shares: &mut [Vec<u8>]) {
        for (channel, share) in self.channels.iter().zip(shares) {
            self.server.receive_share(channel, share);
        }
        self.server.settle();
        black_box(&self.server.out);
        self.server.forget_frames();
    }
}

struct Theirs {
    downstreams: Vec<Downstream>,
    encoder: Encoder,
}

impl Side for Theirs {
    fn new(connections: usize, depth: usize, is_extended: bool) -> Self {
        let mut allocator = sri::allocator();
        let (template, tip) = sri::work(1, depth);
        let mut downstreams: Vec<Downstream> =
            (0..connections).map(|_| Downstream::new(&mut allocator, false, is_extended)).collect();
        for downstream in &mut downstreams {
            downstream.take_work(&template, &tip);
        }
        Self { downstreams, encoder: Encoder::new() }
    }

    fn shares(&self, number: u32) -> Vec<Vec<u8>> {
        self.downstreams.iter().map(|downstream| downstream.share(number)).collect()
    }

    fn receive(&mut self, shares: &mut [Vec<u8>]) {
        for (downstream, share) in self.downstreams.iter_mut().zip(shares) {
            let (msg_type, payload) = sri::split(share);
            let answer = downstream.receive(msg_type, payload);
            black_box(self.encoder.encode(answer).expect("room for the frame"));
        }
    }
}

/// The time of so many batches alone, without what is prepared for them.
fn time<S: Side>(iterations: u64, batch: usize, depth: usize, is_extended: bool) -> Duration {
    let mut side = S::new(batch, depth, is_extended);
    let (mut spent, mut number) = (Duration::ZERO, 0);
    for _ in 0..iterations {
        if number == SHARES_PER_TIP {
            (side, number) = (S::new(batch, depth, is_extended), 0);
        }
        number += 1;
        let mut shares = side.shares(number);
        let begun = Instant::now();
        side.receive(&mut shares);
        spent += begun.elapsed();
    }
    spent
}

fn shares(criterion: &mut Criterion, name: &str, depths: &[usize], is_extended: bool) {
    for depth in depths {
        let mut group = criterion.benchmark_group(format!("{name}, depth {depth}"));
        for batch in [1, 4, 16, 64, 256] {
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(BenchmarkId::new("adit", batch), |bencher| {
                bencher.iter_custom(|iterations| time::<Ours>(iterations, batch, *depth, is_extended));
            });
            group.bench_function(BenchmarkId::new("channels_sv2", batch), |bencher| {
                bencher.iter_custom(|iterations| time::<Theirs>(iterations, batch, *depth, is_extended));
            });
        }
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
        .sample_size(20)
        .without_plots()
        .configure_from_args();
    shares(&mut criterion, "standard shares", &[12], false);
    shares(&mut criterion, "extended shares", &[0, 4, 8, 12], true);
    criterion.final_summary();
}
