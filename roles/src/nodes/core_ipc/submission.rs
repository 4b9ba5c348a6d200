//! Solutions and blocks: handed to the node, and what became of them told truly.
//!
//! The node is given a solution of a template that it holds: a few hundred bytes instead of a block. Its answer says that
//! the block was processed, not that it is valid, so the tip decides: is it the block, the solution is accepted; else the
//! node is asked to check the whole block, and says what is wrong with it or that its parent is not the tip. A refusal is
//! final, so it needs a reason that speaks of the block: the node gives errors of its own in the same place, as of a full disk
//! or a clock that is behind. Nor is a block stale because a node says so that lags.
//!
//! Invariants: every submission is answered once, also when the connection ends. One is submitted at a time: the node
//! changes its template in place while it takes a solution. Bounds: [`SUBMISSIONS_MAX`] wait; each call has a longest time.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use adit_hasher::{Digest, HeaderBytes, merkle_path};
use adit_proto::mining::server::Solution;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Block, Transaction};
use crossbeam::channel::Sender;
use tokio::sync::mpsc;

use super::chain::Chain;
use super::connection::{Connection, Tip, Verdict};
use super::fault::Fault;
use super::held::{Held, HeldTemplates};
use super::session::Event;
use super::template::HeaderFields;
use crate::nodes::coinbase::{height_of, paid_sat};
use crate::nodes::store::TemplateStore;
use crate::nodes::{Submission, assemble_block};

/// Submissions that wait for the node.
pub(super) const SUBMISSIONS_MAX: usize = 1_024;
/// Bytes of a block's header.
const HEADER_LEN: usize = 80;
/// The node's reason for a block whose parent is not its tip.
const NOT_ON_TIP: &str = "inconclusive-not-best-prevblk";
/// Its reason for a block whose parent it does not know.
const NO_PARENT: &str = "prev-blk-not-found";
/// Its reason for a block that is ahead of its clock.
const TOO_NEW: &str = "time-too-new";
/// Its reason for a block that it had already.
const HAD_ALREADY: &str = "duplicate";

/// What is submitted.
#[derive(Clone, Debug)]
pub(super) enum Submitted {
    Solution(Arc<Solution>),
    Block(Arc<[u8]>),
}

impl Submitted {
    fn hash(&self) -> Digest {
        match self {
            Self::Solution(solution) => solution.digest,
            Self::Block(block) => {
                Digest::of(block.first_chunk::<HEADER_LEN>().map_or(&[][..], |header| header))
            }
        }
    }
}

/// A submission that waits for its answer. Dropped without one, it is answered as failed, or as unconfirmed if the node may
/// have it.
#[derive(Debug)]
pub(super) struct Submit {
    pub(super) what: Submitted,
    answer: Option<Sender<Submission>>,
    is_sent: bool,
}

impl Submit {
    pub(super) fn new(what: Submitted, answer: Sender<Submission>) -> Self {
        Self { what, answer: Some(answer), is_sent: false }
    }

    /// Answers. Whoever asked may have gone; the block counts all the same.
    pub(super) fn answer(mut self, submission: Submission) {
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(submission);
        }
    }
}

impl Drop for Submit {
    fn drop(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        let _ = answer.send(match self.is_sent {
            true => Submission::Unconfirmed { hash: self.what.hash() },
            false => Submission::Failed { reason: "the connection to the node ended".to_owned() },
        });
    }
}

/// What is known of a block beside its bytes.
#[derive(Clone, Copy, Debug)]
struct Facts {
    hash: Digest,
    /// 0 where the coinbase has none.
    height: u32,
    reward_sat: u64,
}

/// What a session's submissions need.
pub(super) struct Submitter {
    pub(super) connection: Rc<Connection>,
    pub(super) held: Rc<RefCell<HeldTemplates>>,
    pub(super) store: TemplateStore,
    pub(super) chain: Rc<RefCell<Chain>>,
}

impl Submitter {
    /// Submits what comes, in order, until nobody is left who could submit.
    pub(super) async fn run(self, mut waiting: mpsc::Receiver<Submit>, events: mpsc::Sender<Event>) {
        while let Some(mut submit) = waiting.recv().await {
            submit.is_sent = true;
            let submitted = match &submit.what {
                Submitted::Solution(solution) => self.submit_solution(solution).await,
                Submitted::Block(block) => self.submit_block(block).await,
            };
            match submitted {
                Ok(submission) => submit.answer(submission),
                // The connection is good, and the node has said no.
                Err(fault @ Fault::Refused { .. }) => {
                    submit.answer(Submission::Failed { reason: fault.to_string() })
                }
                Err(fault) => {
                    drop(submit);
                    if events.send(Event::Lost(fault)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn submit_solution(&self, solution: &Solution) -> Result<Submission, Fault> {
        let Solution { template_id, digest: hash, header, coinbase_tx, merkle_path, .. } = solution;
        let coinbase: Transaction = match deserialize(coinbase_tx) {
            Ok(coinbase) => coinbase,
            Err(error) => return Ok(rejected(format!("bad-coinbase, coinbase_tx does not decode: {error}"))),
        };
        let facts = Facts::of(*hash, &coinbase);
        if self.chain.borrow().is_known(hash) {
            return Ok(self.known(facts));
        }
        let held = self.held.borrow().find(*template_id);
        let Some(held) = held else {
            let Some(transactions) = self.store.find(*template_id) else {
                return Ok(Submission::UnknownTemplate { template_id: *template_id });
            };
            return match assemble_block(header, coinbase_tx, merkle_path, &transactions) {
                Ok(block) => self.submit_block(&block).await,
                Err(error) => Ok(rejected(error.to_string())),
            };
        };
        self.solve(&held, header, coinbase_tx, facts).await
    }

    /// Gives the node a solution of a template that it holds.
    async fn solve(
        &self,
        held: &Held,
        header: &HeaderBytes,
        coinbase_tx: &[u8],
        facts: Facts,
    ) -> Result<Submission, Fault> {
        self.chain.borrow_mut().note_own(facts.hash, facts.reward_sat);
        let turn = held.turn.lock().await;
        let verdict = self.connection.submit_solution(&held.template, header, coinbase_tx).await?;
        if self.is_of_chain(facts, verdict.is_good).await? {
            return Ok(self.accepted(facts));
        }
        // The node's template is the block now.
        let block = self.connection.read_block(&held.template).await?;
        drop(turn);
        self.judge(facts, &verdict, &block).await
    }

    async fn submit_block(&self, raw: &[u8]) -> Result<Submission, Fault> {
        let block: Block = match deserialize(raw) {
            Ok(block) => block,
            Err(error) => return Ok(rejected(format!("the block does not decode: {error}"))),
        };
        let Some(coinbase) = block.txdata.first() else {
            return Ok(rejected("bad-cb-missing, the block has no transactions".to_owned()));
        };
        let facts = Facts::of(Digest(block.block_hash().to_byte_array()), coinbase);
        if self.chain.borrow().is_known(&facts.hash) {
            return Ok(self.known(facts));
        }
        if !self.connection.has_submit_block() {
            return self.solve_like(&block, facts).await;
        }
        self.chain.borrow_mut().note_own(facts.hash, facts.reward_sat);
        let verdict = self.connection.submit_block(raw).await?;
        if verdict.is_good {
            return Ok(self.accepted(facts));
        }
        let had_already = verdict.reason == HAD_ALREADY;
        match self.is_of_chain(facts, had_already).await? {
            // Perhaps over a connection that ended before its answer.
            true if had_already => Ok(self.known(facts)),
            true => Ok(self.accepted(facts)),
            // Where it lies the interface does not say.
            false if had_already => Ok(Submission::Duplicate { hash: facts.hash }),
            false => self.judge(facts, &verdict, raw).await,
        }
    }

    /// Submits a whole block to a node that takes none, as the solution of a template with the same transactions.
    async fn solve_like(&self, block: &Block, facts: Facts) -> Result<Submission, Fault> {
        let txids: Vec<[u8; 32]> =
            block.txdata.iter().map(|transaction| transaction.compute_txid().to_byte_array()).collect();
        let path = merkle_path(&txids);
        let header = serialize(&block.header);
        let header: &HeaderBytes = header.first_chunk().expect("a serialised header has 80 bytes");
        let fields = HeaderFields::of(header);
        let held = self.held.borrow().find_like(|held| {
            let template = &held.template;
            template.header.prev_hash == fields.prev_hash
                && template.header.nbits == fields.nbits
                && template.merkle_path == path
        });
        let Some(held) = held else {
            let reason = "this Bitcoin Core takes no whole blocks over IPC, and has no template with these transactions any \
                          more; give it the block by `bitcoin-cli submitblock`, or use a newer one than 31.0";
            return Ok(Submission::NotTaken { reason: reason.to_owned() });
        };
        self.solve(&held, header, &serialize(&block.txdata[0]), facts).await
    }

    fn accepted(&self, facts: Facts) -> Submission {
        let Facts { hash, height, reward_sat } = facts;
        self.chain.borrow_mut().note_accepted(&hash);
        Submission::Accepted { height, hash, reward_sat }
    }

    /// Of a block of the best chain: accepted, unless somebody was told so before.
    fn known(&self, facts: Facts) -> Submission {
        if self.chain.borrow().is_told(&facts.hash) {
            return Submission::Duplicate { hash: facts.hash };
        }
        self.chain.borrow_mut().note_own(facts.hash, facts.reward_sat);
        self.accepted(facts)
    }

    /// Whether a block is the tip, or, where it `counts`, was the tip since: another block came on top.
    async fn is_of_chain(&self, facts: Facts, counts: bool) -> Result<bool, Fault> {
        let tip = self.connection.tip_after_submission().await?;
        let is_tip = tip.is_some_and(|tip| tip.hash == facts.hash);
        Ok(is_tip || counts && self.chain.borrow().has(&facts.hash))
    }

    /// What became of a block that is not the tip.
    async fn judge(&self, facts: Facts, verdict: &Verdict, block: &[u8]) -> Result<Submission, Fault> {
        let checked = self.connection.check_block(block).await?;
        let tip = self.connection.tip_after_submission().await?;
        Ok(match tip {
            Some(tip) if tip.hash == facts.hash => self.accepted(facts),
            tip => outcome_by_check(facts, verdict, &checked, tip),
        })
    }
}

/// What became of a block that is not the tip, by what the node said when it was handed the block (`verdict`) and when it was
/// asked to check it, and by its tip then.
fn outcome_by_check(facts: Facts, verdict: &Verdict, checked: &Verdict, tip: Option<Tip>) -> Submission {
    let Facts { hash, height, .. } = facts;
    let failed = |reason: &str| Submission::Failed { reason: reason.to_owned() };
    let says = |reason: &str| verdict.reason.starts_with(reason) || checked.reason.starts_with(reason);
    if says(NO_PARENT) {
        return failed(
            "the node does not know the block's parent: its chain is behind, perhaps since a crash",
        );
    }
    if says(TOO_NEW) {
        return failed("the block is ahead of the node's clock: set the clocks of both machines");
    }
    if checked.is_good {
        // Valid, but not made the tip: whatever the node said, it is not the block's fault.
        return Submission::Unconfirmed { hash };
    }
    let is_off_tip = checked.reason.starts_with(NOT_ON_TIP);
    // Off the tip the check says nothing of the block, and what was said before is what is left.
    let refusal = if is_off_tip { &verdict.reason } else { &checked.reason };
    if is_of_block(refusal) {
        return rejected(refusal.clone());
    }
    let is_behind = tip.is_none_or(|tip| tip.height < height);
    let is_stored = verdict.is_good || verdict.reason.starts_with("inconclusive");
    match is_off_tip && is_stored && !is_behind {
        true => Submission::Stale { height, hash },
        false => Submission::Unconfirmed { hash },
    }
}

/// Whether a reason speaks of the block. Those that do are words joined by hyphens (BIP22); an error of the node's own is a
/// sentence.
fn is_of_block(reason: &str) -> bool {
    let word = reason.split([' ', ',', '(']).next().unwrap_or_default();
    let is_word = word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    is_word && word.contains('-') && !word.starts_with("inconclusive")
}

impl Facts {
    fn of(hash: Digest, coinbase: &Transaction) -> Self {
        Self { hash, height: height_of(coinbase).unwrap_or_default(), reward_sat: paid_sat(coinbase) }
    }
}

fn rejected(reason: String) -> Submission {
    Submission::Rejected { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reason_that_speaks_of_the_block_is_final() {
        let facts = Facts { hash: Digest([1; 32]), height: 100, reward_sat: 50 };
        let judge = |verdict: (bool, &str), checked: (bool, &str), tip: u32| {
            let said = |(is_good, reason): (bool, &str)| Verdict { is_good, reason: reason.to_owned() };
            let tip = Some(Tip { height: tip, hash: Digest([2; 32]) });
            match outcome_by_check(facts, &said(verdict), &said(checked), tip) {
                Submission::Failed { .. } => "failed",
                Submission::Rejected { .. } => "rejected",
                Submission::Stale { .. } => "stale",
                Submission::Unconfirmed { .. } => "unconfirmed",
                other => panic!("{other:?}"),
            }
        };
        let (good, off_tip) = ((true, ""), (false, "inconclusive-not-best-prevblk, block is not on tip"));
        for (verdict, checked, tip, expected) in [
            // The check is good: what the node said is its own trouble.
            ((true, ""), good, 99, "unconfirmed"),
            ((false, ""), good, 99, "unconfirmed"),
            ((false, "System error while saving block to disk"), good, 99, "unconfirmed"),
            (
                (false, "AcceptBlock: Failed to find position to write new block to disk"),
                good,
                99,
                "unconfirmed",
            ),
            ((false, "bad-cb-amount"), good, 99, "unconfirmed"),
            // The check names what is wrong.
            ((true, ""), (false, "bad-cb-amount, coinbase pays too much"), 99, "rejected"),
            ((false, "System error while saving block to disk"), (false, "high-hash"), 99, "rejected"),
            ((false, ""), (false, "System error while flushing"), 99, "unconfirmed"),
            // It cannot, where the tip has changed.
            ((true, ""), off_tip, 100, "stale"),
            ((true, ""), off_tip, 101, "stale"),
            ((true, ""), off_tip, 99, "unconfirmed"),
            ((false, "inconclusive"), off_tip, 100, "stale"),
            ((false, "inconclusive"), off_tip, 98, "unconfirmed"),
            ((false, "bad-txns-vout-negative"), off_tip, 100, "rejected"),
            ((false, "duplicate-invalid"), off_tip, 100, "rejected"),
            (
                (false, "bad-version(0x00000001), rejected nVersion=0x00000001 block"),
                off_tip,
                100,
                "rejected",
            ),
            ((false, "System error while saving block to disk"), off_tip, 100, "unconfirmed"),
            ((false, ""), off_tip, 100, "unconfirmed"),
            // What another time may cure.
            ((false, "prev-blk-not-found"), off_tip, 90, "failed"),
            ((false, "time-too-new, block timestamp too far in the future"), good, 99, "failed"),
            ((true, ""), (false, "time-too-new"), 99, "failed"),
        ] {
            assert_eq!(judge(verdict, checked, tip), expected, "{verdict:?}, {checked:?}, tip {tip}");
        }
    }

    #[test]
    fn what_is_dropped_is_answered() {
        let (sender, receiver) = crossbeam::channel::bounded(1);
        drop(Submit::new(Submitted::Block([][..].into()), sender.clone()));
        assert!(matches!(receiver.try_recv(), Ok(Submission::Failed { .. })));
        let mut sent = Submit::new(Submitted::Block([7; 100][..].into()), sender.clone());
        sent.is_sent = true;
        drop(sent);
        assert_eq!(receiver.try_recv(), Ok(Submission::Unconfirmed { hash: Digest::of(&[7; 80]) }));
        Submit::new(Submitted::Block([][..].into()), sender).answer(rejected("no".to_owned()));
        assert_eq!(
            receiver.try_iter().collect::<Vec<_>>(),
            [rejected("no".to_owned())],
            "and nothing is answered twice"
        );
    }
}
