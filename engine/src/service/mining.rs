//! The Mining Protocol as a service (specification chapter 5).

use std::net::SocketAddr;

use adit_codec::frame::FrameHeader;
use adit_codec::message::MessageKind;
use adit_hasher::{BatchHash, Hasher, Target};
use adit_proto::Instant;
use adit_proto::mining::server::{
    ChannelId, CloseReason, CommandError, ConnectionId, Event, Server, ServerConfig, ServerOutbox, ShardId,
    Solution, TemplateError,
};
use adit_proto::template::TemplateUpdate;

use super::{IsOvertaken, Report, Service, ServiceConfig};
use crate::counters::ShardCounters;
use crate::end::EndReason;
use crate::error::StartError;
use crate::limits::SEND_BUFFER_BYTES_PER_CHANNEL;
use crate::log::{LineKind, LogEvent};

/// Bits of the extranonce prefix that count channels.
const SLOT_BITS: u32 = 40;

/// What serves miners and proxies.
#[derive(Clone, Debug)]
pub struct MiningConfig<H = Hasher> {
    /// Settings of the servers; the shard's number and the first slot are filled in.
    pub server: ServerConfig,
    /// Hashes shares.
    pub hasher: H,
}

impl<H: BatchHash + Clone + Send + 'static> ServiceConfig for MiningConfig<H> {
    type Service = Mining<H>;
    /// A shard's number is one byte of the extranonce prefix.
    const SHARDS_MAX: usize = 256;

    fn start(self, shard: u8, random: u64, now: Instant) -> Result<Mining<H>, StartError> {
        let Self { mut server, hasher } = self;
        server.shard = ShardId(shard);
        // Another place after each start, so that no prefix is handed out twice on one tip.
        server.extranonce.first_slot = random >> (u64::BITS - SLOT_BITS);
        Ok(Mining::new(server, hasher, now))
    }
}

/// A server of the Mining Protocol and what hashes its shares.
#[derive(Debug)]
pub struct Mining<H = Hasher> {
    server: Server,
    hasher: H,
}

impl<H: BatchHash> Mining<H> {
    /// A server without connections and work.
    #[must_use]
    pub fn new(server: ServerConfig, hasher: H, now: Instant) -> Self {
        Self { server: Server::new(server, now), hasher }
    }
}

/// A command for one shard's connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// End a connection.
    CloseConnection(ConnectionId),
    /// Close a channel or all channels of a group, with a reason code.
    CloseChannel(ConnectionId, ChannelId, String),
    /// Send a client to another host and port. Some clients do not survive it.
    Reconnect(ConnectionId, String, u16),
    /// Give a channel a new extranonce prefix.
    SetExtranoncePrefix(ConnectionId, ChannelId),
    /// Put channels into a group of their own.
    SetGroupChannel(ConnectionId, Vec<ChannelId>),
    /// Set the target of a channel or of a group's channels.
    SetTarget(ConnectionId, ChannelId, Target),
    /// Tell a client that a channel's endpoint has changed.
    ChannelEndpointChanged(ConnectionId, ChannelId),
}

/// What a command has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// What was asked.
    Yes,
    /// The group has this id.
    Group(ChannelId),
}

impl<H: BatchHash + Clone + Send + 'static> Service for Mining<H> {
    type Config = MiningConfig<H>;
    type Event = Event;
    type Update = TemplateUpdate;
    type UpdateError = TemplateError;
    type Command = Command;
    type Answer = Result<Done, CommandError>;
    type Output = Box<Solution>;
    const TIP_MSG_TYPE: u8 = MessageKind::SetNewPrevHash.row().msg_type;
    /// The server counts on the delivery of jobs: targets and prefixes hold from the job on with which they went out, and a tip
    /// comes as one SetNewPrevHash for each channel or group, between which there may be jobs of the new tip already.
    const IS_OVERTAKEN: Option<IsOvertaken> = None;

    fn handle_connect(&mut self, now: Instant) -> Result<ConnectionId, EndReason> {
        Ok(self.server.handle_connect(now))
    }

    fn handle_disconnect(&mut self, id: ConnectionId, _now: Instant, out: &mut ServerOutbox) {
        self.server.handle_disconnect(id, out);
    }

    #[inline]
    fn read_ahead<'a>(&self, id: ConnectionId, frames: impl Iterator<Item = (FrameHeader, &'a [u8])>) {
        self.server.read_ahead(id, frames);
    }

    #[inline]
    fn handle_frame(
        &mut self,
        id: ConnectionId,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
        out: &mut ServerOutbox,
    ) {
        self.server.handle_frame(id, header, payload, now, &self.hasher, out);
    }

    fn handle_update(
        &mut self,
        update: &TemplateUpdate,
        now: Instant,
        _out: &mut ServerOutbox,
    ) -> Result<(), TemplateError> {
        self.server.handle_template(update, now)
    }

    fn is_tip(update: &TemplateUpdate) -> bool {
        matches!(update, TemplateUpdate::SetNewPrevHash(_))
    }

    fn handle_command(
        &mut self,
        command: Command,
        now: Instant,
        out: &mut ServerOutbox,
    ) -> Result<Done, CommandError> {
        let Self { server, hasher } = self;
        match command {
            Command::CloseConnection(id) => server.close_connection(id, CloseReason::Operator, now, out),
            Command::CloseChannel(id, channel, reason) => {
                server.close_channel(id, channel, &reason, now, out)
            }
            Command::Reconnect(id, host, port) => server.reconnect(id, &host, port, out),
            Command::SetExtranoncePrefix(id, channel) => {
                server.set_extranonce_prefix(id, channel, &*hasher, out)
            }
            Command::SetGroupChannel(id, channels) => {
                return server.set_group_channel(id, &channels, &*hasher, out).map(Done::Group);
            }
            Command::SetTarget(id, channel, target) => server.set_target(id, channel, target, &*hasher, out),
            Command::ChannelEndpointChanged(id, channel) => server.channel_endpoint_changed(id, channel, out),
        }
        .map(|()| Done::Yes)
    }

    #[inline]
    fn settle(&mut self, now: Instant, out: &mut ServerOutbox) {
        self.server.settle(&self.hasher, now, out);
    }

    fn acknowledge(&mut self, whom: Option<ConnectionId>, out: &mut ServerOutbox) {
        match whom {
            Some(id) => self.server.acknowledge_connection(id, out),
            None => self.server.acknowledge_all(out),
        }
    }

    #[inline]
    fn poll_fan_out(&mut self, budget: usize, out: &mut ServerOutbox) -> bool {
        self.server.poll_fan_out(budget, &self.hasher, out)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.server.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut ServerOutbox) {
        self.server.handle_timeout(now, &self.hasher, out);
    }

    fn backlog_allowance(&self, id: ConnectionId) -> usize {
        self.server.channels_of(id) as usize * SEND_BUFFER_BYTES_PER_CHANNEL
    }

    fn backlog_allowance_in_all(&self) -> usize {
        self.server.channel_count() * SEND_BUFFER_BYTES_PER_CHANNEL
    }

    fn report(
        event: Event,
        peer: impl FnOnce(ConnectionId) -> Option<SocketAddr>,
    ) -> Option<Report<Box<Solution>>> {
        Some(match event {
            Event::Solution(solution) => Report::Output(solution),
            Event::Close { connection, reason } => Report::Close(connection, EndReason::Mining(reason)),
            Event::SetUp { connection, vendor, firmware } => {
                let peer = peer(connection)?;
                Report::Line(LineKind::SetUp, LogEvent::SetUp { peer, vendor, firmware })
            }
            Event::ChannelOpened { connection, channel, extended, user_identity, nominal_hash_rate } => {
                let peer = peer(connection)?;
                let opened =
                    LogEvent::ChannelOpened { peer, channel, extended, user_identity, nominal_hash_rate };
                Report::Line(LineKind::ChannelOpened, opened)
            }
            Event::ChannelClosed { connection, channel } => {
                let peer = peer(connection)?;
                Report::Line(LineKind::ChannelClosed, LogEvent::ChannelClosed { peer, channel })
            }
        })
    }

    fn name_of_block(solution: &Box<Solution>) -> Option<String> {
        Some(solution.digest.to_string())
    }

    fn publish(&self, counters: &ShardCounters) {
        counters.publish_mining(self.server.counters());
    }
}
