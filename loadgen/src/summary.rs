//! What a run came to, in numbers and in words.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::report::Latencies;

/// The state of a run, or its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Devices that were asked for.
    pub devices: usize,
    /// Devices that have work at this moment.
    pub devices_mining: usize,
    /// Since the start.
    pub elapsed: Duration,
    /// Header hashes computed.
    pub hashes: u64,
    /// Shares sent.
    pub shares_submitted: u64,
    /// Shares that the pool accepted.
    pub shares_accepted: u64,
    /// Sum of their difficulties, as the pool counts.
    pub difficulty_accepted: u64,
    /// Shares that the pool refused, by error code; beyond [`CODES_MAX`] codes under [`OTHER_CODES`].
    pub shares_rejected: BTreeMap<String, u64>,
    /// Shares that wait for an answer.
    pub shares_outstanding: u64,
    /// Shares whose connection or channel ended before their answer came.
    pub shares_lost: u64,
    /// Shares found for jobs that had become invalid, and so were never sent.
    pub shares_discarded: u64,
    /// Channels opened.
    pub channels_opened: u64,
    /// Connections made, and made again.
    pub connections: u64,
    /// Connections that failed or broke.
    pub connection_errors: u64,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
    /// Why the miner gave up, if it did: the server is not the one that the URL's key names.
    pub failure: Option<String>,
    /// Time from submitting a share to its answer.
    pub latency: Latency,
    /// The same, every one of them.
    pub latencies: Latencies,
}

/// Quantiles of the time from submitting a share to its acknowledgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Answers measured.
    pub count: u64,
    /// Half of them took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// None took longer.
    pub max: Duration,
}

/// Distinct error codes that are told apart.
pub const CODES_MAX: usize = 64;
/// The codes beyond.
pub const OTHER_CODES: &str = "(other codes)";

impl Summary {
    /// Header hashes per second, over the whole run.
    pub fn hash_rate(&self) -> f64 {
        self.hashes as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Shares that the pool refused.
    pub fn rejected(&self) -> u64 {
        self.shares_rejected.values().sum()
    }

    /// Whether there were shares and every one that was sent was accepted.
    pub fn is_flawless(&self) -> bool {
        self.failure.is_none()
            && self.shares_accepted > 0
            && self.rejected() == 0
            && self.shares_lost == 0
            && self.shares_outstanding == 0
    }

    /// Counts a refusal.
    pub(crate) fn count_rejected(codes: &mut BTreeMap<String, u64>, code: String) {
        let code =
            if codes.len() < CODES_MAX || codes.contains_key(&code) { code } else { OTHER_CODES.to_owned() };
        *codes.entry(code).or_default() += 1;
    }

    /// One line on how it goes. `hash_rate` is the present one.
    pub fn progress(&self, hash_rate: f64) -> String {
        format!(
            "{:>6.1} s  {}/{} devices  {}  {} accepted, {} rejected  ack p99 {}  {} waiting",
            self.elapsed.as_secs_f64(),
            self.devices_mining,
            self.devices,
            HashRate(hash_rate),
            self.shares_accepted,
            self.rejected(),
            Short(self.latency.p99),
            self.shares_outstanding,
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "devices        {} ({} mining at the end)", self.devices, self.devices_mining)?;
        writeln!(f, "time           {:.3} s", self.elapsed.as_secs_f64())?;
        writeln!(f, "hashes         {} ({})", self.hashes, HashRate(self.hash_rate()))?;
        writeln!(
            f,
            "shares         {} submitted, {} accepted, {} rejected, {} outstanding, {} lost",
            self.shares_submitted,
            self.shares_accepted,
            self.rejected(),
            self.shares_outstanding,
            self.shares_lost
        )?;
        for (code, count) in &self.shares_rejected {
            writeln!(f, "  rejected     {count} {code}")?;
        }
        if self.shares_discarded > 0 {
            writeln!(f, "  not sent     {} found for jobs that were over", self.shares_discarded)?;
        }
        writeln!(f, "difficulty     {} accepted", self.difficulty_accepted)?;
        let Latency { count, p50, p99, max } = self.latency;
        writeln!(
            f,
            "acknowledged   p50 {}, p99 {}, max {} ({count} answers)",
            Short(p50),
            Short(p99),
            Short(max)
        )?;
        write!(f, "connections    {} made, {} failed", self.connections, self.connection_errors)?;
        if let Some(error) = &self.last_error {
            write!(f, "; the last failure: {error}")?;
        }
        if let Some(failure) = &self.failure {
            write!(f, "\ngave up        {failure}")?;
        }
        Ok(())
    }
}

/// A hash rate with its unit.
struct HashRate(f64);

impl fmt::Display for HashRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["H/s", "kH/s", "MH/s", "GH/s", "TH/s"];
        let (mut rate, mut unit) = (self.0, 0);
        while rate >= 1000.0 && unit + 1 < units.len() {
            rate /= 1000.0;
            unit += 1;
        }
        write!(f, "{rate:.2} {}", units[unit])
    }
}

/// A duration in the unit that suits it.
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_secs_f64() * 1e6;
        if micros < 1e3 {
            write!(f, "{micros:.0} us")
        } else if micros < 1e6 {
            write!(f, "{:.2} ms", micros / 1e3)
        } else {
            write!(f, "{:.2} s", micros / 1e6)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_are_bounded() {
        let mut codes = BTreeMap::new();
        for n in 0..2 * CODES_MAX {
            Summary::count_rejected(&mut codes, format!("code-{n}"));
            Summary::count_rejected(&mut codes, "code-0".to_owned());
        }
        assert_eq!(codes.len(), CODES_MAX + 1);
        assert_eq!(codes["code-0"], 2 * CODES_MAX as u64 + 1);
        assert_eq!(codes[OTHER_CODES], CODES_MAX as u64);
    }

    #[test]
    fn a_run_is_flawless_only_without_any_loss() {
        let good = Summary { shares_submitted: 3, shares_accepted: 3, ..Summary::default() };
        assert!(good.is_flawless());
        assert!(!Summary { shares_lost: 1, ..good.clone() }.is_flawless());
        assert!(!Summary::default().is_flawless(), "a run that never mined");
        assert!(!Summary { shares_outstanding: 1, ..good.clone() }.is_flawless());
        let rejected = BTreeMap::from([("stale-share".to_owned(), 1)]);
        assert!(!Summary { shares_rejected: rejected, ..good }.is_flawless());
    }

    #[test]
    fn units() {
        assert_eq!(HashRate(999.0).to_string(), "999.00 H/s");
        assert_eq!(HashRate(25_000_000.0).to_string(), "25.00 MH/s");
        assert_eq!(Short(Duration::from_micros(250)).to_string(), "250 us");
        assert_eq!(Short(Duration::from_millis(1500)).to_string(), "1.50 s");
    }
}
