//! Constraint classes: clients whose templates leave the same room, and what they were announced.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use adit_codec::message::TemplateSetNewPrevHash;
use adit_codec::{Encode, encode_frame, frame_len};

use super::super::Reserve;
use super::super::validity::message_of;
use crate::template::{PrevHash, Template};
use crate::time::Instant;

/// A template as it was announced to a class.
#[derive(Clone, Debug)]
pub(super) struct Announced {
    pub(super) template: Arc<Template>,
    pub(super) wire_id: u64,
    pub(super) frame: Rc<[u8]>,
}

/// The class's tip, and the future template that it named.
#[derive(Clone, Debug)]
pub(super) struct Tip {
    pub(super) announced: Announced,
    pub(super) prev_hash: Arc<PrevHash>,
    pub(super) frame: Rc<[u8]>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) reserve: Reserve,
    pub(super) members: usize,
    /// Since when it has had no members.
    pub(super) idle_since: Option<Instant>,
    pub(super) tip: Option<Tip>,
    /// The last template on the tip, if there was one beside the tip's own.
    pub(super) newest: Option<Announced>,
    /// Those that came after the tip, oldest first.
    pub(super) futures: VecDeque<Announced>,
}

impl Class {
    pub(super) const fn new(reserve: Reserve) -> Self {
        Self { reserve, members: 0, idle_since: None, tip: None, newest: None, futures: VecDeque::new() }
    }

    /// Whether a template is shown to who joins, or may be named by the next tip.
    pub(super) fn needs(&self, template_id: u64) -> bool {
        let tip = self.tip.iter().map(|tip| &tip.announced);
        let mut all = tip.chain(&self.newest).chain(&self.futures);
        all.any(|announced| announced.template.template_id == template_id)
    }

    /// What who joins is told after the tip: rising ids.
    pub(super) fn after_tip(&self) -> Vec<Announced> {
        let mut all: Vec<Announced> = self.newest.iter().chain(&self.futures).cloned().collect();
        all.sort_unstable_by_key(|announced| announced.wire_id);
        all
    }
}

/// The frame of a template under an id.
pub(super) fn template_frame(template: &Template, wire_id: u64) -> Rc<[u8]> {
    encode(&message_of(template, wire_id))
}

/// The frame of a tip that names a template by an id.
pub(super) fn prev_hash_frame(prev_hash: &PrevHash, wire_id: u64) -> Rc<[u8]> {
    encode(&TemplateSetNewPrevHash {
        template_id: wire_id,
        prev_hash: &prev_hash.prev_hash,
        header_timestamp: prev_hash.header_timestamp,
        n_bits: prev_hash.nbits,
        target: prev_hash.target.as_le_bytes(),
    })
}

fn encode<M: Encode>(message: &M) -> Rc<[u8]> {
    let mut frame = vec![0; frame_len(message)];
    encode_frame(message, &mut frame).expect("templates are checked before they are encoded");
    frame.into()
}
