//! The node's thread: chain, coins, mempool and templates, and the order in which they change.
//!
//! One thread owns everything, so nothing is locked but the table of templates. Solutions go before all else. When the tip
//! changes, the new tip is announced before anything is cleaned up: with the prepared template of the next height where
//! there is one, with the full template where the mempool is so small that this takes well under a millisecond
//! ([`QUICK_COUNT_MAX`]), and otherwise with an empty template, the full one following as soon as the indices are up to
//! date. So the time to the announcement does not grow with the mempool.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::Solution;
use adit_proto::template::{Template, TemplateUpdate};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{Block, Transaction};
use crossbeam::channel::{Receiver, Sender};
use crossbeam::select;

use super::EmbeddedConfig;
use super::admission::{self, TransactionRefusal, View};
use super::coins::Coins;
use super::kernel::{BlockVerdict, ChainEvent, Kernel, KernelFault, Tip};
use super::mempool::{Checked, Mempool};
use super::rules::Chain;
use super::selection::{Room, Selection, select};
use super::template;
use crate::nodes::coinbase::paid_sat;
use crate::nodes::feed::Feed;
use crate::nodes::store::TemplateStore;
use crate::nodes::{
    CLASSES_MAX, SourceUpdate, Submission, TemplateIds, TemplateTransactions, assemble_block,
};

/// Up to this many waiting transactions a new tip is announced with its full template at once.
const QUICK_COUNT_MAX: usize = 64;
/// Between two lines of progress while blocks are read at start.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// How soon reports that the reader did not take are offered again.
const FEED_RETRY: Duration = Duration::from_millis(20);
/// The thread looks around at least this often.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A solution or a block, and who waits for the answer.
pub(super) struct Submit {
    pub(super) what: Submitted,
    pub(super) answer: Sender<Submission>,
}

pub(super) enum Submitted {
    Solution(Arc<Solution>),
    Block(Arc<[u8]>),
}

/// Anything else that the node's thread shall do; short, as solutions wait for it.
pub(super) enum Command {
    Run(Box<dyn FnOnce(&mut Node) + Send>),
    Stop,
}

/// What the node's thread owns.
pub(super) struct Node {
    pub(super) config: EmbeddedConfig,
    pub(super) kernel: Kernel,
    pub(super) coins: Coins,
    pub(super) mempool: Mempool,
    pub(super) tip: Tip,
    store: TemplateStore,
    feed: Feed,
    ids: TemplateIds,
    classes: BTreeMap<ClassId, Class>,
    /// When what is being announced was learnt of.
    learned: Instant,
    fault: Option<String>,
}

/// A class of reserve: what its templates leave free, and which it has.
struct Class {
    reserve: Reserve,
    room: Room,
    /// The empty template of the height after the next block, where it was announced in advance.
    prepared: Option<(u32, Arc<Template>)>,
    /// Fees of the newest template for the tip.
    fees_sat: u64,
    /// Whether the mempool changed since the newest template.
    changed: bool,
    announced: Instant,
}

impl Class {
    /// The template on a tip with the selected transactions, which is the class's newest from now on.
    fn give(
        &mut self,
        chain: Chain,
        tip: &Tip,
        template_id: u64,
        future: bool,
        selection: &Selection<'_>,
    ) -> (Arc<Template>, TemplateTransactions) {
        let template = template::build(chain, tip.last.height + 1, template_id, future, selection);
        self.fees_sat = selection.fees_sat;
        self.announced = Instant::now();
        let raws = selection.entries.iter().map(|entry| entry.raw.clone());
        (Arc::new(template), TemplateTransactions::new(raws))
    }
}

fn now_unix() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

impl Node {
    /// Opens the chain in `directory`, reads its blocks and announces the tip.
    pub(super) fn open(
        config: EmbeddedConfig,
        directory: &std::path::Path,
        store: TemplateStore,
        feed: Feed,
    ) -> Result<Self, KernelFault> {
        let kernel = Kernel::open(config.chain, directory)?;
        let coins = read_coins(&kernel)?;
        let (tip, mempool) = (kernel.tip(), Mempool::new(config.mempool));
        let mut node = Self {
            config,
            kernel,
            coins,
            mempool,
            tip,
            store,
            feed,
            ids: TemplateIds::default(),
            classes: BTreeMap::new(),
            learned: Instant::now(),
            fault: None,
        };
        let (height, hash) = (node.tip.last.height, node.tip.hash);
        tracing::info!(chain = node.config.chain.name(), height, %hash, coins = node.coins.len(), "embedded node opened");
        node.store.begin_tip();
        node.feed.report(SourceUpdate::Up);
        Ok(node)
    }

    /// Begins a class, or gives it another reserve.
    pub(super) fn want(&mut self, id: ClassId, reserve: Reserve) {
        self.learned = Instant::now();
        if self.classes.get(&id).is_some_and(|class| class.reserve == reserve) {
            return;
        }
        let reason = match template::room(reserve) {
            Some(room) if self.classes.contains_key(&id) || self.classes.len() < CLASSES_MAX => {
                let (prepared, announced) = (None, Instant::now());
                let class = Class { reserve, room, prepared, fees_sat: 0, changed: false, announced };
                self.classes.insert(id, class);
                self.announce_tip(id, true);
                return self.prepare_next(id);
            }
            Some(_) => format!("{CLASSES_MAX} classes of reserve are served already"),
            None => format!(
                "a reserve of {} weight units and {} sigops leaves no room for a block",
                reserve.reserved_weight, reserve.max_additional_sigops
            ),
        };
        self.classes.remove(&id);
        self.feed.report(SourceUpdate::Refused { class: id, reason });
    }

    /// Ends a class.
    pub(super) fn unwant(&mut self, id: ClassId) {
        self.classes.remove(&id);
        self.store.unwant(id);
    }

    /// Serves until it is told to stop, or until nobody is left who could.
    pub(super) fn run(mut self, solutions: &Receiver<Submit>, commands: &Receiver<Command>) {
        loop {
            while let Ok(submit) = solutions.try_recv() {
                self.handle_submit(submit);
            }
            select! {
                recv(solutions) -> submit => match submit {
                    Ok(submit) => self.handle_submit(submit),
                    Err(_) => break,
                },
                recv(commands) -> command => match command {
                    Ok(Command::Run(run)) => run(&mut self),
                    Ok(Command::Stop) | Err(_) => break,
                },
                default(self.next_timeout()) => {}
            }
            self.refresh_template();
            self.feed.flush();
        }
        for submit in solutions.try_iter() {
            self.handle_submit(submit);
        }
    }

    fn next_timeout(&self) -> Duration {
        let changed = self.classes.values().filter(|class| class.changed);
        let refresh = changed
            .map(|class| self.config.template_interval.saturating_sub(class.announced.elapsed()))
            .min()
            .unwrap_or(IDLE_MAX);
        if self.feed.is_blocked() { refresh.min(FEED_RETRY) } else { refresh.min(IDLE_MAX) }
    }

    fn handle_submit(&mut self, submit: Submit) {
        let (submission, events) = match submit.what {
            Submitted::Block(raw) => self.process(&raw),
            Submitted::Solution(solution) => self.process_solution(&solution),
        };
        // Whoever asked may have gone; the block counts all the same.
        let _ = submit.answer.send(submission);
        self.follow(events);
    }

    fn process_solution(&mut self, solution: &Solution) -> (Submission, Vec<ChainEvent>) {
        let template_id = solution.template_id;
        let Some(transactions) = self.store.find(template_id) else {
            return (Submission::UnknownTemplate { template_id }, Vec::new());
        };
        match assemble_block(&solution.header, &solution.coinbase_tx, &solution.merkle_path, &transactions) {
            Ok(raw) => self.process(&raw),
            Err(error) => (Submission::Rejected { reason: error.to_string() }, Vec::new()),
        }
    }

    /// Gives a block to Bitcoin Core; the events are still to be followed.
    fn process(&mut self, raw: &[u8]) -> (Submission, Vec<ChainEvent>) {
        if let Some(reason) = &self.fault {
            return (Submission::Failed { reason: reason.clone() }, Vec::new());
        }
        let processed = self.kernel.process(raw);
        if let Some(reason) = self.kernel.fatal_fault() {
            let reason = format!("the chain's disk or database failed: {reason}");
            tracing::error!(%reason, "embedded node");
            self.feed.report(SourceUpdate::Down { reason: reason.clone() });
            self.fault = Some(reason.clone());
            return (Submission::Failed { reason }, processed.events);
        }
        let hash = processed.hash.unwrap_or_default();
        let submission = match processed.verdict {
            BlockVerdict::Connected { height } => {
                let block = processed.events.iter().rev().find(|event| event.connected && event.hash == hash);
                let reward_sat = block.map_or(0, |event| reward_sat(&event.block));
                Submission::Accepted { height, hash, reward_sat }
            }
            BlockVerdict::Stale { height } => Submission::Stale { height, hash },
            BlockVerdict::Duplicate => Submission::Duplicate { hash },
            BlockVerdict::Invalid(reason) => Submission::Rejected { reason },
        };
        (submission, processed.events)
    }

    /// Gives a whole block to Bitcoin Core and follows the chain.
    pub(super) fn submit_block(&mut self, raw: &[u8]) -> Submission {
        let (submission, events) = self.process(raw);
        self.follow(events);
        submission
    }

    /// Brings everything up to date with the best chain; the new tip is announced first.
    fn follow(&mut self, events: Vec<ChainEvent>) {
        if events.is_empty() {
            return;
        }
        self.learned = Instant::now();
        self.tip = self.kernel.tip();
        self.store.begin_tip();
        let next_height = self.tip.last.height + 1;
        let is_large = self.mempool.len() > QUICK_COUNT_MAX;
        let (empty_first, full_first): (Vec<_>, Vec<_>) = self.classes.iter().partition(|(_, class)| {
            is_large || class.prepared.as_ref().is_some_and(|(height, _)| *height == next_height)
        });
        let ids =
            |classes: Vec<(&ClassId, &Class)>| classes.into_iter().map(|(id, _)| *id).collect::<Vec<_>>();
        let (empty_first, full_first) = (ids(empty_first), ids(full_first));
        for id in &empty_first {
            self.announce_tip(*id, false);
        }
        if let Err(KernelFault(reason)) = self.apply(&events) {
            self.rebuild(&reason);
        }
        for id in full_first {
            self.announce_tip(id, true);
            self.prepare_next(id);
        }
        for id in empty_first {
            if self.mempool.len() > 0 {
                self.announce_template(id, true, false);
            }
            self.prepare_next(id);
        }
        for event in events {
            let ChainEvent { connected, height, hash, block } = event;
            self.feed.report(match connected {
                true => SourceUpdate::BlockConnected { height, hash, reward_sat: Some(reward_sat(&block)) },
                false => SourceUpdate::BlockDisconnected { height, hash },
            });
        }
    }

    fn apply(&mut self, events: &[ChainEvent]) -> Result<(), KernelFault> {
        let mut returned: Vec<Vec<Transaction>> = Vec::new();
        for event in events {
            if event.connected {
                self.coins.connect(&event.block, event.height);
                self.mempool.connect(&event.block);
            } else {
                self.coins.disconnect(&event.block, self.kernel.read_spent(&event.hash)?);
                returned.push(event.block.txdata.iter().skip(1).cloned().collect());
            }
        }
        if events.iter().any(|event| !event.connected) {
            // The newest block left first.
            self.readmit(returned.into_iter().rev().flatten());
        }
        Ok(())
    }

    /// Puts the transactions of blocks that left the chain back, and drops what the new chain does not allow. Their
    /// scripts were found good before.
    fn readmit(&mut self, returned: impl Iterator<Item = Transaction>) {
        let returned = returned.map(|transaction| {
            let raw: Arc<[u8]> = serialize(&transaction).into();
            (transaction, raw)
        });
        let waiting = self.mempool.take_all();
        let mut dropped = 0;
        for (transaction, raw) in returned.chain(waiting).collect::<Vec<_>>() {
            let admitted =
                self.check(transaction).is_ok_and(|checked| self.mempool.insert(checked, raw).is_ok());
            dropped += usize::from(!admitted);
        }
        tracing::info!(kept = self.mempool.len(), dropped, "the chain reorganised");
    }

    /// Reads everything anew after an index could not follow.
    fn rebuild(&mut self, reason: &str) {
        tracing::warn!(%reason, "reading the chain anew");
        match read_coins(&self.kernel) {
            Ok(coins) => {
                self.coins = coins;
                self.readmit(std::iter::empty());
            }
            Err(KernelFault(reason)) => {
                tracing::error!(%reason, "the chain cannot be read");
                self.mempool.take_all();
                self.fault = Some(reason.clone());
                self.feed.report(SourceUpdate::Down { reason });
            }
        }
    }

    /// Announces the present tip to a class with a future template and its activation.
    fn announce_tip(&mut self, id: ClassId, full: bool) {
        let height = self.tip.last.height + 1;
        let Some(class) = self.classes.get_mut(&id) else { return };
        let prepared = class.prepared.take().filter(|(of, _)| *of == height && !full);
        let template = match prepared {
            Some((_, template)) => {
                class.fees_sat = 0;
                Some(template)
            }
            None => self.announce_template(id, full, true),
        };
        let Some(template) = template else { return };
        let nbits = self.kernel.next_nbits(&self.tip);
        let tip = template::prev_hash(self.config.chain, &self.tip, nbits, template.template_id, now_unix());
        self.report(id, TemplateUpdate::SetNewPrevHash(Arc::new(tip)));
    }

    /// Announces a template for the present tip, with the best transactions or none; `None` if there is no such class.
    fn announce_template(&mut self, id: ClassId, full: bool, future: bool) -> Option<Arc<Template>> {
        let class = self.classes.get_mut(&id)?;
        let selection = match full {
            true => select(&self.mempool, class.room),
            false => Selection::default(),
        };
        class.changed &= !full;
        let template_id = self.ids.next_id();
        let (template, transactions) =
            class.give(self.config.chain, &self.tip, template_id, future, &selection);
        self.store.insert(template_id, id, transactions);
        self.report(id, TemplateUpdate::NewTemplate(template.clone()));
        Some(template)
    }

    /// Announces a template for the present tip with the best transactions, if their fees are worth it.
    fn announce_better(&mut self, id: ClassId, fees_sat_min: u64) {
        let Some(class) = self.classes.get_mut(&id) else { return };
        class.changed = false;
        let selection = select(&self.mempool, class.room);
        if selection.fees_sat < fees_sat_min {
            return;
        }
        let template_id = self.ids.next_id();
        let (template, transactions) =
            class.give(self.config.chain, &self.tip, template_id, false, &selection);
        self.store.insert(template_id, id, transactions);
        self.report(id, TemplateUpdate::NewTemplate(template));
    }

    /// Announces the empty template of the height after the next block, if the configuration asks for it.
    fn prepare_next(&mut self, id: ClassId) {
        let Some(class) = self.classes.get_mut(&id).filter(|_| self.config.prepare_next) else { return };
        let (template_id, height) = (self.ids.next_id(), self.tip.last.height + 2);
        let template = template::build(self.config.chain, height, template_id, true, &Selection::default());
        let template = Arc::new(template);
        self.store.insert(template_id, id, TemplateTransactions::default());
        class.prepared = Some((height, template.clone()));
        self.report(id, TemplateUpdate::NewTemplate(template));
    }

    fn report(&mut self, class: ClassId, update: TemplateUpdate) {
        self.feed.report(SourceUpdate::Template { class, update, learned: self.learned });
    }

    /// Announces a better template for the tip to one class whose last one is old enough, if enough fees came. One at a
    /// time: a selection looks at the whole mempool, and solutions are looked at in between.
    fn refresh_template(&mut self) {
        if self.fault.is_some() {
            return;
        }
        self.learned = Instant::now();
        let interval = self.config.template_interval;
        let due =
            self.classes.iter().filter(|(_, class)| class.changed && class.announced.elapsed() >= interval);
        let Some((id, fees_sat)) =
            due.min_by_key(|(_, class)| class.announced).map(|(id, class)| (*id, class.fees_sat))
        else {
            return;
        };
        self.announce_better(id, fees_sat.saturating_add(self.config.fee_delta_sat));
    }

    /// Checks a transaction against chain and mempool as they are.
    pub(super) fn check(&self, transaction: Transaction) -> Result<Checked, TransactionRefusal> {
        let median_time_past_at = |height| Some(self.kernel.at_height(height)?.median_time_past);
        let view = View {
            coins: &self.coins,
            mempool: &self.mempool,
            tip: &self.tip,
            median_time_past_at: &median_time_past_at,
        };
        admission::check(transaction, &view)
    }

    /// Adds a transaction whose scripts hold for the outputs in `checked`, once it is found that it still spends them.
    pub(super) fn admit(&mut self, checked: Checked, raw: Arc<[u8]>) -> Result<(), TransactionRefusal> {
        if self.mempool.entry(&checked.txid).is_some() {
            return Ok(());
        }
        let again = self.check(checked.transaction)?;
        if again.spent != checked.spent {
            return Err(TransactionRefusal::MissingInputs);
        }
        self.mempool.insert(again, raw)?;
        self.classes.values_mut().for_each(|class| class.changed = true);
        Ok(())
    }
}

/// What a block's coinbase pays out.
pub(super) fn reward_sat(block: &Block) -> u64 {
    block.txdata.first().map_or(0, paid_sat)
}

/// Reads every block of the best chain and keeps what is unspent.
fn read_coins(kernel: &Kernel) -> Result<Coins, KernelFault> {
    let mut coins = Coins::default();
    let tip_height = kernel.tip().last.height;
    let mut said = Instant::now();
    for height in 1..=tip_height {
        let unreadable = |what: &dyn std::fmt::Display| KernelFault(format!("block {height}: {what}"));
        let at = kernel.at_height(height).ok_or_else(|| unreadable(&"missing"))?;
        let raw = kernel.read_block(&at.hash)?;
        let block: Block = deserialize(&raw).map_err(|error| unreadable(&error))?;
        coins.connect(&block, height);
        if said.elapsed() >= PROGRESS_INTERVAL {
            tracing::info!(height, tip_height, coins = coins.len(), "reading the chain");
            said = Instant::now();
        }
    }
    Ok(coins)
}

#[cfg(test)]
mod tests {
    use super::super::mempool::tests::{coin, insert, spend};
    use super::*;

    #[test]
    fn classes_get_better_templates_one_at_a_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let config =
            EmbeddedConfig { template_interval: Duration::ZERO, ..EmbeddedConfig::new(Chain::Regtest) };
        let (feed, updates) = Feed::new();
        let node = Node::open(config, directory.path(), TemplateStore::default(), feed);
        let mut node = node.unwrap_or_else(|KernelFault(reason)| panic!("{reason}"));
        for class in 1..=3 {
            node.want(ClassId(class), Reserve { reserved_weight: 4_000 * class, max_additional_sigops: 0 });
        }
        updates.try_iter().for_each(drop);
        assert_eq!(insert(&mut node.mempool, &spend(&[coin(1)], 1, 50_000, 1_000)), Ok(()));
        node.classes.values_mut().for_each(|class| class.changed = true);
        let mut served = Vec::new();
        for _ in 0..3 {
            node.refresh_template();
            let told: Vec<SourceUpdate> = updates.try_iter().collect();
            let [SourceUpdate::Template { class, .. }] = told[..] else { panic!("{told:?}") };
            served.push(class.0);
            assert_eq!(node.next_timeout().is_zero(), served.len() < 3, "the next one is due at once");
        }
        assert_eq!(served, [1, 2, 3], "who has waited longest comes first");
        node.refresh_template();
        assert!(updates.try_iter().next().is_none());
    }
}
