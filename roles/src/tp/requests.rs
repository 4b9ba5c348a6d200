//! Requests for templates' transactions, and clients that bring false solutions: what the engine is told in return.
//!
//! Answers are megabytes long, so they have a thread of their own: no block waits for them. A source may still be reading a
//! template's transactions when a client asks; then the request waits here and is tried again. The engine has one request of
//! each client under way and refuses it when its time is up.
//!
//! Bounds: [`ASKED_MAX`] reports of clients wait for the thread, and as many requests for their transactions.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_engine::EngineHandle;
use adit_engine::service::{Distribution, DistributionCommand};
use adit_proto::distribution::server::ConnectionId;
use crossbeam::channel::{Receiver, select_biased};
use tracing::debug;

use crate::nodes::TemplateSource;

/// See the module.
pub(super) const ASKED_MAX: usize = 2_048;
/// How soon a source is asked again for transactions that it did not have.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// What is to be told to a client, or done to it.
pub(super) enum Asked {
    /// It wants a template's transactions.
    Transactions(Request),
    /// It brought a solution that is none.
    FalseSolution(ConnectionId),
}

/// A request for a template's transactions.
pub(super) struct Request {
    pub(super) connection: ConnectionId,
    pub(super) template_id: u64,
}

/// A request whose transactions the source does not have, or not yet.
struct Waiting {
    request: Request,
    until: Instant,
}

/// What the thread owns.
pub(super) struct Answers<'a> {
    pub(super) engine: &'a EngineHandle<Distribution>,
    pub(super) source: &'a dyn TemplateSource,
    /// Answers that went out.
    pub(super) answered: &'a AtomicU64,
    /// How long a request waits; the engine has refused it then.
    pub(super) patience: Duration,
}

impl Answers<'_> {
    /// Runs until `stopped` is disconnected.
    pub(super) fn run(&self, asked: &Receiver<Asked>, stopped: &Receiver<()>) {
        let mut waiting: VecDeque<Waiting> = VecDeque::new();
        loop {
            let pause = if waiting.is_empty() { self.patience } else { RETRY_PAUSE };
            select_biased! {
                recv(stopped) -> _ => return,
                recv(asked) -> asked => match asked {
                    Ok(Asked::Transactions(request)) => {
                        let until = Instant::now() + self.patience;
                        if !self.answer(&request) && waiting.len() < ASKED_MAX {
                            waiting.push_back(Waiting { request, until });
                        }
                    }
                    Ok(Asked::FalseSolution(connection)) => {
                        self.tell(DistributionCommand::CountFalseSolution(connection));
                    }
                    Err(_) => return,
                },
                default(pause) => {
                    let now = Instant::now();
                    waiting.retain(|waiting| now < waiting.until && !self.answer(&waiting.request));
                }
            }
        }
    }

    /// Whether the source had what was asked for.
    fn answer(&self, &Request { connection, template_id }: &Request) -> bool {
        let Some(transactions) = self.source.transactions(template_id) else { return false };
        let transactions = transactions.shared();
        if self.tell(DistributionCommand::AnswerTransactions { connection, template_id, transactions }) {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Whether the engine could do it: the client may have gone, or be refused already.
    fn tell(&self, command: DistributionCommand) -> bool {
        match self.engine.command(0, command) {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                debug!(%error, "a client is not told what it asked for");
                false
            }
            None => false,
        }
    }
}
