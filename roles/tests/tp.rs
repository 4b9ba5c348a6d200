//! The template provider, on the embedded node, served to clients over TCP and Noise.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod program;
mod support;
mod tdp;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_codec::keys::AuthorityPublicKey;
use adit_codec::message::{RequestTransactionData, SubmitSolution};
use adit_hasher::Digest;
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::Solution;
use adit_roles::config::{Authority, Settings, TemplateSourceSettings, TpConfig};
use adit_roles::journal::{Journal, JournalConfig};
use adit_roles::keys;
use adit_roles::nodes::embedded::{Chain, EmbeddedConfig, EmbeddedNode};
use adit_roles::nodes::{SourceUpdate, Submission, TemplateSource, TemplateTransactions};
use adit_roles::tp::Provider;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{OutPoint, Transaction};
use crossbeam::channel::{Receiver, unbounded};
use program::{Program, output};
use support::{Wallet, coinbase, quick_config, rpc, solve};
use tdp::{Client, PATIENCE, Told, constraints, setup};

/// A provider, and what it says of blocks.
struct World {
    provider: Provider,
    blocks: Receiver<(Digest, Submission)>,
    authority: AuthorityPublicKey,
    wallet: Wallet,
    extranonce: u64,
}

fn settings(directory: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.tp.listen = "127.0.0.1:0".parse().unwrap();
    settings.tp.shutdown_grace_s = 1.0;
    settings.clients.handshakes_per_second_max = 10_000;
    settings.journal.dir = directory.join("journal");
    settings.template_source = vec![TemplateSourceSettings {
        data_dir: Some(directory.join("node")),
        ..TemplateSourceSettings::default()
    }];
    settings
}

fn authority() -> Authority {
    let validity = Duration::from_secs(3_600);
    Authority::Present { secret: keys::generate_authority(), static_secret: None, validity }
}

fn embedded(settings: &Settings) -> EmbeddedConfig {
    let data_dir = settings.template_source[0].data_dir.clone();
    EmbeddedConfig { data_dir, ..quick_config(Chain::Regtest) }
}

impl World {
    fn start(settings: Settings) -> Self {
        let node = EmbeddedNode::start(embedded(&settings)).unwrap();
        Self::start_on(settings, Box::new(node))
    }

    fn start_on(settings: Settings, source: Box<dyn TemplateSource>) -> Self {
        let config = TpConfig::from_settings(settings, authority()).unwrap();
        let (sender, blocks) = unbounded();
        let on_block = Box::new(move |report: &adit_roles::pool::BlockReport| {
            let _ = sender.send((report.hash, report.outcome.clone()));
        });
        let provider = Provider::start_with(config, source, on_block).unwrap();
        let authority = provider.authority();
        Self { provider, blocks, authority, wallet: Wallet::new(), extranonce: 0 }
    }

    fn join(&self, max_additional_size: u32) -> Client {
        Client::join(self.provider.local_addr(), &self.authority, max_additional_size)
    }

    fn set_up(&self) -> Client {
        Client::set_up(self.provider.local_addr(), &self.authority)
    }

    /// A block for what a client was told last.
    fn solve(&mut self, client: &Client) -> Solution {
        let (template, tip) = (client.template.as_ref().unwrap(), client.tip.as_ref().unwrap());
        self.extranonce += 1;
        let value = template.coinbase_tx_value_remaining;
        let coinbase = coinbase(template, &self.wallet.script(), value, self.extranonce);
        solve(template, tip, &coinbase)
    }

    /// The outcome of the next block.
    fn outcome(&self) -> (Digest, Submission) {
        self.blocks.recv_timeout(PATIENCE).unwrap()
    }

    /// Has a client find a block, and waits until the client is told of it. Returns the coinbase's first output.
    #[track_caller]
    fn mine(&mut self, client: &mut Client) -> (OutPoint, u64) {
        let solution = self.solve(client);
        client.submit(&solution);
        let (hash, outcome) = self.outcome();
        assert_eq!(hash, solution.digest);
        assert!(matches!(outcome, Submission::Accepted { .. }), "{outcome}");
        client.wait_for_tip();
        assert_eq!(client.tip.as_ref().unwrap().prev_hash, hash.0);
        let coinbase: Transaction = deserialize(&solution.coinbase_tx).unwrap();
        (OutPoint { txid: coinbase.compute_txid(), vout: 0 }, coinbase.output[0].value.to_sat())
    }

    fn stop(self) {
        let report = self.provider.stop();
        assert_eq!(report.threads_failed, 0);
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What the journal says of solutions that came to nothing; bytes follow each text.
fn refused(directory: &Path) -> Vec<String> {
    let files =
        fs::read_dir(directory.join("journal")).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
    let texts = files.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    texts.filter_map(|text| Some(text.rsplit_once("rejected: ")?.1.to_owned())).collect()
}

#[test]
fn templates_lead_to_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::start(settings(directory.path()));
    let mut client = world.join(100);
    // A future template, then the tip that names it, and nothing between.
    let Told::Template(template) = client.receive().unwrap() else { panic!("a template comes first") };
    assert!(template.future_template);
    let Told::Tip(tip) = client.receive().unwrap() else { panic!("then the tip") };
    assert_eq!(tip.template_id, template.template_id);
    assert_eq!(client.transactions(template.template_id), Told::Transactions(template.template_id, vec![]));

    for height in 1..=5 {
        world.mine(&mut client);
        wait_for("the height", || world.provider.status().height == height);
    }
    // Another client comes in the middle, with constraints of its own, and finds the next.
    let mut other = world.join(20_000);
    other.wait_for_tip();
    assert_eq!(other.tip.as_ref().unwrap().prev_hash, client.tip.as_ref().unwrap().prev_hash);
    world.mine(&mut other);
    client.wait_for_tip();
    assert_eq!(other.tip.as_ref().unwrap().prev_hash, client.tip.as_ref().unwrap().prev_hash);
    // Changed constraints lead to other templates, with ids that rise.
    client.send(&constraints(40_000));
    client.wait_for(|told| matches!(told, Told::Tip(_)));
    world.mine(&mut client);
    let status = world.provider.status();
    assert_eq!((status.blocks_accepted, status.blocks_lost, status.solutions_refused), (7, 0, 0));
    assert_eq!((status.connections, status.transactions_answered), (2, 1));
    world.stop();
    let (_, recovery) = Journal::open(JournalConfig::new(directory.path().join("journal"))).unwrap();
    assert_eq!((recovery.settled_count, recovery.pending.len()), (7, 0));
}

#[test]
fn transactions_of_a_template_are_the_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let node = EmbeddedNode::start(EmbeddedConfig {
        rpc: Some(adit_roles::nodes::embedded::RpcConfig { listen: address, auth: None }),
        ..embedded(&settings)
    });
    let mut world = World::start_on(settings, Box::new(node.unwrap()));
    let mut client = world.join(100);
    client.wait_for_tip();
    let coin = world.mine(&mut client);
    for _ in 0..100 {
        world.mine(&mut client);
    }
    let spend = world.wallet.spend(&[coin], &[coin.1 - 10_000]);
    let raw = serialize(&spend);
    rpc(address, "sendrawtransaction", serde_json::json!([hex::encode(&raw)])).unwrap();
    let told = client.wait_for(|told| matches!(told, Told::Template(_)));
    let Told::Template(template) = told else { unreachable!() };
    assert_eq!(template.merkle_path.len(), 1);
    assert_eq!(
        client.transactions(template.template_id),
        Told::Transactions(template.template_id, vec![raw.clone()])
    );
    let unknown = client.transactions(template.template_id + 1_000);
    assert_eq!(unknown, Told::NoTransactions(template.template_id + 1_000, "template-id-not-found".into()));
    world.mine(&mut client);
    let mempool = rpc(address, "getrawmempool", serde_json::json!([])).unwrap();
    assert_eq!(mempool, serde_json::json!([]), "it is in the block");
    world.stop();
}

#[test]
fn solutions_that_are_none_are_journalled_and_cost_nobody_anything() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::start(settings(directory.path()));
    let (mut good, mut bad) = (world.join(100), world.join(100));
    good.wait_for_tip();
    bad.wait_for_tip();
    let solution = world.solve(&bad);
    // A coinbase that is no transaction.
    bad.submit(&Solution { coinbase_tx: vec![1, 2, 3], ..solution.clone() });
    // A hash that misses the target.
    let missed = missed(&solution);
    bad.submit(&missed);
    // A template that nobody was told.
    bad.submit(&Solution { template_id: 7, ..missed });
    wait_for("the refusals", || world.provider.status().solutions_refused == 3);
    // A good one, twice: it is submitted once.
    bad.submit(&solution);
    bad.submit(&solution);
    assert!(matches!(world.outcome(), (hash, Submission::Accepted { .. }) if hash == solution.digest));
    good.wait_for_tip();
    world.mine(&mut good);
    // Of an old tip: the node has the last word.
    bad.wait_for_tip();
    let status = world.provider.status();
    assert_eq!((status.blocks_accepted, status.blocks_lost, status.solutions), (2, 0, 6));
    world.stop();
    let refused = refused(directory.path());
    assert_eq!(refused.len(), 3, "{refused:?}");
    for reason in ["its template is not known", "bad-coinbase, coinbase_tx does not decode", "its hash "] {
        assert!(refused.iter().any(|text| text.starts_with(reason)), "{reason}: {refused:?}");
    }
}

/// A header of the same work that misses the target: on regtest every second one does.
fn missed(solution: &Solution) -> Solution {
    let mut missed = solution.clone();
    while missed.target.is_met_by(&Digest::of(&missed.header)) {
        missed.header[79] = missed.header[79].wrapping_add(1);
    }
    missed
}

#[test]
fn a_block_under_a_forgotten_id_is_a_block() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    (settings.clients.class_linger_s, settings.clients.stale_retention_s) = (0.0, 0.0);
    let mut world = World::start(settings);
    let mut client = world.join(100);
    client.wait_for_tip();
    let solution = world.solve(&client);
    drop(client);
    wait_for("the end of its class", || world.provider.status().connections == 0);
    // Nobody's templates are left when it comes back, and before it says what it needs.
    let mut client = world.set_up();
    client.submit(&solution);
    assert!(matches!(world.outcome(), (hash, Submission::Accepted { .. }) if hash == solution.digest));
    client.send(&constraints(100));
    client.wait_for_tip();
    // An id of its own invention.
    let solution = world.solve(&client);
    client.submit(&Solution { template_id: 7, ..solution.clone() });
    assert!(matches!(world.outcome(), (hash, Submission::Accepted { .. }) if hash == solution.digest));
    let status = world.provider.status();
    assert_eq!((status.blocks_accepted, status.solutions_refused), (2, 0));
    world.stop();
}

#[test]
fn false_solutions_close_who_brings_them_and_leave_the_journal_to_others() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::start(settings(directory.path()));
    let (mut good, mut bad) = (world.join(100), world.join(100));
    good.wait_for_tip();
    bad.wait_for_tip();
    let solution = missed(&world.solve(&bad));
    let field = |at: usize| u32::from_le_bytes(solution.header[at..at + 4].try_into().unwrap());
    let message = SubmitSolution {
        template_id: solution.template_id,
        version: field(0),
        header_timestamp: field(68),
        header_nonce: field(76),
        coinbase_tx: &solution.coinbase_tx,
    };
    // Some of them may not go out any more.
    let _ = (0..1_000).try_for_each(|_| bad.try_send(&message));
    let told = bad.read_to_end();
    assert!(told.is_empty(), "it is closed: {told:?}");
    good.submit(&Solution { template_id: 7, ..solution });
    wait_for("the last refusal", || world.provider.status().solutions_refused >= 33);
    world.mine(&mut good);
    world.stop();
    let refused = refused(directory.path());
    assert!(refused.len() < 20, "{}", refused.len());
    assert!(refused.iter().any(|text| text.starts_with("its template is not known")), "{refused:?}");
}

#[test]
fn classes_that_come_and_go_cost_nobody_a_block() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    (settings.clients.class_linger_s, settings.clients.classes_begun_max) = (0.0, 10_000);
    let mut world = World::start(settings);
    let mut good = world.join(100);
    good.wait_for_tip();
    for round in 0..600 {
        let mut other = world.join(1_000 + round);
        other.wait_for_tip();
    }
    world.mine(&mut good);
    world.stop();
}

#[test]
fn who_takes_all_classes_keeps_nobody_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::start(settings(directory.path()));
    let mut greedy: Vec<_> = (0..20).map(|index| world.join(300 + index)).collect();
    greedy.iter_mut().for_each(Client::wait_for_tip);
    let mut large = world.join(90_000);
    large.wait_for_tip();
    world.mine(&mut large);
    world.mine(&mut large);
    world.stop();
}

/// A source that is still reading the transactions of a template when it is asked the first times.
struct Reading {
    node: EmbeddedNode,
    asked: std::sync::atomic::AtomicU32,
}

impl TemplateSource for Reading {
    fn name(&self) -> &str {
        self.node.name()
    }

    fn updates(&self) -> Receiver<SourceUpdate> {
        self.node.updates()
    }

    fn want(&self, class: ClassId, reserve: Reserve) {
        self.node.want(class, reserve);
    }

    fn unwant(&self, class: ClassId) {
        self.node.unwant(class);
    }

    fn submit(&self, solution: Arc<Solution>) -> Receiver<Submission> {
        self.node.submit(solution)
    }

    fn submit_block(&self, block: Arc<[u8]>) -> Receiver<Submission> {
        self.node.submit_block(block)
    }

    fn transactions(&self, template_id: u64) -> Option<TemplateTransactions> {
        let is_read = self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= 3;
        is_read.then(|| self.node.transactions(template_id)).flatten()
    }

    fn shutdown(self: Box<Self>) {
        Box::new(self.node).shutdown();
    }
}

#[test]
fn a_request_waits_until_the_transactions_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let node = EmbeddedNode::start(embedded(&settings)).unwrap();
    let world = World::start_on(settings, Box::new(Reading { node, asked: 0.into() }));
    let mut client = world.join(100);
    client.wait_for_tip();
    let template_id = client.template.as_ref().unwrap().template_id;
    assert_eq!(client.transactions(template_id), Told::Transactions(template_id, vec![]));
    world.stop();
}

#[test]
fn hostile_clients_are_closed_and_a_good_one_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::start(settings(directory.path()));
    let mut good = world.join(100);
    good.wait_for_tip();
    let frame = |msg_type: u8, payload: &[u8]| {
        let mut frame = vec![0, 0, msg_type];
        frame.extend_from_slice(&(payload.len() as u32).to_le_bytes()[..3]);
        frame.extend_from_slice(payload);
        frame
    };
    // Each is closed after what it does, and told nothing but what it may know.
    type Deed = Box<dyn Fn(&mut Client)>;
    let deeds: Vec<(&str, Deed)> = vec![
        ("a message before the setup", Box::new(|client| client.send(&constraints(1)))),
        ("a miner's setup", {
            Box::new(|client| client.send(&adit_codec::message::SetupConnection { protocol: 0, ..setup() }))
        }),
        ("a request before the constraints", {
            Box::new(|client| {
                client.send(&setup());
                client.send(&RequestTransactionData { template_id: 1 });
            })
        }),
        ("more room than is granted", {
            Box::new(|client| {
                client.send(&setup());
                client.send(&constraints(u32::MAX));
            })
        }),
        ("a second setup", {
            Box::new(|client| {
                client.send(&setup());
                client.send(&setup());
            })
        }),
        ("a message that is cut off", {
            let cut = frame(0x70, &[1, 2]);
            Box::new(move |client| {
                client.send(&setup());
                client.send_frame(&cut).unwrap();
            })
        }),
        ("a frame that is too long", {
            let long = frame(0x76, &vec![0; 100_000]);
            Box::new(move |client| {
                client.send(&setup());
                // It is refused after its header.
                let _ = client.send_frame(&long);
            })
        }),
        ("constraints without end", {
            Box::new(|client| {
                client.send(&setup());
                for size in 0..100 {
                    client.send(&constraints(1_000 + 1_000 * size));
                }
            })
        }),
        ("unknown templates without end", {
            Box::new(|client| {
                client.send(&setup());
                for template_id in 0..100 {
                    client.send(&SubmitSolution {
                        template_id,
                        version: 0,
                        header_timestamp: 0,
                        header_nonce: 0,
                        coinbase_tx: &[0; 100],
                    });
                }
            })
        }),
    ];
    for (what, deed) in deeds {
        let mut bad = Client::connect(world.provider.local_addr(), &world.authority).unwrap();
        deed(&mut bad);
        let told = bad.read_to_end();
        assert!(told.iter().all(|told| !matches!(told, Told::Transactions(..))), "{what}: {told:?}");
        world.mine(&mut good);
    }
    wait_for("the ends", || world.provider.status().connections == 1);
    assert_eq!(world.provider.status().blocks_lost, 0);
    world.stop();
}

#[test]
fn a_thousand_disconnects_leave_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::start(settings(directory.path()));
    let mut good = world.join(100);
    good.wait_for_tip();
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    for round in 0..1_000_u32 {
        // At every step of a connection's life, in classes that come and go.
        match round % 4 {
            0 => drop(Client::connect(world.provider.local_addr(), &world.authority).unwrap()),
            1 => drop(world.set_up()),
            2 => drop(world.join(1_000 * (round % 8))),
            _ => {
                let mut client = world.join(100);
                client.wait_for_tip();
                client
                    .send(&RequestTransactionData { template_id: client.tip.as_ref().unwrap().template_id });
            }
        }
    }
    wait_for("the ends", || world.provider.status().connections == 1);
    wait_for("the descriptors", || descriptors() <= before);
    world.mine(&mut good);
    // A class that was there before is made anew.
    let mut again = world.join(4_000);
    again.wait_for_tip();
    world.mine(&mut again);
    world.stop();
}

#[test]
fn the_program_serves_says_what_happens_and_stops() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let public = output(path, &["key", "generate", "--out", "authority.key"]);
    let authority: AuthorityPublicKey = public.trim().parse().unwrap();
    let text = "[tp]\nlisten = \"127.0.0.1:0\"\n[authority]\nsecret_key_file = \"authority.key\"\n\
                [log]\nstatus_interval_s = 1\n";
    fs::write(path.join("tp.toml"), text).unwrap();
    let checked = output(path, &["check", "tp.toml"]);
    assert!(checked.contains("up to 256 clients are served") && !checked.contains("[pool]"), "{checked}");
    let mut program = Program::start(path, &["tp", "--config", "tp.toml"]);
    let line = program.wait_for("listening address=", PATIENCE);
    let address = line.split("address=").nth(1).unwrap().trim().parse().unwrap();
    let line = program.wait_for("point pools and job declarators at", PATIENCE);
    assert!(line.contains(&format!("stratum2+tcp://{address}/{authority}")), "{line}");

    let mut client = Client::join(address, &authority, 100);
    client.wait_for_tip();
    let template = Arc::clone(client.template.as_ref().unwrap());
    let wallet = Wallet::new();
    let value = template.coinbase_tx_value_remaining;
    let coinbase = coinbase(&template, &wallet.script(), value, 1);
    let solution = solve(&template, client.tip.as_ref().unwrap(), &coinbase);
    client.submit(&solution);
    client.wait_for_tip();
    // Every second hash meets regtest's target, of whatever template: only what is no coinbase is no block for certain.
    client.submit(&Solution { template_id: 1, coinbase_tx: vec![1, 2, 3], ..solution.clone() });
    let local = client.stream.local_addr().unwrap();
    for line in [
        format!("{local}: connected"),
        format!("{local}: set up, vendor \"tester\""),
        format!("{local}: gets templates of class 0, for 100 bytes of outputs and 4 sigops"),
        "templates of a new constraint class are wanted".to_owned(),
        "a new tip goes to a class class=0".to_owned(),
        format!("block found hash={}", solution.digest),
        "block accepted height=1".to_owned(),
        "solution refused: what is known of it is in the journal".to_owned(),
        "status connections=1".to_owned(),
    ] {
        program.wait_for(&line, PATIENCE);
    }
    // A miner in the wrong place.
    let mut miner = Client::connect(address, &authority).unwrap();
    miner.send(&adit_codec::message::SetupConnection { protocol: 0, ..setup() });
    assert_eq!(miner.read_to_end(), [Told::Other("SetupConnection.Error")]);
    program.wait_for("SetupConnection refused: unsupported-protocol", PATIENCE);
    program.signal("TERM");
    assert_eq!(program.wait(PATIENCE), Some(0), "{}", program.log());
    assert!(program.log().contains("stopped"), "{}", program.log());
}
