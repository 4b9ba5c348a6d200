//! Who is in which constraint class, and what who joins is told.

use adit_codec::message::CoinbaseOutputConstraints;

use super::super::{Constraints, Reserve};
use super::class::{Announced, Class, prev_hash_frame, template_frame};
use super::connection::Phase;
use super::event::{ClassId, CloseReason, ConnectionId, Event};
use super::{Server, ServerOutbox};
use crate::outbox::Priority;
use crate::time::Instant;

impl Server {
    /// Puts a connection into the class of its constraints, and tells it the class's work at once (specification 7).
    pub(super) fn handle_constraints(
        &mut self,
        id: ConnectionId,
        message: CoinbaseOutputConstraints,
        now: Instant,
        out: &mut ServerOutbox,
    ) {
        let constraints = Constraints {
            max_additional_size: message.coinbase_output_max_additional_size,
            max_additional_sigops: message.coinbase_output_max_additional_sigops,
        };
        if constraints.max_additional_size > self.config.limits.max_additional_size_max {
            return self.end_connection(id, CloseReason::ConstraintsTooLarge(constraints), now, out);
        }
        let reserve = constraints.reserve();
        if let Some(Phase::Member(class)) = self.connection(id).map(|connection| connection.phase) {
            // Each change can cost the node a template.
            self.count_error(id, now, out);
            if self.classes.get(&class).is_some_and(|class| class.reserve == reserve) {
                return;
            }
        }
        self.leave(id, now, out);
        // Gone, if that was one change too many.
        if self.connection(id).is_none_or(|connection| connection.phase == Phase::Closing) {
            return;
        }
        let Some(class) = self.class_for(reserve, out) else {
            return self.end_connection(id, CloseReason::TooManyClasses(constraints), now, out);
        };
        if let Some(connection) = self.connection_mut(id) {
            connection.phase = Phase::Member(class);
        }
        if let Some(class) = self.classes.get_mut(&class) {
            class.members += 1;
        }
        out.report(Event::Joined { connection: id, class, constraints });
        self.deliver(id, class, out);
    }

    /// The class of a reserve: the one there is, a new one, or, if there cannot be more, the smallest that covers it.
    fn class_for(&mut self, reserve: Reserve, out: &mut ServerOutbox) -> Option<ClassId> {
        if let Some((id, _)) = self.classes.iter().find(|(_, class)| class.reserve == reserve) {
            return Some(*id);
        }
        if self.classes.len() >= self.config.limits.classes_max {
            let covering = self.classes.iter().filter(|(_, class)| class.reserve.covers(reserve));
            return covering.min_by_key(|(_, class)| class.reserve).map(|(id, _)| *id);
        }
        let class = ClassId(self.next_class);
        self.next_class += 1;
        self.classes.insert(class, Class::new(reserve));
        out.report(Event::ClassWanted { class, reserve });
        Some(class)
    }

    /// Takes a connection out of its class. A class without members ends; its templates stay for the solutions that are
    /// under way.
    pub(super) fn leave(&mut self, id: ConnectionId, now: Instant, out: &mut ServerOutbox) {
        let Some(connection) = self.connection_mut(id) else { return };
        let Phase::Member(class_id) = connection.phase else { return };
        connection.phase = Phase::Constraints;
        connection.since = now;
        connection.aliases.clear();
        let Some(class) = self.classes.get_mut(&class_id) else { return };
        class.members -= 1;
        if class.members == 0 {
            self.classes.remove(&class_id);
            let until = now + self.config.limits.stale_retention;
            self.templates.retire(class_id, None, until);
            out.report(Event::ClassUnwanted { class: class_id });
        }
    }

    /// Tells who joins the tip, with the template that opened it, then the newest template and the future ones. A client
    /// that comes from another class may have seen higher ids: it is shown everything under fresh ones.
    fn deliver(&mut self, id: ConnectionId, class_id: ClassId, out: &mut ServerOutbox) {
        let Some(class) = self.classes.get(&class_id) else { return };
        let (tip, after_tip) = (class.tip.clone(), class.after_tip());
        let first = tip.iter().map(|tip| &tip.announced).chain(&after_tip).next();
        let Some(first) = first.map(|announced| announced.wire_id) else { return };
        let shown = self.connection(id).and_then(|connection| connection.shown);
        let is_fresh = shown.is_some_and(|shown| shown >= first);
        if let Some(tip) = tip {
            let wire_id = self.show(id, &tip.announced, is_fresh, out);
            let frame = if is_fresh {
                self.counters.frames_encoded += 1;
                prev_hash_frame(&tip.prev_hash, wire_id)
            } else {
                tip.frame
            };
            self.counters.prev_hashes_sent += 1;
            out.send_shared(id, Priority::Work, frame);
        }
        for announced in after_tip {
            let wire_id = self.show(id, &announced, is_fresh, out);
            let alias = (announced.template.template_id, wire_id);
            if let Some(connection) =
                self.connection_mut(id).filter(|_| is_fresh && announced.template.future_template)
            {
                connection.aliases.push(alias);
            }
        }
    }

    /// Sends one client a template of its class, under a fresh id or as the class knows it.
    fn show(
        &mut self,
        id: ConnectionId,
        announced: &Announced,
        is_fresh: bool,
        out: &mut ServerOutbox,
    ) -> u64 {
        let (wire_id, frame) = if is_fresh {
            let wire_id = self.templates.name(announced.template.template_id);
            self.counters.frames_encoded += 1;
            (wire_id, template_frame(&announced.template, wire_id))
        } else {
            (announced.wire_id, announced.frame.clone())
        };
        out.send_shared(id, Priority::Work, frame);
        self.counters.templates_sent += 1;
        if let Some(connection) = self.connection_mut(id) {
            connection.shown = Some(wire_id);
        }
        wire_id
    }
}
