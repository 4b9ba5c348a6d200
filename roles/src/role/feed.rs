//! From the template source to whoever hands its templates to the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use adit_proto::distribution::server::ClassId;
use adit_proto::template::TemplateUpdate;
use crossbeam::channel::{Receiver, select_biased};
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

/// What a source says to a class of reserve.
#[derive(Clone, Debug)]
pub(crate) enum Fed {
    /// A template or a tip, and when the source learnt of it.
    Template { class: ClassId, update: TemplateUpdate, learned: Instant },
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
        loop {
            select_biased! {
                recv(stopped) -> _ => return,
                recv(self.updates) -> update => match update {
                    Ok(update) => self.handle_update(update).into_iter().for_each(&mut take),
                    Err(_) => break,
                },
            }
        }
        self.handle_update(SourceUpdate::Down { reason: "it has ended".to_owned() })
            .into_iter()
            .for_each(take);
        // There is nothing to wait for but the end.
        let _ = stopped.recv();
    }

    fn handle_update(&self, update: SourceUpdate) -> Option<Fed> {
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
            SourceUpdate::Template { class, update, learned } => {
                return Some(Fed::Template { class, update, learned });
            }
            SourceUpdate::Refused { class, reason } => return Some(Fed::Refused { class, reason }),
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
        }
        None
    }
}
