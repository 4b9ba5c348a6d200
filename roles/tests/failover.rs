//! Several template sources as one: every block reaches every node, whatever the others do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use adit_hasher::{Digest, Target, merkle_root_from_path};
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::Solution;
use adit_proto::template::{PrevHash, Template, TemplateUpdate};
use adit_roles::nodes::failover::Failover;
use adit_roles::nodes::{
    SourceUpdate, Standing, Submission, TemplateSource, TemplateTransactions, coinbase_txid,
};
use bitcoin::Network;
use bitcoin::consensus::serialize;
use bitcoin::constants::genesis_block;
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};

const PATIENCE: Duration = Duration::from_secs(30);
const CLASS: ClassId = ClassId(0);
const RESERVE: Reserve = Reserve { reserved_weight: 4_000, max_additional_sigops: 400 };
/// The transactions of every template that has any.
const TRANSACTION: [u8; 3] = [1, 2, 3];

/// What a source is handed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Handed {
    Solution(u64),
    Block(Vec<u8>),
}

/// What a source does with it.
enum Act {
    Answer(Submission),
    /// Never answers.
    Silence,
    /// Does not even return from the call before this channel is closed.
    Hang(Receiver<()>),
}

/// A source that does as it is told.
struct Scripted {
    name: String,
    updates: Receiver<SourceUpdate>,
    acts: Mutex<VecDeque<Act>>,
    handed: Sender<Handed>,
    wanted: Sender<()>,
    /// Templates whose transactions it has.
    known: Vec<u64>,
    silent: Mutex<Vec<Sender<Submission>>>,
}

impl Scripted {
    fn act(&self, handed: Handed) -> Receiver<Submission> {
        let act = self.acts.lock().unwrap().pop_front().unwrap_or(Act::Silence);
        self.handed.send(handed).unwrap();
        let (sender, receiver) = bounded(1);
        match act {
            Act::Answer(answer) => sender.send(answer).unwrap(),
            Act::Silence => self.silent.lock().unwrap().push(sender),
            Act::Hang(until) => {
                let _ = until.recv();
            }
        }
        receiver
    }
}

impl TemplateSource for Scripted {
    fn name(&self) -> &str {
        &self.name
    }

    fn updates(&self) -> Receiver<SourceUpdate> {
        self.updates.clone()
    }

    fn want(&self, class: ClassId, reserve: Reserve) {
        assert_eq!((class, reserve), (CLASS, RESERVE));
        self.wanted.send(()).unwrap();
    }

    fn unwant(&self, _: ClassId) {}

    fn submit(&self, solution: Arc<Solution>) -> Receiver<Submission> {
        self.act(Handed::Solution(solution.template_id))
    }

    fn submit_block(&self, block: Arc<[u8]>) -> Receiver<Submission> {
        self.act(Handed::Block(block.to_vec()))
    }

    fn transactions(&self, template_id: u64) -> Option<TemplateTransactions> {
        let transactions = || TemplateTransactions::new([Arc::from(TRANSACTION)]);
        self.known.contains(&template_id).then(transactions)
    }

    fn shutdown(self: Box<Self>) {}
}

/// The test's end of a source.
struct Strings {
    updates: Sender<SourceUpdate>,
    handed: Receiver<Handed>,
    wanted: Receiver<()>,
}

impl Strings {
    fn show(&self, template_id: u64, height: u8, merkle_path: Vec<[u8; 32]>) {
        let template = Template {
            template_id,
            future_template: true,
            version: 0x2000_0000,
            coinbase_tx_version: 2,
            coinbase_prefix: vec![1, height],
            coinbase_tx_input_sequence: u32::MAX,
            coinbase_tx_value_remaining: 0,
            coinbase_tx_outputs_count: 0,
            coinbase_tx_outputs: Vec::new(),
            coinbase_tx_locktime: 0,
            merkle_path,
        };
        let tip = PrevHash {
            template_id,
            prev_hash: [height; 32],
            header_timestamp: 0,
            nbits: 0,
            target: Target::MAX,
        };
        for update in
            [TemplateUpdate::NewTemplate(template.into()), TemplateUpdate::SetNewPrevHash(tip.into())]
        {
            self.updates
                .send(SourceUpdate::Template { class: CLASS, update, learned: Instant::now() })
                .unwrap();
        }
    }

    fn up(&self) {
        self.updates.send(SourceUpdate::Up).unwrap();
    }

    fn handed(&self) -> Handed {
        self.handed.recv_timeout(PATIENCE).expect("something is handed over")
    }
}

fn scripted(
    name: &str,
    known: &[u64],
    acts: impl IntoIterator<Item = Act>,
) -> (Box<dyn TemplateSource>, Strings) {
    let (updates, reports) = unbounded();
    let (sender, handed) = unbounded();
    let (wants, wanted) = unbounded();
    let source = Scripted {
        name: name.to_owned(),
        updates: reports,
        acts: Mutex::new(acts.into_iter().collect()),
        handed: sender,
        wanted: wants,
        known: known.to_vec(),
        silent: Mutex::default(),
    };
    (Box::new(source), Strings { updates, handed, wanted })
}

fn combine(sources: Vec<(Box<dyn TemplateSource>, Strings)>) -> (Box<Failover>, Vec<Strings>) {
    let (sources, strings): (Vec<_>, Vec<_>) = sources.into_iter().unzip();
    let failover = Failover::start(sources).unwrap();
    failover.want(CLASS, RESERVE);
    strings.iter().for_each(|strings| strings.wanted.recv_timeout(PATIENCE).expect("the class is wanted"));
    (Box::new(failover), strings)
}

/// Waits for a tip; gives the id of its template.
fn wait_for_tip(failover: &Failover) -> u64 {
    loop {
        let update = failover.updates().recv_timeout(PATIENCE).expect("a tip in time");
        if let SourceUpdate::Template { update: TemplateUpdate::SetNewPrevHash(tip), .. } = update {
            return tip.template_id;
        }
    }
}

/// A solution whose header commits to coinbase and path.
fn solution(template_id: u64, merkle_path: Vec<[u8; 32]>) -> Arc<Solution> {
    let coinbase_tx = serialize(&genesis_block(Network::Regtest).txdata[0]);
    let mut header = [0; 80];
    header[36..68]
        .copy_from_slice(&merkle_root_from_path(&coinbase_txid(&coinbase_tx).unwrap(), &merkle_path));
    Arc::new(Solution {
        template_id,
        header,
        digest: Digest::of(&header),
        target: Target::MAX,
        coinbase_tx,
        merkle_path,
        user_identity: Vec::new(),
        worker_identity: Vec::new(),
    })
}

fn block_of(solution: &Solution, transactions: &[&[u8]]) -> Handed {
    let count = [transactions.len() as u8 + 1];
    Handed::Block([&solution.header[..], &count, &solution.coinbase_tx, &transactions.concat()].concat())
}

fn accepted(solution: &Solution) -> Submission {
    Submission::Accepted { height: 5, hash: solution.digest, reward_sat: 50 }
}

fn failed() -> Submission {
    Submission::Failed { reason: "away".to_owned() }
}

fn answer(receiver: &Receiver<Submission>) -> Submission {
    receiver.recv_timeout(PATIENCE).expect("an answer in time")
}

const PATH: [[u8; 32]; 1] = [[9; 32]];

#[test]
fn a_solution_goes_to_its_source_and_as_a_block_to_all_others_also_when_one_hangs() {
    let found = solution(0, PATH.to_vec());
    let (release, hung) = bounded::<()>(0);
    let (failover, strings) = combine(vec![
        scripted("hangs", &[], [Act::Hang(hung)]),
        scripted("own", &[70], [Act::Silence]),
        scripted("other", &[], [Act::Answer(accepted(&found))]),
    ]);
    strings[1].show(70, 5, PATH.to_vec());
    let template_id = wait_for_tip(&failover);
    assert_ne!(template_id, 70);
    let found = solution(template_id, PATH.to_vec());
    let first = failover.submit(Arc::clone(&found));
    assert_eq!(answer(&first), accepted(&found), "without those that say nothing");
    let block = block_of(&found, &[&TRANSACTION]);
    assert_eq!(strings[0].handed(), block);
    assert_eq!(strings[1].handed(), Handed::Solution(70), "by its own id");
    assert_eq!(strings[2].handed(), block);
    // Whoever hangs does not keep the next one from the others.
    let _next = failover.submit(Arc::clone(&found));
    assert_eq!((strings[1].handed(), strings[2].handed()), (Handed::Solution(70), block));
    drop(release);
    failover.shutdown();
}

#[test]
fn a_template_that_nobody_remembers_still_gives_a_block_where_its_transactions_are_known() {
    let (failover, strings) = combine(vec![
        // It has no transactions at hand, and its node has forgotten the template.
        scripted("a", &[], [Act::Answer(Submission::UnknownTemplate { template_id: 1 })]),
        scripted("b", &[2], [Act::Answer(accepted(&solution(0, PATH.to_vec())))]),
    ]);
    strings[0].show(1, 5, PATH.to_vec());
    let template_id = wait_for_tip(&failover);
    assert!(failover.transactions(template_id).is_none());
    let unknown = solution(template_id, PATH.to_vec());
    assert_eq!(
        answer(&failover.submit(unknown)),
        Submission::UnknownTemplate { template_id },
        "only its own source could be asked"
    );
    assert_eq!(strings[0].handed(), Handed::Solution(1));
    // Another source serves the same transactions.
    strings[1].show(2, 6, PATH.to_vec());
    wait_for_tip(&failover);
    assert_eq!(failover.transactions(template_id).map(|transactions| transactions.len()), Some(1));
    let found = solution(template_id, PATH.to_vec());
    assert_eq!(answer(&failover.submit(Arc::clone(&found))), accepted(&found));
    assert_eq!(strings[1].handed(), block_of(&found, &[&TRANSACTION]));
    // A template that was never heard of.
    let stranger = solution(5, vec![[1; 32]]);
    assert_eq!(answer(&failover.submit(stranger)), Submission::UnknownTemplate { template_id: 5 });
    let empty = solution(5, Vec::new());
    failover.submit(Arc::clone(&empty));
    assert_eq!(strings[1].handed(), block_of(&empty, &[]), "without transactions it needs no template");
}

#[test]
fn who_forgot_the_template_gets_the_block() {
    let found = solution(0, PATH.to_vec());
    let unknown = Submission::UnknownTemplate { template_id: 70 };
    let (failover, strings) =
        combine(vec![scripted("a", &[70], [Act::Answer(unknown), Act::Answer(accepted(&found))])]);
    strings[0].show(70, 5, PATH.to_vec());
    let found = solution(wait_for_tip(&failover), PATH.to_vec());
    assert_eq!(answer(&failover.submit(Arc::clone(&found))), accepted(&found));
    assert_eq!(strings[0].handed(), Handed::Solution(70));
    assert_eq!(strings[0].handed(), block_of(&found, &[&TRANSACTION]));
}

#[test]
fn who_was_away_gets_the_block_when_it_is_back() {
    let found = solution(0, Vec::new());
    let late = Submission::Duplicate { hash: found.digest };
    let (failover, strings) = combine(vec![
        scripted("here", &[], [Act::Answer(accepted(&found))]),
        scripted("away", &[], [Act::Answer(failed()), Act::Answer(late)]),
    ]);
    let block: Arc<[u8]> = match block_of(&found, &[]) {
        Handed::Block(block) => block.into(),
        Handed::Solution(_) => unreachable!("a block was asked for"),
    };
    assert_eq!(answer(&failover.submit_block(Arc::clone(&block))), accepted(&found));
    assert_eq!(strings[1].handed(), Handed::Block(block.to_vec()));
    strings[1].up();
    assert_eq!(strings[1].handed(), Handed::Block(block.to_vec()));
    assert_eq!(strings[0].handed(), Handed::Block(block.to_vec()));
    assert!(strings[0].handed.is_empty(), "who has it is not asked again");
}

#[test]
fn who_takes_no_such_blocks_is_owed_none() {
    let found = solution(0, Vec::new());
    let not_taken = || Submission::NotTaken { reason: "not of its templates".to_owned() };
    let (failover, strings) = combine(vec![
        scripted("here", &[], [Act::Answer(accepted(&found)), Act::Answer(accepted(&found))]),
        scripted("provider", &[], [Act::Answer(not_taken()), Act::Answer(not_taken())]),
    ]);
    let Handed::Block(first) = block_of(&found, &[]) else { unreachable!("a block was asked for") };
    let second = solution_of_another_coinbase();
    let Handed::Block(second) = block_of(&second, &[]) else { unreachable!("a block was asked for") };
    answer(&failover.submit_block(first.clone().into()));
    assert_eq!(strings[1].handed(), Handed::Block(first));
    // What is owed is handed over when the source is up; what comes next shows that nothing was.
    strings[1].up();
    strings[1].show(1, 5, Vec::new());
    wait_for_tip(&failover);
    answer(&failover.submit_block(second.clone().into()));
    assert_eq!(strings[1].handed(), Handed::Block(second));
}

/// Of another hash than that of [`solution`].
fn solution_of_another_coinbase() -> Solution {
    let mut other = (*solution(0, Vec::new())).clone();
    other.header[0] ^= 1;
    Solution { digest: Digest::of(&other.header), ..other }
}

#[test]
fn ids_rise_across_failovers_and_restarts() {
    let mut last = 0;
    for _ in 0..3 {
        let (failover, strings) = combine(vec![scripted("a", &[], []), scripted("b", &[], [])]);
        for height in 1..20 {
            strings[usize::from(height % 2)].show(u64::from(height), height, Vec::new());
            let template_id = wait_for_tip(&failover);
            assert!(template_id > last);
            last = template_id;
        }
        failover.shutdown();
    }
}

#[test]
fn a_source_that_ends_is_down_and_another_serves() {
    let (failover, mut strings) = combine(vec![scripted("a", &[], []), scripted("b", &[], [])]);
    strings.iter().for_each(Strings::up);
    strings[0].show(1, 5, Vec::new());
    let first = wait_for_tip(&failover);
    strings[1].show(2, 5, Vec::new());
    // What went before has been seen when the next tip comes out.
    strings[0].show(3, 6, Vec::new());
    assert!(wait_for_tip(&failover) > first);
    drop(strings.remove(0));
    strings[0].show(4, 6, Vec::new());
    let taken = loop {
        let update = failover.updates().recv_timeout(PATIENCE).unwrap();
        if let SourceUpdate::Template { update: TemplateUpdate::NewTemplate(template), .. } = update {
            break template;
        }
    };
    assert!(!taken.future_template, "the tip is the same");
    // The stream tells of the failover before the standings do.
    let deadline = Instant::now() + PATIENCE;
    while failover.standings().iter().map(|it| it.standing).ne([Standing::Down, Standing::Serves]) {
        assert!(Instant::now() < deadline, "{:?}", failover.standings());
        std::thread::yield_now();
    }
    assert_eq!(failover.name(), "a, b");
}
