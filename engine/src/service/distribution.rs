//! The Template Distribution Protocol as a service (specification chapter 7).
//!
//! What the server wants of the node leaves by the output link, in order and beside the solutions: none of it may be lost,
//! because each template that a node holds pins memory until it is released.
//!
//! One shard serves all clients: they are few, a class's frames are encoded once for all of them, and template ids rise
//! over all classes.

use std::net::SocketAddr;
use std::sync::Arc;

use adit_codec::frame::FrameHeader;
use adit_codec::message::MessageKind;
use adit_proto::Instant;
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::{
    ClassId, CloseReason, CommandError, ConnectionId, Event, Server, ServerConfig, ServerOutbox,
    SubmittedSolution, TemplateError, TransactionsError,
};
use adit_proto::template::TemplateUpdate;

use super::{IsOvertaken, Report, Service, ServiceConfig, overtaken};
use crate::counters::ShardCounters;
use crate::end::EndReason;
use crate::error::StartError;
use crate::log::{LineKind, LogEvent};

impl ServiceConfig for ServerConfig {
    type Service = Distribution;
    const SHARDS_MAX: usize = 1;

    fn start(self, _shard: u8, _random: u64, _now: Instant) -> Result<Distribution, StartError> {
        Distribution::new(self)
    }
}

/// A server of the Template Distribution Protocol.
#[derive(Debug)]
pub struct Distribution {
    server: Server,
    clients_max: usize,
}

impl Distribution {
    /// A server without clients.
    ///
    /// # Errors
    /// Limits with which it cannot work.
    pub fn new(config: ServerConfig) -> Result<Self, StartError> {
        let clients_max = config.limits.clients_max;
        let server = Server::new(config).map_err(StartError::Distribution)?;
        Ok(Self { server, clients_max })
    }
}

/// A template or a tip for a constraint class.
#[derive(Clone, Debug)]
pub struct DistributionUpdate {
    /// Which class.
    pub class: ClassId,
    /// What its clients are told.
    pub update: TemplateUpdate,
}

/// What a role asks of the server.
#[derive(Clone, Debug)]
pub enum DistributionCommand {
    /// End a connection.
    CloseConnection(ConnectionId),
    /// A client brought a solution that is none.
    CountFalseSolution(ConnectionId),
    /// Close the clients of a class whose room the node cannot leave.
    RefuseClass(ClassId),
    /// Send a client the transactions that it asked for: all but the coinbase, serialised with their witnesses, in the order
    /// of the block. More than a frame can carry is refused as unavailable.
    AnswerTransactions {
        /// Who asked.
        connection: ConnectionId,
        /// For which template, as the source calls it.
        template_id: u64,
        /// The transactions.
        transactions: Arc<[Arc<[u8]>]>,
    },
    /// Tell a client that there are no transactions for it.
    RefuseTransactions {
        /// Who asked.
        connection: ConnectionId,
        /// For which template, as the source calls it.
        template_id: u64,
        /// Why.
        error: TransactionsError,
    },
}

/// What leaves the shard: see [`Event`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DistributionOutput {
    /// A block, perhaps.
    Solution {
        /// What the client says.
        solution: Box<SubmittedSolution>,
        /// Who it is.
        peer: Option<SocketAddr>,
    },
    /// Templates of this reserve are wanted from now on.
    ClassWanted {
        /// By whom.
        class: ClassId,
        /// What they leave free.
        reserve: Reserve,
    },
    /// No templates are wanted for this class any more.
    ClassUnwanted {
        /// Which.
        class: ClassId,
    },
    /// The node's template is to be destroyed.
    TemplateReleased {
        /// As the source calls it.
        template_id: u64,
    },
    /// To be answered with [`DistributionCommand::AnswerTransactions`] or [`DistributionCommand::RefuseTransactions`].
    TransactionsRequested {
        /// By whom.
        connection: ConnectionId,
        /// As the source calls it.
        template_id: u64,
    },
}

impl Service for Distribution {
    type Config = ServerConfig;
    type Event = Event;
    type Update = DistributionUpdate;
    type UpdateError = TemplateError;
    type Command = DistributionCommand;
    type Answer = Result<(), CommandError>;
    type Output = DistributionOutput;
    const TIP_MSG_TYPE: u8 = MessageKind::TemplateSetNewPrevHash.row().msg_type;
    const IS_OVERTAKEN: Option<IsOvertaken> = Some(overtaken::is_overtaken);

    fn handle_connect(&mut self, now: Instant) -> Result<ConnectionId, EndReason> {
        self.server.handle_connect(now).ok_or(EndReason::ClientsMax(self.clients_max))
    }

    fn handle_disconnect(&mut self, id: ConnectionId, now: Instant, out: &mut ServerOutbox) {
        self.server.handle_disconnect(id, now, out);
    }

    fn handle_frame(
        &mut self,
        id: ConnectionId,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
        out: &mut ServerOutbox,
    ) {
        self.server.handle_frame(id, header, payload, now, out);
    }

    /// A template that is not taken in is released at once, unless its id belongs to another.
    fn handle_update(
        &mut self,
        DistributionUpdate { class, update }: &DistributionUpdate,
        now: Instant,
        out: &mut ServerOutbox,
    ) -> Result<(), TemplateError> {
        let Err(error) = self.server.handle_template(*class, update, now, out) else { return Ok(()) };
        if let (TemplateUpdate::NewTemplate(template), false) =
            (update, matches!(error, TemplateError::NotRising(_)))
        {
            out.report(Event::TemplateReleased { template_id: template.template_id });
        }
        match error {
            // Its last client left while the template was on the way.
            TemplateError::UnknownClass(_) => Ok(()),
            error => Err(error),
        }
    }

    fn is_tip(DistributionUpdate { update, .. }: &DistributionUpdate) -> bool {
        matches!(update, TemplateUpdate::SetNewPrevHash(_))
    }

    fn handle_command(
        &mut self,
        command: DistributionCommand,
        now: Instant,
        out: &mut ServerOutbox,
    ) -> Result<(), CommandError> {
        let server = &mut self.server;
        match command {
            DistributionCommand::CloseConnection(id) => {
                server.close_connection(id, CloseReason::Operator, now, out)
            }
            DistributionCommand::CountFalseSolution(id) => {
                server.count_false_solution(id, now, out);
                Ok(())
            }
            DistributionCommand::RefuseClass(class) => {
                server.refuse_class(class, now, out);
                Ok(())
            }
            DistributionCommand::AnswerTransactions { connection, template_id, transactions } => {
                let list: Vec<&[u8]> = transactions.iter().map(|raw| &**raw).collect();
                let answer = server.answer_transactions(connection, template_id, &[], &list, out);
                if answer == Err(CommandError::TooLong) {
                    let error = TransactionsError::Unavailable;
                    server.refuse_transactions(connection, template_id, error, out)?;
                }
                answer
            }
            DistributionCommand::RefuseTransactions { connection, template_id, error } => {
                server.refuse_transactions(connection, template_id, error, out)
            }
        }
    }

    /// Everything is judged as it comes.
    fn settle(&mut self, _now: Instant, _out: &mut ServerOutbox) {}

    /// All clients are told at once: there are `clients_max` of them.
    fn poll_fan_out(&mut self, _budget: usize, _out: &mut ServerOutbox) -> bool {
        false
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.server.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut ServerOutbox) {
        self.server.handle_timeout(now, out);
    }

    fn backlog_allowance(&self, _id: ConnectionId) -> usize {
        0
    }

    fn backlog_allowance_in_all(&self) -> usize {
        0
    }

    fn report(
        event: Event,
        peer: impl FnOnce(ConnectionId) -> Option<SocketAddr>,
    ) -> Option<Report<DistributionOutput>> {
        let output = match event {
            Event::Solution(solution) => {
                let peer = peer(solution.connection);
                DistributionOutput::Solution { solution, peer }
            }
            Event::ClassWanted { class, reserve } => DistributionOutput::ClassWanted { class, reserve },
            Event::ClassUnwanted { class } => DistributionOutput::ClassUnwanted { class },
            Event::TemplateReleased { template_id } => DistributionOutput::TemplateReleased { template_id },
            Event::TransactionsRequested { connection, template_id } => {
                DistributionOutput::TransactionsRequested { connection, template_id }
            }
            Event::SetUp { connection, vendor, firmware } => {
                let peer = peer(connection)?;
                return Some(Report::Line(LineKind::SetUp, LogEvent::SetUp { peer, vendor, firmware }));
            }
            Event::Joined { connection, class, constraints } => {
                let peer = peer(connection)?;
                let joined = LogEvent::Joined { peer, class, constraints };
                return Some(Report::Line(LineKind::Joined, joined));
            }
            Event::Close { connection, reason } => {
                return Some(Report::Close(connection, EndReason::Distribution(reason)));
            }
        };
        Some(Report::Output(output))
    }

    fn name_of_block(output: &DistributionOutput) -> Option<String> {
        let DistributionOutput::Solution { solution, .. } = output else { return None };
        Some(format!(
            "a client's of its template {}, nonce {:#010x}",
            solution.wire_template_id, solution.header_nonce
        ))
    }

    fn publish(&self, counters: &ShardCounters) {
        counters.publish_distribution(self.server.counters());
    }
}
