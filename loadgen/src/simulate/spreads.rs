//! When tips and templates arrived, on which connections.
//!
//! A tip is known by its hash, a template by what its coinbase and merkle path hold, so that the same one is recognised on
//! every connection. Arrivals are kept as times until the run ends: four bytes each, at most [`ARRIVALS_MAX`] for each.

use std::collections::HashMap;
use std::hash::Hash;

use crate::report::{Latencies, SPREADS_MAX, Spread};
use crate::stamp::Stamp;

/// Arrivals of one tip or template whose times are kept; of more, only the last.
const ARRIVALS_MAX: usize = 1 << 20;

#[derive(Debug)]
struct Arriving {
    first_ns: u64,
    last_ns: u64,
    connections: u64,
    messages: u64,
    /// Microseconds after the first.
    after_us: Vec<u32>,
}

/// What tells a template from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Template {
    /// Of merkle path and coinbase.
    pub(super) digest: u64,
    /// When a synthetic source made it.
    pub(super) made: Option<Stamp>,
}

/// The arrivals of one kind of thing on a thread's connections.
#[derive(Debug)]
pub(super) struct Spreads<K> {
    arriving: HashMap<K, Arriving>,
}

impl<K: Copy + Eq + Hash> Spreads<K> {
    pub(super) fn new() -> Self {
        Self { arriving: HashMap::new() }
    }

    /// Records an arrival. `is_new` says that the connection did not have it yet.
    pub(super) fn record(&mut self, key: K, is_new: bool, at_ns: u64) {
        if self.arriving.len() >= SPREADS_MAX && !self.arriving.contains_key(&key) {
            return;
        }
        let arriving = self.arriving.entry(key).or_insert_with(|| Arriving {
            first_ns: at_ns,
            last_ns: at_ns,
            connections: 0,
            messages: 0,
            after_us: Vec::new(),
        });
        arriving.last_ns = at_ns;
        arriving.messages += 1;
        arriving.connections += u64::from(is_new);
        if arriving.after_us.len() < ARRIVALS_MAX {
            let after_us = (at_ns - arriving.first_ns) / 1_000;
            arriving.after_us.push(u32::try_from(after_us).unwrap_or(u32::MAX));
        }
    }

    /// What is reported; `unix_ns` turns the run's clock into Unix time, `describe` gives a key's name and when it was made.
    pub(super) fn finish(
        self,
        unix_ns: impl Fn(u64) -> u64,
        describe: impl Fn(K) -> (String, Option<Stamp>),
    ) -> Vec<Spread> {
        let finish = |(key, arriving): (K, Arriving)| {
            let mut spread = Latencies::default();
            arriving.after_us.iter().for_each(|&micros| spread.record(u64::from(micros) * 1_000));
            let (key, made) = describe(key);
            Spread {
                key,
                made_unix_ns: made.map(|Stamp(micros)| micros * 1_000),
                connections: arriving.connections,
                messages: arriving.messages,
                first_unix_ns: unix_ns(arriving.first_ns),
                last_unix_ns: unix_ns(arriving.last_ns),
                spread,
            }
        };
        let mut spreads: Vec<Spread> = self.arriving.into_iter().map(finish).collect();
        spreads.sort_by_key(|spread| spread.first_unix_ns);
        spreads
    }
}
