//! Templates and tips from the driver to the clients of a class.

use alloc::sync::Arc;

use super::super::validity::{check, message_of};
use super::class::{Announced, Tip, prev_hash_frame, template_frame};
use super::connection::Phase;
use super::event::{ClassId, Event, Standing, TemplateError};
use super::{Server, ServerOutbox};
use crate::outbox::Priority;
use crate::template::{PrevHash, Template, TemplateUpdate};
use crate::time::Instant;

impl Server {
    /// A template or a tip for a class. The ids are the driver's and rise strictly over all classes; clients see others.
    /// A template that was taken in is held until [`Event::TemplateReleased`].
    ///
    /// # Errors
    /// See [`TemplateError`]: nothing changed.
    pub fn handle_template(
        &mut self,
        class: ClassId,
        update: &TemplateUpdate,
        now: Instant,
        out: &mut ServerOutbox,
    ) -> Result<(), TemplateError> {
        match update {
            TemplateUpdate::NewTemplate(template) => self.handle_new_template(class, template, out),
            TemplateUpdate::SetNewPrevHash(prev_hash) => self.handle_tip(class, prev_hash, now, out),
        }
    }

    fn handle_new_template(
        &mut self,
        class_id: ClassId,
        template: &Arc<Template>,
        out: &mut ServerOutbox,
    ) -> Result<(), TemplateError> {
        let template_id = template.template_id;
        let class = self.classes.get_mut(&class_id).ok_or(TemplateError::UnknownClass(class_id))?;
        if self.last_template_id.is_some_and(|last| template_id <= last) {
            return Err(TemplateError::NotRising(template_id));
        }
        check(&message_of(template, template_id))
            .map_err(|fault| TemplateError::Invalid(template_id, fault))?;
        if !template.future_template && class.tip.is_none() {
            return Err(TemplateError::NoTip(template_id));
        }
        self.last_template_id = Some(template_id);
        let standing = if template.future_template { Standing::Future } else { Standing::Current };
        let wire_id = self.templates.insert(template_id, class_id, standing);
        let frame = template_frame(template, wire_id);
        self.counters.frames_encoded += 1;
        let announced = Announced { template: template.clone(), wire_id, frame: frame.clone() };
        if template.future_template {
            class.futures.push_back(announced);
            if class.futures.len() > self.config.limits.future_templates_max
                && let Some(oldest) = class.futures.pop_front()
            {
                self.release(oldest.template.template_id, out);
            }
        } else {
            class.newest = Some(announced);
        }
        self.make_room(out);
        for id in self.ids(|connection| connection.phase == Phase::Member(class_id)) {
            out.send_shared(id, Priority::Work, frame.clone());
            self.counters.templates_sent += 1;
            if let Some(connection) = self.connection_mut(id) {
                connection.shown = Some(wire_id);
            }
        }
        Ok(())
    }

    fn handle_tip(
        &mut self,
        class_id: ClassId,
        prev_hash: &Arc<PrevHash>,
        now: Instant,
        out: &mut ServerOutbox,
    ) -> Result<(), TemplateError> {
        let template_id = prev_hash.template_id;
        let class = self.classes.get_mut(&class_id).ok_or(TemplateError::UnknownClass(class_id))?;
        let named = class.futures.iter().position(|future| future.template.template_id == template_id);
        let announced = named.and_then(|index| class.futures.remove(index));
        let announced = announced.ok_or(TemplateError::UnknownFuture(template_id))?;
        let frame = prev_hash_frame(prev_hash, announced.wire_id);
        self.counters.frames_encoded += 1;
        // Everything else of the class is for older tips (specification 7.3).
        class.futures.clear();
        class.newest = None;
        class.tip = Some(Tip { announced, prev_hash: prev_hash.clone(), frame: frame.clone() });
        self.templates.activate(template_id);
        self.templates.retire(class_id, Some(template_id), now + self.config.limits.stale_retention);
        for id in self.ids(|connection| connection.phase == Phase::Member(class_id)) {
            let Some(connection) = self.connection_mut(id) else { continue };
            let alias = connection.aliases.iter().find(|(named, _)| *named == template_id);
            let frame = match alias {
                Some((_, wire_id)) => prev_hash_frame(prev_hash, *wire_id),
                None => frame.clone(),
            };
            let is_own = alias.is_some();
            connection.aliases.clear();
            self.counters.frames_encoded += u64::from(is_own);
            self.counters.prev_hashes_sent += 1;
            out.send_shared(id, Priority::Work, frame);
        }
        Ok(())
    }

    /// Lets templates go that are neither shown to who joins nor wait for a tip, if there are too many.
    fn make_room(&mut self, out: &mut ServerOutbox) {
        while self.templates.len() > self.config.limits.templates_max {
            let is_needed =
                |class: ClassId, id| self.classes.get(&class).is_some_and(|class| class.needs(id));
            let Some(oldest) = self.templates.oldest(is_needed) else { return };
            self.release(oldest, out);
        }
    }

    fn release(&mut self, template_id: u64, out: &mut ServerOutbox) {
        if self.templates.remove(template_id) {
            out.report(Event::TemplateReleased { template_id });
        }
    }
}
