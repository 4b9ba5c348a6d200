//! From the template source to whoever hands its templates to the engine.
//!
//! What belongs together is handed over together: a future template waits a moment for the tip that names it, since providers
//! send both at once. A shard that had the template alone would be telling every connection of it when the tip comes, and
//! tell each again; measured with 5,000 connections on one core, the first had the tip 5 ms late. Where no tip comes, nobody
//! is waiting for the template.
//!
//! Bounds: [`FUTURE_PATIENCE`], [`BATCH_MAX`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use adit_proto::distribution::server::ClassId;
use adit_proto::template::TemplateUpdate;
use crossbeam::channel::{Receiver, at, never, select_biased};
use tracing::{debug, info, warn};

use super::blocks::Records;
use crate::nodes::{SourceStanding, SourceUpdate};

/// What the source last said of the chain.
#[derive(Debug, Default)]
pub(crate) struct ChainState {
    is_up: AtomicBool,
    height: AtomicU32,
}

impl ChainState {
    pub(crate) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    pub(crate) fn height(&self) -> u32 {
        self.height.load(Ordering::Relaxed)
    }
}

/// Which template sources can be used: `up` or `down`, or `cellar serves, attic is down` for several.
pub(crate) fn describe(is_up: bool, sources: &[SourceStanding]) -> String {
    match sources {
        [] if is_up => "up".to_owned(),
        [] => "down".to_owned(),
        sources => {
            let sources: Vec<_> = sources.iter().map(|it| format!("{} {}", it.name, it.standing)).collect();
            sources.join(", ")
        }
    }
}

/// How long a future template waits for its tip.
const FUTURE_PATIENCE: Duration = Duration::from_millis(10);
/// Templates and tips that are handed over together.
const BATCH_MAX: usize = 64;

/// A template or a tip for a class of reserve.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) class: ClassId,
    pub(crate) update: TemplateUpdate,
    /// When the source learnt of it.
    pub(crate) learned: Instant,
}

/// What a source says to its classes.
#[derive(Clone, Debug)]
pub(crate) enum Fed {
    /// What belongs together, in order.
    Work(Vec<Work>),
    /// The room cannot be left; why, and what to change.
    Refused { class: ClassId, reason: String },
}

/// Takes the source's reports, in order.
pub(super) struct Feeder {
    pub(super) source: String,
    pub(super) updates: Receiver<SourceUpdate>,
    pub(super) chain: Arc<ChainState>,
    /// Told of blocks that left the best chain.
    pub(super) records: Option<Records>,
}

impl Feeder {
    /// Runs until `stopped` is disconnected. A source that ends is reported; clients keep what they have.
    pub(super) fn run(self, stopped: &Receiver<()>, mut take: impl FnMut(Fed)) {
        let mut batch = Batch::default();
        loop {
            let due = batch.due.map_or_else(never, at);
            select_biased! {
                recv(stopped) -> _ => return,
                recv(self.updates) -> update => match update {
                    Ok(update) => self.handle_update(update, &mut batch, &mut take),
                    Err(_) => break,
                },
                recv(due) -> _ => batch.hand_over(&mut take),
            }
            if batch.is_urgent && self.updates.is_empty() || batch.work.len() >= BATCH_MAX {
                batch.hand_over(&mut take);
            }
        }
        batch.hand_over(&mut take);
        self.handle_other(SourceUpdate::Down { reason: "it has ended".to_owned() });
        // There is nothing to wait for but the end.
        let _ = stopped.recv();
    }

    fn handle_update(&self, update: SourceUpdate, batch: &mut Batch, take: &mut impl FnMut(Fed)) {
        match update {
            SourceUpdate::Template { class, update, learned } => batch.add(Work { class, update, learned }),
            SourceUpdate::Refused { class, reason } => {
                batch.hand_over(take);
                take(Fed::Refused { class, reason });
            }
            other => {
                // Not even a line in the log comes before work.
                if batch.is_urgent {
                    batch.hand_over(take);
                }
                self.handle_other(other);
            }
        }
    }

    /// Takes in what is no work.
    fn handle_other(&self, update: SourceUpdate) {
        let source = &self.source;
        match update {
            SourceUpdate::Up => {
                self.chain.is_up.store(true, Ordering::Relaxed);
                info!(%source, "template source up");
            }
            SourceUpdate::Down { reason } => {
                self.chain.is_up.store(false, Ordering::Relaxed);
                warn!(
                    %source, %reason,
                    "template source down: the last template is served until it is back, and blocks are offered to it then"
                );
            }
            SourceUpdate::BlockConnected { height, hash, .. } => {
                self.chain.height.store(height, Ordering::Relaxed);
                debug!(height, %hash, "new tip");
            }
            SourceUpdate::BlockDisconnected { height, hash } => {
                self.chain.height.store(height.saturating_sub(1), Ordering::Relaxed);
                warn!(height, %hash, "block left the best chain: its reward is void unless it comes back");
                if let Some(records) = &self.records {
                    records.report_left(hash);
                }
            }
            SourceUpdate::Template { .. } | SourceUpdate::Refused { .. } => {}
        }
    }
}

/// Work that is about to be handed over.
#[derive(Default)]
struct Batch {
    work: Vec<Work>,
    /// Whether there is more than future templates.
    is_urgent: bool,
    /// When what waits for its tip has waited long enough.
    due: Option<Instant>,
}

impl Batch {
    fn add(&mut self, work: Work) {
        let is_future =
            matches!(&work.update, TemplateUpdate::NewTemplate(template) if template.future_template);
        self.is_urgent |= !is_future;
        self.due = self.due.or_else(|| Some(Instant::now() + FUTURE_PATIENCE));
        self.work.push(work);
    }

    fn hand_over(&mut self, take: &mut impl FnMut(Fed)) {
        let Self { work, .. } = std::mem::take(self);
        if !work.is_empty() {
            take(Fed::Work(work));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread::JoinHandle;

    use adit_hasher::{Digest, Target};
    use adit_proto::template::{PrevHash, Template};
    use crossbeam::channel::{Sender, bounded};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A feeder at work, and what it hands over: the ids of templates, those of tips negative, and none for a refusal.
    struct World {
        source: Sender<SourceUpdate>,
        taken: Receiver<Vec<i64>>,
        chain: Arc<ChainState>,
        _stop: Sender<()>,
        feeder: JoinHandle<()>,
    }

    impl World {
        /// `updates` are there when the feeder begins.
        fn start(updates: impl IntoIterator<Item = SourceUpdate>) -> Self {
            let (source, received) = bounded(256);
            updates.into_iter().for_each(|update| source.send(update).unwrap());
            let (stop, stopped) = bounded(0);
            let (told, taken) = bounded(256);
            let chain = Arc::<ChainState>::default();
            let feeder = Feeder {
                source: "world".to_owned(),
                updates: received,
                chain: Arc::clone(&chain),
                records: None,
            };
            let feeder = std::thread::spawn(move || feeder.run(&stopped, |fed| told.send(ids(fed)).unwrap()));
            Self { source, taken, chain, _stop: stop, feeder }
        }

        fn next(&self) -> Vec<i64> {
            self.taken.recv_timeout(PATIENCE).unwrap()
        }
    }

    fn ids(fed: Fed) -> Vec<i64> {
        let Fed::Work(work) = fed else { return Vec::new() };
        let id = |work: Work| match work.update {
            TemplateUpdate::NewTemplate(template) => template.template_id as i64,
            TemplateUpdate::SetNewPrevHash(tip) => -(tip.template_id as i64),
        };
        work.into_iter().map(id).collect()
    }

    fn work(update: TemplateUpdate) -> SourceUpdate {
        SourceUpdate::Template { class: ClassId(0), update, learned: Instant::now() }
    }

    fn template(template_id: u64, future_template: bool) -> SourceUpdate {
        work(TemplateUpdate::NewTemplate(Arc::new(Template {
            template_id,
            future_template,
            version: 2,
            coinbase_tx_version: 2,
            coinbase_prefix: Vec::new(),
            coinbase_tx_input_sequence: 0,
            coinbase_tx_value_remaining: 0,
            coinbase_tx_outputs_count: 0,
            coinbase_tx_outputs: Vec::new(),
            coinbase_tx_locktime: 0,
            merkle_path: Vec::new(),
        })))
    }

    fn tip(template_id: u64) -> SourceUpdate {
        let (prev_hash, target) = ([0; 32], Target::MAX);
        let tip = PrevHash { template_id, prev_hash, header_timestamp: 0, nbits: 0, target };
        work(TemplateUpdate::SetNewPrevHash(Arc::new(tip)))
    }

    fn block(height: u32) -> SourceUpdate {
        SourceUpdate::BlockConnected { height, hash: Digest([0; 32]), reward_sat: None }
    }

    #[test]
    fn a_tip_goes_with_the_template_that_it_names() {
        let world = World::start([]);
        world.source.send(template(1, true)).unwrap();
        world.source.send(tip(1)).unwrap();
        assert_eq!(world.next(), [1, -1]);
        // And what is no work does not part them.
        for update in [template(2, true), block(7), tip(2)] {
            world.source.send(update).unwrap();
        }
        assert_eq!(world.next(), [2, -2]);
        assert_eq!(world.chain.height(), 7);
    }

    #[test]
    fn what_is_there_goes_at_once_in_its_order() {
        let world = World::start([
            template(1, true),
            template(2, true),
            tip(1),
            tip(2),
            template(3, false),
            block(1),
        ]);
        assert_eq!(world.next(), [1, 2, -1, -2, 3]);
        let many = World::start((1..=3 * BATCH_MAX as u64).map(|id| template(id, false)));
        let batches: Vec<Vec<i64>> = (0..3).map(|_| many.next()).collect();
        assert!(batches.iter().all(|batch| batch.len() == BATCH_MAX));
        assert!(batches.concat().into_iter().eq(1..=3 * BATCH_MAX as i64));
    }

    #[test]
    fn a_template_whose_tip_does_not_come_goes_alone_after_a_moment() {
        let world = World::start([]);
        let begun = Instant::now();
        world.source.send(template(1, true)).unwrap();
        assert_eq!(world.next(), [1]);
        assert!(begun.elapsed() >= FUTURE_PATIENCE);
        world.source.send(tip(1)).unwrap();
        assert_eq!(world.next(), [-1]);
    }

    #[test]
    fn what_waits_goes_before_a_refusal_and_before_the_end() {
        let refused = SourceUpdate::Refused { class: ClassId(0), reason: String::new() };
        let world = World::start([template(1, true), refused, template(2, true)]);
        drop(world.source);
        let taken: Vec<_> = (0..3).map(|_| world.taken.recv_timeout(PATIENCE).unwrap()).collect();
        assert_eq!(taken, [vec![1], vec![], vec![2]]);
        drop(world._stop);
        world.feeder.join().unwrap();
    }
}
