//! How the pool does, in numbers.

use std::fmt;
use std::time::Instant;

use adit_engine::{EngineHandle, TipLatencies};
use adit_proto::mining::server::ShareError;
use tracing::info;

use crate::nodes::{SourceStanding, TemplateSource};
use crate::role::blocks::Tally;
use crate::role::feed::{self, ChainState};

/// Hashes behind a share of difficulty 1, on average.
const HASHES_PER_DIFFICULTY: f64 = 4_294_967_296.0;

/// Hashes per second, shown with a unit: `4.29 MH/s`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HashRate(pub f64);

impl fmt::Display for HashRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 8] = ["H/s", "kH/s", "MH/s", "GH/s", "TH/s", "PH/s", "EH/s", "ZH/s"];
        let (mut rate, mut unit) = (self.0, 0);
        while rate >= 1_000.0 && unit + 1 < UNITS.len() {
            rate /= 1_000.0;
            unit += 1;
        }
        write!(f, "{rate:.2} {}", UNITS[unit])
    }
}

/// Remembers a reading, so that the next one has rates.
#[derive(Debug)]
pub struct Meter {
    at: Instant,
    shares: u64,
    difficulty: f64,
}

impl Default for Meter {
    /// Rates of the first reading count from now.
    fn default() -> Self {
        Self { at: Instant::now(), shares: 0, difficulty: 0.0 }
    }
}

/// The numbers of a moment; rates since the meter's last reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Open connections.
    pub connections: u64,
    /// Open channels.
    pub channels: u64,
    /// Accepted shares, since the start.
    pub shares_accepted: u64,
    /// Accepted shares per second.
    pub shares_per_second: f64,
    /// What the accepted shares' difficulties amount to.
    pub hash_rate: HashRate,
    /// Refused shares since the start, by code; codes that never occurred are left out.
    pub shares_rejected: Vec<(&'static str, u64)>,
    /// Blocks that the source accepted, since the start.
    pub blocks_accepted: u64,
    /// Blocks that came to nothing, since the start.
    pub blocks_lost: u64,
    /// How long tips took since the start, from the node to each connection.
    pub tips: TipLatencies,
    /// Height of the tip.
    pub height: u32,
    /// Whether the template source can be used; of several, any.
    pub source_is_up: bool,
    /// How several template sources stand; empty with one.
    pub sources: Vec<SourceStanding>,
}

impl Status {
    pub(super) fn read(
        engine: &EngineHandle,
        source: &dyn TemplateSource,
        tally: &Tally,
        chain: &ChainState,
        meter: &mut Meter,
    ) -> Self {
        let total = engine.counters().total;
        let now = Instant::now();
        let elapsed = now.duration_since(meter.at).as_secs_f64().max(1e-9);
        let shares = total.shares_accepted.saturating_sub(meter.shares);
        let difficulty = total.difficulty_accepted - meter.difficulty;
        *meter = Meter { at: now, shares: total.shares_accepted, difficulty: total.difficulty_accepted };
        Self {
            connections: total.connections(),
            channels: total.channels(),
            shares_accepted: total.shares_accepted,
            shares_per_second: shares as f64 / elapsed,
            hash_rate: HashRate(difficulty * HASHES_PER_DIFFICULTY / elapsed),
            shares_rejected: ShareError::ALL
                .into_iter()
                .map(|error| (error.code(), total.shares_rejected[error as usize]))
                .filter(|(_, count)| *count > 0)
                .collect(),
            blocks_accepted: tally.accepted(),
            blocks_lost: tally.lost(),
            tips: engine.tip_latencies(),
            height: chain.height(),
            source_is_up: chain.is_up(),
            sources: source.standings(),
        }
    }

    /// Refused shares in all.
    pub fn rejected(&self) -> u64 {
        self.shares_rejected.iter().map(|(_, count)| count).sum()
    }

    /// Refused shares by code: `3 stale-share, 1 duplicate-share`.
    pub fn rejected_by_code(&self) -> String {
        let codes: Vec<_> =
            self.shares_rejected.iter().map(|(code, count)| format!("{count} {code}")).collect();
        codes.join(", ")
    }

    /// Which template sources can be used: `up` or `down`, or `cellar serves, attic is down` for several.
    pub fn source(&self) -> String {
        feed::describe(self.source_is_up, &self.sources)
    }

    /// Writes the status line.
    pub(super) fn log(&self) {
        info!(
            connections = self.connections,
            channels = self.channels,
            shares_per_s = (self.shares_per_second * 100.0).round() / 100.0,
            hash_rate = self.hash_rate.to_string(),
            accepted = self.shares_accepted,
            rejected = self.rejected(),
            rejected_by_code = self.rejected_by_code(),
            blocks = self.blocks_accepted,
            height = self.height,
            tips = self.tips.sent.to_string(),
            tips_prepared = self.tips.prepared.to_string(),
            source = self.source(),
            "status"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        assert_eq!(HashRate(0.0).to_string(), "0.00 H/s");
        assert_eq!(HashRate(4_290_000.0).to_string(), "4.29 MH/s");
        assert_eq!(HashRate(1e24).to_string(), "1000.00 ZH/s");
    }
}
