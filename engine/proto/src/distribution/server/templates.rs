//! Templates that clients may still ask for, or find a block of.
//!
//! Clients see ids of the server's own (wire ids): a client that changes its class is shown that class's templates under
//! fresh ids, because what a client sees must rise strictly (specification 7.2). Every wire id leads to the driver's.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use super::event::{ClassId, KnownTemplate, Standing};
use crate::time::Instant;

/// Wire ids of one template. Those that were given out stay: a client may find a block under each.
const WIRE_IDS_MAX: usize = 64;

#[derive(Debug)]
struct Kept {
    class: ClassId,
    standing: Standing,
    wire_ids: Vec<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Templates {
    /// By the driver's id.
    kept: BTreeMap<u64, Kept>,
    /// From wire id to the driver's.
    wire: BTreeMap<u64, u64>,
    next_wire_id: u64,
    /// Stale ones and when they go, in order; some may be gone.
    stale: VecDeque<(Instant, u64)>,
}

impl Templates {
    pub(super) const fn new(first_wire_id: u64) -> Self {
        Self {
            kept: BTreeMap::new(),
            wire: BTreeMap::new(),
            next_wire_id: first_wire_id,
            stale: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Keeps a template; its first wire id.
    pub(super) fn insert(&mut self, template_id: u64, class: ClassId, standing: Standing) -> u64 {
        let wire_id = self.next_wire_id();
        self.kept.insert(template_id, Kept { class, standing, wire_ids: vec![wire_id] });
        self.wire.insert(wire_id, template_id);
        wire_id
    }

    /// Another wire id for a template; none if it is not kept, or has as many as may be.
    pub(super) fn rename(&mut self, template_id: u64) -> Option<u64> {
        let wire_id = self.next_wire_id();
        let kept = self.kept.get_mut(&template_id)?;
        if kept.wire_ids.len() >= WIRE_IDS_MAX {
            return None;
        }
        kept.wire_ids.push(wire_id);
        self.wire.insert(wire_id, template_id);
        Some(wire_id)
    }

    const fn next_wire_id(&mut self) -> u64 {
        let wire_id = self.next_wire_id;
        self.next_wire_id = wire_id.wrapping_add(1);
        wire_id
    }

    /// The template that a client names.
    pub(super) fn get(&self, wire_id: u64) -> Option<KnownTemplate> {
        let template_id = *self.wire.get(&wire_id)?;
        let kept = self.kept.get(&template_id)?;
        Some(KnownTemplate { template_id, class: kept.class, standing: kept.standing })
    }

    /// Forgets a template; whether it was there.
    pub(super) fn remove(&mut self, template_id: u64) -> bool {
        let Some(kept) = self.kept.remove(&template_id) else { return false };
        for wire_id in kept.wire_ids {
            self.wire.remove(&wire_id);
        }
        true
    }

    /// A class's template became the tip's.
    pub(super) fn activate(&mut self, template_id: u64) {
        if let Some(kept) = self.kept.get_mut(&template_id) {
            kept.standing = Standing::Current;
        }
    }

    /// Lets all templates of a class go at `until`, but for one.
    pub(super) fn retire(&mut self, class: ClassId, except: Option<u64>, until: Instant) {
        for (template_id, kept) in &mut self.kept {
            let stale = kept.standing == Standing::Stale || Some(*template_id) == except;
            if kept.class == class && !stale {
                kept.standing = Standing::Stale;
                self.stale.push_back((until, *template_id));
            }
        }
    }

    /// The oldest template that `is_needed` does not hold.
    pub(super) fn oldest(&self, is_needed: impl Fn(ClassId, u64) -> bool) -> Option<u64> {
        self.kept.iter().find(|(id, kept)| !is_needed(kept.class, **id)).map(|(id, _)| *id)
    }

    /// When the next stale template goes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.stale.front().map(|(until, _)| *until)
    }

    /// Takes a stale template out whose time is up.
    pub(super) fn expire(&mut self, now: Instant) -> Option<u64> {
        while let Some(&(until, template_id)) = self.stale.front()
            && until <= now
        {
            self.stale.pop_front();
            if self.remove(template_id) {
                return Some(template_id);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_ids_of_a_template_are_bounded() {
        let mut templates = Templates::new(100);
        assert_eq!(templates.insert(7, ClassId(0), Standing::Current), 100);
        let renamed: Vec<_> = (0..100).filter_map(|_| templates.rename(7)).collect();
        assert_eq!(renamed, (101..164).collect::<Vec<_>>());
        assert_eq!((templates.wire.len(), templates.rename(8)), (WIRE_IDS_MAX, None));
        assert!((100..164).all(|wire_id| templates.get(wire_id).is_some_and(|known| known.template_id == 7)));
        assert!(templates.remove(7) && !templates.remove(7));
        assert!(templates.wire.is_empty());
    }

    #[test]
    fn stale_templates_go_in_order() {
        let at = Instant::from_nanos;
        let mut templates = Templates::new(1);
        for id in 1..=4 {
            templates.insert(id, ClassId(id % 2), Standing::Current);
        }
        templates.retire(ClassId(1), Some(3), at(10));
        templates.retire(ClassId(0), None, at(20));
        assert_eq!(templates.deadline(), Some(at(10)));
        assert_eq!(templates.expire(at(9)), None);
        assert_eq!((templates.expire(at(10)), templates.expire(at(10))), (Some(1), None));
        assert!(templates.remove(2));
        assert_eq!((templates.expire(at(20)), templates.expire(at(20))), (Some(4), None));
        assert_eq!((templates.len(), templates.deadline()), (1, None));
        assert_eq!(templates.oldest(|_, id| id == 3), None);
        assert_eq!(templates.oldest(|class, _| class == ClassId(0)), Some(3));
    }
}
