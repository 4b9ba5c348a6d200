//! What an operator can ask of a shard.

use adit_hasher::{BatchHash, Target};
use adit_proto::Instant;
use adit_proto::mining::server::{ChannelId, CloseReason, CommandError, ConnectionId, Server, ServerOutbox};

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

impl Command {
    pub(super) fn apply(
        self,
        server: &mut Server,
        now: Instant,
        hasher: &impl BatchHash,
        out: &mut ServerOutbox,
    ) -> Result<Done, CommandError> {
        match self {
            Self::CloseConnection(id) => server.close_connection(id, CloseReason::Operator, now, out),
            Self::CloseChannel(id, channel, reason) => server.close_channel(id, channel, &reason, now, out),
            Self::Reconnect(id, host, port) => server.reconnect(id, &host, port, out),
            Self::SetExtranoncePrefix(id, channel) => server.set_extranonce_prefix(id, channel, hasher, out),
            Self::SetGroupChannel(id, channels) => {
                return server.set_group_channel(id, &channels, hasher, out).map(Done::Group);
            }
            Self::SetTarget(id, channel, target) => server.set_target(id, channel, target, hasher, out),
            Self::ChannelEndpointChanged(id, channel) => server.channel_endpoint_changed(id, channel, out),
        }
        .map(|()| Done::Yes)
    }
}
