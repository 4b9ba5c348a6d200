//! The templates that the node holds for us.
//!
//! Bounds: [`PER_TIP_MAX`] of the present tip, the oldest of a class that is not wanted any more making room, else the
//! oldest; and those of the tip before for [`LINGER`], in which
//! solutions that were on their way arrive. What falls out is to be destroyed: each pins memory in the node.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use adit_proto::distribution::server::ClassId;
use tokio::sync::Mutex;

use super::template::NodeTemplate;

/// Templates held for one tip, of all classes.
const PER_TIP_MAX: usize = 256;
/// How long templates outlive their tip.
const LINGER: Duration = Duration::from_secs(10);

/// A template, with the turn of whoever uses it: the node must not read the block of a template whose solution it is taking.
pub(super) struct Held {
    pub(super) template: NodeTemplate,
    pub(super) turn: Mutex<()>,
}

impl Held {
    pub(super) fn new(template: NodeTemplate) -> Rc<Self> {
        Rc::new(Self { template, turn: Mutex::new(()) })
    }
}

/// What is held under an id. Several ids may stand for the same.
struct Entry<T> {
    template_id: u64,
    class: ClassId,
    is_wanted: bool,
    /// When it goes; none while its tip is the present one.
    until: Option<Instant>,
    held: Rc<T>,
}

/// See the module.
pub(super) struct HeldTemplates<T = Held> {
    /// By rising id.
    entries: VecDeque<Entry<T>>,
}

impl<T> Default for HeldTemplates<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new() }
    }
}

impl<T> HeldTemplates<T> {
    /// Holds a template of the present tip.
    pub(super) fn insert(&mut self, template_id: u64, class: ClassId, held: Rc<T>) {
        self.entries.push_back(Entry { template_id, class, is_wanted: true, until: None, held });
        let is_present = |entry: &Entry<T>| entry.until.is_none();
        if self.entries.iter().filter(|entry| is_present(entry)).count() > PER_TIP_MAX {
            let unwanted = self.entries.iter().position(|entry| is_present(entry) && !entry.is_wanted);
            if let Some(leaving) = unwanted.or_else(|| self.entries.iter().position(is_present)) {
                // Goes with the next sweep.
                self.entries[leaving].until = Some(Instant::now());
            }
        }
    }

    /// A class is not wanted any more: its templates make room first.
    pub(super) fn unwant(&mut self, class: ClassId) {
        for entry in self.entries.iter_mut().filter(|entry| entry.class == class) {
            entry.is_wanted = false;
        }
    }

    /// A new tip came.
    pub(super) fn begin_tip(&mut self, now: Instant) {
        for entry in &mut self.entries {
            entry.until.get_or_insert(now + LINGER);
        }
    }

    /// The template of an id.
    pub(super) fn find(&self, template_id: u64) -> Option<Rc<T>> {
        self.find_by(|entry| entry.template_id == template_id)
    }

    /// The newest template for which this holds.
    pub(super) fn find_like(&self, is_like: impl Fn(&T) -> bool) -> Option<Rc<T>> {
        self.find_by(|entry| is_like(&entry.held))
    }

    fn find_by(&self, is_it: impl Fn(&Entry<T>) -> bool) -> Option<Rc<T>> {
        self.entries.iter().rev().find(|entry| is_it(entry)).map(|entry| Rc::clone(&entry.held))
    }

    /// When [`sweep`](Self::sweep) has something to do next.
    pub(super) fn next_sweep(&self) -> Option<Instant> {
        self.entries.iter().filter_map(|entry| entry.until).min()
    }

    /// Takes out what is due. Templates that stand under another id as well stay.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Rc<T>> {
        let (due, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(|entry| entry.until.is_some_and(|until| until <= now));
        self.entries = kept;
        let mut gone: Vec<Rc<T>> = Vec::new();
        for Entry { held, .. } in due {
            let is_same = |other: &Rc<T>| Rc::ptr_eq(other, &held);
            if !gone.iter().any(is_same) && !self.entries.iter().any(|entry| is_same(&entry.held)) {
                gone.push(held);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASS: ClassId = ClassId(0);

    fn ids(held: &HeldTemplates<u64>, all: std::ops::Range<u64>) -> Vec<u64> {
        all.filter(|id| held.find(*id).is_some()).collect()
    }

    #[test]
    fn templates_outlive_their_tip_for_a_while() {
        let start = Instant::now();
        let mut held = HeldTemplates::default();
        held.insert(1, CLASS, Rc::new(1));
        held.begin_tip(start);
        held.insert(2, CLASS, Rc::new(2));
        held.begin_tip(start + Duration::from_secs(1));
        held.insert(3, CLASS, Rc::new(3));
        assert_eq!(held.next_sweep(), Some(start + LINGER), "a later tip puts nothing off");
        assert!(held.sweep(start + LINGER - Duration::from_millis(1)).is_empty());
        assert_eq!(held.sweep(start + LINGER), [Rc::new(1)]);
        assert_eq!(ids(&held, 0..10), [2, 3]);
        assert_eq!(held.sweep(start + LINGER * 2), [Rc::new(2)]);
        assert_eq!(held.next_sweep(), None);
        assert_eq!(ids(&held, 0..10), [3]);
    }

    #[test]
    fn what_stands_under_two_ids_goes_once_with_the_last() {
        let mut held = HeldTemplates::default();
        let (shared, now) = (Rc::new(7), Instant::now());
        held.insert(1, CLASS, Rc::clone(&shared));
        held.begin_tip(now);
        held.insert(2, CLASS, Rc::clone(&shared));
        held.insert(3, CLASS, shared);
        assert!(held.sweep(now + LINGER).is_empty(), "a newer id holds it");
        held.begin_tip(now);
        assert_eq!(held.sweep(now + LINGER).len(), 1);
        assert_eq!(ids(&held, 0..10), [0; 0]);
    }

    #[test]
    fn a_tips_templates_are_bounded_and_the_oldest_goes() {
        let mut held = HeldTemplates::default();
        let count = PER_TIP_MAX as u64 + 3;
        (0..count).for_each(|id| held.insert(id, CLASS, Rc::new(id)));
        assert_eq!(held.sweep(Instant::now()).len(), 3);
        assert_eq!(ids(&held, 0..count), (3..count).collect::<Vec<_>>());
        assert_eq!(held.find_like(|id| id % 100 == 0), Some(Rc::new(200)));
        for id in count..2 * count {
            held.insert(id, ClassId(id), Rc::new(id));
            held.unwant(ClassId(id));
            held.sweep(Instant::now());
        }
        assert!(held.find(count - 1).is_some(), "who comes and goes makes nobody's template forgotten");
    }
}
