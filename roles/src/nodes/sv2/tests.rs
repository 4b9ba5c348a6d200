//! The provider's state in virtual time: what it announces, where solutions go, what becomes of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_hasher::{Digest, Target, merkle_root_from_path};
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::Solution;
use adit_proto::template::{PrevHash, Template, TemplateUpdate};
use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use crossbeam::channel::{Receiver, bounded};
use tokio::sync::mpsc;

use super::checker::{self, Job};
use super::connection::{Command, LinkId, Order, Report, What};
use super::lost::Lost;
use super::provider::{CONNECTIONS_MAX, Provider, Wanted, constraints_of};
use super::transactions::{Keeper, Store};
use crate::nodes::feed::Feed;
use crate::nodes::{SourceUpdate, Submission, TemplateTransactions, assemble_block};

const POOL: ClassId = ClassId(0);
const REWARD_SAT: u64 = 5_000_000_000;

fn reserve(reserved_weight: u64) -> Reserve {
    Reserve { reserved_weight, max_additional_sigops: 4 }
}

/// The push of a height above 16 and below 128.
fn prefix(height: u32) -> Vec<u8> {
    vec![1, height as u8]
}

fn template(template_id: u64, future_template: bool, height: u32) -> Template {
    Template {
        template_id,
        future_template,
        version: 0x2000_0000,
        coinbase_tx_version: 2,
        coinbase_prefix: prefix(height),
        coinbase_tx_input_sequence: u32::MAX,
        coinbase_tx_value_remaining: REWARD_SAT,
        coinbase_tx_outputs_count: 0,
        coinbase_tx_outputs: Vec::new(),
        coinbase_tx_locktime: 0,
        merkle_path: Vec::new(),
    }
}

fn transaction(input: Vec<TxIn>, number: u64) -> Transaction {
    let output = vec![TxOut { value: Amount::from_sat(number), script_pubkey: ScriptBuf::new() }];
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}

/// A solution of a template on a tip; `number` makes it differ from others.
fn solve(template: &Template, prev_hash: [u8; 32], number: u8) -> Arc<Solution> {
    let mut script = template.coinbase_prefix.clone();
    script.extend([1, number]);
    let input = TxIn {
        previous_output: OutPoint::null(),
        script_sig: ScriptBuf::from_bytes(script),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let coinbase = transaction(vec![input], REWARD_SAT);
    let mut header = [0; 80];
    header[4..36].copy_from_slice(&prev_hash);
    let root = merkle_root_from_path(&coinbase.compute_txid().to_byte_array(), &template.merkle_path);
    header[36..68].copy_from_slice(&root);
    Arc::new(Solution {
        template_id: template.template_id,
        header,
        digest: Digest::of(&header),
        target: Target::MAX,
        coinbase_tx: serialize(&coinbase),
        merkle_path: template.merkle_path.clone(),
        user_identity: Vec::new(),
        worker_identity: Vec::new(),
    })
}

/// A provider without a network.
struct World {
    provider: Provider,
    store: Store,
    keeper: Keeper,
    /// Transactions that are to be checked; done at once unless `is_checker_slow`.
    checks: Receiver<Job>,
    is_checker_slow: bool,
    updates: Receiver<SourceUpdate>,
    connections: BTreeMap<ClassId, (u64, mpsc::Receiver<Command>)>,
    now: Instant,
    links: u64,
}

impl World {
    fn new() -> Self {
        let (feed, updates) = Feed::new();
        let store = Store::default();
        let (jobs, checks) = bounded(checker::JOBS_MAX);
        Self {
            provider: Provider::new(store.clone(), jobs, feed),
            keeper: Keeper::new(store.clone()),
            store,
            checks,
            is_checker_slow: false,
            updates,
            connections: BTreeMap::new(),
            now: Instant::now(),
            links: 0,
        }
    }

    /// A world with one class whose connection has a tip at height 20.
    fn at_height_20() -> (Self, LinkId) {
        let mut world = Self::new();
        world.want(POOL, reserve(2_000));
        let link = world.connect(POOL);
        world.tip(POOL, 1, 21, [20; 32]);
        (world, link)
    }

    fn want(&mut self, class: ClassId, reserve: Reserve) -> bool {
        let Some(Wanted { class, task, commands, .. }) = self.provider.want(class, reserve) else {
            return false;
        };
        self.connections.insert(class, (task, commands));
        true
    }

    fn tell(&mut self, class: ClassId, what: What) {
        let (task, _) = self.connections[&class];
        self.provider.handle_report(Report { class, task, what }, self.now);
        if !self.is_checker_slow {
            self.check();
        }
    }

    /// Does what the checker has to do.
    fn check(&mut self) {
        while let Ok(job) = self.checks.try_recv() {
            if let Some(checked) = checker::handle_job(&mut self.keeper, job) {
                self.provider.handle_checked(checked);
            }
        }
    }

    fn connect(&mut self, class: ClassId) -> LinkId {
        self.links += 1;
        self.tell(class, What::Ready(LinkId(self.links)));
        LinkId(self.links)
    }

    fn lose(&mut self, class: ClassId) {
        self.tell(class, What::Lost(Lost::WriteTimeout));
    }

    fn give(&mut self, class: ClassId, template: Template) {
        self.tell(class, What::Template(TemplateUpdate::NewTemplate(Arc::new(template))));
    }

    fn activate(&mut self, class: ClassId, template_id: u64, prev_hash: [u8; 32]) {
        let prev_hash =
            PrevHash { template_id, prev_hash, header_timestamp: 0, nbits: 0, target: Target::MAX };
        self.tell(class, What::Template(TemplateUpdate::SetNewPrevHash(Arc::new(prev_hash))));
    }

    /// A future template of the height, and the tip that names it.
    fn tip(&mut self, class: ClassId, template_id: u64, height: u32, prev_hash: [u8; 32]) {
        self.give(class, template(template_id, true, height));
        self.activate(class, template_id, prev_hash);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.provider.handle_timeout(self.now);
    }

    fn orders(&mut self, class: ClassId) -> Vec<(LinkId, Order)> {
        let (_, commands) = self.connections.get_mut(&class).expect("a class that is wanted");
        std::iter::from_fn(|| commands.try_recv().ok()).map(|command| (command.link, command.order)).collect()
    }

    /// Solutions that were sent: over which connection, of which of the provider's templates.
    fn sent(&mut self, class: ClassId) -> Vec<(LinkId, u64, Digest)> {
        let orders = self.orders(class).into_iter();
        let submits = orders.filter_map(|(link, order)| match order {
            Order::Submit(solution) => Some((link, solution.template_id, solution.digest)),
            _ => None,
        });
        submits.collect()
    }

    fn reports(&self) -> Vec<SourceUpdate> {
        self.updates.try_iter().collect()
    }

    /// The templates and tips among the reports, and the source's ids of the templates.
    fn announced(&self) -> Vec<Arc<Template>> {
        let templates = self.reports().into_iter().filter_map(|update| match update {
            SourceUpdate::Template { update: TemplateUpdate::NewTemplate(template), .. } => Some(template),
            _ => None,
        });
        templates.collect()
    }

    fn submit(&mut self, solution: &Arc<Solution>) -> Receiver<Submission> {
        let (answer, receiver) = bounded(1);
        self.provider.submit(solution, answer, self.now);
        receiver
    }

    fn submit_block(&mut self, block: &[u8]) -> Receiver<Submission> {
        let (answer, receiver) = bounded(1);
        self.provider.submit_block(block, answer, self.now);
        receiver
    }
}

#[test]
fn constraints_cover_the_reserve() {
    for weight in [0, 1, 1_168, 2_000, 2_001, 2_003, 2_004, 2_005, 8_000, 3_999_999] {
        let constraints = constraints_of(reserve(weight)).expect("a block has such room");
        assert!(constraints.reserve().covers(reserve(weight)), "{weight}");
        assert!(constraints.reserved_weight() < weight.max(2_000) + 4, "{weight}");
    }
    assert_eq!(constraints_of(reserve(4_000_000)), None);
    assert_eq!(constraints_of(reserve(u64::MAX)), None);
}

#[test]
fn a_tip_comes_with_its_template_and_the_source_is_up() {
    let mut world = World::new();
    assert!(world.want(POOL, reserve(2_000)));
    assert!(!world.want(POOL, reserve(2_000)), "it is wanted already");
    world.connect(POOL);
    world.give(POOL, template(500, true, 21));
    assert!(world.reports().is_empty(), "nothing to mine on yet");
    world.activate(POOL, 500, [20; 32]);
    let reports = world.reports();
    let [
        SourceUpdate::Up,
        SourceUpdate::Template { class: POOL, update: TemplateUpdate::NewTemplate(first), .. },
        SourceUpdate::Template { class: POOL, update: TemplateUpdate::SetNewPrevHash(tip), .. },
        SourceUpdate::BlockConnected { height: 20, reward_sat: None, .. },
    ] = &reports[..]
    else {
        panic!("{reports:?}")
    };
    assert!(first.future_template && first.template_id == tip.template_id && first.template_id > 500);
    // The next tip's template is announced when it comes.
    world.give(POOL, template(501, true, 22));
    let [future] = &world.announced()[..] else { panic!("one template") };
    assert!(future.template_id > first.template_id);
    world.activate(POOL, 501, [21; 32]);
    let reports = world.reports();
    let [
        SourceUpdate::Template { update: TemplateUpdate::SetNewPrevHash(tip), .. },
        SourceUpdate::BlockConnected { .. },
    ] = &reports[..]
    else {
        panic!("{reports:?}")
    };
    assert_eq!(tip.template_id, future.template_id);
}

#[test]
fn a_flood_of_templates_reaches_miners_as_a_trickle() {
    let (mut world, _) = World::at_height_20();
    world.reports();
    for id in 2..1_000 {
        world.give(POOL, template(id, false, 21));
    }
    assert_eq!(world.announced().len(), 1, "the first at once");
    let due = world.provider.poll_timeout().expect("the newest waits");
    world.pass(due - world.now);
    let [newest] = &world.announced()[..] else { panic!("the newest alone") };
    let solution = solve(newest, [20; 32], 1);
    world.submit(&solution);
    assert_eq!(world.sent(POOL)[0].1, 999);
    // Futures: some at once, and the one that the tip names.
    for id in 1_000..1_100 {
        world.give(POOL, template(id, true, 22));
    }
    assert_eq!(world.announced().len(), 8);
    world.activate(POOL, 1_099, [21; 32]);
    assert_eq!(world.announced().len(), 1);
}

#[test]
fn a_template_for_a_tip_that_was_not_announced_ends_the_connection() {
    let (mut world, link) = World::at_height_20();
    world.reports();
    world.orders(POOL);
    world.give(POOL, template(2, false, 22));
    let orders = world.orders(POOL);
    let [(over, Order::Close(Lost::OtherHeight { template: 22, tip: 21 }))] = &orders[..] else {
        panic!("{orders:?}")
    };
    assert_eq!(*over, link);
    assert!(world.announced().is_empty());
}

#[test]
fn what_became_of_a_solution_shows_in_the_tips() {
    let (mut world, link) = World::at_height_20();
    let first = world.announced().remove(0);
    let (won, lost) = (solve(&first, [20; 32], 1), solve(&first, [20; 32], 2));
    let (answer, beaten) = (world.submit(&won), world.submit(&lost));
    assert_eq!(world.sent(POOL), [(link, 1, won.digest), (link, 1, lost.digest)]);
    assert!(answer.try_recv().is_err());
    world.tip(POOL, 2, 22, won.digest.0);
    let accepted = Submission::Accepted { height: 21, hash: won.digest, reward_sat: REWARD_SAT };
    assert_eq!(answer.try_recv(), Ok(accepted));
    assert_eq!(beaten.try_recv(), Ok(Submission::Stale { height: 21, hash: lost.digest }));
    // Its reward is known, as nobody else's is.
    let own = world.reports().into_iter().find_map(|update| match update {
        SourceUpdate::BlockConnected { height: 21, reward_sat, .. } => reward_sat,
        _ => None,
    });
    assert_eq!(own, Some(REWARD_SAT));
    assert_eq!(world.submit(&won).try_recv(), Ok(Submission::Duplicate { hash: won.digest }));
    assert!(world.sent(POOL).is_empty());
}

#[test]
fn what_is_not_known_is_not_claimed() {
    let (mut world, link) = World::at_height_20();
    let first = world.announced().remove(0);
    let solution = solve(&first, [20; 32], 1);
    let answer = world.submit(&solution);
    world.pass(Duration::from_secs(9));
    assert!(answer.try_recv().is_err());
    world.pass(Duration::from_secs(1));
    let unconfirmed = Submission::Unconfirmed { hash: solution.digest };
    assert_eq!(answer.try_recv(), Ok(unconfirmed.clone()));
    assert!(!unconfirmed.is_settled());
    // Whoever asks again has it sent again, and waits less.
    let again = world.submit(&solution);
    world.submit(&solution);
    assert_eq!(world.sent(POOL), [(link, 1, solution.digest), (link, 1, solution.digest)], "but no flood");
    world.pass(Duration::from_secs(1));
    assert_eq!(again.try_recv(), Ok(unconfirmed.clone()));
    // A tip two blocks on says nothing about the one between.
    world.tip(POOL, 2, 23, [22; 32]);
    let passed = world.submit(&solution);
    world.pass(Duration::from_secs(1));
    assert_eq!(passed.try_recv(), Ok(unconfirmed));
    // Until the chain goes back to it.
    world.tip(POOL, 3, 22, solution.digest.0);
    assert!(matches!(world.submit(&solution).try_recv(), Ok(Submission::Accepted { height: 21, .. })));
}

#[test]
fn a_solution_outlives_its_connection() {
    let (mut world, _) = World::at_height_20();
    let first = world.announced().remove(0);
    let (sent, unsent) = (solve(&first, [20; 32], 1), solve(&first, [20; 32], 2));
    let waiting = world.submit(&sent);
    world.orders(POOL);
    world.lose(POOL);
    let failed = world.submit(&unsent).try_recv();
    let Ok(Submission::Failed { reason }) = failed else { panic!("{failed:?}") };
    assert!(reason.contains("goes out when there is one"), "{reason}");
    // The provider's ids begin again: the template is known by what it holds.
    let link = world.connect(POOL);
    world.tip(POOL, 7, 21, [20; 32]);
    assert_eq!(world.sent(POOL), [(link, 7, sent.digest), (link, 7, unsent.digest)]);
    world.tip(POOL, 8, 22, unsent.digest.0);
    assert_eq!(waiting.try_recv(), Ok(Submission::Stale { height: 21, hash: sent.digest }));
    assert!(matches!(world.submit(&unsent).try_recv(), Ok(Submission::Accepted { height: 21, .. })));
}

#[test]
fn a_template_of_an_earlier_connection_is_left_to_the_provider() {
    let (mut world, _) = World::at_height_20();
    let first = world.announced().remove(0);
    let solution = solve(&first, [20; 32], 1);
    world.lose(POOL);
    let link = world.connect(POOL);
    let other = Template { merkle_path: vec![[3; 32]], ..template(7, true, 21) };
    world.give(POOL, other);
    world.activate(POOL, 7, [20; 32]);
    world.orders(POOL);
    world.submit(&solution);
    assert_eq!(world.sent(POOL), [(link, 1, solution.digest)]);
    // Of a template that nobody knows there is nothing to send.
    let mut stranger = Solution::clone(&solve(&first, [99; 32], 3));
    stranger.template_id = 12;
    let answer = world.submit(&Arc::new(stranger)).try_recv();
    assert_eq!(answer, Ok(Submission::UnknownTemplate { template_id: 12 }));
    assert!(world.sent(POOL).is_empty());
}

#[test]
fn a_block_of_the_providers_template_goes_out_as_its_solution() {
    let (mut world, link) = World::at_height_20();
    let first = world.announced().remove(0);
    let solution = solve(&first, [20; 32], 1);
    let Solution { header, coinbase_tx, .. } = &*solution;
    let block = assemble_block(header, coinbase_tx, &[], &TemplateTransactions::default()).expect("a block");
    let answer = world.submit_block(&block);
    assert_eq!(world.sent(POOL), [(link, 1, solution.digest)]);
    world.tip(POOL, 2, 22, solution.digest.0);
    assert!(matches!(answer.try_recv(), Ok(Submission::Accepted { height: 21, .. })));

    let Solution { header, coinbase_tx, .. } = &*solve(&first, [77; 32], 1);
    let foreign =
        assemble_block(header, coinbase_tx, &[], &TemplateTransactions::default()).expect("a block");
    let answer = world.submit_block(&foreign).try_recv();
    let Ok(Submission::NotTaken { reason }) = answer else { panic!("{answer:?}") };
    assert!(reason.contains("core-ipc"), "{reason}");
    for cut in [0, 79, 80, 81, 100] {
        let answer = world.submit_block(&block[..cut]).try_recv();
        assert!(matches!(answer, Ok(Submission::Rejected { .. })), "{answer:?}");
    }
}

#[test]
fn transactions_are_asked_for_and_make_the_block_whole() {
    let (mut world, link) = World::at_height_20();
    let empty = world.announced().remove(0);
    assert!(world.store.find(empty.template_id).is_some_and(|kept| kept.is_empty()));

    let spends = [1, 2, 3].map(|number| transaction(vec![TxIn::default()], number));
    let txids: Vec<[u8; 32]> = std::iter::once([0; 32])
        .chain(spends.iter().map(|spend| spend.compute_txid().to_byte_array()))
        .collect();
    let full = Template { merkle_path: adit_hasher::merkle_path(&txids), ..template(2, false, 21) };
    world.give(POOL, full.clone());
    let orders = world.orders(POOL);
    assert!(matches!(orders[..], [(over, Order::Request(2))] if over == link), "{orders:?}");
    let announced = world.announced().remove(0);
    let transactions: Vec<Vec<u8>> = spends.iter().map(serialize).collect();
    world.tell(POOL, What::Transactions { template_id: 2, transactions: transactions.iter().collect() });
    let kept = world.store.find(announced.template_id).expect("kept");
    assert!(kept.iter().eq(transactions.iter().map(Vec::as_slice)));

    // The same transactions over the next connection need no second request.
    world.lose(POOL);
    world.connect(POOL);
    world.give(POOL, Template { future_template: true, ..full.clone() });
    world.activate(POOL, 2, [20; 32]);
    assert!(world.orders(POOL).is_empty());
    let again = world.announced().remove(0);
    assert!(world.store.find(again.template_id).is_some());

    // Others than the template's are not kept, nor are none.
    world.tip(POOL, 3, 22, [21; 32]);
    for (id, answer) in [(4, Some(transactions[1..].to_vec())), (5, Some(vec![vec![1; 9]])), (6, None)] {
        world.pass(Duration::from_secs(1));
        world.announced();
        world.give(POOL, Template { merkle_path: full.merkle_path.clone(), ..template(id, false, 22) });
        assert_eq!(world.orders(POOL).len(), 1);
        let what = match answer {
            Some(transactions) => {
                What::Transactions { template_id: id, transactions: transactions.into_iter().collect() }
            }
            None => What::NoTransactions { template_id: id, reason: "stale-template-id".to_owned() },
        };
        world.tell(POOL, what);
        assert!(world.store.find(world.announced().remove(0).template_id).is_none());
    }
}

#[test]
fn a_tip_waits_for_no_transactions() {
    let (mut world, _) = World::at_height_20();
    let spend = transaction(vec![TxIn::default()], 1);
    let merkle_path = vec![spend.compute_txid().to_byte_array()];
    world.is_checker_slow = true;
    world.give(POOL, Template { merkle_path: merkle_path.clone(), ..template(2, false, 21) });
    assert_eq!(world.orders(POOL).len(), 1);
    let checked = world.announced().pop().expect("a template");
    world.tell(
        POOL,
        What::Transactions { template_id: 2, transactions: [serialize(&spend)].into_iter().collect() },
    );
    // Nobody has looked at them yet, and the next tip is with whoever mines.
    world.give(POOL, Template { merkle_path: vec![[9; 32]], ..template(3, true, 22) });
    world.activate(POOL, 3, [21; 32]);
    let reports = world.reports();
    let is_tip = |update: &SourceUpdate| {
        matches!(update, SourceUpdate::Template { update: TemplateUpdate::SetNewPrevHash(tip), .. }
            if tip.prev_hash == [21; 32])
    };
    assert!(reports.iter().any(is_tip), "{reports:?}");
    assert!(world.store.find(checked.template_id).is_none());
    // The tip's own are asked for when those of before have been judged, so that they do not gather.
    assert!(world.orders(POOL).is_empty());
    world.check();
    assert!(world.store.find(checked.template_id).is_some());
    let orders = world.orders(POOL);
    assert!(matches!(orders[..], [(_, Order::Request(3))]), "{orders:?}");
}

#[test]
fn transactions_of_a_template_that_is_gone_are_not_kept() {
    let (mut world, _) = World::at_height_20();
    let spend = transaction(vec![TxIn::default()], 1);
    let merkle_path = vec![spend.compute_txid().to_byte_array()];
    world.give(POOL, Template { merkle_path, ..template(2, false, 21) });
    let gone = world.announced().pop().expect("a template");
    world.is_checker_slow = true;
    world.tell(
        POOL,
        What::Transactions { template_id: 2, transactions: [serialize(&spend)].into_iter().collect() },
    );
    for (template_id, height) in (3..7).zip(22..) {
        world.tip(POOL, template_id, height, [height as u8; 32]);
    }
    world.check();
    assert!(world.store.find(gone.template_id).is_none());
}

#[test]
fn one_request_at_a_time_for_the_newest_template() {
    let (mut world, _) = World::at_height_20();
    for id in 2..6 {
        world.pass(Duration::from_secs(1));
        world.give(POOL, Template { merkle_path: vec![[id as u8; 32]], ..template(id, false, 21) });
    }
    let orders = world.orders(POOL);
    assert!(matches!(orders[..], [(_, Order::Request(2))]), "{orders:?}");
    world.tell(POOL, What::NoTransactions { template_id: 2, reason: String::new() });
    let orders = world.orders(POOL);
    assert!(matches!(orders[..], [(_, Order::Request(5))]), "{orders:?}");
}

#[test]
fn trouble_is_said_once_and_ends_with_the_next_tip() {
    let (mut world, _) = World::at_height_20();
    world.reports();
    for _ in 0..3 {
        world.lose(POOL);
    }
    let reports = world.reports();
    assert!(
        matches!(&reports[..], [SourceUpdate::Down { reason }] if reason.contains("took no bytes")),
        "{reports:?}"
    );
    world.tell(POOL, What::Lost(Lost::HandshakeTimeout));
    assert!(matches!(&world.reports()[..], [SourceUpdate::Down { reason }] if reason.contains("handshake")));
    // Connected is not up: there is no work yet.
    world.connect(POOL);
    assert!(world.reports().is_empty());
    world.pass(Duration::from_secs(20));
    assert!(
        matches!(&world.reports()[..], [SourceUpdate::Down { reason }] if reason.contains("no template comes"))
    );
    world.tip(POOL, 9, 21, [20; 32]);
    let reports = world.reports();
    assert!(matches!(reports[0], SourceUpdate::Up), "{reports:?}");
    assert_eq!(reports.len(), 3, "the same block is not connected twice: {reports:?}");
}

#[test]
fn classes_have_connections_of_their_own() {
    let (mut world, first) = World::at_height_20();
    let other = ClassId(5);
    world.want(other, reserve(50_000));
    let link = world.connect(other);
    world.tip(other, 9, 21, [20; 32]);
    let announced = world.announced();
    assert_eq!(announced.len(), 2);
    let solution = solve(&announced[1], [20; 32], 1);
    world.submit(&solution);
    assert!(world.sent(POOL).is_empty());
    assert_eq!(world.sent(other), [(link, 9, solution.digest)]);

    // One that does not hold while the other does is refused, and the source stays up.
    world.reports();
    for _ in 0..4 {
        world.lose(other);
    }
    let reports = world.reports();
    assert!(matches!(&reports[..], [SourceUpdate::Refused { class, .. }] if *class == other), "{reports:?}");
    // Its template is the other's as well, since nothing is in it: solutions find a way, also what the lost connection had.
    assert_eq!(world.sent(POOL), [(first, 1, solution.digest)]);
    let late = solve(&announced[1], [20; 32], 2);
    world.submit(&late);
    assert_eq!(world.sent(POOL), [(first, 1, late.digest)]);

    for number in 10..10 + CONNECTIONS_MAX as u64 {
        world.want(ClassId(number), reserve(3_000));
    }
    let refused = |update: &SourceUpdate| matches!(update, SourceUpdate::Refused { .. });
    assert_eq!(world.reports().iter().filter(|update| refused(update)).count(), 2);
    world.want(POOL, reserve(u64::MAX));
    assert_eq!(world.reports().iter().filter(|update| refused(update)).count(), 1);
    world.provider.unwant(other);
    let (_, commands) = world.connections.get_mut(&other).expect("it was wanted");
    assert!(matches!(commands.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
}

#[test]
fn blocks_that_leave_the_chain_are_reported() {
    let (mut world, _) = World::at_height_20();
    world.tip(POOL, 2, 22, [21; 32]);
    world.tip(POOL, 3, 23, [22; 32]);
    world.reports();
    // Another block of height 21 and one above it.
    world.tip(POOL, 4, 23, [0x22; 32]);
    let chain = |reports: Vec<SourceUpdate>| -> Vec<(i64, u8)> {
        let changes = reports.into_iter().filter_map(|update| match update {
            SourceUpdate::BlockConnected { height, hash, .. } => Some((i64::from(height), hash.0[0])),
            SourceUpdate::BlockDisconnected { height, hash } => Some((-i64::from(height), hash.0[0])),
            _ => None,
        });
        changes.collect()
    };
    assert_eq!(chain(world.reports()), [(-22, 22), (22, 0x22)]);
    // The chain goes back.
    world.tip(POOL, 5, 22, [21; 32]);
    assert_eq!(chain(world.reports()), [(-22, 0x22)]);
    // A connection that is behind tells nothing new.
    let other = ClassId(5);
    world.want(other, reserve(2_000));
    world.connect(other);
    world.tip(other, 1, 21, [20; 32]);
    world.tip(other, 2, 22, [21; 32]);
    assert_eq!(chain(world.reports()), []);
}

#[test]
fn the_end_answers_everybody() {
    let (mut world, _) = World::at_height_20();
    let first = world.announced().remove(0);
    let (sent, unsent) = (solve(&first, [20; 32], 1), solve(&first, [20; 32], 2));
    let waiting = world.submit(&sent);
    world.provider.finish();
    assert_eq!(waiting.try_recv(), Ok(Submission::Unconfirmed { hash: sent.digest }));
    assert!(matches!(world.submit(&unsent).try_recv(), Ok(Submission::Failed { .. })));
    // What was to be sent still is, before the connection ends.
    assert_eq!(world.sent(POOL).len(), 1);
}
