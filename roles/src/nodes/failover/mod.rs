//! Several template sources as one: work goes on while one of them does, and every block goes to all.
//!
//! [`Failover`] follows all its sources. The first to show a new tip serves it, and another takes over when it goes away
//! (`choice`); miners see one stream of templates whose ids rise (`combination`). A solution goes to the source whose
//! template it is and, as a whole block, to all others at the same moment; none waits for another, and any acceptance
//! counts (`delivery`).
//!
//! Threads: one that follows, and one for each source that hands blocks over. Bounds: [`SOURCES_MAX`] sources; those of
//! the parts are in their modules.

mod choice;
mod combination;
mod delivery;
mod origins;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::Solution;
use adit_proto::template::Template;
use crossbeam::channel::{Receiver, Select, Sender, bounded, never};

use self::combination::Combination;
use self::delivery::{Courier, Parcel, Submitted, Verdict};
use self::origins::{Origin, Origins};
use super::feed::Feed;
use super::{SourceStanding, SourceUpdate, Submission, TemplateSource, TemplateTransactions};

/// Sources that can be combined.
pub const SOURCES_MAX: usize = crate::config::SOURCES_MAX;
/// Orders that wait for the thread that follows the sources.
const ORDERS_MAX: usize = 64;
/// How soon reports that the reader did not take are offered again.
const FEED_RETRY: Duration = Duration::from_millis(20);

enum Order {
    Want(ClassId, Reserve),
    Unwant(ClassId),
}

/// See the module. Dropped without [`shutdown`](TemplateSource::shutdown), its sources end as they do when dropped.
pub struct Failover {
    name: String,
    /// One for each source, in order.
    couriers: Arc<Vec<Courier>>,
    origins: Origins,
    standings: Arc<Mutex<Vec<SourceStanding>>>,
    /// Present until the end.
    orders: Option<Sender<Order>>,
    updates: Receiver<SourceUpdate>,
    thread: Option<JoinHandle<()>>,
}

impl Failover {
    /// Combines sources that run.
    ///
    /// # Errors
    /// The system gives no thread.
    ///
    /// # Panics
    /// With more than [`SOURCES_MAX`] sources.
    pub fn start(sources: Vec<Box<dyn TemplateSource>>) -> std::io::Result<Self> {
        assert!(sources.len() <= SOURCES_MAX, "{} sources, at most {SOURCES_MAX}", sources.len());
        let names: Vec<_> = sources.iter().map(|source| source.name().to_owned()).collect();
        let couriers = sources.into_iter().map(|source| Courier::start(Arc::new(source)));
        let couriers = Arc::new(couriers.collect::<std::io::Result<Vec<_>>>()?);
        let origins = Origins::default();
        let combination = Combination::new(names.iter().cloned(), origins.clone());
        let standings = Arc::new(Mutex::new(combination.standings()));
        let (orders, inbox) = bounded(ORDERS_MAX);
        let (feed, updates) = Feed::new();
        let follower = Follower {
            reports: couriers.iter().map(|courier| courier.source().updates()).collect(),
            couriers: Arc::clone(&couriers),
            combination,
            feed,
            standings: Arc::clone(&standings),
        };
        let thread = std::thread::Builder::new().name("failover".to_owned());
        let thread = Some(thread.spawn(move || follower.run(&inbox))?);
        Ok(Self {
            name: names.join(", "),
            couriers,
            origins,
            standings,
            orders: Some(orders),
            updates,
            thread,
        })
    }

    /// The transactions of a template, or of one with the same.
    fn find_transactions(
        &self,
        origin: Option<&Origin>,
        merkle_path: &[[u8; 32]],
    ) -> Option<TemplateTransactions> {
        let of = |origin: &Origin| self.couriers[origin.source].source().transactions(origin.source_id);
        if merkle_path.is_empty() {
            return Some(TemplateTransactions::default());
        }
        origin.and_then(of).or_else(|| self.origins.alike(merkle_path).iter().find_map(of))
    }

    fn order(&self, order: Order) {
        let sent = self.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok());
        if !sent {
            tracing::error!("the thread that follows the template sources has ended");
        }
    }

    /// Ends the threads and gives back the sources that do not hang.
    fn stop(&mut self) -> Vec<Box<dyn TemplateSource>> {
        let Some(thread) = self.thread.take() else { return Vec::new() };
        self.orders = None;
        if thread.join().is_err() {
            tracing::error!("the thread that followed the template sources had panicked");
        }
        let couriers = Arc::into_inner(std::mem::take(&mut self.couriers));
        couriers.into_iter().flatten().filter_map(Courier::stop).collect()
    }
}

impl Drop for Failover {
    fn drop(&mut self) {
        self.stop();
    }
}

impl TemplateSource for Failover {
    fn name(&self) -> &str {
        &self.name
    }

    fn updates(&self) -> Receiver<SourceUpdate> {
        self.updates.clone()
    }

    fn want(&self, class: ClassId, reserve: Reserve) {
        self.order(Order::Want(class, reserve));
    }

    fn unwant(&self, class: ClassId) {
        self.order(Order::Unwant(class));
    }

    fn submit(&self, solution: Arc<Solution>) -> Receiver<Submission> {
        let template_id = solution.template_id;
        let origin = self.origins.find(template_id);
        let transactions = self.find_transactions(origin.as_ref(), &solution.merkle_path);
        let is_whole = transactions.is_some();
        let submitted = Submitted::of_solution(solution, transactions);
        let source_id = |source| origin.as_ref().filter(|it| it.source == source).map(|it| it.source_id);
        let asked = (0..self.couriers.len()).filter(|source| is_whole || source_id(*source).is_some());
        self.deliver(submitted, asked.map(|source| (source, source_id(source))).collect())
            .unwrap_or_else(|| answered(Submission::UnknownTemplate { template_id }))
    }

    fn submit_block(&self, block: Arc<[u8]>) -> Receiver<Submission> {
        let everyone = (0..self.couriers.len()).map(|source| (source, None)).collect();
        self.deliver(Submitted::of_block(block), everyone).unwrap_or_else(|| {
            answered(Submission::Failed { reason: "there is no template source".to_owned() })
        })
    }

    fn transactions(&self, template_id: u64) -> Option<TemplateTransactions> {
        let origin = self.origins.find(template_id)?;
        self.find_transactions(Some(&origin), &origin.merkle_path)
    }

    fn standings(&self) -> Vec<SourceStanding> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn shutdown(mut self: Box<Self>) {
        // Side by side: one that takes long must not use up the others' time.
        std::thread::scope(|scope| {
            for source in self.stop() {
                scope.spawn(|| source.shutdown());
            }
        });
    }
}

impl Failover {
    /// Hands a submission to these sources, by their ids of the template where it is theirs. None without any.
    fn deliver(
        &self,
        submitted: Submitted,
        asked: Vec<(usize, Option<u64>)>,
    ) -> Option<Receiver<Submission>> {
        if asked.is_empty() {
            return None;
        }
        let (verdict, answer) = Verdict::new(asked.len());
        let submitted = Arc::new(submitted);
        for (source, source_id) in asked {
            let (submitted, verdict) = (Arc::clone(&submitted), Arc::clone(&verdict));
            self.couriers[source].deliver(Parcel { submitted, source_id, verdict });
        }
        Some(answer)
    }
}

/// An answer that is known already.
fn answered(outcome: Submission) -> Receiver<Submission> {
    let (sender, receiver) = bounded(1);
    // The channel has room for its only message.
    let _ = sender.send(outcome);
    receiver
}

/// What the thread owns that follows the sources.
struct Follower {
    reports: Vec<Receiver<SourceUpdate>>,
    couriers: Arc<Vec<Courier>>,
    combination: Combination,
    feed: Feed,
    standings: Arc<Mutex<Vec<SourceStanding>>>,
}

impl Follower {
    /// Runs until nobody gives orders any more.
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            match self.wait(orders) {
                Some(0) => match orders.try_recv() {
                    Ok(order) => self.handle_order(order),
                    Err(error) if error.is_disconnected() => return,
                    Err(_) => {}
                },
                Some(index) => self.receive(index - 1),
                None => {}
            }
            let is_whole = |source: usize, template: &Template| {
                self.couriers[source].source().transactions(template.template_id).is_some()
            };
            self.combination.handle_timeout(Instant::now(), &is_whole);
            while let Some(update) = self.combination.poll_update() {
                self.feed.report(update);
            }
            self.feed.flush();
            *self.standings.lock().unwrap_or_else(PoisonError::into_inner) = self.combination.standings();
        }
    }

    /// What is ready: 0 for an order, a source's report by its number from 1 on.
    fn wait(&self, orders: &Receiver<Order>) -> Option<usize> {
        let mut select = Select::new();
        select.recv(orders);
        self.reports.iter().for_each(|reports| {
            select.recv(reports);
        });
        let retry = self.feed.is_blocked().then(|| Instant::now() + FEED_RETRY);
        match self.combination.next_timeout().into_iter().chain(retry).min() {
            Some(due) => select.ready_deadline(due).ok(),
            None => Some(select.ready()),
        }
    }

    fn handle_order(&mut self, order: Order) {
        match order {
            Order::Want(class, reserve) => {
                // Known here before the first template comes.
                if self.combination.handle_want(class, reserve) {
                    self.couriers.iter().for_each(|courier| courier.source().want(class, reserve));
                }
            }
            Order::Unwant(class) => {
                self.combination.handle_unwant(class);
                self.couriers.iter().for_each(|courier| courier.source().unwant(class));
            }
        }
    }

    fn receive(&mut self, source: usize) {
        let update = match self.reports[source].try_recv() {
            Ok(update) => update,
            Err(error) if error.is_disconnected() => {
                self.reports[source] = never();
                SourceUpdate::Down { reason: "it has ended".to_owned() }
            }
            Err(_) => return,
        };
        if matches!(update, SourceUpdate::Up) {
            self.couriers[source].wake();
        }
        self.combination.handle_update(source, update, Instant::now());
    }
}
