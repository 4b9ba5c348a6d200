//! The transactions of the templates that may still be solved.
//!
//! Shared between a source's thread, which writes, and whoever assembles a block; held only to look up or to insert.
//! Bounds: all templates of the present tip up to [`PER_TIP_MAX`], the oldest making room, and those of the
//! [`EARLIER_TIPS`] tips before. Transactions are shared between templates, so that one
//! costs a pointer for each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::nodes::TemplateTransactions;

/// Templates kept for one tip, of all classes.
const PER_TIP_MAX: usize = 512;
/// Tips before the present one whose templates are kept.
const EARLIER_TIPS: u64 = 2;

#[derive(Debug, Default)]
struct Kept {
    /// Oldest first: id, how many tips came before, transactions.
    templates: VecDeque<(u64, u64, TemplateTransactions)>,
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
        kept.templates.retain(|(_, tip, _)| *tip >= oldest);
    }

    /// Keeps a template. One for a tip that is still to come counts as the present tip's.
    pub(super) fn insert(&self, template_id: u64, transactions: TemplateTransactions) {
        let mut kept = self.lock();
        let tip = kept.tips;
        if kept.templates.iter().filter(|(_, of, _)| *of == tip).count() >= PER_TIP_MAX
            && let Some(oldest) = kept.templates.iter().position(|(_, of, _)| *of == tip)
        {
            kept.templates.remove(oldest);
        }
        kept.templates.push_back((template_id, tip, transactions));
    }

    /// The transactions of a template, unless it was forgotten.
    pub(super) fn find(&self, template_id: u64) -> Option<TemplateTransactions> {
        let kept = self.lock();
        kept.templates.iter().rev().find(|(id, _, _)| *id == template_id).map(|(_, _, kept)| kept.clone())
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
            store.insert(10 * tip, TemplateTransactions::default());
            store.insert(10 * tip + 1, TemplateTransactions::default());
        }
        let kept: Vec<u64> = (0..50).filter(|id| store.find(*id).is_some()).collect();
        assert_eq!(kept, [20, 21, 30, 31, 40, 41]);
    }

    #[test]
    fn templates_of_one_tip_are_bounded() {
        let store = TemplateStore::default();
        store.begin_tip();
        let ids = 0..PER_TIP_MAX as u64 + 10;
        ids.clone().for_each(|id| store.insert(id, TemplateTransactions::default()));
        let kept: Vec<u64> = ids.filter(|id| store.find(*id).is_some()).collect();
        assert_eq!(kept, (10..PER_TIP_MAX as u64 + 10).collect::<Vec<_>>());
    }
}
