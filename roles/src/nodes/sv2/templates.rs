//! The templates that were announced, under the source's ids and the provider's.
//!
//! The provider's ids rise on one connection and mean nothing on the next; those that the source gives rise always. A
//! solution names a template by the source's id. If its connection is gone, the same template may have come again over the
//! next one: it is known by tip and merkle root.
//!
//! Bounds: the templates of the class's present tip and of [`EARLIER_TIPS`] before, [`TEMPLATES_MAX`] in all; the oldest
//! makes room.

use std::collections::VecDeque;
use std::sync::Arc;

use adit_hasher::{HeaderBytes, merkle_root_from_path};
use adit_proto::distribution::server::ClassId;
use adit_proto::template::Template;

use super::connection::LinkId;

/// Templates in all.
const TEMPLATES_MAX: usize = 512;
/// Tips before the present one whose templates are kept.
const EARLIER_TIPS: u64 = 2;

/// One template.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// With the source's id.
    pub(super) template: Arc<Template>,
    pub(super) class: ClassId,
    /// Where it came from.
    pub(super) link: LinkId,
    /// How it is called there.
    pub(super) provider_id: u64,
    /// The tip that it builds on, once that is known.
    pub(super) prev_hash: Option<[u8; 32]>,
    /// How many tips its class had before.
    pub(super) tip: u64,
}

impl Known {
    pub(super) fn id(&self) -> u64 {
        self.template.template_id
    }

    /// Whether a header with this coinbase is a block of this template.
    fn is_solved_by(&self, header: &HeaderBytes, coinbase_txid: &[u8; 32]) -> bool {
        self.prev_hash.is_some_and(|prev_hash| header[4..36] == prev_hash)
            && header[36..68] == merkle_root_from_path(coinbase_txid, &self.template.merkle_path)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Templates {
    /// Oldest first: by id.
    known: VecDeque<Known>,
}

impl Templates {
    pub(super) fn insert(&mut self, known: Known) {
        if self.known.len() >= TEMPLATES_MAX {
            self.known.pop_front();
        }
        self.known.push_back(known);
    }

    pub(super) fn get(&self, id: u64) -> Option<&Known> {
        self.known.binary_search_by_key(&id, Known::id).ok().map(|index| &self.known[index])
    }

    /// A future template became the tip's.
    pub(super) fn activate(&mut self, id: u64, prev_hash: [u8; 32], tip: u64) {
        if let Ok(index) = self.known.binary_search_by_key(&id, Known::id) {
            self.known[index].prev_hash = Some(prev_hash);
            self.known[index].tip = tip;
        }
    }

    /// Forgets what is too old, now that a class has had this many tips.
    pub(super) fn begin_tip(&mut self, class: ClassId, tip: u64) {
        self.known.retain(|known| known.class != class || known.tip + EARLIER_TIPS >= tip);
    }

    /// Forgets a class.
    pub(super) fn remove_class(&mut self, class: ClassId) {
        self.known.retain(|known| known.class != class);
    }

    /// The newest template whose block this is, of those that `is_usable` takes.
    pub(super) fn solved_by(
        &self,
        header: &HeaderBytes,
        coinbase_txid: &[u8; 32],
        is_usable: impl Fn(&Known) -> bool,
    ) -> Option<&Known> {
        let newest_first = self.known.iter().rev();
        newest_first.filter(|known| is_usable(known)).find(|known| known.is_solved_by(header, coinbase_txid))
    }

    /// Another template of the same tip with the same transactions.
    pub(super) fn twins(&self, of: &Known) -> impl Iterator<Item = u64> {
        let twins = self.known.iter().rev().filter(move |known| {
            known.id() != of.id()
                && known.prev_hash == of.prev_hash
                && known.template.merkle_path == of.template.merkle_path
                && known.template.coinbase_tx_outputs == of.template.coinbase_tx_outputs
        });
        twins.map(Known::id)
    }
}
