//! Blocks on their way to every source.
//!
//! A thread for each source hands over what is submitted and waits for the answers, so that a source that hangs holds
//! nobody else up. The answers of one submission meet in its [`Verdict`]: the first acceptance counts at once; otherwise
//! the best answer does, when all have come. A source that could not be asked while another settled the block is *owed*
//! it: it is handed over again when the source is up, or after a while, so that more than one node spreads it.
//!
//! Bounds: [`PARCELS_MAX`] submissions wait for a source's thread and [`UNANSWERED_MAX`] for its answer, each for
//! [`ANSWER_PATIENCE`]; beyond, the source counts as not asked. [`OWED_MAX`] blocks are owed to a source, each for
//! [`OWED_ATTEMPTS_MAX`] attempts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_hasher::Digest;
use adit_proto::mining::server::Solution;
use crossbeam::channel::{Receiver, Select, Sender, TrySendError, bounded};
use tracing::{debug, info, warn};

use crate::nodes::{Submission, TemplateSource, TemplateTransactions, assemble_block};

/// Submissions that wait for a source's thread.
const PARCELS_MAX: usize = 1_024;
/// Submissions that wait for a source's answer.
const UNANSWERED_MAX: usize = 1_024;
/// How long a source may take to answer before it counts as not asked.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// Blocks that a source is owed; each is up to four megabytes.
const OWED_MAX: usize = 16;
/// Pause before an owed block is handed over again; it doubles with each attempt.
const OWED_PAUSE: Duration = Duration::from_secs(5);
/// Nearly three hours, if the source says nothing of itself.
const OWED_ATTEMPTS_MAX: u32 = 11;

/// What is submitted.
#[derive(Debug)]
pub(super) struct Submitted {
    pub(super) hash: Digest,
    /// None for a block that came whole.
    solution: Option<(Arc<Solution>, Option<TemplateTransactions>)>,
    /// Assembled once, by whoever needs it first.
    block: OnceLock<Option<Arc<[u8]>>>,
}

impl Submitted {
    pub(super) fn of_solution(solution: Arc<Solution>, transactions: Option<TemplateTransactions>) -> Self {
        Self { hash: solution.digest, solution: Some((solution, transactions)), block: OnceLock::new() }
    }

    pub(super) fn of_block(block: Arc<[u8]>) -> Self {
        const HEADER_LEN: usize = 80;
        let hash = Digest::of(&block[..block.len().min(HEADER_LEN)]);
        Self { hash, solution: None, block: OnceLock::from(Some(block)) }
    }

    /// Whether there is a block, or what makes one.
    pub(super) fn is_whole(&self) -> bool {
        self.solution.as_ref().is_none_or(|(_, transactions)| transactions.is_some())
    }

    fn block(&self) -> Option<Arc<[u8]>> {
        let assemble = || {
            let (solution, transactions) = self.solution.as_ref()?;
            let Solution { header, coinbase_tx, merkle_path, .. } = &**solution;
            let block = assemble_block(header, coinbase_tx, merkle_path, transactions.as_ref()?);
            block
                .inspect_err(|error| warn!(hash = %self.hash, %error, "a solution gives no block"))
                .ok()
                .map(Arc::from)
        };
        self.block.get_or_init(assemble).clone()
    }
}

/// What the sources' answers come to.
#[derive(Debug)]
pub(super) struct Verdict {
    merge: Mutex<Merge>,
}

#[derive(Debug)]
struct Merge {
    /// How many answers are still to come.
    awaited: usize,
    /// The best answer so far.
    best: Option<Submission>,
    /// What the sources say that could not be asked, or that refuse it.
    doubts: Vec<String>,
    /// Whether one could not be asked that might have taken it.
    is_unasked: bool,
    /// The answer, once it is given.
    given: Option<Submission>,
    answer: Sender<Submission>,
}

impl Verdict {
    /// Of `awaited` sources, told over the returned channel.
    pub(super) fn new(awaited: usize) -> (Arc<Self>, Receiver<Submission>) {
        let (answer, receiver) = bounded(1);
        let merge = Merge { awaited, best: None, doubts: Vec::new(), is_unasked: false, given: None, answer };
        (Arc::new(Self { merge: Mutex::new(merge) }), receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Merge> {
        // A panic elsewhere leaves at worst an answer uncounted, and the caller retries.
        self.merge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a source's answer.
    pub(super) fn settle(&self, source: &str, outcome: Submission) {
        let mut merge = self.lock();
        merge.awaited = merge.awaited.saturating_sub(1);
        if matches!(
            outcome,
            Submission::Failed { .. } | Submission::Rejected { .. } | Submission::UnknownTemplate { .. }
        ) {
            merge.doubts.push(format!("{source}: {outcome}"));
        }
        merge.is_unasked |= !outcome.is_settled() && !matches!(outcome, Submission::NotTaken { .. });
        if merge.best.as_ref().is_none_or(|best| rank(&outcome) > rank(best)) {
            merge.best = Some(outcome);
        }
        let is_accepted = matches!(merge.best, Some(Submission::Accepted { .. }));
        if merge.given.is_none() && (merge.awaited == 0 || is_accepted) {
            let given = merge.verdict();
            // Whoever asked may have gone.
            let _ = merge.answer.send(given.clone());
            merge.given = Some(given);
        }
    }

    /// Whether the answer that was given is final; none before it is given.
    fn is_settled(&self) -> Option<bool> {
        self.lock().given.as_ref().map(Submission::is_settled)
    }
}

impl Merge {
    fn verdict(&self) -> Submission {
        match &self.best {
            // A node that lags refuses good blocks: while another could not be asked, a refusal is not the last word.
            Some(Submission::Rejected { .. }) if self.is_unasked => {
                Submission::Failed { reason: self.doubts.join("; ") }
            }
            Some(Submission::Failed { .. } | Submission::Rejected { .. }) if self.doubts.len() > 1 => {
                let reason = self.doubts.join("; ");
                match self.best {
                    Some(Submission::Rejected { .. }) => Submission::Rejected { reason },
                    _ => Submission::Failed { reason },
                }
            }
            Some(best) => best.clone(),
            None => Submission::Failed { reason: "no template source could be asked".to_owned() },
        }
    }
}

/// Whether the source has not got the block, and would take it at another time.
fn is_missed(outcome: &Submission) -> bool {
    matches!(outcome, Submission::Failed { .. } | Submission::UnknownTemplate { .. })
}

/// Answers by what they are worth.
fn rank(outcome: &Submission) -> u8 {
    match outcome {
        Submission::Accepted { .. } => 7,
        Submission::Duplicate { .. } => 6,
        Submission::Stale { .. } => 5,
        Submission::Unconfirmed { .. } => 4,
        Submission::Rejected { .. } => 3,
        Submission::UnknownTemplate { .. } => 2,
        Submission::Failed { .. } => 1,
        Submission::NotTaken { .. } => 0,
    }
}

/// A submission for one source.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) submitted: Arc<Submitted>,
    /// The source's id of the template, where it is the source's own.
    pub(super) source_id: Option<u64>,
    pub(super) verdict: Arc<Verdict>,
}

enum Order {
    Deliver(Parcel),
    /// The source is up: what it is owed has a chance.
    Up,
    Stop,
}

/// The way to a source's thread.
pub(super) struct Courier {
    source: Arc<Box<dyn TemplateSource>>,
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl Courier {
    pub(super) fn start(source: Arc<Box<dyn TemplateSource>>) -> std::io::Result<Self> {
        let (orders, inbox) = bounded(PARCELS_MAX);
        let route = Route { source: Arc::clone(&source), unanswered: Vec::new(), owed: VecDeque::new() };
        let thread = std::thread::Builder::new().name("blocks-to-node".to_owned());
        let thread = Some(thread.spawn(move || route.run(&inbox))?);
        Ok(Self { source, orders, thread })
    }

    pub(super) fn source(&self) -> &dyn TemplateSource {
        &**self.source
    }

    /// Takes a submission; never waits.
    pub(super) fn deliver(&self, parcel: Parcel) {
        let Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) =
            self.orders.try_send(Order::Deliver(parcel))
        else {
            return;
        };
        if let Order::Deliver(parcel) = order {
            let reason = format!("{PARCELS_MAX} blocks wait for the template source already");
            parcel.verdict.settle(self.source.name(), Submission::Failed { reason });
        }
    }

    /// The source is up.
    pub(super) fn wake(&self) {
        // A thread with so much to do looks after what is owed by and by.
        let _ = self.orders.try_send(Order::Up);
    }

    /// Ends the thread and gives the source back; none if the thread hangs in it.
    pub(super) fn stop(mut self) -> Option<Box<dyn TemplateSource>> {
        const PATIENCE: Duration = Duration::from_secs(2);
        const STEP: Duration = Duration::from_millis(2);
        let deadline = Instant::now() + PATIENCE;
        let is_told = self.orders.send_timeout(Order::Stop, PATIENCE).is_ok();
        let thread = self.thread.take()?;
        while is_told && !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(STEP);
        }
        if !thread.is_finished() {
            warn!(
                source = self.source.name(),
                "the template source hangs: it is left to the end of the process"
            );
            return None;
        }
        if thread.join().is_err() {
            tracing::error!(source = self.source.name(), "the thread that handed blocks over had panicked");
        }
        Arc::into_inner(self.source)
    }
}

/// A submission whose answer is waited for.
struct Unanswered {
    parcel: Parcel,
    answer: Receiver<Submission>,
    deadline: Instant,
    /// Attempts before this one, if the block is owed.
    owed: Option<u32>,
}

struct Owed {
    parcel: Parcel,
    attempts: u32,
    due: Instant,
}

/// What a source's thread owns.
struct Route {
    source: Arc<Box<dyn TemplateSource>>,
    unanswered: Vec<Unanswered>,
    /// The one that is due next comes first.
    owed: VecDeque<Owed>,
}

impl Route {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let ready = {
                let mut select = Select::new();
                select.recv(orders);
                self.unanswered.iter().for_each(|it| {
                    select.recv(&it.answer);
                });
                match self.next_due() {
                    Some(due) => select.ready_deadline(due).ok(),
                    None => Some(select.ready()),
                }
            };
            match ready {
                Some(0) => match orders.try_recv() {
                    Ok(Order::Deliver(parcel)) => self.deliver(parcel),
                    Ok(Order::Up) => {
                        // What failed a moment ago is owed, too.
                        (0..self.unanswered.len()).rev().for_each(|index| self.receive(index));
                        let now = Instant::now();
                        self.owed.iter_mut().for_each(|owed| owed.due = now);
                    }
                    Ok(Order::Stop) => break,
                    Err(error) if error.is_disconnected() => break,
                    Err(_) => {}
                },
                Some(index) => self.receive(index - 1),
                None => {}
            }
            self.handle_timeout();
        }
        // What was answered in the meantime counts; the rest is for the caller's journal.
        for Unanswered { parcel, answer, .. } in self.unanswered.drain(..) {
            let ended = || Submission::Failed { reason: "the template source is being closed".to_owned() };
            parcel.verdict.settle(self.source.name(), answer.try_recv().unwrap_or_else(|_| ended()));
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let deadlines = self.unanswered.iter().map(|it| it.deadline);
        deadlines.chain(self.owed.front().map(|owed| owed.due)).min()
    }

    fn deliver(&mut self, parcel: Parcel) {
        if self.unanswered.len() >= UNANSWERED_MAX {
            let reason = format!("the template source leaves {UNANSWERED_MAX} blocks unanswered");
            parcel.verdict.settle(self.source.name(), Submission::Failed { reason });
            return;
        }
        let by_template = parcel.source_id.zip(parcel.submitted.solution.as_ref());
        let answer = match by_template {
            Some((template_id, (solution, _))) => {
                self.source.submit(Arc::new(Solution { template_id, ..(**solution).clone() }))
            }
            None => match parcel.submitted.block() {
                Some(block) => self.source.submit_block(block),
                None => {
                    let reason = "the solution gives no block".to_owned();
                    parcel.verdict.settle(self.source.name(), Submission::Rejected { reason });
                    return;
                }
            },
        };
        self.await_answer(parcel, answer, None);
    }

    fn await_answer(&mut self, parcel: Parcel, answer: Receiver<Submission>, owed: Option<u32>) {
        let deadline = Instant::now() + ANSWER_PATIENCE;
        self.unanswered.push(Unanswered { parcel, answer, deadline, owed });
    }

    fn receive(&mut self, index: usize) {
        let outcome = match self.unanswered[index].answer.try_recv() {
            Ok(outcome) => outcome,
            Err(error) if error.is_disconnected() => {
                Submission::Failed { reason: "the template source has ended".to_owned() }
            }
            Err(_) => return,
        };
        let Unanswered { parcel, owed, .. } = self.unanswered.swap_remove(index);
        self.handle_outcome(parcel, owed, outcome);
    }

    fn handle_outcome(&mut self, mut parcel: Parcel, owed: Option<u32>, mut outcome: Submission) {
        let (source, hash) = (self.source.name(), parcel.submitted.hash);
        if let Some(attempts) = owed {
            if is_missed(&outcome) {
                self.owe(parcel, attempts + 1);
            } else {
                info!(source, %hash, %outcome, "a template source has got a block late");
            }
            return;
        }
        if let Submission::UnknownTemplate { .. } = outcome
            && parcel.source_id.take().is_some()
            && let Some(block) = parcel.submitted.block()
        {
            // It forgot the template; the block it can take all the same.
            let answer = self.source.submit_block(block);
            self.await_answer(parcel, answer, None);
            return;
        }
        if let Submission::UnknownTemplate { template_id } = &mut outcome
            && let Some((solution, _)) = &parcel.submitted.solution
        {
            // As whoever submitted it knows it.
            *template_id = solution.template_id;
        }
        match &outcome {
            Submission::Accepted { .. } => debug!(source, %hash, "a template source accepts a block"),
            other => info!(source, %hash, outcome = %other, "a template source does not accept a block"),
        }
        let is_missed = is_missed(&outcome);
        parcel.verdict.settle(source, outcome);
        if is_missed && parcel.submitted.is_whole() {
            self.owe(parcel, 0);
        }
    }

    /// Remembers a block that the source could not be asked about.
    fn owe(&mut self, parcel: Parcel, attempts: u32) {
        let (source, hash) = (self.source.name(), parcel.submitted.hash);
        if attempts >= OWED_ATTEMPTS_MAX {
            info!(source, %hash, "a block that another node has could not be handed over: given up");
            return;
        }
        if self.owed.len() >= OWED_MAX
            && let Some(last) = self.owed.pop_back()
        {
            debug!(source, hash = %last.parcel.submitted.hash, "too many blocks are owed: one is given up");
        }
        self.postpone(Owed { parcel, attempts, due: Instant::now() + OWED_PAUSE * (1 << attempts) });
    }

    fn postpone(&mut self, owed: Owed) {
        let place = self.owed.partition_point(|earlier| earlier.due <= owed.due);
        self.owed.insert(place, owed);
    }

    fn handle_timeout(&mut self) {
        let now = Instant::now();
        while let Some(late) = self.unanswered.iter().position(|it| it.deadline <= now) {
            let Unanswered { parcel, owed, .. } = self.unanswered.swap_remove(late);
            let reason = format!("no answer within {} s", ANSWER_PATIENCE.as_secs());
            self.handle_outcome(parcel, owed, Submission::Failed { reason });
        }
        while self.owed.front().is_some_and(|next| next.due <= now)
            && let Some(mut next) = self.owed.pop_front()
        {
            match next.parcel.verdict.is_settled() {
                // The other answers are still to come.
                None => {
                    next.due = now + OWED_PAUSE;
                    self.postpone(next);
                }
                // Nobody has it: whoever submitted it will do so again.
                Some(false) => {}
                Some(true) => {
                    if let Some(block) = next.parcel.submitted.block() {
                        let answer = self.source.submit_block(block);
                        self.await_answer(next.parcel, answer, Some(next.attempts));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(outcomes: &[Submission]) -> Submission {
        let (verdict, answer) = Verdict::new(outcomes.len());
        assert_eq!(verdict.is_settled(), None);
        for (source, outcome) in ["a", "b", "c"].into_iter().zip(outcomes) {
            verdict.settle(source, outcome.clone());
        }
        let given = answer.try_recv().expect("all have answered");
        assert_eq!(verdict.is_settled(), Some(given.is_settled()));
        given
    }

    #[test]
    fn the_best_answer_counts_and_no_refusal_while_one_could_not_be_asked() {
        let hash = Digest([1; 32]);
        let accepted = Submission::Accepted { height: 5, hash, reward_sat: 50 };
        let stale = Submission::Stale { height: 5, hash };
        let duplicate = Submission::Duplicate { hash };
        let rejected = Submission::Rejected { reason: "bad".to_owned() };
        let unconfirmed = Submission::Unconfirmed { hash };
        let unknown = Submission::UnknownTemplate { template_id: 7 };
        let failed = Submission::Failed { reason: "away".to_owned() };
        let not_taken = Submission::NotTaken { reason: "not mine".to_owned() };
        for (outcomes, expected) in [
            (vec![stale.clone(), accepted.clone()], &accepted),
            (vec![duplicate.clone(), stale.clone()], &duplicate),
            (vec![failed.clone(), stale.clone()], &stale),
            (vec![rejected.clone(), stale.clone()], &stale),
            (vec![rejected.clone()], &rejected),
            (vec![rejected.clone(), unconfirmed.clone()], &unconfirmed),
            (vec![unconfirmed.clone(), stale.clone()], &stale),
            (vec![unknown.clone(), failed.clone()], &unknown),
            (vec![failed.clone()], &failed),
            (vec![rejected.clone(), not_taken.clone()], &rejected),
            (vec![not_taken.clone(), failed.clone()], &failed),
            (vec![not_taken.clone(), not_taken.clone()], &not_taken),
        ] {
            assert_eq!(verdict(&outcomes), *expected, "{outcomes:?}");
        }
        let reason = "a: rejected: bad; b: not submitted: away".to_owned();
        assert_eq!(verdict(&[rejected.clone(), failed.clone()]), Submission::Failed { reason });
        let reason = "a: rejected: bad; b: rejected: bad".to_owned();
        assert_eq!(verdict(&[rejected.clone(), rejected]), Submission::Rejected { reason });
        let reason = "a: not submitted: away; b: not submitted: away".to_owned();
        assert_eq!(verdict(&[failed.clone(), failed]), Submission::Failed { reason });
    }

    #[test]
    fn an_acceptance_waits_for_nobody_and_is_told_once() {
        let accepted = Submission::Accepted { height: 5, hash: Digest([1; 32]), reward_sat: 50 };
        let (verdict, answer) = Verdict::new(3);
        verdict.settle("a", accepted.clone());
        assert_eq!(answer.try_recv().ok(), Some(accepted.clone()));
        verdict.settle("b", accepted);
        verdict.settle("c", Submission::Failed { reason: "away".to_owned() });
        assert_eq!((verdict.is_settled(), answer.try_recv().ok()), (Some(true), None));
    }
}
