//! From a solution to a block on the node, and what became of it.
//!
//! Each thread takes one block at a time, over a connection of its own: a block is never behind another call. A block whose
//! answer was lost is not repeated here: whoever submitted it is told so, and does.

use std::sync::Arc;
use std::time::Instant;

use adit_hasher::Digest;
use adit_proto::mining::server::Solution;
use bitcoin::Transaction;
use bitcoin::consensus::{Decodable, encode};
use bitcoin::hex::DisplayHex;
use bitcoin::{VarInt, block::Header};
use crossbeam::channel::{Receiver, Sender};
use tokio::runtime::Runtime;

use super::Shared;
use super::answers::HeaderAnswer;
use super::client::{BEST_BLOCK_HASH, BLOCK_HEADER, Endpoint, Lane, NO_PARAMS, SUBMIT_BLOCK, shown};
use super::fault::{RpcFault, code};
use crate::nodes::coinbase::{height_of, paid_sat};
use crate::nodes::{Submission, assemble_block};

/// A solution or a block, and who waits for the answer.
pub(super) struct Submit {
    pub(super) what: Submitted,
    pub(super) answer: Sender<Submission>,
}

pub(super) enum Submitted {
    Solution(Arc<Solution>),
    Block(Arc<[u8]>),
}

/// What `submitblock` says of a block that may be good at another time: the node does not know the block before it (yet), or
/// its clock is behind.
const NOT_YET: [&str; 2] = ["prev-blk-not-found", "time-too-new"];

/// Submits what comes until nobody can submit any more. What still waits when a stop has had its time is answered as failed.
pub(super) fn serve(runtime: &Runtime, endpoint: &Arc<Endpoint>, shared: &Shared, queue: &Receiver<Submit>) {
    let in_time = |raw: &[u8]| {
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = give_up(shared) => Submission::Unconfirmed { hash: hash_of(raw) },
                submission = submit(endpoint, raw) => submission,
            }
        })
    };
    for Submit { what, answer } in queue {
        let is_over = shared.stopped.borrow().is_some_and(|until| until <= Instant::now());
        let submission = match what {
            _ if is_over => Submission::Failed { reason: "the template source is being closed".to_owned() },
            Submitted::Block(raw) => in_time(&raw),
            Submitted::Solution(solution) => match assemble(shared, &solution) {
                Ok(raw) => in_time(&raw),
                Err(refused) => refused,
            },
        };
        if let Submission::Accepted { .. } = submission {
            shared.tip_changed.notify_one();
        }
        // Whoever asked may have gone; the block counts all the same.
        let _ = answer.send(submission);
    }
}

/// Passes when a stop has had its time.
async fn give_up(shared: &Shared) {
    let until = shared.stopped().await;
    tokio::time::sleep_until(until.into()).await;
}

fn hash_of(raw: &[u8]) -> Digest {
    raw.get(..Header::SIZE).map(Digest::of).unwrap_or_default()
}

fn assemble(shared: &Shared, solution: &Solution) -> Result<Vec<u8>, Submission> {
    let template_id = solution.template_id;
    let transactions = shared.store.find(template_id).ok_or(Submission::UnknownTemplate { template_id })?;
    assemble_block(&solution.header, &solution.coinbase_tx, &solution.merkle_path, &transactions)
        .map_err(|error| Submission::Rejected { reason: error.to_string() })
}

async fn submit(endpoint: &Arc<Endpoint>, raw: &[u8]) -> Submission {
    let mut lane = Lane::new(Arc::clone(endpoint));
    let asked = lane.ask(SUBMIT_BLOCK, [raw.to_lower_hex_string()]).await;
    let said = asked.and_then(|body| body.result_or_null::<String>());
    let hash = hash_of(raw);
    match said {
        Ok(None) => accepted(raw, hash),
        Ok(Some(said)) => match said.as_str() {
            // The node has the block; perhaps it took it from us, and the answer was lost.
            "duplicate" | "inconclusive" | "duplicate-inconclusive" => {
                let placed = place(&mut lane, raw, hash).await;
                placed.unwrap_or_else(|fault| Submission::Failed { reason: fault.to_string() })
            }
            not_yet if NOT_YET.contains(&not_yet) => Submission::Failed {
                reason: format!("the node answered {not_yet}: it is behind, or its clock is"),
            },
            reason => Submission::Rejected { reason: shown(reason) },
        },
        Err(RpcFault::Node { code: code::DESERIALIZATION, message, .. }) => {
            Submission::Rejected { reason: message }
        }
        Err(fault @ (RpcFault::Lost { .. } | RpcFault::Silent { .. })) => {
            tracing::warn!(%hash, %fault, "a block was handed over, but not answered");
            Submission::Unconfirmed { hash }
        }
        Err(fault) => Submission::Failed { reason: fault.to_string() },
    }
}

/// Looks where the node put a block. Beside its best chain is no place as long as that chain is shorter: the node lags.
async fn place(lane: &mut Lane, raw: &[u8], hash: Digest) -> Result<Submission, RpcFault> {
    let HeaderAnswer { confirmations, height, .. } = lane.call(BLOCK_HEADER, [hash.to_string()]).await?;
    if confirmations > 0 {
        return Ok(accepted(raw, hash));
    }
    let best: String = lane.call(BEST_BLOCK_HASH, NO_PARAMS).await?;
    let best: HeaderAnswer = lane.call(BLOCK_HEADER, [best]).await?;
    Ok(match best.height < height {
        true => Submission::Unconfirmed { hash },
        false => Submission::Stale { height, hash },
    })
}

fn accepted(raw: &[u8], hash: Digest) -> Submission {
    // The node took the block, so it has a coinbase with its height.
    let coinbase = coinbase(raw).ok();
    let height = coinbase.as_ref().and_then(height_of).unwrap_or(0);
    Submission::Accepted { height, hash, reward_sat: coinbase.as_ref().map_or(0, paid_sat) }
}

/// The first transaction of a serialised block.
pub(super) fn coinbase(raw: &[u8]) -> Result<Transaction, encode::Error> {
    let mut rest = raw;
    Header::consensus_decode(&mut rest)?;
    VarInt::consensus_decode(&mut rest)?;
    Transaction::consensus_decode(&mut rest)
}
