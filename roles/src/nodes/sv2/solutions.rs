//! Solutions that were handed over, and what became of them.
//!
//! The protocol has no answer to SubmitSolution. What became of a block shows in the tips that the provider announces:
//! - a tip that is the block: [`Submission::Accepted`], with height and reward as its own coinbase has them;
//! - another tip of its height: [`Submission::Stale`];
//! - neither in [`PATIENCE`], or a tip above its height at once: [`Submission::Unconfirmed`]. The block may be good, so it is
//!   not called lost, and it may not, so it is not called accepted. Whoever asks again, as the journal does, has it sent
//!   once more ([`RESEND_PAUSE`]), which harms nobody, and gets the verdict as soon as there is one.
//!
//! A solution that finds no connection is answered [`Submission::Failed`] at once, and goes out nevertheless with the first
//! tip of the next connection; so does one whose connection ended before its verdict.
//!
//! Bounds: [`RECORDS_MAX`] solutions, [`ANSWERS_MAX`] who wait for each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_hasher::{Digest, Target};
use adit_proto::mining::server::Solution;
use bitcoin::consensus::{deserialize, deserialize_partial};
use bitcoin::hashes::Hash;
use bitcoin::{Transaction, VarInt};
use crossbeam::channel::Sender;

use super::connection::LinkId;
use crate::nodes::coinbase::{height_of, paid_sat};
use crate::nodes::{BlockError, Submission};

/// Solutions that are remembered, also after their verdict; the oldest makes room.
const RECORDS_MAX: usize = 1_024;
/// Who wait for the verdict on one solution.
const ANSWERS_MAX: usize = 8;
/// For the tip that shows what became of a block.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for a block that was asked for before, or that a tip above its height has passed.
const PATIENCE_AGAIN: Duration = Duration::from_secs(1);
/// The least time between two sendings of one solution over one connection.
const RESEND_PAUSE: Duration = Duration::from_secs(1);

/// One solution.
#[derive(Debug)]
struct Record {
    solution: Arc<Solution>,
    coinbase: Coinbase,
    /// Over which connection it went last, and when.
    sent: Option<(LinkId, Instant)>,
    waiting: Vec<Sender<Submission>>,
    /// When those who wait are answered without a verdict.
    deadline: Option<Instant>,
    /// Whether somebody was answered without a verdict.
    was_unconfirmed: bool,
    verdict: Option<Submission>,
    /// Whether somebody was told the verdict.
    is_told: bool,
}

/// What a solution's coinbase says of its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coinbase {
    pub(super) txid: [u8; 32],
    /// As its scriptSig begins (BIP34).
    height: Option<u32>,
    reward_sat: u64,
}

impl Coinbase {
    fn read(coinbase_tx: &[u8]) -> Result<Self, BlockError> {
        let coinbase: Transaction =
            deserialize(coinbase_tx).map_err(|error| BlockError::Coinbase(error.to_string()))?;
        Ok(Self {
            txid: coinbase.compute_txid().to_byte_array(),
            height: height_of(&coinbase),
            reward_sat: paid_sat(&coinbase),
        })
    }
}

/// A template id that no source gives.
pub(super) const NO_TEMPLATE: u64 = 0;

/// What of a serialised block SubmitSolution can carry; its template is known by its contents.
pub(super) fn solution_of(block: &[u8]) -> Result<Solution, BlockError> {
    let missing = |what: &str| BlockError::Coinbase(format!("the block ends before its {what}"));
    let (header, rest) = block.split_first_chunk::<80>().ok_or_else(|| missing("transactions"))?;
    let (_count, len) = deserialize_partial::<VarInt>(rest).map_err(|_| missing("coinbase"))?;
    let rest = rest.get(len..).unwrap_or_default();
    let (_coinbase, len) =
        deserialize_partial::<Transaction>(rest).map_err(|error| BlockError::Coinbase(error.to_string()))?;
    Ok(Solution {
        template_id: NO_TEMPLATE,
        header: *header,
        digest: Digest::of(header),
        target: Target::MAX,
        coinbase_tx: rest[..len].to_vec(),
        merkle_path: Vec::new(),
        user_identity: Vec::new(),
        worker_identity: Vec::new(),
    })
}

impl Record {
    fn answer(&mut self, submission: &Submission) {
        for waiting in self.waiting.drain(..) {
            // Whoever asked may be gone.
            let _ = waiting.try_send(submission.clone());
        }
        self.deadline = None;
    }

    fn decide(&mut self, verdict: Submission) {
        self.is_told |= !self.waiting.is_empty();
        self.answer(&verdict);
        self.verdict = Some(verdict);
    }

    /// What is known without a verdict.
    fn unknown(&self) -> Submission {
        match self.sent {
            Some(_) => Submission::Unconfirmed { hash: self.solution.digest },
            None => Submission::Failed {
                reason: "the connection to the template provider was lost; the solution goes out with the next one"
                    .to_owned(),
            },
        }
    }
}

/// What a new question leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It was answered.
    Answered,
    /// It waits, and the solution is to be sent.
    Send,
    /// It waits: the solution was sent over the present connection a moment ago.
    Waits,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Solutions {
    /// Oldest first.
    records: VecDeque<Record>,
}

impl Solutions {
    fn find(&mut self, hash: Digest) -> Option<&mut Record> {
        self.records.iter_mut().rev().find(|record| record.solution.digest == hash)
    }

    /// Takes a solution, or a question after one that is known.
    pub(super) fn ask(
        &mut self,
        solution: &Arc<Solution>,
        answer: Sender<Submission>,
        now: Instant,
    ) -> Asked {
        let hash = solution.digest;
        if let Some(record) = self.find(hash) {
            return record.ask_again(answer, now);
        }
        let coinbase = match Coinbase::read(&solution.coinbase_tx) {
            Ok(coinbase) => coinbase,
            Err(error) => {
                let _ = answer.try_send(Submission::Rejected { reason: error.to_string() });
                return Asked::Answered;
            }
        };
        if self.records.len() >= RECORDS_MAX
            && let Some(mut oldest) = self.records.pop_front()
        {
            let submission = oldest.unknown();
            oldest.answer(&submission);
        }
        self.records.push_back(Record {
            solution: Arc::clone(solution),
            coinbase,
            sent: None,
            waiting: vec![answer],
            deadline: Some(now + PATIENCE),
            was_unconfirmed: false,
            verdict: None,
            is_told: false,
        });
        Asked::Send
    }

    /// What the coinbase of a solution says that was asked for.
    pub(super) fn coinbase(&mut self, hash: Digest) -> Option<Coinbase> {
        self.find(hash).map(|record| record.coinbase)
    }

    /// What a block pays, if it was asked for.
    pub(super) fn reward_sat(&self, hash: Digest) -> Option<u64> {
        let record = self.records.iter().rev().find(|record| record.solution.digest == hash)?;
        Some(record.coinbase.reward_sat)
    }

    /// A solution went out.
    pub(super) fn handle_sent(&mut self, hash: Digest, link: LinkId, now: Instant) {
        if let Some(record) = self.find(hash) {
            record.sent = Some((link, now));
        }
    }

    /// A solution cannot go out: those who wait are told why; it is kept.
    pub(super) fn handle_unsent(&mut self, hash: Digest, why: &Submission) {
        if let Some(record) = self.find(hash) {
            record.answer(why);
        }
    }

    /// A connection ended: what went over it may not have arrived.
    pub(super) fn handle_lost(&mut self, link: LinkId) {
        for record in &mut self.records {
            if record.sent.is_some_and(|(over, _)| over == link) && record.verdict.is_none() {
                record.sent = None;
            }
        }
    }

    /// Solutions without a verdict that the provider has not, oldest first.
    pub(super) fn unsent(&self) -> Vec<Arc<Solution>> {
        let unsent = self.records.iter().filter(|record| record.sent.is_none() && record.verdict.is_none());
        unsent.map(|record| Arc::clone(&record.solution)).collect()
    }

    /// A block is the tip; its height, where the provider's templates tell it.
    pub(super) fn handle_tip(&mut self, hash: Digest, height: Option<u32>, now: Instant) {
        for record in self.records.iter_mut().filter(|record| record.verdict.is_none()) {
            let Coinbase { height: own, reward_sat, .. } = record.coinbase;
            if record.solution.digest == hash {
                let height = own.or(height).unwrap_or_default();
                record.decide(Submission::Accepted { height, hash, reward_sat });
                continue;
            }
            let Some((own, tip)) = own.zip(height) else { continue };
            if own == tip {
                record.decide(Submission::Stale { height: own, hash: record.solution.digest });
            } else if own < tip {
                // Which block has its height was not told: it may be this one.
                record.deadline = record.deadline.map(|deadline| deadline.min(now + PATIENCE_AGAIN));
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.records.iter().filter_map(|record| record.deadline).min()
    }

    /// Answers those who waited long enough.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for record in &mut self.records {
            if record.deadline.is_some_and(|deadline| deadline <= now) {
                record.was_unconfirmed = true;
                let unknown = record.unknown();
                record.answer(&unknown);
            }
        }
    }

    /// Answers all who wait: the source ends.
    pub(super) fn finish(&mut self) {
        for record in &mut self.records {
            let unknown = record.unknown();
            record.answer(&unknown);
        }
    }
}

impl Record {
    fn ask_again(&mut self, answer: Sender<Submission>, now: Instant) -> Asked {
        if let Some(verdict) = &self.verdict {
            let verdict = match verdict {
                Submission::Accepted { hash, .. } if self.is_told => Submission::Duplicate { hash: *hash },
                verdict => verdict.clone(),
            };
            self.is_told = true;
            let _ = answer.try_send(verdict);
            return Asked::Answered;
        }
        if self.waiting.len() >= ANSWERS_MAX {
            let _ = answer.try_send(self.unknown());
            return Asked::Answered;
        }
        self.waiting.push(answer);
        let patience = if self.was_unconfirmed { PATIENCE_AGAIN } else { PATIENCE };
        self.deadline = Some(self.deadline.unwrap_or(now + patience));
        match self.sent {
            Some((_, sent)) if now.duration_since(sent) < RESEND_PAUSE => Asked::Waits,
            _ => Asked::Send,
        }
    }
}
