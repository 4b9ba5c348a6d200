//! What an operator reads: one line per event, at most so many per second of each kind, the rest summed up.
//!
//! Bounds: the link to the reader ([`LOG_EVENTS`](crate::topology::LOG_EVENTS)); what finds it full is dropped and counted.
//! Text that came from peers is cut to [`PEER_TEXT_LEN_MAX`] bytes and escaped when shown.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use adit_proto::Instant;
use adit_proto::distribution::Constraints;
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::{ChannelId, ConnectionId};
use crossbeam::channel::{Sender, TrySendError};

use crate::counters::{Counter, ShardCounters};
use crate::end::{EndKind, EndReason};

/// Bytes of a peer's text that a line shows.
pub const PEER_TEXT_LEN_MAX: usize = 64;

/// Something that an operator may want to read. `Display` gives the line.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum LogEvent {
    /// A handshake was completed.
    ConnectionOpened {
        /// Who.
        peer: SocketAddr,
        /// Which shard serves it.
        shard: u8,
        /// What commands call it, on that shard.
        connection: ConnectionId,
    },
    /// SetupConnection was accepted.
    SetUp {
        /// Who.
        peer: SocketAddr,
        /// `vendor`, as received.
        vendor: Vec<u8>,
        /// `firmware`, as received.
        firmware: Vec<u8>,
    },
    /// A client of Template Distribution gets templates.
    Joined {
        /// Who.
        peer: SocketAddr,
        /// Its constraint class.
        class: ClassId,
        /// What it asked for.
        constraints: Constraints,
    },
    /// A channel was opened.
    ChannelOpened {
        /// Who.
        peer: SocketAddr,
        /// The channel.
        channel: ChannelId,
        /// Whether it is extended.
        extended: bool,
        /// `user_identity`, as received.
        user_identity: Vec<u8>,
        /// Announced hash rate, in hashes per second.
        nominal_hash_rate: f32,
    },
    /// A channel was closed.
    ChannelClosed {
        /// Who.
        peer: SocketAddr,
        /// The channel.
        channel: ChannelId,
    },
    /// A connection ended.
    ConnectionClosed {
        /// Who.
        peer: SocketAddr,
        /// Which shard served it.
        shard: u8,
        /// Why.
        reason: EndReason,
        /// How long it lasted.
        lasted: Duration,
    },
    /// More of one kind happened than lines are allowed.
    Suppressed {
        /// On which shard.
        shard: u8,
        /// What.
        kind: LineKind,
        /// How often.
        count: u64,
    },
    /// There is no valid certificate: nobody can connect. Said once per identity and shard.
    CertificateNotValid {
        /// Begin of validity, unix seconds.
        valid_from: u32,
        /// End of validity, unix seconds.
        not_valid_after: u32,
        /// The present time, unix seconds.
        now: u32,
    },
    /// A template could not be used.
    TemplateRefused {
        /// By which shard.
        shard: u8,
        /// Why.
        error: String,
    },
    /// Connections were refused right after they were accepted.
    ConnectionsRefused {
        /// Why.
        reason: RefuseReason,
        /// The last address.
        peer: SocketAddr,
        /// How many since the last such line.
        count: u64,
    },
    /// Blocks were found that nobody took before the engine ended.
    BlocksLost {
        /// On which shard.
        shard: u8,
        /// How many.
        count: usize,
        /// What the service calls the oldest of them.
        blocks: Vec<String>,
    },
    /// A shard stopped, by a fault of the engine's or of the system's. Its connections are lost.
    ShardFailed {
        /// Which one.
        shard: u8,
        /// Why.
        cause: String,
    },
}

/// Why the acceptor closed a connection at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RefuseReason {
    /// `connections_max` is reached.
    Full,
    /// `connections_per_address_max` is reached.
    AddressFull,
    /// Every shard's link was full for too long.
    Busy,
    /// The process is out of file descriptors.
    NoDescriptor,
}

impl RefuseReason {
    /// How many there are.
    pub const COUNT: usize = 4;
    /// Every one, in order of its discriminant.
    pub const ALL: [Self; Self::COUNT] = [Self::Full, Self::AddressFull, Self::Busy, Self::NoDescriptor];

    /// For metrics and lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "connections_max is reached",
            Self::AddressFull => "connections_per_address_max is reached",
            Self::Busy => "the shards are too busy to take connections",
            Self::NoDescriptor => "out of file descriptors (ulimit -n)",
        }
    }
}

/// What is counted together when lines are limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LineKind {
    /// Connections that ended for one reason.
    Ended(EndKind),
    /// Connections opened.
    Opened,
    /// Connections set up.
    SetUp,
    /// Channels opened.
    ChannelOpened,
    /// Channels closed.
    ChannelClosed,
    /// Templates refused.
    TemplateRefused,
    /// Clients of Template Distribution that get templates.
    Joined,
}

impl LineKind {
    const COUNT: usize = EndKind::COUNT + 6;

    const fn index(self) -> usize {
        match self {
            Self::Ended(kind) => kind as usize,
            Self::Opened => EndKind::COUNT,
            Self::SetUp => EndKind::COUNT + 1,
            Self::ChannelOpened => EndKind::COUNT + 2,
            Self::ChannelClosed => EndKind::COUNT + 3,
            Self::TemplateRefused => EndKind::COUNT + 4,
            Self::Joined => EndKind::COUNT + 5,
        }
    }

    const fn from_index(index: usize) -> Self {
        match index {
            0..EndKind::COUNT => Self::Ended(EndKind::ALL[index]),
            EndKind::COUNT => Self::Opened,
            index if index == EndKind::COUNT + 1 => Self::SetUp,
            index if index == EndKind::COUNT + 2 => Self::ChannelOpened,
            index if index == EndKind::COUNT + 3 => Self::ChannelClosed,
            index if index == EndKind::COUNT + 4 => Self::TemplateRefused,
            _ => Self::Joined,
        }
    }
}

/// Text of a peer: cut, and with everything but printable ASCII escaped, so that it cannot forge lines.
struct PeerText<'a>(&'a [u8]);

impl fmt::Display for PeerText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(PEER_TEXT_LEN_MAX)];
        write!(f, "\"{}\"{}", shown.escape_ascii(), if shown.len() < self.0.len() { "..." } else { "" })
    }
}

impl fmt::Display for LogEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionOpened { peer, shard, .. } => write!(f, "{peer}: connected (shard {shard})"),
            Self::SetUp { peer, vendor, firmware } => {
                write!(f, "{peer}: set up, vendor {}, firmware {}", PeerText(vendor), PeerText(firmware))
            }
            Self::Joined { peer, class, constraints } => write!(
                f,
                "{peer}: gets templates of class {}, for {} bytes of outputs and {} sigops",
                class.0, constraints.max_additional_size, constraints.max_additional_sigops
            ),
            Self::ChannelOpened { peer, channel, extended, user_identity, nominal_hash_rate } => write!(
                f,
                "{peer}: opened {} channel {} for {} at {nominal_hash_rate:.3e} h/s",
                if *extended { "extended" } else { "standard" },
                channel.0,
                PeerText(user_identity)
            ),
            Self::ChannelClosed { peer, channel } => write!(f, "{peer}: channel {} closed", channel.0),
            Self::ConnectionClosed { peer, reason, lasted, .. } => {
                write!(f, "{peer}: disconnected after {:.1} s: {reason}", lasted.as_secs_f64())
            }
            Self::Suppressed { shard, kind, count } => {
                let (connections, channels) = match count {
                    1 => ("connection", "channel"),
                    _ => ("connections", "channels"),
                };
                write!(f, "shard {shard}: {count} more ")?;
                match kind {
                    LineKind::Ended(kind) => write!(f, "{connections} ended: {}", kind.name()),
                    LineKind::Opened => write!(f, "{connections} opened"),
                    LineKind::SetUp => write!(f, "{connections} set up"),
                    LineKind::ChannelOpened => write!(f, "{channels} opened"),
                    LineKind::ChannelClosed => write!(f, "{channels} closed"),
                    LineKind::TemplateRefused => f.write_str("templates refused"),
                    LineKind::Joined => write!(f, "{connections} joined a constraint class"),
                }
            }
            Self::CertificateNotValid { valid_from, not_valid_after, now } => write!(
                f,
                "the certificate is valid from {valid_from} to {not_valid_after} (unix seconds) and it is {now}: nobody can \
                 connect until it is renewed"
            ),
            Self::TemplateRefused { shard, error } => write!(f, "shard {shard}: template refused: {error}"),
            Self::ConnectionsRefused { reason, peer, count } => {
                write!(f, "refused {count} connection(s), the last from {peer}: {}", reason.name())
            }
            Self::BlocksLost { shard, count, blocks } => {
                write!(
                    f,
                    "shard {shard}: {count} found block(s) neither submitted nor recorded, because nobody took them before \
                     the stop's time was over; look for them at the node, and give the next stop more time:"
                )?;
                write!(f, " {}{}", blocks.join(", "), if blocks.len() < *count { ", ..." } else { "" })
            }
            Self::ShardFailed { shard, cause } => write!(f, "shard {shard} failed: {cause}"),
        }
    }
}

/// How long lines are counted together.
const WINDOW: Duration = Duration::from_secs(1);

/// A shard's end of the log link.
#[derive(Debug)]
pub(crate) struct LogSender {
    shard: u8,
    link: Sender<LogEvent>,
    lines_max: u32,
    lines: [u32; LineKind::COUNT],
    suppressed: [u64; LineKind::COUNT],
    /// End of the present window; none runs while nothing was written in it.
    window_end: Option<Instant>,
}

impl LogSender {
    pub(crate) fn new(shard: u8, link: Sender<LogEvent>, lines_max: u32) -> Self {
        let (lines, suppressed) = ([0; LineKind::COUNT], [0; LineKind::COUNT]);
        Self { shard, link, lines_max, lines, suppressed, window_end: None }
    }

    /// Writes the line that `event` makes, or counts it.
    pub(crate) fn write(
        &mut self,
        kind: LineKind,
        now: Instant,
        counters: &ShardCounters,
        event: impl FnOnce() -> LogEvent,
    ) {
        self.handle_timeout(now, counters);
        self.window_end.get_or_insert(now + WINDOW);
        let index = kind.index();
        if self.lines[index] < self.lines_max {
            self.lines[index] += 1;
            self.write_unlimited(counters, event());
        } else {
            self.suppressed[index] += 1;
        }
    }

    /// Writes a line that its writer limits.
    pub(crate) fn write_unlimited(&self, counters: &ShardCounters, event: LogEvent) {
        match self.link.try_send(event) {
            // Without a reader there is nothing to drop.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => counters.add(Counter::LogEventsDropped, 1),
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.window_end
    }

    /// Sums up what the window that is over has suppressed.
    pub(crate) fn handle_timeout(&mut self, now: Instant, counters: &ShardCounters) {
        if self.window_end.is_none_or(|end| now < end) {
            return;
        }
        self.window_end = None;
        self.lines.fill(0);
        for index in 0..LineKind::COUNT {
            let count = std::mem::take(&mut self.suppressed[index]);
            if count > 0 {
                let kind = LineKind::from_index(index);
                self.write_unlimited(counters, LogEvent::Suppressed { shard: self.shard, kind, count });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_round_trip() {
        for index in 0..LineKind::COUNT {
            assert_eq!(LineKind::from_index(index).index(), index);
        }
    }

    #[test]
    fn a_flood_becomes_one_line() {
        let (sender, receiver) = crossbeam::channel::bounded(100);
        let counters = ShardCounters::default();
        let mut log = LogSender::new(3, sender, 2);
        let peer = "192.0.2.1:5".parse().unwrap();
        let connection = ConnectionId { slot: 0, generation: 0 };
        for millis in 0..500 {
            let now = Instant::from_nanos(millis * 1_000_000);
            log.write(LineKind::Opened, now, &counters, || LogEvent::ConnectionOpened {
                peer,
                shard: 3,
                connection,
            });
        }
        assert_eq!(receiver.len(), 2);
        assert_eq!(log.poll_timeout(), Some(Instant::from_nanos(1_000_000_000)));
        log.handle_timeout(Instant::from_nanos(1_000_000_000), &counters);
        let last = receiver.try_iter().last().unwrap();
        assert_eq!(last, LogEvent::Suppressed { shard: 3, kind: LineKind::Opened, count: 498 });
        assert_eq!(last.to_string(), "shard 3: 498 more connections opened");
        assert_eq!(log.poll_timeout(), None);
    }

    #[test]
    fn a_full_link_drops_and_counts() {
        let (sender, _receiver) = crossbeam::channel::bounded(1);
        let counters = ShardCounters::default();
        let mut log = LogSender::new(0, sender, 100);
        let peer = "192.0.2.1:5".parse().unwrap();
        let connection = ConnectionId { slot: 0, generation: 0 };
        for _ in 0..5 {
            log.write(LineKind::Opened, Instant::ZERO, &counters, || LogEvent::ConnectionOpened {
                peer,
                shard: 0,
                connection,
            });
        }
        assert_eq!(counters.load(Counter::LogEventsDropped), 4);
    }

    #[test]
    fn text_of_peers_cannot_forge_lines() {
        let peer = "192.0.2.1:5".parse().unwrap();
        let vendor = b"evil\n192.0.2.2:1: connected\x1b[2J".to_vec();
        let line = LogEvent::SetUp { peer, vendor, firmware: vec![0xff; 500] }.to_string();
        assert!(line.is_ascii() && !line.contains(char::is_control), "{line}");
        assert!(line.len() < 500);
    }
}
