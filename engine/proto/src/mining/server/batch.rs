//! Shares that were admitted and wait for their hashes: one [`Ticket`] and one header each, in order of arrival.
//!
//! All memory here is reused from batch to batch.

use alloc::rc::Rc;
use alloc::vec::Vec;

use adit_hasher::{BatchHash, Digest, HeaderBytes};

use super::config::EXTRANONCE_LEN_MAX;
use super::jobs::{Source, Tip};
use super::short_target::ShortTarget;

/// Shares that may wait at a time: a frame beyond settles those before it.
pub const SHARES_PENDING_MAX: usize = 16_384;

/// Where the merkle root lies in a header.
const ROOT_AT: usize = 36;

/// All that judging a share needs, so that nothing that happens meanwhile changes the verdict.
#[derive(Debug)]
pub(super) struct Ticket {
    /// Slot of its channel, which is kept as long as the ticket.
    pub(super) channel: u32,
    pub(super) sequence_number: u32,
    pub(super) target: ShortTarget,
    pub(super) source: Rc<Source>,
    pub(super) tip: Rc<Tip>,
    pub(super) extranonce: [u8; EXTRANONCE_LEN_MAX],
    /// Full extranonce size.
    pub(super) size: u8,
    /// Whether the header has its merkle root already.
    pub(super) has_root: bool,
    /// Where the worker's name begins in [`Batch::workers`], and its length.
    pub(super) worker: (u32, u8),
}

impl Ticket {
    pub(super) fn extranonce(&self) -> &[u8] {
        &self.extranonce[..usize::from(self.size)]
    }
}

/// What one channel is owed in this batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    pub(super) channel: u32,
    pub(super) accepted: u32,
    pub(super) last_sequence_number: u32,
    pub(super) difficulty: f64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) tickets: Vec<Ticket>,
    pub(super) headers: Vec<HeaderBytes>,
    pub(super) digests: Vec<Digest>,
    pub(super) accounts: Vec<Account>,
    pub(super) workers: Vec<u8>,
    order: Vec<u32>,
    rows: Vec<u8>,
    roots: Vec<[u8; 32]>,
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        self.tickets.len()
    }

    pub(super) fn worker(&self, ticket: &Ticket) -> &[u8] {
        let (start, len) = ticket.worker;
        &self.workers[start as usize..][..usize::from(len)]
    }

    /// Puts a merkle root that is known already into the header of a ticket.
    pub(super) fn set_root(&mut self, index: usize, root: &[u8; 32]) {
        self.tickets[index].has_root = true;
        self.headers[index][ROOT_AT..ROOT_AT + 32].copy_from_slice(root);
    }

    /// The line of a channel that has none yet.
    pub(super) fn open_account(&mut self, channel: u32) -> u32 {
        self.accounts.push(Account { channel, accepted: 0, last_sequence_number: 0, difficulty: 0.0 });
        self.accounts.len() as u32 - 1
    }

    /// Completes the headers and hashes them. `learned` is told each merkle root that was computed for a ticket.
    pub(super) fn hash(&mut self, hashes: &impl BatchHash, mut learned: impl FnMut(&Ticket, &[u8; 32])) {
        let tickets = &self.tickets;
        self.order.clear();
        self.order.extend((0..tickets.len() as u32).filter(|index| !tickets[*index as usize].has_root));
        let lane_group = |index: &u32| {
            let ticket = &tickets[*index as usize];
            (ticket.source.number, ticket.size)
        };
        self.order.sort_unstable_by_key(lane_group);
        for group in self.order.chunk_by(|a, b| lane_group(a) == lane_group(b)) {
            self.rows.clear();
            for index in group {
                self.rows.extend_from_slice(tickets[*index as usize].extranonce());
            }
            self.roots.clear();
            self.roots.resize(group.len(), [0; 32]);
            let first = &tickets[group[0] as usize];
            let coinbase = first.source.coinbase(usize::from(first.size));
            hashes.merkle_roots(&coinbase.hash, &self.rows, &mut self.roots);
            for (index, root) in group.iter().zip(&self.roots) {
                self.headers[*index as usize][ROOT_AT..ROOT_AT + 32].copy_from_slice(root);
                learned(&tickets[*index as usize], root);
            }
        }
        self.digests.clear();
        self.digests.resize(self.headers.len(), Digest::default());
        hashes.header_digests(&self.headers, &mut self.digests);
    }

    pub(super) fn clear(&mut self) {
        self.tickets.clear();
        self.headers.clear();
        self.digests.clear();
        self.accounts.clear();
        self.workers.clear();
    }
}

/// A header without its merkle root.
pub(super) fn header(version: u32, prev_hash: &[u8; 32], ntime: u32, nbits: u32, nonce: u32) -> HeaderBytes {
    let mut header = [0; 80];
    header[..4].copy_from_slice(&version.to_le_bytes());
    header[4..ROOT_AT].copy_from_slice(prev_hash);
    header[68..72].copy_from_slice(&ntime.to_le_bytes());
    header[72..76].copy_from_slice(&nbits.to_le_bytes());
    header[76..].copy_from_slice(&nonce.to_le_bytes());
    header
}
