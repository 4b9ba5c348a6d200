//! What a client reports to its driver.

use alloc::string::String;
use alloc::vec::Vec;

use crate::mining::server::{ChannelId, JobId};
use crate::time::Instant;

/// Names the opening of a channel until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u32);

/// What the driver may want to know. Codes are the upstream's, made printable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// SetupConnection was accepted.
    SetUp {
        /// The protocol's version on this connection.
        used_version: u16,
        /// Flags of the upstream.
        flags: u32,
    },
    /// SetupConnection was refused; the upstream is going to close the connection.
    SetupRefused {
        /// Flags that the upstream does not support.
        flags: u32,
        /// Why.
        error_code: String,
    },
    /// These of the requested extensions are in force, perhaps none.
    ExtensionsNegotiated(Vec<u16>),
    /// The upstream insists on extensions that were not requested, and is going to close the connection.
    ExtensionsRequired(Vec<u16>),
    /// The other end of the channel is somebody else now: no extension is in force until they are negotiated anew.
    ExtensionsReset {
        /// Whose end changed.
        channel: ChannelId,
    },
    /// Channels may be opened now.
    Ready,
    /// A channel was opened.
    ChannelOpened {
        /// The opening.
        request: RequestId,
        /// The new channel.
        channel: ChannelId,
    },
    /// A channel was not opened.
    OpenRefused {
        /// The opening.
        request: RequestId,
        /// Why.
        error_code: String,
    },
    /// The opening was not answered in time. If it is answered later, the channel is closed at once.
    OpenTimedOut {
        /// The opening.
        request: RequestId,
    },
    /// A future job came, for a proxy to pass on.
    FutureJob {
        /// Whose.
        channel: ChannelId,
        /// Which.
        job: JobId,
    },
    /// The channel has a new active job: mine on it at once.
    NewWork {
        /// Whose.
        channel: ChannelId,
    },
    /// Jobs that become active from now on have another target.
    TargetChanged {
        /// Whose.
        channel: ChannelId,
    },
    /// Jobs that come from now on have another extranonce prefix.
    ExtranoncePrefixChanged {
        /// Whose.
        channel: ChannelId,
    },
    /// The channel was put in another group.
    GroupChanged {
        /// Which channel.
        channel: ChannelId,
        /// Its group from now on.
        group: ChannelId,
    },
    /// UpdateChannel was refused.
    UpdateRefused {
        /// Whose.
        channel: ChannelId,
        /// Why.
        error_code: String,
    },
    /// A share was accepted. The server counts its successes and names only the last: where shares are judged out of
    /// order, which of them is meant can be off, never how many.
    ShareAcknowledged {
        /// Whose.
        channel: ChannelId,
        /// Which.
        sequence_number: u32,
        /// When it was submitted.
        submitted_at: Instant,
    },
    /// The sum of the [`ShareAcknowledged`](Self::ShareAcknowledged) events before it: one SubmitShares.Success.
    SharesAccepted {
        /// Whose.
        channel: ChannelId,
        /// The last one accepted.
        last_sequence_number: u32,
        /// How many.
        count: u32,
        /// Sum of their difficulties, as the upstream counts.
        difficulty_sum: u64,
    },
    /// A share was refused.
    ShareRejected {
        /// Whose.
        channel: ChannelId,
        /// Which.
        sequence_number: u32,
        /// When it was submitted.
        submitted_at: Instant,
        /// Why.
        error_code: String,
    },
    /// The upstream closed the channel.
    ChannelClosed {
        /// Which.
        channel: ChannelId,
        /// Why.
        reason_code: String,
        /// Shares that will have no answer.
        unanswered: usize,
    },
    /// The upstream asks to connect anew, with the same authority key, and perhaps elsewhere.
    Reconnect {
        /// Where to; `None`: the same host.
        host: Option<String>,
        /// Where to; `None`: the same port.
        port: Option<u16>,
    },
    /// A channel message of an extension that is not known here: a proxy passes it on (specification 3.4.1).
    UnknownChannelMessage {
        /// The extension.
        extension_type: u16,
        /// The message's number in it.
        msg_type: u8,
        /// Whose end is the recipient.
        channel: ChannelId,
        /// The payload, channel id included.
        payload: Vec<u8>,
    },
}

/// An error or reason code as text without control characters, of at most 255 characters.
pub(super) fn printable(code: &[u8]) -> String {
    String::from_utf8_lossy(code)
        .chars()
        .map(|character| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character })
        .collect()
}
