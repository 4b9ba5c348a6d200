//! Template sources: where templates and tips come from, and where solutions go.
//!
//! A source owns its connection to a node, or the node itself, on threads of its own. It reports in order over one
//! bounded channel, and answers every solution exactly once; whoever reads slowly or never holds nothing up (`feed`).
//! The types follow the Template Distribution Protocol (specification chapter 7), so that a node in the same
//! process, a Bitcoin Core and a remote template provider are the same to the layers above.
//!
//! Templates are made for classes of reserve: what they leave to the coinbase's outputs. A pool has one, a template
//! provider as many as its clients need. Bounds: [`CLASSES_MAX`] classes; templates are kept by each source's own bound
//! (`store`), and a solution of a template that was forgotten is answered as such.

mod block;
mod coinbase;
pub mod core_ipc;
pub mod core_rpc;
pub mod embedded;
pub mod failover;
mod feed;
mod ids;
mod pause;
mod reach;
mod start;
mod store;
pub mod sv2;
pub mod synthetic;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use adit_hasher::Digest;
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::Solution;
use adit_proto::template::TemplateUpdate;
use crossbeam::channel::Receiver;

pub use block::{BlockError, TemplateTransactions, assemble_block, coinbase_txid};
pub use ids::TemplateIds;
pub use reach::reach;
pub use start::{StartError, start};

/// Classes of reserve that a source serves at a time; one more is refused.
pub const CLASSES_MAX: usize = 64;

/// Future templates that a source shows ahead of one tip, and that whoever follows it remembers: the tip may name the first.
const FUTURES_MAX: usize = 16;

/// A node that gives templates and takes blocks.
pub trait TemplateSource: Send + Sync {
    /// What the log calls it, for example `embedded regtest`.
    fn name(&self) -> &str;

    /// The source's reports, oldest first. There is one stream: every call returns the same channel, and each report goes
    /// to one reader.
    fn updates(&self) -> Receiver<SourceUpdate>;

    /// Asks for templates that leave this room free. As soon as the node can, and again after each time it was down, a
    /// future template and the tip that names it are reported for the class; then newer templates when they pay enough
    /// more, until [`unwant`](Self::unwant). A class that is wanted already gets the new reserve.
    ///
    /// Waits for no node; room that cannot be left is answered by [`SourceUpdate::Refused`].
    fn want(&self, class: ClassId, reserve: Reserve);

    /// Asks for no more templates of a class. Reports that were on their way may still come.
    fn unwant(&self, class: ClassId);

    /// Submits a solution. Exactly one answer comes over the returned channel, whatever happens; if the source ends first,
    /// it is [`Submission::Failed`] or the channel is disconnected, which means the same.
    ///
    /// Waits only while more solutions are queued than the source's bound.
    fn submit(&self, solution: Arc<Solution>) -> Receiver<Submission>;

    /// Submits a whole serialised block: one from the journal, or found elsewhere. Answers like
    /// [`submit`](Self::submit).
    fn submit_block(&self, block: Arc<[u8]>) -> Receiver<Submission>;

    /// The transactions of a template, if this source has them at hand: with them a solution becomes a block without the
    /// source. `None` where the template was forgotten or the node keeps them to itself.
    fn transactions(&self, template_id: u64) -> Option<TemplateTransactions>;

    /// How the sources stand that this one combines, in the order of the configuration; empty for a single one.
    fn standings(&self) -> Vec<SourceStanding> {
        Vec::new()
    }

    /// Ends the source: answers what was submitted, closes the node or the connection, ends its threads.
    fn shutdown(self: Box<Self>);
}

/// What one of several sources does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its templates are mined.
    Serves,
    /// It would take over.
    StandsBy,
    /// Its node cannot be used, or not yet.
    Down,
}

impl fmt::Display for Standing {
    /// As words that follow the source's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serves => "serves",
            Self::StandsBy => "stands by",
            Self::Down => "is down",
        })
    }
}

/// One of several sources, and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStanding {
    /// What the log calls it.
    pub name: String,
    /// What it does.
    pub standing: Standing,
}

/// What a source reports.
#[derive(Clone, Debug)]
pub enum SourceUpdate {
    /// The node can be used; templates follow.
    Up,
    /// The node cannot be used any more (or not yet); the templates given so far are of no use until [`Self::Up`].
    Down {
        /// What went wrong and, where there is a remedy, what to do.
        reason: String,
    },
    /// A template or a tip.
    Template {
        /// Whose room it leaves free.
        class: ClassId,
        /// What is new.
        update: TemplateUpdate,
        /// When the source learnt from its node what this tells: from here on counts how long a tip takes to the miners.
        learned: Instant,
    },
    /// The node cannot leave the room of a class: no templates come for it.
    Refused {
        /// Which.
        class: ClassId,
        /// Why, and what to change.
        reason: String,
    },
    /// A block joined the best chain, whoever found it.
    BlockConnected {
        /// Its height.
        height: u32,
        /// Its hash.
        hash: Digest,
        /// What its coinbase's outputs are worth together; none where the source does not see the block itself.
        reward_sat: Option<u64>,
    },
    /// A block left the best chain: its reward is void unless it comes back.
    BlockDisconnected {
        /// Its height.
        height: u32,
        /// Its hash.
        hash: Digest,
    },
}

/// What became of a solution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submission {
    /// It is a block of the best chain.
    Accepted {
        /// Its height.
        height: u32,
        /// Its hash.
        hash: Digest,
        /// What its coinbase's outputs are worth together.
        reward_sat: u64,
    },
    /// Another block of its height came first: it earns nothing unless the chain reorganises. A node keeps it beside the
    /// best chain if header, size and transactions pass.
    Stale {
        /// Its height.
        height: u32,
        /// Its hash.
        hash: Digest,
    },
    /// The node had this very block already.
    Duplicate {
        /// Its hash.
        hash: Digest,
    },
    /// The block is invalid.
    Rejected {
        /// The node's reason.
        reason: String,
    },
    /// The source does not know the template (any more), so it cannot build the block.
    UnknownTemplate {
        /// The template that the solution names.
        template_id: u64,
    },
    /// The block was handed over, but the node has not shown in time what became of it: it may be in the best chain, and it
    /// may be lost.
    Unconfirmed {
        /// Its hash.
        hash: Digest,
    },
    /// The source takes no such block, be it good or not: a template provider, for one, takes those of its own templates
    /// alone.
    NotTaken {
        /// Why, and who would take it.
        reason: String,
    },
    /// The node could not be asked: the solution may still be good.
    Failed {
        /// What went wrong.
        reason: String,
    },
}

impl Submission {
    /// Whether the answer is final. After [`Failed`](Self::Failed) and [`Unconfirmed`](Self::Unconfirmed) the same block should
    /// be submitted again; after [`UnknownTemplate`](Self::UnknownTemplate) and [`NotTaken`](Self::NotTaken) too, as a whole
    /// block or to another node.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Accepted { .. } | Self::Stale { .. } | Self::Duplicate { .. } | Self::Rejected { .. } => {
                true
            }
            Self::Failed { .. }
            | Self::UnknownTemplate { .. }
            | Self::Unconfirmed { .. }
            | Self::NotTaken { .. } => false,
        }
    }
}

impl fmt::Display for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted { height, hash, reward_sat } => {
                write!(f, "accepted: block {height} {hash}, reward {reward_sat} sat")
            }
            Self::Stale { height, hash } => {
                write!(f, "stale: block {height} {hash} lies beside the best chain")
            }
            Self::Duplicate { hash } => write!(f, "duplicate: the node has block {hash} already"),
            Self::Rejected { reason } => write!(f, "rejected: {reason}"),
            Self::UnknownTemplate { template_id } => write!(f, "unknown template {template_id}"),
            Self::Unconfirmed { hash } => {
                write!(f, "unconfirmed: block {hash} was handed over, and nobody says what became of it")
            }
            Self::NotTaken { reason } => write!(f, "not taken: {reason}"),
            Self::Failed { reason } => write!(f, "not submitted: {reason}"),
        }
    }
}
