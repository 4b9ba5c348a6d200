//! A pool whose template source goes away and comes back: miners are served, and no block is lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use adit_codec::url::PoolUrl;
use adit_loadgen::miner::{Miner, MinerConfig};
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::Solution;
use adit_roles::config::{Authority, PoolConfig, Settings};
use adit_roles::keys;
use adit_roles::nodes::embedded::{Chain, EmbeddedConfig, EmbeddedNode};
use adit_roles::nodes::{SourceUpdate, Submission, TemplateSource, TemplateTransactions};
use adit_roles::pool::{Meter, Pool};
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};

const PATIENCE: Duration = Duration::from_secs(60);

/// A node behind a line that can be cut.
struct Line {
    node: EmbeddedNode,
    is_cut: Arc<AtomicBool>,
    updates: Receiver<SourceUpdate>,
}

impl Line {
    fn answer(&self, ask: impl FnOnce() -> Receiver<Submission>) -> Receiver<Submission> {
        if !self.is_cut.load(Ordering::SeqCst) {
            return ask();
        }
        let (sender, receiver) = bounded(1);
        sender.send(Submission::Failed { reason: "the line is cut".to_owned() }).unwrap();
        receiver
    }
}

impl TemplateSource for Line {
    fn name(&self) -> &str {
        "line"
    }

    fn updates(&self) -> Receiver<SourceUpdate> {
        self.updates.clone()
    }

    fn want(&self, class: ClassId, reserve: Reserve) {
        self.node.want(class, reserve);
    }

    fn unwant(&self, class: ClassId) {
        self.node.unwant(class);
    }

    fn submit(&self, solution: Arc<Solution>) -> Receiver<Submission> {
        self.answer(|| self.node.submit(solution))
    }

    fn submit_block(&self, block: Arc<[u8]>) -> Receiver<Submission> {
        self.answer(|| self.node.submit_block(block))
    }

    fn transactions(&self, template_id: u64) -> Option<TemplateTransactions> {
        self.node.transactions(template_id)
    }

    fn shutdown(self: Box<Self>) {
        Box::new(self.node).shutdown();
    }
}

/// Passes the node's reports on.
fn forward(node: &EmbeddedNode) -> (Sender<SourceUpdate>, Receiver<SourceUpdate>) {
    let (sender, receiver) = unbounded();
    let (from, to) = (node.updates(), sender.clone());
    std::thread::spawn(move || from.iter().try_for_each(|update| to.send(update)));
    (sender, receiver)
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn miners_are_served_while_the_source_is_away_and_blocks_are_offered_again() {
    let dir = tempfile::tempdir().unwrap();
    let node = EmbeddedNode::start(EmbeddedConfig::new(Chain::Regtest)).unwrap();
    let (reports, updates) = forward(&node);
    let is_cut = Arc::new(AtomicBool::new(false));
    let source = Line { node, is_cut: Arc::clone(&is_cut), updates };

    let mut settings = Settings::default();
    settings.pool.listen = "127.0.0.1:0".parse().unwrap();
    settings.pool.payout = "raw(51)".to_owned();
    settings.pool.shutdown_grace_s = 1.0;
    settings.vardiff.shares_per_minute = 300.0;
    settings.vardiff.difficulty_min = 0.0;
    settings.limits.connections_max = 100;
    settings.journal.dir = dir.path().join("journal");
    let secret = keys::generate_authority();
    let authority = Authority::Present { secret, static_secret: None, validity: Duration::from_secs(3_600) };
    let config = PoolConfig::from_settings(settings, authority).unwrap();
    let (told, outcomes) = unbounded();
    let pool = Pool::start_with(
        config,
        Box::new(source),
        Box::new(move |report| told.send(report.clone()).unwrap()),
    );
    let pool = pool.unwrap();
    let url =
        PoolUrl { host: "127.0.0.1".to_owned(), port: pool.local_addr().port(), authority: pool.authority() };
    let miner = Miner::start(MinerConfig { nominal_hash_rate: Some(2e6), ..MinerConfig::new(url) }).unwrap();

    let first = outcomes.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(first.outcome, Submission::Accepted { height: 1, .. }), "{first:?}");

    is_cut.store(true, Ordering::SeqCst);
    reports.send(SourceUpdate::Down { reason: "the line is cut".to_owned() }).unwrap();
    wait_until("the pool says so", || !pool.status(&mut Meter::default()).source_is_up);
    let lost = loop {
        let report = outcomes.recv_timeout(PATIENCE).unwrap();
        if matches!(report.outcome, Submission::Failed { .. }) {
            break report.hash;
        }
    };
    let before = miner.snapshot().shares_accepted;
    wait_until("shares go on", || miner.snapshot().shares_accepted >= before + 2);

    is_cut.store(false, Ordering::SeqCst);
    reports.send(SourceUpdate::Up).unwrap();
    let again = loop {
        let report = outcomes.recv_timeout(PATIENCE).unwrap();
        if report.hash == lost {
            break report.outcome;
        }
    };
    // What was found first on the tip is the block; what was found while it waited may have overtaken it.
    assert!(matches!(again, Submission::Accepted { .. } | Submission::Stale { .. }), "{again:?}");
    wait_until("the pool says so", || pool.status(&mut Meter::default()).source_is_up);

    let summary = miner.stop();
    assert_eq!(summary.connections, 1, "nobody was disconnected: {summary}");
    assert_eq!(pool.stop().threads_failed, 0);
}
