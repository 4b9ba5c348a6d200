//! What is done while a node is there: tips and templates out of it, solutions into it.
//!
//! The node's waits and makings run as tasks that report to the session, which alone decides what is announced. A class gets,
//! for each tip, a future template and the tip that names it; then better templates. The first one is empty unless
//! templates with transactions come as fast, as the last one did and this one still does: miners leave an old tip as soon as
//! the node knows the new one. A template for
//! the same tip is announced when its fees have risen enough and the interval is over, and no earlier than the node is
//! asked: once at the end of the interval, then every [`POLL_MIN`] to [`POLL_MAX`].
//!
//! Why the node is not left to wait for better fees (its waitNext): while it waits it makes a template a second, and when a
//! tip comes it makes a full one before it can make the empty one that miners need at once.
//!
//! Bounds: one template with transactions and one without are being made at a time; [`UNREAD_MAX`] blocks wait to be read;
//! templates held: see [`held`](super::held).

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use adit_hasher::Digest;
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::template::TemplateUpdate;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::connection::{Connection, Tip};
use super::driver::{Driver, FEED_RETRY, Order};
use super::fault::Fault;
use super::held::{Held, HeldTemplates};
use super::submission::{SUBMISSIONS_MAX, Submit, Submitter};
use super::template::NodeTemplate;
use super::{INTERRUPT_MAX, STOP_MAX};
use crate::nodes::{SourceUpdate, Submission, TemplateTransactions};

/// How long the node is left to wait for a tip at a time: a node that is silent for longer than this and the longest answer
/// is hung.
const TIP_WAIT: Duration = Duration::from_secs(5);
/// The least time between two waits that brought nothing new.
const TIP_PAUSE: Duration = Duration::from_millis(50);
/// Below this a template with transactions is as good as an empty one: no miner gets a job for so short a time.
const QUICK_MAX: Duration = Duration::from_millis(5);
/// How long after a tip such a template may be missing, before an empty one is made after all.
const EMPTY_AFTER: Duration = Duration::from_millis(20);
/// The shortest and the longest time between two questions whether fees have risen, where the interval is over.
const POLL_MIN: Duration = Duration::from_secs(1);
/// See [`POLL_MIN`].
const POLL_MAX: Duration = Duration::from_secs(5);
/// How long a class waits after a template for a tip that is not the last one heard of.
const ASTRAY_PAUSE: Duration = Duration::from_millis(50);
/// Announced templates whose transactions wait to be read.
const UNREAD_MAX: usize = 64;
/// Reports of tasks that wait for the session.
const EVENTS_MAX: usize = 64;
/// How far off the next turn is where nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// How a session ended.
pub(super) enum Ended {
    /// The source was stopped.
    Stopped,
    /// The node is of no use any more.
    Lost(Fault),
}

/// What tasks report.
pub(super) enum Event {
    /// The node has another tip.
    Tip(Tip),
    /// An empty template was made, or not.
    Empty { asked_on: Digest, made: Result<NodeTemplate, Fault> },
    /// A template with transactions was made, or not.
    Full {
        class: ClassId,
        reserve: Reserve,
        asked_on: Digest,
        took: Duration,
        made: Result<NodeTemplate, Fault>,
    },
    /// The transactions of a template were read, or not.
    Read(Result<(), Fault>),
    /// A call failed in a way that leaves no hope for the connection.
    Lost(Fault),
}

/// How far a class is with the present tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It has no template for the tip.
    Waiting,
    /// It has an empty one.
    Empty,
    /// It has one with transactions, or the mempool had none.
    Full,
}

/// A class's newest announcement.
struct Progress {
    reserve: Reserve,
    standing: Standing,
    /// The node makes no templates with transactions for it; at the next tip it is asked again.
    is_refused: bool,
    value_sat: u64,
    nbits: u32,
    /// When the node is asked next whether fees have risen.
    due: Instant,
    /// Since when it waits, or waited, for the tip's first template.
    since: Instant,
}

impl Progress {
    fn new(reserve: Reserve, now: Instant) -> Self {
        Self {
            reserve,
            standing: Standing::Waiting,
            is_refused: false,
            value_sat: 0,
            nbits: 0,
            due: now,
            since: now,
        }
    }
}

/// See the module.
pub(super) struct Session<'a> {
    driver: &'a mut Driver,
    connection: Rc<Connection>,
    held: Rc<RefCell<HeldTemplates>>,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    submits: mpsc::Sender<Submit>,
    submitter: JoinSet<()>,
    tasks: JoinSet<()>,
    tip: Tip,
    classes: BTreeMap<ClassId, Progress>,
    is_making_empty: bool,
    /// The tip that a template with transactions is being made for.
    making_full_on: Option<Digest>,
    /// Nothing is made before: the node has a tip that it has not told of yet.
    astray_until: Instant,
    unread: VecDeque<(u64, ClassId, Rc<Held>)>,
    is_reading: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(driver: &'a mut Driver, connection: Connection, tip: Tip) -> Self {
        let (events, inbox) = mpsc::channel(EVENTS_MAX);
        let (submits, waiting) = mpsc::channel(SUBMISSIONS_MAX);
        let (connection, held) = (Rc::new(connection), Rc::<RefCell<HeldTemplates>>::default());
        let (mut tasks, mut submitter) = (JoinSet::new(), JoinSet::new());
        tasks.spawn_local(watch(Rc::clone(&connection), tip.hash, events.clone()));
        let submitting = Submitter {
            connection: Rc::clone(&connection),
            held: Rc::clone(&held),
            store: driver.store.clone(),
            chain: Rc::clone(&driver.chain),
        };
        submitter.spawn_local(submitting.run(waiting, events.clone()));
        driver.chain.borrow_mut().forget_accepted();
        let now = Instant::now();
        let classes =
            driver.classes.iter().map(|(class, reserve)| (*class, Progress::new(*reserve, now))).collect();
        let mut this = Self {
            driver,
            connection,
            held,
            events,
            inbox,
            submits,
            submitter,
            tasks,
            tip,
            classes,
            is_making_empty: false,
            making_full_on: None,
            astray_until: now,
            unread: VecDeque::new(),
            is_reading: false,
        };
        this.begin_tip(tip, now);
        this
    }

    /// Serves until the node is lost or the source is stopped.
    pub(super) async fn serve(mut self) -> Ended {
        loop {
            self.start_tasks(Instant::now());
            let due = self.next_due(Instant::now());
            tokio::select! {
                biased;
                order = self.driver.orders.recv() => match order {
                    Some(Order::Submit(submit)) => self.hand_over(submit),
                    Some(Order::Want(class, reserve)) => self.want(class, reserve),
                    Some(Order::Unwant(class)) => {
                        self.driver.classes.remove(&class);
                        self.classes.remove(&class);
                        self.held.borrow_mut().unwant(class);
                        self.driver.store.unwant(class);
                    }
                    Some(Order::Stop) | None => {
                        self.stop().await;
                        return Ended::Stopped;
                    }
                },
                event = self.inbox.recv() => {
                    let event = event.expect("the session holds a sender of its own");
                    if let Err(fault) = self.handle_event(event) {
                        return Ended::Lost(fault);
                    }
                }
                () = sleep_until(due.into()) => {}
            }
            // What has ended takes no room.
            while self.tasks.try_join_next().is_some() {}
            self.sweep(Instant::now());
            self.driver.feed.flush();
        }
    }

    fn hand_over(&mut self, submit: Submit) {
        let reason = match self.submits.try_send(submit) {
            Ok(()) => return,
            Err(TrySendError::Full(submit)) => (submit, "too many submissions wait for the node"),
            Err(TrySendError::Closed(submit)) => (submit, "the connection to the node is over"),
        };
        let (submit, reason) = reason;
        submit.answer(Submission::Failed { reason: reason.to_owned() });
    }

    fn want(&mut self, class: ClassId, reserve: Reserve) {
        self.driver.want(class, reserve);
        match self.driver.classes.get(&class) {
            Some(reserve) => self.classes.insert(class, Progress::new(*reserve, Instant::now())),
            None => self.classes.remove(&class),
        };
    }

    fn handle_event(&mut self, event: Event) -> Result<(), Fault> {
        let now = Instant::now();
        match event {
            Event::Tip(tip) => self.begin_tip(tip, now),
            Event::Empty { asked_on, made } => {
                self.is_making_empty = false;
                self.handle_empty(asked_on, made?, now);
            }
            Event::Full { class, reserve, asked_on, took, made } => {
                self.making_full_on = None;
                match made {
                    Ok(template) => {
                        self.driver.full_took = Some(took);
                        self.handle_full(class, reserve, asked_on, template, now);
                    }
                    Err(Fault::Refused { reason, .. }) => self.handle_refusal(class, reserve, &reason),
                    Err(fault) => return Err(fault),
                }
            }
            Event::Read(read) => {
                self.is_reading = false;
                match read {
                    // It cannot be sent to other nodes, but it can be mined all the same.
                    Err(fault @ (Fault::Refused { .. } | Fault::Malformed { .. })) => {
                        tracing::warn!(source = self.driver.config.name, %fault, "a template's transactions are not known");
                    }
                    read => read?,
                }
            }
            Event::Lost(fault) => return Err(fault),
        }
        Ok(())
    }

    fn begin_tip(&mut self, tip: Tip, now: Instant) {
        self.tip = tip;
        self.astray_until = now;
        for progress in self.classes.values_mut() {
            *progress = Progress::new(progress.reserve, now);
        }
        self.held.borrow_mut().begin_tip(now);
        self.driver.store.begin_tip();
        let updates = self.driver.chain.borrow_mut().follow(tip);
        updates.into_iter().for_each(|update| self.driver.feed.report(update));
    }

    /// Whether a template is for the present tip; else it is freed. One that is for a tip not heard of yet puts off the next.
    fn is_on_tip(&mut self, template: &NodeTemplate, asked_on: Digest, now: Instant) -> bool {
        let is_on_tip = template.header.prev_hash == self.tip.hash.0;
        if !is_on_tip && asked_on == self.tip.hash {
            self.astray_until = now + ASTRAY_PAUSE;
        }
        is_on_tip
    }

    fn handle_empty(&mut self, asked_on: Digest, template: NodeTemplate, now: Instant) {
        let is_on_tip = self.is_on_tip(&template, asked_on, now);
        let held = Held::new(template);
        let waiting = self.classes.iter().filter(|(_, progress)| progress.standing == Standing::Waiting);
        let waiting: Vec<ClassId> = waiting.map(|(class, _)| *class).collect();
        if !is_on_tip || waiting.is_empty() {
            return self.destroy(vec![held]);
        }
        for class in waiting {
            self.announce(class, &held, Standing::Empty, now);
        }
    }

    fn handle_full(
        &mut self,
        class: ClassId,
        reserve: Reserve,
        asked_on: Digest,
        template: NodeTemplate,
        now: Instant,
    ) {
        let is_on_tip = self.is_on_tip(&template, asked_on, now);
        let fee_delta_sat = self.driver.config.fee_delta_sat.max(1);
        let poll = (self.driver.config.template_interval / 8).clamp(POLL_MIN, POLL_MAX);
        let progress = self.classes.get_mut(&class).filter(|progress| progress.reserve == reserve);
        let Some(progress) = progress.filter(|_| is_on_tip) else {
            return self.destroy(vec![Held::new(template)]);
        };
        let is_better = match progress.standing {
            Standing::Waiting => true,
            // On chains for tests the target eases with time.
            _ if progress.nbits != template.header.nbits => true,
            Standing::Empty => !template.merkle_path.is_empty(),
            Standing::Full => template.value_sat() >= progress.value_sat.saturating_add(fee_delta_sat),
        };
        if is_better {
            self.announce(class, &Held::new(template), Standing::Full, now);
        } else {
            progress.standing = Standing::Full;
            progress.due = now + poll;
            self.destroy(vec![Held::new(template)]);
        }
    }

    fn handle_refusal(&mut self, class: ClassId, reserve: Reserve, reason: &str) {
        if let Some(progress) = self.classes.get_mut(&class).filter(|progress| progress.reserve == reserve) {
            progress.is_refused = true;
            // What it gets are empty ones.
            self.driver.full_took = None;
            let weight = reserve.reserved_weight;
            let reason = format!(
                "the node makes no template that leaves {weight} weight units to the coinbase: {reason}; it is asked again at \
                 the next tip"
            );
            self.driver.feed.report(SourceUpdate::Refused { class, reason });
        }
    }

    /// Reports a template to a class; with the tip, if it is the first one for it.
    fn announce(&mut self, class: ClassId, held: &Rc<Held>, standing: Standing, now: Instant) {
        let Some(progress) = self.classes.get_mut(&class) else { return };
        let (template, template_id) = (&held.template, self.driver.ids.next_id());
        let learned = if progress.standing == Standing::Waiting { progress.since } else { now };
        let is_first = progress.standing == Standing::Waiting || progress.nbits != template.header.nbits;
        progress.standing = standing;
        progress.value_sat = template.value_sat();
        progress.nbits = template.header.nbits;
        progress.due = match standing {
            Standing::Full => now + self.driver.config.template_interval,
            _ => now,
        };
        let announcement = Arc::new(template.announcement(template_id, is_first));
        let tip = is_first.then(|| Arc::new(template.activation(template_id)));
        self.held.borrow_mut().insert(template_id, class, Rc::clone(held));
        if template.merkle_path.is_empty() {
            self.driver.store.insert(template_id, class, TemplateTransactions::default());
        } else {
            self.unread.push_back((template_id, class, Rc::clone(held)));
            if self.unread.len() > UNREAD_MAX {
                self.unread.pop_front();
            }
        }
        let update = TemplateUpdate::NewTemplate(announcement);
        self.driver.feed.report(SourceUpdate::Template { class, update, learned });
        if let Some(tip) = tip {
            let update = TemplateUpdate::SetNewPrevHash(tip);
            self.driver.feed.report(SourceUpdate::Template { class, update, learned });
        }
    }

    fn start_tasks(&mut self, now: Instant) {
        if now >= self.astray_until {
            self.start_making(now);
        }
        if !self.is_reading
            && let Some((template_id, class, held)) = self.unread.pop_front()
        {
            self.is_reading = true;
            let (connection, events) = (Rc::clone(&self.connection), self.events.clone());
            let (store, transactions) = (self.driver.store.clone(), Arc::clone(&self.driver.transactions));
            self.tasks.spawn_local(async move {
                let turn = held.turn.lock().await;
                let read = connection.read_block(&held.template).await;
                drop(turn);
                let read = match read {
                    Ok(block) => {
                        let split = tokio::task::spawn_blocking(move || {
                            transactions.lock().unwrap_or_else(PoisonError::into_inner).split(&block)
                        });
                        let malformed = Fault::Malformed { call: "BlockTemplate.getBlock", what: "no block" };
                        split.await.ok().flatten().ok_or(malformed)
                    }
                    Err(fault) => Err(fault),
                };
                let read = read.map(|transactions| store.insert(template_id, class, transactions));
                // A session that has ended needs no report.
                let _ = events.send(Event::Read(read)).await;
            });
        }
    }

    /// Has the node make what is wanted next.
    fn start_making(&mut self, now: Instant) {
        let full_is_quick = self.driver.full_took.is_some_and(|took| took <= QUICK_MAX);
        let is_waiting = self.classes.values().any(|progress| progress.standing == Standing::Waiting);
        let (connection, events, asked_on) =
            (Rc::clone(&self.connection), self.events.clone(), self.tip.hash);
        // One that is being made for an old tip holds the new one up, however quick the last was.
        let full_is_late = self.making_full_on.is_some_and(|tip| tip != self.tip.hash)
            || self.empty_due().is_some_and(|due| due <= now);
        if is_waiting && (full_is_late || !full_is_quick) && !self.is_making_empty {
            self.is_making_empty = true;
            let (connection, events) = (Rc::clone(&connection), events.clone());
            // Nothing is in it, so it leaves room for every class.
            let reserve = Reserve { reserved_weight: 2_000, max_additional_sigops: 0 };
            self.tasks.spawn_local(async move {
                let made = connection.create_template(reserve, false).await;
                let _ = events.send(Event::Empty { asked_on, made }).await;
            });
        }
        if self.making_full_on.is_some() || is_waiting && !full_is_quick {
            return;
        }
        let wanted = |standing: Standing| {
            let mut due =
                self.classes.iter().filter(|(_, progress)| progress.due <= now && !progress.is_refused);
            due.find(|(_, progress)| progress.standing == standing)
        };
        let next =
            wanted(Standing::Waiting).or_else(|| wanted(Standing::Empty)).or_else(|| wanted(Standing::Full));
        if let Some((class, progress)) = next {
            let (class, reserve) = (*class, progress.reserve);
            self.making_full_on = Some(asked_on);
            self.tasks.spawn_local(async move {
                let begun = Instant::now();
                let made = connection.create_template(reserve, true).await;
                let took = begun.elapsed();
                let _ = events.send(Event::Full { class, reserve, asked_on, took, made }).await;
            });
        }
    }

    /// When a class has waited long enough for its first template, quick as the last one was.
    fn empty_due(&self) -> Option<Instant> {
        let waiting = self.classes.values().filter(|progress| progress.standing == Standing::Waiting);
        waiting.map(|progress| progress.since + EMPTY_AFTER).min().filter(|_| !self.is_making_empty)
    }

    fn next_due(&self, now: Instant) -> Instant {
        let polls = self.classes.values().filter(|progress| {
            progress.standing == Standing::Full && !progress.is_refused && self.making_full_on.is_none()
        });
        let mut due = now + IDLE;
        let empty_due = self.empty_due().map(|due| due.max(self.astray_until));
        for at in polls.map(|progress| progress.due).chain(self.held.borrow().next_sweep()).chain(empty_due) {
            due = due.min(at);
        }
        if self.astray_until > now {
            due = due.min(self.astray_until);
        }
        if self.driver.feed.is_blocked() { due.min(now + FEED_RETRY) } else { due }
    }

    fn sweep(&mut self, now: Instant) {
        let gone = self.held.borrow_mut().sweep(now);
        if !gone.is_empty() {
            self.destroy(gone);
        }
    }

    /// Has the node free templates, each when nobody uses it any more.
    fn destroy(&mut self, templates: Vec<Rc<Held>>) {
        let connection = Rc::clone(&self.connection);
        self.tasks.spawn_local(async move {
            for held in templates {
                let _turn = held.turn.lock().await;
                if let Err(fault) = connection.destroy(&held.template).await {
                    tracing::debug!(%fault, "a template was not destroyed");
                }
            }
        });
    }

    /// Waits for answers to what was submitted, then ends the node's wait for a tip: nothing is left running in it.
    async fn stop(mut self) {
        let Self { submits, submitter, connection, inbox, tasks, .. } = &mut self;
        // Only the submitter's queue keeps it.
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(submits, closed));
        let answered = async {
            tokio::select! {
                _ = submitter.join_next() => {}
                // The submitter waits for nobody who reads.
                () = async { while inbox.recv().await.is_some() {} } => {}
            }
        };
        let _ = timeout(STOP_MAX, answered).await;
        let interrupted = async {
            if connection.interrupt().await.is_ok() {
                while let Some(event) = inbox.recv().await {
                    if matches!(event, Event::Lost(_)) {
                        return;
                    }
                }
            }
        };
        let _ = timeout(INTERRUPT_MAX, interrupted).await;
        tasks.abort_all();
    }
}

/// Tells of every tip but `current`.
async fn watch(connection: Rc<Connection>, mut current: Digest, events: mpsc::Sender<Event>) {
    loop {
        let begun = Instant::now();
        match connection.wait_tip_changed(&current, TIP_WAIT).await {
            Ok(tip) if tip.hash != current => {
                current = tip.hash;
                if events.send(Event::Tip(tip)).await.is_err() {
                    return;
                }
            }
            Ok(_) if begun.elapsed() < TIP_PAUSE => sleep(TIP_PAUSE).await,
            Ok(_) => {}
            Err(fault) => {
                let _ = events.send(Event::Lost(fault)).await;
                return;
            }
        }
    }
}
