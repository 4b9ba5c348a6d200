//! The transactions of the templates that may still be solved.
//!
//! Shared between a source's thread, which writes, and whoever assembles a block; held only to look up or to insert.
//! Bounds: all templates of the present tip up to [`PER_TIP_MAX`], and those of the [`EARLIER_TIPS`] tips before. The oldest of
//! a class that nobody wants any more makes room, so that who comes and goes cannot make others' templates forgotten; else
//! the oldest. Transactions are shared between templates, so that one costs a pointer for each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_proto::distribution::server::ClassId;

use crate::nodes::TemplateTransactions;

/// Templates kept for one tip, of all classes.
const PER_TIP_MAX: usize = 512;
/// Tips before the present one whose templates are kept.
const EARLIER_TIPS: u64 = 2;

#[derive(Debug)]
struct Entry {
    template_id: u64,
    class: ClassId,
    is_wanted: bool,
    /// How many tips came before.
    tip: u64,
    transactions: TemplateTransactions,
}

#[derive(Debug, Default)]
struct Kept {
    /// Oldest first.
    templates: VecDeque<Entry>,
    tips: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct TemplateStore(Arc<Mutex<Kept>>);

impl TemplateStore {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Every change is a single insertion or removal: a panic elsewhere leaves the table whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a tip: templates inserted from now on are for it, those of tips long gone are forgotten.
    pub(super) fn begin_tip(&self) {
        let mut kept = self.lock();
        kept.tips += 1;
        let oldest = kept.tips.saturating_sub(EARLIER_TIPS);
        kept.templates.retain(|entry| entry.tip >= oldest);
    }

    /// Keeps a template. One for a tip that is still to come counts as the present tip's.
    pub(super) fn insert(&self, template_id: u64, class: ClassId, transactions: TemplateTransactions) {
        let mut kept = self.lock();
        let tip = kept.tips;
        if kept.templates.iter().filter(|entry| entry.tip == tip).count() >= PER_TIP_MAX {
            let of_tip = |entry: &Entry| entry.tip == tip;
            let unwanted = kept.templates.iter().position(|entry| of_tip(entry) && !entry.is_wanted);
            if let Some(leaving) = unwanted.or_else(|| kept.templates.iter().position(of_tip)) {
                kept.templates.remove(leaving);
            }
        }
        kept.templates.push_back(Entry { template_id, class, is_wanted: true, tip, transactions });
    }

    /// A class is not wanted any more: its templates make room first.
    pub(super) fn unwant(&self, class: ClassId) {
        for entry in self.lock().templates.iter_mut().filter(|entry| entry.class == class) {
            entry.is_wanted = false;
        }
    }

    /// The transactions of a template, unless it was forgotten.
    pub(super) fn find(&self, template_id: u64) -> Option<TemplateTransactions> {
        let kept = self.lock();
        let found = kept.templates.iter().rev().find(|entry| entry.template_id == template_id);
        found.map(|entry| entry.transactions.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_present_tip_and_two_earlier_ones() {
        let store = TemplateStore::default();
        for tip in 0..5 {
            store.begin_tip();
            store.insert(10 * tip, ClassId(0), TemplateTransactions::default());
            store.insert(10 * tip + 1, ClassId(1), TemplateTransactions::default());
        }
        let kept: Vec<u64> = (0..50).filter(|id| store.find(*id).is_some()).collect();
        assert_eq!(kept, [20, 21, 30, 31, 40, 41]);
    }

    #[test]
    fn templates_of_one_tip_are_bounded() {
        let store = TemplateStore::default();
        store.begin_tip();
        let ids = 0..PER_TIP_MAX as u64 + 10;
        ids.clone().for_each(|id| store.insert(id, ClassId(0), TemplateTransactions::default()));
        let kept: Vec<u64> = ids.filter(|id| store.find(*id).is_some()).collect();
        assert_eq!(kept, (10..PER_TIP_MAX as u64 + 10).collect::<Vec<_>>());
    }

    #[test]
    fn who_comes_and_goes_makes_nobodys_template_forgotten() {
        let store = TemplateStore::default();
        store.begin_tip();
        store.insert(0, ClassId(0), TemplateTransactions::default());
        for id in 1..3 * PER_TIP_MAX as u64 {
            store.insert(id, ClassId(id), TemplateTransactions::default());
            store.unwant(ClassId(id));
        }
        assert!(store.find(0).is_some());
        assert_eq!(store.lock().templates.len(), PER_TIP_MAX);
    }
}
