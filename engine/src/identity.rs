//! Who the pool is: the static key and its certificate, renewed while connections stay.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use adit_codec::keys::{Certificate, StaticKeyPair};

/// What every handshake shows.
#[derive(Debug)]
pub struct Identity {
    /// The responder's key.
    pub static_key: StaticKeyPair,
    /// The authority's signature over it.
    pub certificate: Certificate,
}

impl Identity {
    /// Whether the certificate is valid at `now_unix`: another is never shown.
    #[must_use]
    pub fn is_valid_at(&self, now_unix: u32) -> bool {
        (self.certificate.valid_from..=self.certificate.not_valid_after).contains(&now_unix)
    }
}

/// Where the present identity lies. Written by the handle; shards look at the generation, and take the lock only after
/// a renewal.
#[derive(Debug)]
pub(crate) struct IdentityCell {
    generation: AtomicU64,
    identity: Mutex<Arc<Identity>>,
}

impl IdentityCell {
    pub(crate) fn new(identity: Identity) -> Self {
        Self { generation: AtomicU64::new(0), identity: Mutex::new(Arc::new(identity)) }
    }

    pub(crate) fn set(&self, identity: Identity) {
        let mut present = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        *present = Arc::new(identity);
        // Under the lock: a reader that sees the new generation finds the new identity.
        self.generation.fetch_add(1, Ordering::Release);
    }
}

/// A shard's copy of the present identity.
#[derive(Debug)]
pub(crate) struct IdentityReader {
    cell: Arc<IdentityCell>,
    generation: u64,
    identity: Arc<Identity>,
}

impl IdentityReader {
    pub(crate) fn new(cell: Arc<IdentityCell>) -> Self {
        let generation = cell.generation.load(Ordering::Acquire);
        let identity = Arc::clone(&cell.identity.lock().unwrap_or_else(PoisonError::into_inner));
        Self { cell, generation, identity }
    }

    /// The identity as it is now; the generation tells renewals apart.
    pub(crate) fn present(&mut self) -> (u64, &Identity) {
        let generation = self.cell.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.identity = Arc::clone(&self.cell.identity.lock().unwrap_or_else(PoisonError::into_inner));
            self.generation = generation;
        }
        (self.generation, &self.identity)
    }
}
