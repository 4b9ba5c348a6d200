//! Which templates' transactions are asked for, and what comes of it.
//!
//! One request at a time and class, for the newest template. What comes is not looked at here: it goes to the checker, so that
//! a tip which is behind it waits for nothing.

use adit_proto::distribution::client::TransactionList;
use adit_proto::distribution::server::ClassId;
use tracing::{debug, warn};

use super::super::checker::{Check, Checked, Job};
use super::{LinkId, Order, Provider};

impl Provider {
    /// Asks for a template's transactions, or remembers that they are wanted.
    pub(super) fn want_transactions(&mut self, class_id: ClassId, id: u64) {
        let Some(known) = self.templates.get(id) else { return };
        if known.template.merkle_path.is_empty() {
            return self.store.insert_empty(id);
        }
        if self.templates.twins(known).any(|twin| self.store.share(twin, id)) {
            return;
        }
        let Some(class) = self.classes.get_mut(&class_id) else { return };
        if class.requested.is_some() || class.checking.is_some() {
            class.request_next = Some(id);
        } else if class.link == Some(known.link) && class.order(known.link, Order::Request(known.provider_id))
        {
            class.requested = Some(id);
        }
    }

    pub(super) fn handle_transactions(
        &mut self,
        class_id: ClassId,
        link: LinkId,
        provider_id: u64,
        answer: Result<TransactionList, String>,
    ) {
        let Some(class) = self.classes.get_mut(&class_id) else { return };
        let asked = class.requested.and_then(|id| self.templates.get(id));
        let Some(known) = asked.filter(|known| known.link == link && known.provider_id == provider_id) else {
            // Of an earlier connection, or of a template that was forgotten meanwhile.
            class.requested.take_if(|id| self.templates.get(*id).is_none());
            return;
        };
        class.requested = None;
        let template_id = known.id();
        let given = answer.and_then(|transactions| {
            let template = known.template.clone();
            let job = Job::Check(Check { class: class_id, template, transactions });
            self.checks.try_send(job).map_err(|_| "too many wait to be checked".to_owned())
        });
        match given {
            // The next are asked for when these have been judged.
            Ok(()) => class.checking = Some(template_id),
            Err(reason) => {
                debug!(template_id, %reason, "no transactions of a template");
                self.want_next(class_id);
            }
        }
    }

    /// Transactions were judged, and are in the store if they are their template's.
    pub(in super::super) fn handle_checked(&mut self, checked: Checked) {
        let Checked { class: class_id, template_id, result } = checked;
        match result {
            // Forgotten while it was checked.
            Ok(()) if self.templates.get(template_id).is_none() => self.prune_store(),
            Ok(()) => {}
            Err(mismatch) => {
                debug!(template_id, %mismatch, "no transactions of a template");
                if !std::mem::replace(&mut self.has_warned, true) {
                    warn!(
                        %mismatch,
                        "the template provider sends transactions that are not its template's: blocks are known to it alone"
                    );
                }
            }
        }
        let Some(class) = self.classes.get_mut(&class_id) else { return };
        if class.checking.take_if(|checking| *checking == template_id).is_some() {
            self.want_next(class_id);
        }
    }

    fn want_next(&mut self, class_id: ClassId) {
        let Some(class) = self.classes.get_mut(&class_id) else { return };
        if let Some(next) = class.request_next.take() {
            self.want_transactions(class_id, next);
        }
    }

    /// Forgets the transactions of templates that were forgotten.
    pub(super) fn prune_store(&self) {
        let lost = self.store.retain(|id| self.templates.get(id).is_some());
        if !lost.is_empty() {
            // Where it finds no place, a check that waits sweeps as well.
            let _ = self.checks.try_send(Job::Sweep(lost));
        }
    }
}
