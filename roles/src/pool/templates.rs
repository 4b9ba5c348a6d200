//! From the template source to the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use adit_engine::EngineHandle;
use adit_proto::distribution::server::ClassId;
use crossbeam::channel::{Receiver, select_biased};
use tracing::{debug, error, info, warn};

use crate::nodes::SourceUpdate;

/// The class of reserve of the pool's only coinbase.
pub(super) const POOL_CLASS: ClassId = ClassId(0);

/// What the source last said of the chain.
#[derive(Debug, Default)]
pub(super) struct ChainState {
    is_up: AtomicBool,
    height: AtomicU32,
}

impl ChainState {
    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    pub(super) fn height(&self) -> u32 {
        self.height.load(Ordering::Relaxed)
    }
}

/// Hands every template to the engine, in order.
pub(super) struct Feeder {
    pub(super) source: String,
    pub(super) updates: Receiver<SourceUpdate>,
    pub(super) engine: Arc<EngineHandle>,
    pub(super) chain: Arc<ChainState>,
}

impl Feeder {
    /// Runs until `stopped` is disconnected. A source that ends is reported; miners keep what they have.
    pub(super) fn run(self, stopped: &Receiver<()>) {
        loop {
            select_biased! {
                recv(stopped) -> _ => return,
                recv(self.updates) -> update => match update {
                    Ok(update) => self.handle_update(update),
                    Err(_) => break,
                },
            }
        }
        self.handle_update(SourceUpdate::Down { reason: "it has ended".to_owned() });
        // There is nothing to wait for but the end.
        let _ = stopped.recv();
    }

    fn handle_update(&self, update: SourceUpdate) {
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
                    "template source down: the pool goes on serving the last template, blocks wait in the journal"
                );
            }
            SourceUpdate::Template { update, .. } => self.engine.send_update(update),
            SourceUpdate::Refused { reason, .. } => {
                error!(%source, %reason, "the template source cannot leave room for the pool's coinbase: no work comes from it");
            }
            SourceUpdate::BlockConnected { height, hash, .. } => {
                self.chain.height.store(height, Ordering::Relaxed);
                debug!(height, %hash, "new tip");
            }
            SourceUpdate::BlockDisconnected { height, hash } => {
                self.chain.height.store(height.saturating_sub(1), Ordering::Relaxed);
                warn!(height, %hash, "block left the best chain: its reward is void unless it comes back");
            }
        }
    }
}
