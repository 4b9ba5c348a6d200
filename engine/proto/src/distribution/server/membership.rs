//! Who is in which constraint class, and what who joins is told.

use alloc::vec::Vec;
use core::time::Duration;

use adit_codec::message::CoinbaseOutputConstraints;

use super::super::{Constraints, Reserve};
use super::class::{Announced, Class, prev_hash_frame, template_frame};
use super::connection::Phase;
use super::event::{ClassId, CloseReason, ConnectionId, Event};
use super::{Server, ServerOutbox};
use crate::outbox::Priority;
use crate::time::Instant;

/// In which [`Limits::classes_begun_max`](super::Limits::classes_begun_max) holds.
const CLASSES_WINDOW: Duration = Duration::from_secs(60);

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
        let reserve = constraints.reserve();
        if !self.config.limits.covering_reserve().covers(reserve) {
            return self.end_connection(id, CloseReason::ConstraintsTooLarge(constraints), now, out);
        }
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
        let class = self.class_for(reserve, now, out);
        if let Some(connection) = self.connection_mut(id) {
            connection.phase = Phase::Member(class);
        }
        if let Some(class) = self.classes.get_mut(&class) {
            class.members += 1;
            class.idle_since = None;
        }
        out.report(Event::Joined { connection: id, class, constraints });
        if self.deliver(id, class, out).is_none() {
            self.end_connection(id, CloseReason::TooManyIds, now, out);
        }
    }

    /// The class of a reserve: the one there is, a new one, or the smallest that covers it. The last place is for a class that
    /// covers all, so that nobody who asks for little keeps out who asks for much; and it is where those go who would make
    /// the node begin too many in a minute.
    fn class_for(&mut self, reserve: Reserve, now: Instant, out: &mut ServerOutbox) -> ClassId {
        if let Some((id, _)) = self.classes.iter().find(|(_, class)| class.reserve == reserve) {
            return *id;
        }
        let limits = self.config.limits;
        let covering = limits.covering_reserve();
        if reserve != covering {
            let own = self.classes.values().filter(|class| class.reserve != covering).count();
            let has_place = own + 1 < limits.classes_max || self.end_longest_idle(covering, now, out);
            if has_place && !self.classes_begun.count(limits.classes_begun_max, CLASSES_WINDOW, now) {
                return self.begin_class(reserve, out);
            }
        }
        let smallest = self.classes.iter().filter(|(_, class)| class.reserve.covers(reserve));
        match smallest.min_by_key(|(_, class)| class.reserve) {
            Some((id, _)) => *id,
            None => self.begin_class(covering, out),
        }
    }

    fn begin_class(&mut self, reserve: Reserve, out: &mut ServerOutbox) -> ClassId {
        let class = ClassId(self.next_class);
        self.next_class += 1;
        self.classes.insert(class, Class::new(reserve));
        out.report(Event::ClassWanted { class, reserve });
        class
    }

    /// Gives up the class that has been without members the longest; whether there was one.
    fn end_longest_idle(&mut self, covering: Reserve, now: Instant, out: &mut ServerOutbox) -> bool {
        let own = self.classes.iter().filter(|(_, class)| class.reserve != covering);
        let idle = own.filter_map(|(id, class)| Some((class.idle_since?, *id))).min();
        if let Some((_, id)) = idle {
            self.end_class(id, now, out);
        }
        idle.is_some()
    }

    /// Ends the classes that nobody came back to.
    pub(super) fn end_idle_classes(&mut self, now: Instant, out: &mut ServerOutbox) {
        let linger = self.config.limits.class_linger;
        let is_due = |class: &Class| class.idle_since.is_some_and(|since| since + linger <= now);
        let due: Vec<_> = self.classes.iter().filter(|(_, class)| is_due(class)).map(|(id, _)| *id).collect();
        due.into_iter().for_each(|id| self.end_class(id, now, out));
    }

    /// When the next class ends that nobody came back to.
    pub(super) fn idle_deadline(&self) -> Option<Instant> {
        let linger = self.config.limits.class_linger;
        self.classes.values().filter_map(|class| Some(class.idle_since? + linger)).min()
    }

    /// Its templates stay for the solutions that are under way.
    pub(super) fn end_class(&mut self, id: ClassId, now: Instant, out: &mut ServerOutbox) {
        if self.classes.remove(&id).is_some() {
            self.templates.retire(id, None, now + self.config.limits.stale_retention);
            out.report(Event::ClassUnwanted { class: id });
        }
    }

    /// Takes a connection out of its class.
    pub(super) fn leave(&mut self, id: ConnectionId, now: Instant, out: &mut ServerOutbox) {
        let Some(connection) = self.connection_mut(id) else { return };
        let Phase::Member(class_id) = connection.phase else { return };
        connection.phase = Phase::Constraints;
        connection.since = now;
        connection.aliases.clear();
        let Some(class) = self.classes.get_mut(&class_id) else { return };
        class.members -= 1;
        if class.members == 0 {
            class.idle_since = Some(now);
            self.end_idle_classes(now, out);
        }
    }

    /// Tells who joins the tip, with the template that opened it, then the newest template and the future ones. A client
    /// that comes from another class may have seen higher ids: it is shown everything under fresh ones. None if there are no
    /// more of them.
    fn deliver(&mut self, id: ConnectionId, class_id: ClassId, out: &mut ServerOutbox) -> Option<()> {
        let class = self.classes.get(&class_id)?;
        let (tip, after_tip) = (class.tip.clone(), class.after_tip());
        let first = tip.iter().map(|tip| &tip.announced).chain(&after_tip).next();
        let Some(first) = first.map(|announced| announced.wire_id) else { return Some(()) };
        let shown = self.connection(id).and_then(|connection| connection.shown);
        let is_fresh = shown.is_some_and(|shown| shown >= first);
        if let Some(tip) = tip {
            let wire_id = self.show(id, &tip.announced, is_fresh, out)?;
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
            let wire_id = self.show(id, &announced, is_fresh, out)?;
            let alias = (announced.template.template_id, wire_id);
            if let Some(connection) =
                self.connection_mut(id).filter(|_| is_fresh && announced.template.future_template)
            {
                connection.aliases.push(alias);
            }
        }
        Some(())
    }

    /// Sends one client a template of its class, under a fresh id or as the class knows it.
    fn show(
        &mut self,
        id: ConnectionId,
        announced: &Announced,
        is_fresh: bool,
        out: &mut ServerOutbox,
    ) -> Option<u64> {
        let (wire_id, frame) = if is_fresh {
            let wire_id = self.templates.rename(announced.template.template_id)?;
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
        Some(wire_id)
    }
}
