//! What is known of the template provider: the state behind the source, without socket and clock.
//!
//! Connections report what comes ([`Provider::handle_report`]), the source's users ask ([`Provider::want`],
//! [`Provider::submit`] and so on), and [`Provider::poll_timeout`] says when time does something. Effects go to the feed,
//! to the connections' queues and to those who wait for a solution's outcome.
//!
//! Invariants:
//! - A class's templates come over one connection of its own: a connection has one CoinbaseOutputConstraints.
//! - A template is announced under a fresh id. Before the first tip of a connection nothing is: then the future template
//!   and the tip that names it come together, so that [`SourceUpdate::Up`] says that there is work.
//! - The source is up while one connection has a tip.
//! - A template that is not for the tip's height ends its connection: it builds on a tip that was not announced.
//!
//! Bounds: [`CONNECTIONS_MAX`] classes; a template for the present tip at most every [`TEMPLATE_INTERVAL`], the newest one;
//! [`FUTURES_ANNOUNCED_MAX`] future templates for one tip before it comes.

mod requests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_hasher::Digest;
use adit_proto::distribution::server::ClassId;
use adit_proto::distribution::{Constraints, Reserve};
use adit_proto::mining::server::Solution;
use adit_proto::template::{PrevHash, Template, TemplateUpdate};
use crossbeam::channel::Sender;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::checker::Job;
use super::connection::{Command, LinkId, Order, Report, What};
use super::lost::Lost;
use super::solutions::{Asked, Coinbase, NO_TEMPLATE, Solutions, solution_of};
use super::templates::{Known, Templates};
use super::transactions::Store;
use crate::nodes::coinbase::{BLOCK_WEIGHT_MAX, pushed_height};
use crate::nodes::feed::Feed;
use crate::nodes::{FUTURES_MAX, SourceUpdate, Submission, TemplateIds};

/// Classes, each with a connection.
pub(super) const CONNECTIONS_MAX: usize = 16;
/// The least time between two templates for one tip: each costs a job for every miner.
const TEMPLATE_INTERVAL: Duration = Duration::from_millis(200);
/// Future templates that are announced before their tip; a later one is announced with it.
const FUTURES_ANNOUNCED_MAX: usize = 8;
const _: () = assert!(FUTURES_ANNOUNCED_MAX < FUTURES_MAX);
/// For the first tip of a connection; then the provider is reported to give nothing.
const TIP_PATIENCE: Duration = Duration::from_secs(20);
/// Connections of a class that end in a row while others hold, until the class is refused.
const REFUSED_AFTER: u32 = 3;
/// The last blocks of the best chain, to know those that leave it.
const BLOCKS_MAX: usize = 64;
/// Orders that wait for a connection.
const ORDERS_MAX: usize = 2_048;
/// Weight that every template leaves free, and what is in it besides the added outputs (specification 7.1).
const RESERVED_WEIGHT_MIN: u64 = 2_000;
const FIXED_WEIGHT: u64 = 1_168;
const WEIGHT_PER_BYTE: u64 = 4;
/// The longest coinbase that SubmitSolution carries.
const COINBASE_LEN_MAX: usize = 65_535;

/// The constraints whose reserve covers this one; none if no block has such room.
pub(super) fn constraints_of(reserve: Reserve) -> Option<Constraints> {
    let weight = reserve.reserved_weight.max(RESERVED_WEIGHT_MIN);
    let max_additional_size = u32::try_from((weight - FIXED_WEIGHT).div_ceil(WEIGHT_PER_BYTE)).ok()?;
    let max_additional_sigops = reserve.max_additional_sigops;
    (weight < BLOCK_WEIGHT_MAX).then_some(Constraints { max_additional_size, max_additional_sigops })
}

/// A connection that is to be started.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) class: ClassId,
    pub(super) task: u64,
    pub(super) constraints: Constraints,
    pub(super) commands: mpsc::Receiver<Command>,
}

/// A future template that waits for its tip.
#[derive(Debug)]
struct Future {
    /// With the provider's id.
    template: Arc<Template>,
    /// The source's id, if it was announced.
    announced: Option<u64>,
}

/// The tip of a class.
#[derive(Clone, Copy, Debug)]
struct Tip {
    /// Height of the block that is looked for, as the template's coinbase has it.
    template_height: Option<u32>,
    prev_hash: [u8; 32],
}

/// One class and its connection.
#[derive(Debug)]
struct Class {
    reserve: Reserve,
    task: u64,
    commands: mpsc::Sender<Command>,
    /// Present between setup and loss.
    link: Option<LinkId>,
    /// When the provider is reported to give nothing; until the first tip of a connection.
    tip_deadline: Option<Instant>,
    futures: VecDeque<Future>,
    /// How many were announced since the last tip.
    futures_announced: usize,
    /// Over the present connection.
    tip: Option<Tip>,
    /// Tips so far, and the last one, over all connections.
    tips: u64,
    last_prev_hash: Option<[u8; 32]>,
    /// The newest template for the tip while it must wait.
    held: Option<Arc<Template>>,
    /// When the next template for the tip may be announced.
    next_announcement: Option<Instant>,
    /// The template whose transactions were asked for, and the one that is next; the source's ids.
    requested: Option<u64>,
    request_next: Option<u64>,
    /// The one whose transactions are being checked.
    checking: Option<u64>,
    /// Connections that ended without a tip since the last one.
    losses: u32,
}

impl Class {
    /// Whether the connection takes an order.
    fn order(&self, link: LinkId, order: Order) -> bool {
        self.commands.try_send(Command { link, order }).is_ok()
    }
}

/// Whether there is work, as it was reported.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Up,
    /// And why, if that was said.
    Down(Option<String>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Provider {
    classes: BTreeMap<ClassId, Class>,
    next_task: u64,
    standing: Standing,
    templates: Templates,
    solutions: Solutions,
    /// The last blocks of the best chain: height and hash, rising.
    blocks: VecDeque<(u32, [u8; 32])>,
    ids: TemplateIds,
    store: Store,
    /// To the thread that checks transactions.
    checks: Sender<Job>,
    feed: Feed,
    /// Whether transactions that do not fit their template were reported.
    has_warned: bool,
}

impl Provider {
    pub(super) fn new(store: Store, checks: Sender<Job>, feed: Feed) -> Self {
        Self {
            classes: BTreeMap::new(),
            next_task: 0,
            standing: Standing::Down(None),
            templates: Templates::default(),
            solutions: Solutions::default(),
            blocks: VecDeque::new(),
            ids: TemplateIds::default(),
            store,
            checks,
            feed,
            has_warned: false,
        }
    }

    /// Asks for templates of a class. The connection that is returned is to be started; other room means another
    /// connection.
    pub(super) fn want(&mut self, class_id: ClassId, reserve: Reserve) -> Option<Wanted> {
        if self.classes.get(&class_id).is_some_and(|class| class.reserve == reserve) {
            return None;
        }
        let Some(constraints) = constraints_of(reserve) else {
            let reason = format!(
                "no block leaves {} weight units to the coinbase, at most {BLOCK_WEIGHT_MAX}: lower what it needs",
                reserve.reserved_weight
            );
            self.unwant(class_id);
            self.feed.report(SourceUpdate::Refused { class: class_id, reason });
            return None;
        };
        let before = self.classes.remove(&class_id);
        if self.classes.len() >= CONNECTIONS_MAX {
            let reason = format!(
                "{CONNECTIONS_MAX} connections to the template provider, one for each room in the coinbase, are the most: let \
                 clients ask for the same room"
            );
            self.feed.report(SourceUpdate::Refused { class: class_id, reason });
            return None;
        }
        if let Some(link) = before.as_ref().and_then(|class| class.link) {
            self.solutions.handle_lost(link);
        }
        let task = self.next_task;
        self.next_task += 1;
        let (sender, commands) = mpsc::channel(ORDERS_MAX);
        let class = Class {
            reserve,
            task,
            commands: sender,
            link: None,
            tip_deadline: None,
            futures: VecDeque::new(),
            futures_announced: 0,
            tip: None,
            tips: before.as_ref().map_or(0, |class| class.tips),
            last_prev_hash: before.and_then(|class| class.last_prev_hash),
            held: None,
            next_announcement: None,
            requested: None,
            request_next: None,
            checking: None,
            losses: 0,
        };
        self.classes.insert(class_id, class);
        Some(Wanted { class: class_id, task, constraints, commands })
    }

    /// Ends a class; its connection ends with its queue of orders.
    pub(super) fn unwant(&mut self, class_id: ClassId) {
        let Some(class) = self.classes.remove(&class_id) else { return };
        if let Some(link) = class.link {
            self.solutions.handle_lost(link);
        }
        self.templates.remove_class(class_id);
        self.prune_store();
        if self.classes.is_empty() {
            // Nobody is told: nobody waits for work.
            self.standing = Standing::Down(None);
        }
    }

    /// What a connection says.
    pub(super) fn handle_report(&mut self, report: Report, now: Instant) {
        let Report { class: class_id, task, what } = report;
        let Some(class) = self.classes.get_mut(&class_id).filter(|class| class.task == task) else { return };
        match (what, class.link) {
            (What::Ready(link), _) => {
                class.link = Some(link);
                class.tip_deadline = Some(now + TIP_PATIENCE);
            }
            (What::Lost(lost), _) => self.handle_lost(class_id, &lost, now),
            (What::Template(TemplateUpdate::NewTemplate(template)), Some(link)) => {
                self.handle_template(class_id, link, template, now);
            }
            (What::Template(TemplateUpdate::SetNewPrevHash(prev_hash)), Some(link)) => {
                self.handle_prev_hash(class_id, link, &prev_hash, now);
            }
            (What::Transactions { template_id, transactions }, Some(link)) => {
                self.handle_transactions(class_id, link, template_id, Ok(transactions));
            }
            (What::NoTransactions { template_id, reason }, Some(link)) => {
                self.handle_transactions(class_id, link, template_id, Err(reason));
            }
            // A report of a connection that was never set up.
            (_, None) => {}
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let classes = self.classes.values().flat_map(|class| {
            let held = class.held.as_ref().and(class.next_announcement);
            [class.tip_deadline, held]
        });
        classes.flatten().chain(self.solutions.poll_timeout()).min()
    }

    /// Does what is due at `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.solutions.handle_timeout(now);
        let ids: Vec<ClassId> = self.classes.keys().copied().collect();
        for class_id in ids {
            let Some(class) = self.classes.get_mut(&class_id) else { continue };
            let mut is_silent = false;
            if class.tip_deadline.is_some_and(|deadline| deadline <= now) {
                class.tip_deadline = None;
                is_silent = true;
            }
            let link = class.link;
            let held = class.held.take_if(|_| class.next_announcement.is_none_or(|next| next <= now));
            if let (Some(template), Some(link)) = (held, link) {
                self.announce_for_tip(class_id, link, &template, now);
            }
            if is_silent {
                self.report_trouble(
                    class_id,
                    "connected, but no template comes: its node may be loading the chain, or its log says why".to_owned(),
                );
            }
        }
    }

    /// Whether reports wait for their reader; then [`flush`](Self::flush) is to be called again soon.
    pub(super) fn is_blocked(&self) -> bool {
        self.feed.is_blocked()
    }

    /// Passes on reports that waited.
    pub(super) fn flush(&mut self) {
        self.feed.flush();
    }

    /// Answers all who wait: the source ends.
    pub(super) fn finish(&mut self) {
        self.solutions.finish();
        self.classes.clear();
    }

    // Connections.

    fn handle_lost(&mut self, class_id: ClassId, lost: &Lost, now: Instant) {
        let Some(class) = self.classes.get_mut(&class_id) else { return };
        let had_tip = class.tip.take().is_some();
        class.losses = if had_tip { 0 } else { class.losses + 1 };
        class.tip_deadline = None;
        class.futures.clear();
        class.held = None;
        class.requested = None;
        class.request_next = None;
        if let Some(link) = class.link.take() {
            self.solutions.handle_lost(link);
        }
        self.report_trouble(class_id, lost.to_string());
        // Another class's connection takes what this one may have lost.
        if self.classes.values().any(|class| class.tip.is_some()) {
            self.deliver_unsent(now);
        }
    }

    /// A class gets no templates now: with it the source is down, unless others get theirs.
    fn report_trouble(&mut self, class_id: ClassId, reason: String) {
        if self.classes.values().all(|class| class.tip.is_none()) {
            let told = matches!(&self.standing, Standing::Down(Some(told)) if *told == reason);
            if !told {
                self.standing = Standing::Down(Some(reason.clone()));
                self.feed.report(SourceUpdate::Down { reason });
            }
            return;
        }
        let Some(class) = self.classes.get(&class_id) else { return };
        warn!(class = class_id.0, %reason, "no templates for one room in the coinbase; trying again");
        if class.losses == REFUSED_AFTER {
            let weight = class.reserve.reserved_weight;
            let reason = format!("no templates that leave {weight} weight units to the coinbase: {reason}");
            self.feed.report(SourceUpdate::Refused { class: class_id, reason });
        }
    }

    // Templates and tips.

    fn handle_template(&mut self, class_id: ClassId, link: LinkId, template: Arc<Template>, now: Instant) {
        let Some(class) = self.classes.get_mut(&class_id) else { return };
        if template.future_template {
            let is_announced = class.tip.is_some() && class.futures_announced < FUTURES_ANNOUNCED_MAX;
            class.futures_announced += usize::from(is_announced);
            let id = is_announced.then(|| self.announce(class_id, link, &template, None, now));
            let Some(class) = self.classes.get_mut(&class_id) else { return };
            if class.futures.len() >= FUTURES_MAX {
                class.futures.pop_front();
            }
            class.futures.push_back(Future { template, announced: id });
            return;
        }
        // The state machine lets no such template pass before the first tip.
        let Some(tip) = class.tip else { return };
        let heights = pushed_height(&template.coinbase_prefix).zip(tip.template_height);
        if let Some((template, tip)) = heights.filter(|(template, tip)| template != tip) {
            class.order(link, Order::Close(Lost::OtherHeight { template, tip }));
            return;
        }
        if class.next_announcement.is_some_and(|next| next > now) {
            class.held = Some(template);
            return;
        }
        self.announce_for_tip(class_id, link, &template, now);
    }

    /// Announces a template that builds on the present tip.
    fn announce_for_tip(&mut self, class_id: ClassId, link: LinkId, template: &Template, now: Instant) {
        let Some(class) = self.classes.get_mut(&class_id) else { return };
        let Some(Tip { prev_hash, .. }) = class.tip else { return };
        class.held = None;
        class.next_announcement = Some(now + TEMPLATE_INTERVAL);
        let id = self.announce(class_id, link, template, Some(prev_hash), now);
        self.want_transactions(class_id, id);
    }

    /// Announces a template under an id of the source's own.
    fn announce(
        &mut self,
        class: ClassId,
        link: LinkId,
        template: &Template,
        prev_hash: Option<[u8; 32]>,
        now: Instant,
    ) -> u64 {
        let template_id = self.ids.next_id();
        let provider_id = template.template_id;
        let template = Arc::new(Template { template_id, ..template.clone() });
        let tip = self.classes.get(&class).map_or(0, |class| class.tips);
        let announced = Arc::clone(&template);
        self.templates.insert(Known { template, class, link, provider_id, prev_hash, tip });
        let update = TemplateUpdate::NewTemplate(announced);
        self.feed.report(SourceUpdate::Template { class, update, learned: now });
        template_id
    }

    fn handle_prev_hash(&mut self, class_id: ClassId, link: LinkId, prev_hash: &PrevHash, now: Instant) {
        let Some(class) = self.classes.get_mut(&class_id) else { return };
        let named =
            class.futures.iter().position(|future| future.template.template_id == prev_hash.template_id);
        // The state machine remembers as many, and lets none pass that names another.
        let Some(Future { template, announced }) = named.and_then(|index| class.futures.remove(index)) else {
            return;
        };
        class.futures.clear();
        class.futures_announced = 0;
        class.held = None;
        class.tip_deadline = None;
        class.losses = 0;
        // The tip's own template may be followed at once by one that pays more.
        class.next_announcement = None;
        let template_height = pushed_height(&template.coinbase_prefix);
        let went_back = class.tip.is_some_and(|before| before.template_height > template_height);
        let is_first = class.tip.replace(Tip { template_height, prev_hash: prev_hash.prev_hash }).is_none();
        if class.last_prev_hash.replace(prev_hash.prev_hash) != Some(prev_hash.prev_hash) {
            class.tips += 1;
        }
        let tip = class.tips;
        if self.standing != Standing::Up {
            self.standing = Standing::Up;
            self.feed.report(SourceUpdate::Up);
        }
        let id = announced.unwrap_or_else(|| self.announce(class_id, link, &template, None, now));
        let update =
            TemplateUpdate::SetNewPrevHash(Arc::new(PrevHash { template_id: id, ..prev_hash.clone() }));
        self.feed.report(SourceUpdate::Template { class: class_id, update, learned: now });
        self.templates.activate(id, prev_hash.prev_hash, tip);
        self.templates.begin_tip(class_id, tip);
        self.prune_store();
        let height = template_height.and_then(|height| height.checked_sub(1));
        self.handle_block(prev_hash.prev_hash, height, went_back, now);
        self.want_transactions(class_id, id);
        if is_first {
            self.deliver_unsent(now);
        }
    }

    /// A block is the tip, as one of the connections says.
    fn handle_block(&mut self, hash: [u8; 32], height: Option<u32>, went_back: bool, now: Instant) {
        let Some(height) = height else {
            return self.solutions.handle_tip(Digest(hash), None, now);
        };
        let is_known = self.blocks.iter().any(|block| *block == (height, hash));
        // A connection may be behind the others; one that goes back itself tells of a chain that was given up.
        if is_known && !went_back {
            return self.solutions.handle_tip(Digest(hash), Some(height), now);
        }
        let is_left = |block: &(u32, [u8; 32])| block.0 > height || (block.0 == height && block.1 != hash);
        while let Some((height, hash)) = self.blocks.back().copied().filter(is_left) {
            self.blocks.pop_back();
            self.feed.report(SourceUpdate::BlockDisconnected { height, hash: Digest(hash) });
        }
        if !is_known {
            if self.blocks.len() >= BLOCKS_MAX {
                self.blocks.pop_front();
            }
            self.blocks.push_back((height, hash));
            let reward_sat = self.solutions.reward_sat(Digest(hash));
            self.feed.report(SourceUpdate::BlockConnected { height, hash: Digest(hash), reward_sat });
        }
        self.solutions.handle_tip(Digest(hash), Some(height), now);
    }

    // Solutions.

    /// Takes a solution, or a question after one; exactly one answer comes.
    pub(super) fn submit(&mut self, solution: &Arc<Solution>, answer: Sender<Submission>, now: Instant) {
        if solution.coinbase_tx.len() > COINBASE_LEN_MAX {
            let reason = format!(
                "the coinbase has more than the {COINBASE_LEN_MAX} bytes that SubmitSolution carries"
            );
            let _ = answer.try_send(Submission::NotTaken { reason });
            return;
        }
        if self.solutions.ask(solution, answer, now) == Asked::Send {
            self.deliver(solution, now);
        }
    }

    /// Takes a whole block, of which only header and coinbase can be passed on.
    pub(super) fn submit_block(&mut self, block: &[u8], answer: Sender<Submission>, now: Instant) {
        match solution_of(block) {
            Ok(solution) => self.submit(&Arc::new(solution), answer, now),
            Err(error) => {
                let _ = answer.try_send(Submission::Rejected { reason: error.to_string() });
            }
        }
    }

    fn deliver_unsent(&mut self, now: Instant) {
        for solution in self.solutions.unsent() {
            self.deliver(&solution, now);
        }
    }

    /// Sends a solution to where its template is known.
    fn deliver(&mut self, solution: &Arc<Solution>, now: Instant) {
        let Some(coinbase) = self.solutions.coinbase(solution.digest) else { return };
        match self.route(solution, &coinbase) {
            Ok((class_id, link, template_id)) => {
                let Some(class) = self.classes.get(&class_id) else { return };
                let sent = Box::new(Solution { template_id, ..Solution::clone(solution) });
                if class.order(link, Order::Submit(sent)) {
                    info!(hash = %solution.digest, "solution sent to the template provider");
                    self.solutions.handle_sent(solution.digest, link, now);
                }
            }
            Err(why) => self.solutions.handle_unsent(solution.digest, &why),
        }
    }

    /// The connection for a solution, and the template's id there: its own, or one over which the same template came; or
    /// any, for a provider may know a template of an earlier connection.
    fn route(&self, solution: &Solution, coinbase: &Coinbase) -> Result<(ClassId, LinkId, u64), Submission> {
        let is_current = |known: &Known| {
            self.classes.get(&known.class).is_some_and(|class| class.link == Some(known.link))
        };
        let known = self.templates.get(solution.template_id);
        let own = known.filter(|known| is_current(known));
        let same = || self.templates.solved_by(&solution.header, &coinbase.txid, is_current);
        if let Some(known) = own.or_else(same) {
            return Ok((known.class, known.link, known.provider_id));
        }
        let connected = self.classes.iter().filter(|(_, class)| class.tip.is_some());
        let Some((class_id, link)) = connected.filter_map(|(id, class)| Some((*id, class.link?))).next()
        else {
            let reason = match &self.standing {
                Standing::Down(Some(reason)) => format!(
                    "no connection to the template provider ({reason}); the solution goes out when there is one"
                ),
                _ => "no connection to the template provider yet; the solution goes out when there is one"
                    .to_owned(),
            };
            return Err(Submission::Failed { reason });
        };
        let of_earlier = known
            .or_else(|| self.templates.solved_by(&solution.header, &coinbase.txid, |_| true))
            .map(|known| (class_id, link, known.provider_id));
        of_earlier.ok_or_else(|| match solution.template_id {
            NO_TEMPLATE => Submission::NotTaken {
                reason: "a template provider takes blocks of its own templates alone, and this is none; a source that takes \
                         whole blocks (core-ipc, core-rpc, embedded) would take it"
                    .to_owned(),
            },
            template_id => Submission::UnknownTemplate { template_id },
        })
    }
}
