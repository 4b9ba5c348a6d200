//! The thread that watches the node: templates and tips come in, and go out to every class that is wanted.
//!
//! Three tasks ask the node, each over its own connection: a long poll that is always in flight, a template now and then,
//! and the best block's hash often. What they find comes to one place ([`Watch`]), which alone decides and reports. Answers
//! can overtake one another, so a template that is not on a higher block than the present one counts only if the node, asked
//! again, names its tip.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_hasher::Digest;
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::template::TemplateUpdate;
use serde_json::json;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::answers::{self, ChainAnswer, HeaderAnswer};
use super::chain::Follower;
use super::client::{
    BEST_BLOCK_HASH, BLOCK_HEADER, BLOCK_TEMPLATE, BLOCKCHAIN_INFO, Endpoint, LONG_POLL, Lane, Method,
    NO_PARAMS,
};
use super::fault::RpcFault;
use super::template::{NodeTemplate, Parts, SharedTransactions, Tip};
use super::{CoreRpcConfig, Shared};
use crate::nodes::feed::Feed;
use crate::nodes::pause::Pause;
use crate::nodes::{SourceUpdate, TemplateIds};

/// Findings that wait to be looked at; then the tasks wait.
const FINDINGS_MAX: usize = 8;
/// Blocks that wait to be reported.
const REPORTS_MAX: usize = 64;
/// The first wait for a node that was lost; doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How soon a template is asked for again after the connection failed, while the tip can still be asked for.
const TEMPLATE_RETRY: Duration = Duration::from_secs(1);
/// The least time between two long polls: a node that answers at once does not have us run in circles.
const LONG_POLL_PAUSE: Duration = Duration::from_millis(50);
/// The same where the first one brought no other tip.
const LONG_POLL_PAUSE_ON_TIP: Duration = Duration::from_secs(1);
/// How long after a tip the long poll may take to bring its template, before it is given up and made anew: connections die
/// without a word.
const TEMPLATE_PATIENCE: Duration = Duration::from_secs(5);
/// How soon reports that the reader did not take are offered again.
const FEED_RETRY: Duration = Duration::from_millis(20);
/// Calls in a row that the node may be too busy for.
const BUSY_MAX: u32 = 10;
/// Chains on which an empty template can be made in advance. The others let a block be easier for its time alone.
const STEADY_CHAINS: [&str; 3] = ["main", "signet", "regtest"];

/// When the node's answer came, before it was read.
type Learned = std::time::Instant;

/// What the tasks find.
enum Finding {
    Template(NodeTemplate, Learned),
    Tip(Tip, Learned),
    Lost(RpcFault),
}

/// What a class was last given.
struct Served {
    wish: u64,
    reserve: Reserve,
    count: usize,
    fees_sat: u64,
}

/// The parts of the present template that classes need, by their count.
type PartsByCount = BTreeMap<usize, Parts>;

/// See the module.
pub(super) struct Watch {
    config: CoreRpcConfig,
    endpoint: Arc<Endpoint>,
    shared: Arc<Shared>,
    feed: Feed,
    ids: TemplateIds,
    /// What was said last of a node that is down.
    reason: Option<String>,
    /// The newest, while the node is up.
    current: Option<NodeTemplate>,
    transactions: SharedTransactions,
    served: BTreeMap<ClassId, Served>,
    /// When the present tip's template is given up; none if it is there.
    template_due: Option<Instant>,
    tips: watch::Sender<Option<[u8; 32]>>,
}

impl Watch {
    pub(super) fn new(
        config: CoreRpcConfig,
        endpoint: Arc<Endpoint>,
        shared: Arc<Shared>,
        feed: Feed,
    ) -> Self {
        Self {
            config,
            endpoint,
            shared,
            feed,
            ids: TemplateIds::default(),
            reason: None,
            current: None,
            transactions: SharedTransactions::default(),
            served: BTreeMap::new(),
            template_due: None,
            tips: watch::Sender::new(None),
        }
    }

    /// Watches until it is dropped.
    pub(super) async fn run(mut self) -> Infallible {
        let (reporter, mut reports) = mpsc::channel(REPORTS_MAX);
        let mut following = JoinSet::new();
        following.spawn(Follower::new(Arc::clone(&self.endpoint), reporter).run(self.tips.subscribe()));
        let mut pause = Pause::new(RETRY_MIN, RETRY_MAX);
        loop {
            let begun = Instant::now();
            let Err(fault) = self.session(&mut reports).await;
            // A node that comes and goes shall not give every miner new work each time.
            if begun.elapsed() > RETRY_MAX {
                pause.reset();
            }
            let reason = fault.to_string();
            if self.reason.as_ref() != Some(&reason) {
                self.feed.report(SourceUpdate::Down { reason: reason.clone() });
                self.reason = Some(reason);
            }
            self.current = None;
            self.served.clear();
            self.template_due = None;
            self.idle(pause.next_pause(), &mut reports).await;
        }
    }

    /// Waits, and answers what needs no node.
    async fn idle(&mut self, wait: Duration, reports: &mut mpsc::Receiver<SourceUpdate>) {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = sleep_until(until) => return,
                () = self.shared.wishes_changed.notified() => self.grant(Learned::now()),
                Some(report) = reports.recv() => self.feed.report(report),
                () = sleep(FEED_RETRY), if self.feed.is_blocked() => self.feed.flush(),
            }
        }
    }

    /// From the first answer of the node to the first that it does not give.
    async fn session(&mut self, reports: &mut mpsc::Receiver<SourceUpdate>) -> Result<Infallible, RpcFault> {
        let mut lane = Lane::new(Arc::clone(&self.endpoint));
        let chain: ChainAnswer = lane.call(BLOCKCHAIN_INFO, NO_PARAMS).await?;
        if chain.chain != self.config.chain {
            let (address, expected) = (self.config.address.clone(), self.config.chain.clone());
            return Err(RpcFault::WrongChain { address, expected, found: chain.chain });
        }
        let Fetched { template, long_poll_id, learned } = fetch(&mut lane, None).await?;
        self.reason = None;
        self.feed.report(SourceUpdate::Up);
        let prev_hash = template.prev_hash;
        self.adopt(template, learned);

        let (sender, mut findings) = mpsc::channel(FINDINGS_MAX);
        let renew = Arc::new(Notify::new());
        let new_lane = || Lane::new(Arc::clone(&self.endpoint));
        let mut tasks = JoinSet::new();
        tasks.spawn(poll_long(new_lane(), long_poll_id, prev_hash, Arc::clone(&renew), sender.clone()));
        tasks.spawn(poll_templates(new_lane(), self.config.template_interval, sender.clone()));
        let (shared, interval) = (Arc::clone(&self.shared), self.config.poll_interval);
        tasks.spawn(poll_tip(new_lane(), interval, prev_hash, shared, sender));
        loop {
            let due = self.template_due;
            tokio::select! {
                Some(finding) = findings.recv() => match finding {
                    Finding::Template(template, learned) => {
                        self.handle_template(template, learned, &mut lane).await?;
                    }
                    Finding::Tip(tip, learned) => self.handle_tip(tip, learned),
                    Finding::Lost(fault) => return Err(fault),
                },
                () = self.shared.wishes_changed.notified() => self.grant(Learned::now()),
                Some(report) = reports.recv() => self.feed.report(report),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.template_due = None;
                    tracing::debug!(source = %self.config.name, "the long poll did not bring the new tip's template");
                    renew.notify_one();
                }
                () = sleep(FEED_RETRY), if self.feed.is_blocked() => self.feed.flush(),
            }
        }
    }

    async fn handle_template(
        &mut self,
        template: NodeTemplate,
        learned: Learned,
        lane: &mut Lane,
    ) -> Result<(), RpcFault> {
        let Some(current) = &self.current else { return Ok(()) };
        let same_tip = template.prev_hash == current.prev_hash;
        if same_tip && template.nbits == current.nbits && template.target == current.target {
            self.template_due = None;
            self.hold(template);
            self.improve(learned);
            return Ok(());
        }
        // On some chains a block gets easier when none came for long.
        if same_tip || template.height > current.height || best_block_hash(lane).await? == template.prev_hash
        {
            self.template_due = None;
            self.adopt(template, learned);
        }
        Ok(())
    }

    /// A tip is known before its template: miners go there at once where that is safe.
    fn handle_tip(&mut self, tip: Tip, learned: Learned) {
        let Some(current) = self.current.as_ref().filter(|current| current.prev_hash != tip.hash) else {
            return;
        };
        self.template_due = Some(Instant::now() + TEMPLATE_PATIENCE);
        // A chain that is no longer than before is left to the node's template.
        let is_higher = tip.height >= current.height;
        let is_steady = STEADY_CHAINS.contains(&self.config.chain.as_str());
        if let Some(empty) = current.empty_on(&tip, now_unix()).filter(|_| is_higher && is_steady) {
            self.adopt(empty, learned);
        }
    }

    /// Begins a tip: every class gets its template and its activation.
    fn adopt(&mut self, template: NodeTemplate, learned: Learned) {
        self.shared.store.begin_tip();
        self.tips.send_replace(Some(template.prev_hash));
        self.hold(template);
        self.served.clear();
        self.grant(learned);
    }

    fn hold(&mut self, mut template: NodeTemplate) {
        self.transactions.share(&mut template);
        self.current = Some(template);
    }

    /// Serves the classes that are wanted and have nothing for this tip yet, and forgets those that are not.
    fn grant(&mut self, learned: Learned) {
        let (classes, refused) = {
            let mut wanted = self.shared.wanted();
            (wanted.classes.clone(), std::mem::take(&mut wanted.refused))
        };
        for (class, reason) in refused {
            self.feed.report(SourceUpdate::Refused { class, reason });
        }
        self.served.retain(|class, served| match classes.get(class) {
            Some((wish, _)) => *wish == served.wish,
            None => {
                self.shared.store.unwant(*class);
                false
            }
        });
        let mut parts = PartsByCount::new();
        for (class, (wish, reserve)) in classes {
            let Some(template) = self.current.as_ref().filter(|_| !self.served.contains_key(&class)) else {
                continue;
            };
            // A reserve that fits into no block was refused when it was asked for.
            let Some(count) = template.fitting(reserve) else { continue };
            if count < template.transactions.len() {
                tracing::debug!(
                    source = %self.config.name, kept = count, of = template.transactions.len(),
                    "the coinbase needs more room than the node leaves (blockreservedweight): the last transactions are left out"
                );
            }
            self.serve(class, Served { wish, reserve, count, fees_sat: 0 }, true, learned, &mut parts);
        }
    }

    /// Gives the classes the present template where it pays enough more than what they have.
    fn improve(&mut self, learned: Learned) {
        let Some(current) = &self.current else { return };
        let better = self.served.iter().filter_map(|(class, served)| {
            let count = current.fitting(served.reserve)?;
            // Whatever there is is better than an empty block.
            let is_first = served.count == 0 && count > 0;
            let enough = served.fees_sat.saturating_add(self.config.fee_delta_sat);
            let is_better =
                is_first || (current.fees_sat(count) >= enough && current.fees_sat(count) > served.fees_sat);
            let Served { wish, reserve, fees_sat, .. } = *served;
            is_better.then_some((*class, Served { wish, reserve, count, fees_sat }))
        });
        let mut parts = PartsByCount::new();
        for (class, served) in better.collect::<Vec<_>>() {
            self.serve(class, served, false, learned, &mut parts);
        }
    }

    /// Announces the present template to a class, with its activation if it is the tip's first.
    fn serve(
        &mut self,
        class: ClassId,
        served: Served,
        is_first: bool,
        learned: Learned,
        parts: &mut PartsByCount,
    ) {
        let Some(template) = &self.current else { return };
        let count = served.count;
        let parts = parts.entry(count).or_insert_with(|| template.parts(count));
        let template_id = self.ids.next_id();
        self.shared.store.insert(template_id, class, parts.transactions.clone());
        let announcement = Arc::new(template.announcement(parts, template_id, is_first));
        let mut report = |update| self.feed.report(SourceUpdate::Template { class, update, learned });
        report(TemplateUpdate::NewTemplate(announcement));
        if is_first {
            report(TemplateUpdate::SetNewPrevHash(Arc::new(template.activation(template_id))));
        }
        self.served.insert(class, Served { fees_sat: parts.fees_sat, ..served });
    }
}

/// A template as the node gave it.
struct Fetched {
    template: NodeTemplate,
    long_poll_id: String,
    learned: Learned,
}

/// Asks for a template; with an id, for one that is newer.
async fn fetch(lane: &mut Lane, long_poll_id: Option<&str>) -> Result<Fetched, RpcFault> {
    // Nodes take rules that their chain does not have.
    let mut request = json!({ "rules": ["segwit", "signet"], "capabilities": ["longpoll"] });
    let method: Method = match long_poll_id {
        Some(id) => {
            request["longpollid"] = json!(id);
            LONG_POLL
        }
        None => BLOCK_TEMPLATE,
    };
    let body = lane.ask(method, [request]).await?;
    let learned = Learned::now();
    let (template, long_poll_id) = answers::template(&body)?;
    Ok(Fetched { template, long_poll_id, learned })
}

async fn best_block_hash(lane: &mut Lane) -> Result<[u8; 32], RpcFault> {
    let body = lane.ask(BEST_BLOCK_HASH, NO_PARAMS).await?;
    answers::hash(body.result()?).ok_or_else(|| body.malformed("no hash"))
}

async fn tip(lane: &mut Lane, of: [u8; 32]) -> Result<Tip, RpcFault> {
    let body = lane.ask(BLOCK_HEADER, [Digest(of).to_string()]).await?;
    let HeaderAnswer { hash, height, mediantime, bits, .. } = body.result()?;
    let parsed = answers::hash(&hash).zip(answers::nbits(&bits));
    let (hash, nbits) = parsed.ok_or_else(|| body.malformed("no hash, or no bits"))?;
    Ok(Tip { hash, height, nbits, median_time: mediantime })
}

/// Has a long poll in flight, always. A renewal begins with a template at once.
async fn poll_long(
    mut lane: Lane,
    first_id: String,
    mut tip: [u8; 32],
    renew: Arc<Notify>,
    findings: mpsc::Sender<Finding>,
) {
    let mut id = Some(first_id);
    loop {
        let begun = Instant::now();
        let asked = tokio::select! {
            asked = fetch(&mut lane, id.as_deref()) => asked,
            // What was in flight is closed.
            () = renew.notified() => {
                id = None;
                continue;
            }
        };
        let mut pause = LONG_POLL_PAUSE;
        let finding = match asked {
            Ok(Fetched { template, long_poll_id, learned }) => {
                id = Some(long_poll_id);
                if std::mem::replace(&mut tip, template.prev_hash) == template.prev_hash {
                    pause = LONG_POLL_PAUSE_ON_TIP;
                }
                Finding::Template(template, learned)
            }
            // The node waits so long only where nothing happens. Whether it is there the polls for the tip tell.
            Err(fault) if fault.is_transport() => {
                tracing::debug!(%fault, "long poll");
                id = None;
                sleep(TEMPLATE_RETRY).await;
                continue;
            }
            Err(fault) => Finding::Lost(fault),
        };
        if findings.send(finding).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep_until(begun + pause) => {}
            () = renew.notified() => id = None,
        }
    }
}

/// Asks for a template once an interval: a long poll tells of fees only after a minute.
async fn poll_templates(mut lane: Lane, interval: Duration, findings: mpsc::Sender<Finding>) {
    loop {
        sleep(interval).await;
        let finding = match fetch(&mut lane, None).await {
            Ok(Fetched { template, learned, .. }) => Finding::Template(template, learned),
            Err(fault) if fault.is_transport() => continue,
            Err(fault) => Finding::Lost(fault),
        };
        if findings.send(finding).await.is_err() {
            return;
        }
    }
}

/// Asks for the tip often, and at once when a block of ours was accepted. A node that does not answer here is lost.
async fn poll_tip(
    mut lane: Lane,
    interval: Duration,
    mut last: [u8; 32],
    shared: Arc<Shared>,
    findings: mpsc::Sender<Finding>,
) {
    let mut busy = 0;
    loop {
        tokio::select! {
            () = sleep(interval) => {}
            () = shared.tip_changed.notified() => {}
        }
        let found = match best_block_hash(&mut lane).await {
            Ok(hash) if hash == last => {
                busy = 0;
                continue;
            }
            Ok(hash) => {
                let learned = Learned::now();
                tip(&mut lane, hash).await.map(|tip| (tip, learned))
            }
            Err(fault) => Err(fault),
        };
        let finding = match found {
            Ok((tip, learned)) => {
                last = tip.hash;
                Finding::Tip(tip, learned)
            }
            Err(RpcFault::Busy) if busy < BUSY_MAX => {
                busy += 1;
                continue;
            }
            Err(fault) => Finding::Lost(fault),
        };
        if findings.send(finding).await.is_err() {
            return;
        }
    }
}

fn now_unix() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}
