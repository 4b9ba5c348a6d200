//! What the template provider sends, judged before anything changes.

use alloc::string::String;
use alloc::sync::Arc;

use adit_codec::frame::FrameHeader;
use adit_codec::message::{
    Message, MessageKind, NewTemplate, Protocol, Reconnect, RequestTransactionDataError,
    RequestTransactionDataSuccess, SetupConnectionError, SetupConnectionSuccess, TemplateSetNewPrevHash,
};
use adit_hasher::Target;

use super::super::validity::{check, template_of};
use super::event::printable;
use super::{Client, ClientEvent, ClientFault, ClientOutbox, Phase};
use crate::setup::PROTOCOL_VERSION;
use crate::template::{PrevHash, TemplateUpdate};
use crate::time::Instant;

impl Client {
    /// Takes a plaintext frame from the template provider.
    ///
    /// # Errors
    /// The provider's breach of the protocol. Nothing has changed; the driver closes the connection.
    pub fn handle_frame(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let message = match Message::decode(header, payload, Protocol::TemplateDistribution) {
            Ok(decoded) => decoded.message,
            Err(error) if error.is_ignorable() => {
                self.counters.frames_ignored += 1;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        match (self.phase, &message) {
            (Phase::SettingUp { .. }, Message::SetupConnectionSuccess(message)) => {
                self.handle_setup_success(message, now, out)
            }
            (Phase::SettingUp { .. }, Message::SetupConnectionError(message)) => {
                self.handle_setup_error(message, out);
                Ok(())
            }
            (Phase::SetUp, Message::NewTemplate(message)) => self.handle_new_template(message, out),
            (Phase::SetUp, Message::TemplateSetNewPrevHash(message)) => {
                self.handle_set_new_prev_hash(message, out)
            }
            (Phase::SetUp, Message::RequestTransactionDataSuccess(message)) => {
                self.handle_transactions(message, out)
            }
            (Phase::SetUp, Message::RequestTransactionDataError(message)) => {
                self.handle_transactions_error(message, out)
            }
            (Phase::SetUp, Message::Reconnect(message)) => handle_reconnect(message, out),
            (_, message) => Err(ClientFault::Unexpected(message.kind())),
        }
    }

    fn handle_setup_success(
        &mut self,
        message: &SetupConnectionSuccess,
        now: Instant,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let SetupConnectionSuccess { used_version, flags } = *message;
        if used_version != PROTOCOL_VERSION {
            return Err(ClientFault::VersionNotOffered(used_version));
        }
        self.phase = Phase::SetUp;
        self.tip_deadline = self.config.limits.tip_timeout.map(|timeout| now + timeout);
        // The first message after the setup (specification 7).
        self.send_constraints(out);
        out.report(ClientEvent::SetUp { used_version, flags });
        Ok(())
    }

    fn handle_setup_error(&mut self, message: &SetupConnectionError<'_>, out: &mut ClientOutbox) {
        self.phase = Phase::Refused;
        let error_code = printable(message.error_code);
        out.report(ClientEvent::SetupRefused { flags: message.flags, error_code });
    }

    fn handle_new_template(
        &mut self,
        message: &NewTemplate<'_>,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let template_id = message.template_id;
        if let Some(last) = self.last_template_id.filter(|last| template_id <= *last) {
            return Err(ClientFault::NotRising { template_id, last });
        }
        check(message).map_err(|fault| ClientFault::Template { template_id, fault })?;
        if !message.future_template && !self.has_tip {
            return Err(ClientFault::NoPrevHash { template_id });
        }
        self.last_template_id = Some(template_id);
        if message.future_template {
            if self.futures.len() >= self.config.limits.future_templates_max {
                self.futures.pop_front();
            }
            self.futures.push_back(template_id);
        }
        self.counters.templates += 1;
        let template = Arc::new(template_of(message));
        out.report(ClientEvent::Template(TemplateUpdate::NewTemplate(template)));
        Ok(())
    }

    fn handle_set_new_prev_hash(
        &mut self,
        message: &TemplateSetNewPrevHash<'_>,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let template_id = message.template_id;
        if !self.futures.contains(&template_id) {
            return Err(ClientFault::UnknownFutureTemplate { template_id });
        }
        if *message.target == [0; 32] {
            return Err(ClientFault::ZeroTarget);
        }
        // The others were for this tip as well (specification 7.3).
        self.futures.clear();
        self.has_tip = true;
        self.tip_deadline = None;
        self.counters.prev_hashes += 1;
        let prev_hash = Arc::new(PrevHash {
            template_id,
            prev_hash: *message.prev_hash,
            header_timestamp: message.header_timestamp,
            nbits: message.n_bits,
            target: Target::from_le_bytes(*message.target),
        });
        out.report(ClientEvent::Template(TemplateUpdate::SetNewPrevHash(prev_hash)));
        Ok(())
    }

    fn handle_transactions(
        &mut self,
        message: &RequestTransactionDataSuccess<'_>,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let template_id = message.template_id;
        if !self.requests.settle(MessageKind::RequestTransactionDataSuccess, template_id)? {
            self.counters.frames_ignored += 1;
            return Ok(());
        }
        let transactions = message.transaction_list.into();
        let excess_data = message.excess_data.into();
        out.report(ClientEvent::Transactions { template_id, excess_data, transactions });
        Ok(())
    }

    fn handle_transactions_error(
        &mut self,
        message: &RequestTransactionDataError<'_>,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let template_id = message.template_id;
        if !self.requests.settle(MessageKind::RequestTransactionDataError, template_id)? {
            self.counters.frames_ignored += 1;
            return Ok(());
        }
        let error_code = printable(message.error_code);
        out.report(ClientEvent::TransactionsRefused { template_id, error_code });
        Ok(())
    }
}

fn handle_reconnect(message: &Reconnect<'_>, out: &mut ClientOutbox) -> Result<(), ClientFault> {
    let host = match core::str::from_utf8(message.new_host) {
        Ok(host) if host.chars().all(|character| character.is_ascii_graphic()) => String::from(host),
        _ => return Err(ClientFault::ReconnectHost),
    };
    let host = (!host.is_empty()).then_some(host);
    let port = (message.new_port != 0).then_some(message.new_port);
    out.report(ClientEvent::Reconnect { host, port });
    Ok(())
}
