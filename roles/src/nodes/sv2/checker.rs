//! The thread that judges templates' transactions.
//!
//! Thousands of them take milliseconds, and the tip that makes them worthless may be right behind them. So the source's thread
//! hands them over unread, and this one yields to every other: its work is for a block that may be found one day, theirs for
//! everybody who mines.
//!
//! Bound: [`JOBS_MAX`] jobs wait, each with what one frame holds; what finds no place is not checked, and so not kept.

use std::sync::Arc;

use adit_proto::distribution::client::TransactionList;
use adit_proto::distribution::server::ClassId;
use adit_proto::template::Template;
use crossbeam::channel::Receiver;
use tokio::sync::mpsc;

use super::provider::CONNECTIONS_MAX;
use super::transactions::{Keeper, Mismatch};
use crate::nodes::TemplateTransactions;

/// One check of each class, and those of classes that were given up meanwhile.
pub(super) const JOBS_MAX: usize = 2 * CONNECTIONS_MAX;
/// A seventieth of the weight of a thread that serves: while the shard on the same CPU tells thousands of connections of a tip, a check
/// waits. At a tenth of the weight it had 7 % of that time. On a CPU that is never idle a check takes a second instead of ten
/// milliseconds, which harms nobody, and ends nevertheless.
const NICE: i32 = 19;

/// What there is to do.
#[derive(Debug)]
pub(super) enum Job {
    Check(Check),
    /// Templates were forgotten that had these: they can go, where no other has them.
    Sweep(Vec<TemplateTransactions>),
}

/// Transactions that are said to be a template's.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) class: ClassId,
    /// With the source's id.
    pub(super) template: Arc<Template>,
    pub(super) transactions: TransactionList,
}

/// What came of a check; where the transactions are the template's, they are in the store.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) class: ClassId,
    pub(super) template_id: u64,
    pub(super) result: Result<(), Mismatch>,
}

/// Does a job.
pub(super) fn handle_job(keeper: &mut Keeper, job: Job) -> Option<Checked> {
    match job {
        Job::Check(Check { class, template, transactions }) => {
            let template_id = template.template_id;
            let result = keeper.keep(template_id, &template, &transactions);
            Some(Checked { class, template_id, result })
        }
        Job::Sweep(lost) => {
            drop(lost);
            keeper.sweep_if_lost();
            None
        }
    }
}

/// Runs until nobody can give jobs any more.
pub(super) fn run(mut keeper: Keeper, jobs: &Receiver<Job>, checked: &mpsc::Sender<Checked>) {
    // On Linux this is the thread's own, whatever POSIX says of the process. Without it the work is done as well.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the thread that checks transactions has the priority of the others");
    }
    for job in jobs {
        if let Some(done) = handle_job(&mut keeper, job) {
            // A source that has ended reads no reports.
            let _ = checked.blocking_send(done);
        }
    }
}
