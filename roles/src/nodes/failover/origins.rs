//! Which source a template came from, and its id there.
//!
//! Shared between the combination's thread, which writes, and whoever submits a solution; held only to look up or to
//! insert. Bounds: [`ORIGINS_MAX`] templates, the oldest making room.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_proto::distribution::server::ClassId;

/// Templates that are remembered: those of the last tips, for every class.
const ORIGINS_MAX: usize = 4_096;

/// Where a template came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The id under which it went out.
    pub(super) template_id: u64,
    pub(super) class: ClassId,
    pub(super) source: usize,
    /// The source's own id.
    pub(super) source_id: u64,
    /// What tells the transactions apart.
    pub(super) merkle_path: Arc<[[u8; 32]]>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins(Arc<Mutex<VecDeque<Origin>>>);

impl Origins {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Origin>> {
        // Every change is a single insertion or removal: a panic elsewhere leaves the table whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, origin: Origin) {
        let mut origins = self.lock();
        if origins.len() >= ORIGINS_MAX {
            origins.pop_front();
        }
        origins.push_back(origin);
    }

    /// Where the template with this id came from, unless it was forgotten.
    pub(super) fn find(&self, template_id: u64) -> Option<Origin> {
        let origins = self.lock();
        // Ids rise.
        let index = origins.binary_search_by_key(&template_id, |origin| origin.template_id).ok()?;
        origins.get(index).cloned()
    }

    /// The id under which a source's template went out last.
    pub(super) fn template_id(&self, class: ClassId, source: usize, source_id: u64) -> Option<u64> {
        let origins = self.lock();
        let is_meant =
            |origin: &&Origin| (origin.class, origin.source, origin.source_id) == (class, source, source_id);
        origins.iter().rev().find(is_meant).map(|origin| origin.template_id)
    }

    /// Templates with the same transactions, newest first.
    pub(super) fn alike(&self, merkle_path: &[[u8; 32]]) -> Vec<Origin> {
        self.lock().iter().rev().filter(|origin| *origin.merkle_path == *merkle_path).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_found_by_id_and_by_transactions() {
        let origins = Origins::default();
        for template_id in 0..ORIGINS_MAX as u64 + 10 {
            origins.insert(Origin {
                template_id,
                class: ClassId(0),
                source: (template_id % 2) as usize,
                source_id: template_id / 4,
                merkle_path: [[(template_id % 3) as u8; 32]].into(),
            });
        }
        assert_eq!(origins.find(9), None);
        assert_eq!(origins.find(10).map(|origin| origin.source), Some(0));
        assert_eq!(origins.template_id(ClassId(0), 1, 5), Some(23), "the last under which it went out");
        assert_eq!(origins.template_id(ClassId(1), 1, 5), None);
        let alike = origins.alike(&[[2; 32]]);
        assert!(alike.len() > 1_000 && alike.iter().all(|origin| origin.template_id % 3 == 2));
    }
}
