//! Submitting shares, and the answers (specification 5.3.11 to 5.3.14, extension 0x0002).

use adit_codec::encode_frame_with_trailing;
use adit_codec::frame::HEADER_LEN;
use adit_codec::message::{
    MessageKind, SubmitSharesError, SubmitSharesExtended, SubmitSharesStandard, SubmitSharesSuccess,
};
use adit_codec::tlv::{
    TLV_HEADER_LEN, USER_IDENTITY_LEN_MAX, WORKER_HASHRATE_TRACKING, encode_user_identity,
};

use super::ClientOutbox;
use super::channel::{ChannelKind, ShareForm};
use super::connection::Client;
use super::event::{ClientEvent, printable};
use super::fault::{ClientFault, Refusal};
use super::outstanding::Mismatch;
use crate::mining::server::{ChannelId, JobId};
use crate::outbox::Priority;
use crate::time::Instant;

/// The longest frame of a share.
const SHARE_FRAME_LEN_MAX: usize =
    HEADER_LEN + SubmitSharesExtended::LEN_MAX + TLV_HEADER_LEN + USER_IDENTITY_LEN_MAX;

impl Client {
    /// Sends a share of a standard channel and returns its sequence number.
    ///
    /// # Errors
    /// The upstream would have to refuse the share, or too many wait for an answer.
    #[allow(clippy::too_many_arguments, reason = "the fields of the message")]
    pub fn submit_standard(
        &mut self,
        channel: ChannelId,
        job: JobId,
        nonce: u32,
        ntime: u32,
        version: u32,
        now: Instant,
        out: &mut ClientOutbox,
    ) -> Result<u32, Refusal> {
        let form = ShareForm { job, ntime, version };
        let sequence_number = self.begin_share(channel, form, None, now)?;
        let message = SubmitSharesStandard {
            channel_id: channel.0,
            sequence_number,
            job_id: job.0,
            nonce,
            ntime,
            version,
        };
        out.send((), Priority::Work, &message);
        Ok(sequence_number)
    }

    /// Sends a share of an extended channel and returns its sequence number. `extranonce` is what follows the prefix.
    /// `worker` names who found it; it is sent if the extension for it is in force (empty, if there is none).
    ///
    /// # Errors
    /// The upstream would have to refuse the share, or too many wait for an answer.
    #[allow(clippy::too_many_arguments, reason = "the fields of the message")]
    pub fn submit_extended(
        &mut self,
        channel: ChannelId,
        job: JobId,
        nonce: u32,
        ntime: u32,
        version: u32,
        extranonce: &[u8],
        worker: Option<&[u8]>,
        now: Instant,
        out: &mut ClientOutbox,
    ) -> Result<u32, Refusal> {
        let mut trailing = [0; TLV_HEADER_LEN + USER_IDENTITY_LEN_MAX];
        let mut trailing_len = 0;
        if self.negotiated.contains(&WORKER_HASHRATE_TRACKING) {
            let worker = worker.unwrap_or_default();
            trailing_len = encode_user_identity(worker, &mut trailing).map_err(|_| Refusal::TextTooLong)?;
        }
        let form = ShareForm { job, ntime, version };
        let sequence_number = self.begin_share(channel, form, Some(extranonce), now)?;
        let message = SubmitSharesExtended {
            channel_id: channel.0,
            sequence_number,
            job_id: job.0,
            nonce,
            ntime,
            version,
            extranonce,
        };
        let mut frame = [0; SHARE_FRAME_LEN_MAX];
        let len = encode_frame_with_trailing(&message, &trailing[..trailing_len], &mut frame).expect(
            "the extranonce has the channel's size, at most 32 bytes, and the frame has room for the longest",
        );
        out.send_bytes((), Priority::Work, &frame[..len]);
        Ok(sequence_number)
    }

    /// Checks a share and records it as waiting for its answer.
    fn begin_share(
        &mut self,
        id: ChannelId,
        form: ShareForm,
        extranonce: Option<&[u8]>,
        now: Instant,
    ) -> Result<u32, Refusal> {
        let fixed_version = self.fixed_version();
        let limits = &self.config.limits;
        let channel = self.channels.get_mut(&id).ok_or(Refusal::UnknownChannel)?;
        match (channel.kind(), extranonce) {
            (ChannelKind::Standard, None) => {}
            (ChannelKind::Extended { extranonce_size }, Some(extranonce)) => {
                if extranonce.len() != usize::from(extranonce_size) {
                    return Err(Refusal::BadExtranonceSize);
                }
            }
            _ => return Err(Refusal::WrongChannelKind),
        }
        channel.check_share(form, fixed_version, now)?;
        if channel.outstanding.len() >= limits.outstanding_shares_max {
            return Err(Refusal::TooManyOutstanding);
        }
        if let (None, Some(timeout)) = (self.next_share_check, limits.share_timeout) {
            self.next_share_check = Some(now + timeout);
        }
        self.counters.shares_submitted += 1;
        Ok(channel.outstanding.submit(now))
    }

    pub(super) fn handle_shares_success(
        &mut self,
        message: &SubmitSharesSuccess,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let kind = MessageKind::SubmitSharesSuccess;
        let id = ChannelId(message.channel_id);
        if !self.is_addressable(kind, id)? {
            return Ok(());
        }
        let Some(channel) = self.channels.get_mut(&id) else {
            return Err(ClientFault::WrongChannelKind { message: kind, channel: id });
        };
        let (last, count) = (message.last_sequence_number, message.new_submits_accepted_count);
        channel.outstanding.check_accept(last, count).map_err(|mismatch| match mismatch {
            Mismatch::UnknownShare => ClientFault::UnknownShare { channel: id, sequence_number: last },
            Mismatch::TooMany => {
                ClientFault::TooManyAccepted { channel: id, count, outstanding: channel.outstanding.len() }
            }
        })?;
        channel.outstanding.accept(last, count, |share| {
            let (sequence_number, submitted_at) = (share.sequence_number, share.at);
            out.report(ClientEvent::ShareAcknowledged { channel: id, sequence_number, submitted_at });
        });
        self.counters.shares_accepted += u64::from(count);
        self.counters.difficulty_accepted =
            self.counters.difficulty_accepted.saturating_add(message.new_shares_sum);
        out.report(ClientEvent::SharesAccepted {
            channel: id,
            last_sequence_number: last,
            count,
            difficulty_sum: message.new_shares_sum,
        });
        Ok(())
    }

    pub(super) fn handle_shares_error(
        &mut self,
        message: &SubmitSharesError<'_>,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let kind = MessageKind::SubmitSharesError;
        let id = ChannelId(message.channel_id);
        if !self.is_addressable(kind, id)? {
            return Ok(());
        }
        let Some(channel) = self.channels.get_mut(&id) else {
            return Err(ClientFault::WrongChannelKind { message: kind, channel: id });
        };
        let sequence_number = message.sequence_number;
        let unknown = ClientFault::UnknownShare { channel: id, sequence_number };
        let share = channel.outstanding.reject(sequence_number).map_err(|_| unknown)?;
        self.counters.shares_rejected += 1;
        out.report(ClientEvent::ShareRejected {
            channel: id,
            sequence_number,
            submitted_at: share.at,
            error_code: printable(message.error_code),
        });
        Ok(())
    }
}
