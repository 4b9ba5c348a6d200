//! What strangers and slow peers can make the engine hold or do.

use std::time::Duration;

use crate::transport::RINGS_MAX;

/// What a tip with two or three templates behind it makes for a standard channel that has jobs of its own: a proxy with
/// thousands of them must not be dropped for what a tip emits at once.
pub const SEND_BUFFER_BYTES_PER_CHANNEL: usize = 512;

/// Bounds of an engine, across its shards where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Connections in all; 100,000 by default. Costs about 0.5 KB in the process and 4.3 KB in the kernel each. A shard must
    /// be able to take all of them if the others fail, so this is also each shard's bound.
    pub connections_max: u32,
    /// Connections from one IPv4 address, or from one /64 of IPv6; 5,000 by default, because farms share an address.
    pub connections_per_address_max: u32,
    /// Handshakes begun per second; 6,000 by default. Each costs about 90 us of a core, so this is what strangers can take
    /// from the cores. Addresses take turns, in the sense of `connections_per_address_max`.
    pub handshakes_per_second_max: u32,
    /// From the connection to the last byte of the first act; 10 s by default.
    pub handshake_timeout: Duration,
    /// Bytes that wait to be sent to one peer; 1 MiB by default, and [`SEND_BUFFER_BYTES_PER_CHANNEL`] more for each of its
    /// channels. A peer that lets more gather is dropped.
    pub send_buffer_bytes_max: usize,
    /// Bytes that wait or are under way to all peers of one shard; 256 MiB by default, and [`SEND_BUFFER_BYTES_PER_CHANNEL`]
    /// more for each channel of the shard. When there are more, those with the largest backlogs are dropped until an eighth
    /// of it is free again. What a peer's channels allow it is not counted against it: a proxy is not the largest because a
    /// tip came. Buffers grow by doubling, so memory can be twice this; what the kernel buffers per socket is not in it.
    pub shard_send_buffer_bytes_max: usize,
    /// The longest payload that is accepted; 16 KiB by default. The longest message of a miner is below 1 KiB. A longer frame
    /// ends the connection as soon as its header is there.
    pub frame_payload_len_max: u32,
    /// How long a closing connection may take to read what was left for it; 5 s by default.
    pub close_timeout: Duration,
    /// How long what arrives may gather on a busy shard before it is read: one to which more than 32 frames come in that time. 0.5 ms by
    /// default, zero for never.
    pub gather_max: Duration,
    /// How long the kernel tries to deliver what a peer does not acknowledge, before it gives the connection up; 30 s by
    /// default.
    pub delivery_timeout: Duration,
    /// Lines in the log per second and shard for one kind of event; 10 by default. More are counted and summed up in one line.
    pub log_lines_per_second_max: u32,
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self {
            connections_max: 100_000,
            connections_per_address_max: 5_000,
            handshakes_per_second_max: 6_000,
            handshake_timeout: Duration::from_secs(10),
            send_buffer_bytes_max: 1 << 20,
            shard_send_buffer_bytes_max: 256 << 20,
            frame_payload_len_max: 16 << 10,
            close_timeout: Duration::from_secs(5),
            gather_max: Duration::from_micros(500),
            delivery_timeout: Duration::from_secs(30),
            log_lines_per_second_max: 10,
        }
    }
}

/// The part of `shard_send_buffer_bytes_max` that is freed when it is exceeded, so that connections are not gone through
/// again for the next few bytes.
pub(crate) const SHARD_SEND_BUFFER_FREED_PART: usize = 8;

/// Work of one tick. Bounds on latency, not choices of an operator.
pub(crate) mod tick {
    use crate::transport::Budget;

    /// What is received before shares are judged and answers leave: about 2,000 shares in full packets.
    pub(crate) const RECEIVE: Budget = Budget { completions: 256, bytes: 128 << 10 };
    /// Handshakes per tick when shares or jobs wait as well: 0.35 ms.
    pub(crate) const HANDSHAKES_BUSY_MAX: usize = 4;
    /// Handshakes per tick otherwise.
    pub(crate) const HANDSHAKES_MAX: usize = 16;
    /// Connections that get a new job per slice, between two looks at the sockets.
    pub(crate) const FAN_OUT_CONNECTIONS: usize = 128;
    /// Sockets taken over from the acceptor per tick.
    pub(crate) const SOCKETS_MAX: usize = 64;
    /// Ephemeral keys made ahead of time while a shard waits, in some 0.4 s of its idle time: enough for most of what comes back
    /// at once after a pool or a network was away, when each key would cost a fifth of the handshake. 1.6 MB.
    pub(crate) const SPARE_KEYS_MAX: usize = 16_384;
    /// Send buffers kept for reuse, and the largest that is kept.
    pub(crate) const SPARE_SENDS_MAX: usize = 1024;
    pub(crate) const SPARE_SEND_CAPACITY_MAX: usize = 16 << 10;
    /// Bytes of replies that are sealed into one send. More than a tick's answers to shares.
    pub(crate) const SEALED_REPLIES_LEN: usize = 256 << 10;
    /// Buffers for incomplete frames kept for reuse.
    pub(crate) const SPARE_PARTIALS_MAX: usize = 256;
}

const _: () = assert!(tick::HANDSHAKES_BUSY_MAX <= tick::HANDSHAKES_MAX);
const _: () = assert!(RINGS_MAX >= 16, "16 tables of 20,000 hold the largest pools");
