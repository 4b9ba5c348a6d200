//! Which blocks joined and left the best chain, told by walking back from each new tip to the last block that is known.
//!
//! Runs beside the templates, over a connection of its own, and later than they: nobody mines on what it tells. Bounds:
//! [`KNOWN_MAX`] blocks are known and walked; beyond that, a chain is taken as it is found, with a line in the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use adit_hasher::Digest;
use bitcoin::hex::FromHex;
use tokio::sync::{mpsc, watch};

use super::answers::{HeaderAnswer, hash};
use super::client::{BLOCK, BLOCK_HEADER, Endpoint, Lane};
use super::fault::RpcFault;
use super::submit::coinbase;
use crate::nodes::SourceUpdate;
use crate::nodes::coinbase::paid_sat;

/// Blocks of the best chain that are remembered, and the most that are walked at a time.
const KNOWN_MAX: usize = 288;
/// How soon a node that could not be asked is asked again.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    height: u32,
    hash: [u8; 32],
}

/// Tells over a channel what happens to the best chain.
pub(super) struct Follower {
    lane: Lane,
    /// Of the best chain, one on the other, the oldest first.
    known: VecDeque<Known>,
    reports: mpsc::Sender<SourceUpdate>,
}

impl Follower {
    pub(super) fn new(endpoint: Arc<Endpoint>, reports: mpsc::Sender<SourceUpdate>) -> Self {
        Self { lane: Lane::new(endpoint), known: VecDeque::new(), reports }
    }

    /// Follows the tips until nobody gives any. The first one is where it begins.
    pub(super) async fn run(mut self, mut tips: watch::Receiver<Option<[u8; 32]>>) {
        while tips.changed().await.is_ok() {
            let Some(tip) = *tips.borrow_and_update() else { continue };
            while let Err(fault) = self.follow(tip).await {
                tracing::debug!(%fault, "the chain cannot be followed");
                tokio::time::sleep(RETRY).await;
                // There is a newer one to follow instead.
                if tips.has_changed().unwrap_or(true) {
                    break;
                }
            }
        }
    }

    /// Whatever fails leaves `known` as it was told.
    async fn follow(&mut self, tip: [u8; 32]) -> Result<(), RpcFault> {
        let mut joined = Vec::new();
        let mut cursor = Some(tip);
        let fork = loop {
            let Some(at) = cursor else { break None };
            if let Some(index) = self.known.iter().position(|known| known.hash == at) {
                break Some(index);
            }
            if joined.len() >= KNOWN_MAX || (self.known.is_empty() && !joined.is_empty()) {
                break None;
            }
            let header: HeaderAnswer = self.lane.call(BLOCK_HEADER, [Digest(at).to_string()]).await?;
            joined.push(Known { height: header.height, hash: at });
            cursor = header.previousblockhash.as_deref().and_then(hash);
        };
        if self.known.is_empty() || (fork.is_none() && cursor.is_some()) {
            if !self.known.is_empty() {
                tracing::warn!(
                    blocks = joined.len(),
                    "the node's chain is another one: what happened on it before is not told"
                );
            }
            self.known = joined.into_iter().take(1).collect();
            return Ok(());
        }
        // Without a fork the walk has come to the genesis: everything known has left.
        let kept = fork.map_or(0, |index| index + 1);
        while self.known.len() > kept
            && let Some(Known { height, hash }) = self.known.pop_back()
        {
            self.tell(SourceUpdate::BlockDisconnected { height, hash: Digest(hash) }).await;
        }
        while let Some(block) = joined.pop() {
            let Known { height, hash } = block;
            let reward_sat = self.reward_sat(hash).await?;
            self.known.push_back(block);
            if self.known.len() > KNOWN_MAX {
                self.known.pop_front();
            }
            self.tell(SourceUpdate::BlockConnected { height, hash: Digest(hash), reward_sat }).await;
        }
        Ok(())
    }

    async fn tell(&self, update: SourceUpdate) {
        // Without a reader the runtime is at its end.
        let _ = self.reports.send(update).await;
    }

    /// What a block's coinbase pays out; none if the node does not have the block any more.
    async fn reward_sat(&mut self, hash: [u8; 32]) -> Result<Option<u64>, RpcFault> {
        let body = self.lane.ask(BLOCK, (Digest(hash).to_string(), 0)).await?;
        match body.result::<&str>() {
            Ok(raw) => {
                let raw = Vec::from_hex(raw).map_err(|error| body.malformed(error))?;
                coinbase(&raw)
                    .map(|coinbase| Some(paid_sat(&coinbase)))
                    .map_err(|error| body.malformed(error))
            }
            Err(RpcFault::Node { message, .. }) => {
                tracing::debug!(hash = %Digest(hash), %message, "the reward of a block is not known");
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }
}
