//! The templates that clients may find a block of, as far as a header needs them.
//!
//! Written by the thread that hands templates to the engine, read where solutions come in; held only to look up or to
//! insert. A template stays until the engine releases it, and beyond that until [`TIPS_KEPT`] tips have come: who was away
//! brings blocks under ids that nobody remembers, and a block proves by its own hash which template it is of.
//! Bounds: [`TEMPLATES_MAX`], far above what the engine keeps; the oldest released one makes room first. A solution is tried
//! on [`CANDIDATES_MAX`] templates at most.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_hasher::{Digest, HeaderBytes, Target, merkle_root_from_path};
use adit_proto::distribution::server::{ClassId, SubmittedSolution};
use adit_proto::mining::server::Solution;
use adit_proto::template::{PrevHash, Template, TemplateUpdate};

use crate::nodes::{BlockError, coinbase_txid};

/// Templates that are kept: more than [`Limits::templates_max`](adit_proto::distribution::server::Limits::templates_max) by
/// those that are on their way.
const TEMPLATES_MAX: usize = 8_192;
/// Tips, the present one included, whose templates are kept after their release: as a source keeps their transactions.
const TIPS_KEPT: usize = 3;
/// See the module: about a millisecond of hashing.
const CANDIDATES_MAX: usize = 256;

/// Why a solution is no block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The template is not kept (any more).
    UnknownTemplate,
    /// The template waits for a tip: there is no block that it could follow.
    NoTip,
    /// The coinbase is no transaction.
    Coinbase(BlockError),
    /// The hash does not meet the tip's target.
    TargetMissed(Digest),
}

impl Refusal {
    /// Whether it is certain that this is no block of ours.
    pub(super) const fn is_proof(&self) -> bool {
        matches!(self, Self::Coinbase(_) | Self::TargetMissed(_))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownTemplate => f.write_str("its template is not known any more, or never was"),
            Self::NoTip => f.write_str("its template waits for a tip that has not come"),
            Self::Coinbase(error) => error.fmt(f),
            Self::TargetMissed(hash) => write!(f, "its hash {hash} does not meet the target of the tip"),
        }
    }
}

/// A solution that is no block, as far as it is known.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) solution: Box<Solution>,
    pub(super) refusal: Refusal,
}

#[derive(Clone, Debug)]
struct Kept {
    template: Arc<Template>,
    /// What it builds on, once that is known.
    tip: Option<Arc<PrevHash>>,
    /// Whether the engine has forgotten it.
    is_released: bool,
}

#[derive(Debug, Default)]
struct Tables {
    kept: BTreeMap<u64, Kept>,
    /// Of the classes that are wanted: a tip may come late, and classes have ever new ids.
    tips: BTreeMap<ClassId, Option<Arc<PrevHash>>>,
    /// The last blocks that templates were built on, the newest last.
    chain: VecDeque<[u8; 32]>,
}

impl Tables {
    fn follow(&mut self, prev_hash: [u8; 32]) {
        if self.chain.contains(&prev_hash) {
            return;
        }
        if self.chain.len() == TIPS_KEPT {
            self.chain.pop_front();
        }
        self.chain.push_back(prev_hash);
        let is_recent =
            |tip: &Option<Arc<PrevHash>>| tip.as_ref().is_some_and(|tip| self.chain.contains(&tip.prev_hash));
        self.kept.retain(|_, kept| !kept.is_released || is_recent(&kept.tip));
    }

    fn make_room(&mut self) {
        if self.kept.len() > TEMPLATES_MAX {
            let released = self.kept.iter().find(|(_, kept)| kept.is_released).map(|(id, _)| *id);
            match released {
                Some(id) => drop(self.kept.remove(&id)),
                None => drop(self.kept.pop_first()),
            }
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct KnownTemplates(Mutex<Tables>);

impl KnownTemplates {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        // Every change leaves the tables whole, wherever a panic elsewhere comes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a class is about to be told.
    pub(super) fn learn(&self, class: ClassId, update: &TemplateUpdate) {
        let mut tables = self.lock();
        match update {
            TemplateUpdate::NewTemplate(template) => {
                let tip =
                    if template.future_template { None } else { tables.tips.get(&class).cloned().flatten() };
                let kept = Kept { template: Arc::clone(template), tip, is_released: false };
                tables.kept.insert(template.template_id, kept);
                tables.make_room();
            }
            TemplateUpdate::SetNewPrevHash(prev_hash) => {
                if let Some(tip) = tables.tips.get_mut(&class) {
                    *tip = Some(Arc::clone(prev_hash));
                }
                if let Some(named) = tables.kept.get_mut(&prev_hash.template_id) {
                    named.tip = Some(Arc::clone(prev_hash));
                }
                tables.follow(prev_hash.prev_hash);
            }
        }
    }

    /// The engine has forgotten a template. One that no tip has named is of no use.
    pub(super) fn release(&self, template_id: u64) {
        let mut tables = self.lock();
        match tables.kept.get_mut(&template_id) {
            Some(kept) if kept.tip.is_some() => kept.is_released = true,
            _ => drop(tables.kept.remove(&template_id)),
        }
    }

    /// Keeps the tips of a class from now on.
    pub(super) fn begin_class(&self, class: ClassId) {
        self.lock().tips.insert(class, None);
    }

    /// Forgets a class's tip.
    pub(super) fn forget_class(&self, class: ClassId) {
        self.lock().tips.remove(&class);
    }

    /// The block that a client has found, and `finder` as who found it: of the template that it names, or of another to
    /// which its hash belongs.
    ///
    /// # Errors
    /// It is none, as far as can be told; with as much of it as is known.
    pub(super) fn solution(
        &self,
        submitted: SubmittedSolution,
        finder: String,
    ) -> Result<Box<Solution>, Refused> {
        let named = submitted.template.and_then(|known| self.lock().kept.get(&known.template_id).cloned());
        let txid = coinbase_txid(&submitted.coinbase_tx);
        let header_on = |kept: &Kept| {
            let path = &kept.template.merkle_path;
            let root = txid.as_ref().map_or([0; 32], |txid| merkle_root_from_path(txid, path));
            header(&submitted, kept.tip.as_deref(), root)
        };
        let solved = |kept: &Kept| {
            let target = kept.tip.as_ref()?.target;
            target.is_met_by(&Digest::of(&header_on(kept))).then(|| kept.clone())
        };
        let is_coinbase = txid.is_ok();
        let found = named.as_ref().filter(|_| is_coinbase).and_then(solved);
        let found = found.or_else(|| {
            let candidates = if is_coinbase { self.candidates() } else { Vec::new() };
            candidates.iter().find_map(solved)
        });
        let refusal = match (&found, &txid, &named) {
            (Some(_), ..) => None,
            (_, Err(error), _) => Some(Refusal::Coinbase(error.clone())),
            (.., None) => Some(Refusal::UnknownTemplate),
            (.., Some(Kept { tip: None, .. })) => Some(Refusal::NoTip),
            (.., Some(named)) => Some(Refusal::TargetMissed(Digest::of(&header_on(named)))),
        };
        let kept = found.or(named);
        let header = kept.as_ref().map_or_else(|| header(&submitted, None, [0; 32]), header_on);
        let tip = kept.as_ref().and_then(|kept| kept.tip.as_ref());
        let template = kept.as_ref().map(|kept| &kept.template);
        let solution = Box::new(Solution {
            template_id: template.map_or(submitted.wire_template_id, |known| known.template_id),
            header,
            digest: Digest::of(&header),
            target: tip.map_or(Target::from_le_bytes([0; 32]), |tip| tip.target),
            merkle_path: template.map(|template| template.merkle_path.clone()).unwrap_or_default(),
            coinbase_tx: submitted.coinbase_tx,
            user_identity: finder.into_bytes(),
            worker_identity: Vec::new(),
        });
        match refusal {
            None => Ok(solution),
            Some(refusal) => Err(Refused { solution, refusal }),
        }
    }

    /// Templates that a block may be of whose own is not known, the newest first.
    fn candidates(&self) -> Vec<Kept> {
        let tables = self.lock();
        let is_recent =
            |kept: &&Kept| kept.tip.as_ref().is_some_and(|tip| tables.chain.contains(&tip.prev_hash));
        tables.kept.values().rev().filter(is_recent).take(CANDIDATES_MAX).cloned().collect()
    }
}

/// The header, zeros for what is not known.
fn header(submitted: &SubmittedSolution, tip: Option<&PrevHash>, root: [u8; 32]) -> HeaderBytes {
    let mut header = [0; 80];
    header[..4].copy_from_slice(&submitted.version.to_le_bytes());
    header[36..68].copy_from_slice(&root);
    header[68..72].copy_from_slice(&submitted.header_timestamp.to_le_bytes());
    header[76..].copy_from_slice(&submitted.header_nonce.to_le_bytes());
    if let Some(tip) = tip {
        header[4..36].copy_from_slice(&tip.prev_hash);
        header[72..76].copy_from_slice(&tip.nbits.to_le_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use adit_proto::distribution::server::{ConnectionId, KnownTemplate, Standing};
    use bitcoin::Network;
    use bitcoin::consensus::serialize;
    use bitcoin::constants::genesis_block;

    use super::*;

    const CLASS: ClassId = ClassId(3);

    fn template(template_id: u64, future_template: bool) -> TemplateUpdate {
        TemplateUpdate::NewTemplate(Arc::new(Template {
            template_id,
            future_template,
            version: 1,
            coinbase_tx_version: 1,
            coinbase_prefix: Vec::new(),
            coinbase_tx_input_sequence: u32::MAX,
            coinbase_tx_value_remaining: 0,
            coinbase_tx_outputs_count: 0,
            coinbase_tx_outputs: Vec::new(),
            coinbase_tx_locktime: 0,
            merkle_path: Vec::new(),
        }))
    }

    fn tip(template_id: u64) -> TemplateUpdate {
        tip_on(template_id, [0; 32])
    }

    fn tip_on(template_id: u64, prev_hash: [u8; 32]) -> TemplateUpdate {
        let genesis = genesis_block(Network::Regtest).header;
        let nbits = genesis.bits.to_consensus();
        TemplateUpdate::SetNewPrevHash(Arc::new(PrevHash {
            template_id,
            prev_hash,
            header_timestamp: genesis.time,
            nbits,
            target: Target::from_nbits(nbits).unwrap(),
        }))
    }

    /// The genesis block as a client would have found it.
    fn submitted(template_id: Option<u64>) -> SubmittedSolution {
        let genesis = genesis_block(Network::Regtest);
        let known = |template_id| KnownTemplate { template_id, class: CLASS, standing: Standing::Current };
        SubmittedSolution {
            connection: ConnectionId { slot: 0, generation: 0 },
            template: template_id.map(known),
            wire_template_id: 99,
            version: genesis.header.version.to_consensus() as u32,
            header_timestamp: genesis.header.time,
            header_nonce: genesis.header.nonce,
            coinbase_tx: serialize(&genesis.txdata[0]),
        }
    }

    fn refusal(known: &KnownTemplates, submitted: SubmittedSolution) -> (Box<Solution>, Refusal) {
        let Refused { solution, refusal } = known.solution(submitted, "peer".to_owned()).unwrap_err();
        (solution, refusal)
    }

    #[test]
    fn a_solution_becomes_the_block_that_it_is() {
        let known = KnownTemplates::default();
        known.begin_class(CLASS);
        known.learn(CLASS, &template(7, true));
        assert_eq!(refusal(&known, submitted(Some(7))).1, Refusal::NoTip);
        known.learn(CLASS, &tip(7));
        // A template on the tip builds on it as well.
        known.learn(CLASS, &template(8, false));
        let genesis = serialize(&genesis_block(Network::Regtest).header);
        for template_id in [7, 8] {
            let solution = known.solution(submitted(Some(template_id)), "peer".to_owned()).unwrap();
            assert_eq!((&solution.header[..], solution.template_id), (&genesis[..], template_id));
            assert_eq!(solution.user_identity, b"peer");
        }
        // The hash itself says which template a block is of, as long as that is kept.
        for unknown in [submitted(None), submitted(Some(77))] {
            assert_eq!(known.solution(unknown, "peer".to_owned()).unwrap().template_id, 8);
        }
        (7..=8).for_each(|template_id| known.release(template_id));
        assert_eq!(known.solution(submitted(None), "peer".to_owned()).unwrap().template_id, 8);
        for (template_id, other) in (11_u8..).zip(1..TIPS_KEPT as u8) {
            known.learn(CLASS, &template(template_id.into(), true));
            known.learn(CLASS, &tip_on(template_id.into(), [other; 32]));
        }
        assert!(known.solution(submitted(None), "peer".to_owned()).is_ok());
        known.learn(CLASS, &template(20, true));
        known.learn(CLASS, &tip_on(20, [99; 32]));
        assert_eq!(refusal(&known, submitted(None)).1, Refusal::UnknownTemplate);
        known.forget_class(CLASS);
        known.learn(CLASS, &tip_on(20, [99; 32]));
        assert!(known.lock().tips.is_empty(), "it came late");
        known.learn(CLASS, &template(29, false));
        assert_eq!(refusal(&known, submitted(Some(29))).1, Refusal::NoTip);
    }

    #[test]
    fn what_is_known_of_a_refused_solution_is_kept() {
        let known = KnownTemplates::default();
        known.learn(CLASS, &template(7, true));
        known.learn(CLASS, &tip(7));
        let unknown = SubmittedSolution { header_nonce: 77, ..submitted(None) };
        let (solution, reason) = refusal(&known, unknown);
        assert_eq!((solution.template_id, reason), (99, Refusal::UnknownTemplate));
        assert_eq!(solution.coinbase_tx, submitted(None).coinbase_tx);
        let late = SubmittedSolution { header_nonce: 77, ..submitted(Some(7)) };
        let (solution, reason) = refusal(&known, late);
        assert_eq!(reason, Refusal::TargetMissed(solution.digest));
        assert_eq!(solution.header[76], 77);
        let torn = SubmittedSolution { coinbase_tx: vec![1, 2, 3], ..submitted(Some(7)) };
        assert!(matches!(refusal(&known, torn).1, Refusal::Coinbase(_)));
    }

    #[test]
    fn templates_are_bounded() {
        let known = KnownTemplates::default();
        for id in 0..TEMPLATES_MAX as u64 + 10 {
            known.learn(CLASS, &template(id, true));
        }
        assert_eq!(known.lock().kept.len(), TEMPLATES_MAX);
        assert_eq!(refusal(&known, submitted(Some(9))).1, Refusal::UnknownTemplate);
        assert_eq!(refusal(&known, submitted(Some(10))).1, Refusal::NoTip);
    }
}
