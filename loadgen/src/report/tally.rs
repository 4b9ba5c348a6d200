//! What a thread counts, and how the counts of threads, processes and hosts add up.
//!
//! Every share is accepted, rejected by code, lost with its connection, or outstanding. The outstanding ones are counted at
//! the end from the devices' lists, not from the other counters, so that the sum proves something.
//!
//! Bounds: [`CODES_MAX`] error codes and texts each, [`SPREADS_MAX`] tips and templates each, a record per second.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Latencies;
use crate::summary::{CODES_MAX, OTHER_CODES};

/// Tips, and templates, whose arrival is followed; what comes beyond is not.
pub const SPREADS_MAX: usize = 4_096;

/// Counts by a text, of which [`CODES_MAX`] are told apart.
pub type Codes = BTreeMap<String, u64>;

/// Counts one more of a text.
pub fn count(codes: &mut Codes, code: &str) {
    match codes.get_mut(code) {
        Some(count) => *count += 1,
        None => {
            let code = if codes.len() < CODES_MAX { code } else { OTHER_CODES };
            *codes.entry(code.to_owned()).or_default() += 1;
        }
    }
}

fn merge_codes(codes: &mut Codes, other: &Codes) {
    for (code, more) in other {
        let code = if codes.len() < CODES_MAX || codes.contains_key(code) { code } else { OTHER_CODES };
        *codes.entry(code.to_owned()).or_default() += more;
    }
}

/// The shares of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShareCounts {
    /// Sealed to be sent.
    pub submitted: u64,
    /// Acknowledged.
    pub accepted: u64,
    /// Refused, by error code.
    pub rejected: Codes,
    /// Without an answer at the end, counted one by one.
    pub outstanding: u64,
    /// Without an answer when the pool closed their connection or channel.
    pub lost: u64,
    /// Without an answer when we closed their connection.
    pub abandoned: u64,
    /// Answers for shares that were never sent.
    pub surplus: u64,
    /// Sum of the difficulties that the pool acknowledged.
    pub difficulty_sum: u64,
    /// Whether the counts add up.
    pub sum_is_right: bool,
}

impl ShareCounts {
    /// Refused shares.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected.values().sum()
    }

    /// Compares what was sent with what became of it.
    pub(crate) fn check_sum(&mut self) {
        let sum = self.accepted + self.rejected() + self.outstanding + self.lost + self.abandoned;
        self.sum_is_right = sum == self.submitted && self.surplus == 0;
    }

    fn merge(&mut self, other: &Self) {
        self.submitted += other.submitted;
        self.accepted += other.accepted;
        merge_codes(&mut self.rejected, &other.rejected);
        self.outstanding += other.outstanding;
        self.lost += other.lost;
        self.abandoned += other.abandoned;
        self.surplus += other.surplus;
        self.difficulty_sum = self.difficulty_sum.saturating_add(other.difficulty_sum);
        self.check_sum();
    }
}

/// The shares that were meant for the measured window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Sealed.
    pub submitted: u64,
    /// Acknowledged.
    pub accepted: u64,
    /// Refused.
    pub rejected: u64,
    /// Arrivals of the open loop for which the pool took no bytes until the end.
    pub unsent: u64,
    /// Acknowledged per second of the window.
    pub accepted_per_s: f64,
    /// From the intended time (open loop) or the sealing (closed loop) to the acknowledgement.
    pub latency: Latencies,
    /// How late the generator was: from the intended time to the sealing. Part of `latency`.
    pub late: Latencies,
}

impl Measured {
    fn merge(&mut self, other: &Self) {
        self.submitted += other.submitted;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.unsent += other.unsent;
        self.accepted_per_s += other.accepted_per_s;
        self.latency.merge(&other.latency);
        self.late.merge(&other.late);
    }
}

/// How connections began. All times of a connection count from its connect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JoinTimes {
    /// Connections that were to be served.
    pub connections_asked: u64,
    /// Connections that got a job.
    pub connections_served: u64,
    /// Channels that were to be opened.
    pub channels_asked: u64,
    /// Channels that were opened.
    pub channels_opened: u64,
    /// Channels that were refused.
    pub channels_refused: u64,
    /// To the end of the handshake.
    pub handshake: Latencies,
    /// To SetupConnection.Success.
    pub setup: Latencies,
    /// To the first channel.
    pub open: Latencies,
    /// To the first job.
    pub first_job: Latencies,
    /// Of each channel, from the request to the answer.
    pub channel_open: Latencies,
}

impl JoinTimes {
    fn merge(&mut self, other: &Self) {
        self.connections_asked += other.connections_asked;
        self.channels_asked += other.channels_asked;
        self.connections_served += other.connections_served;
        self.channels_opened += other.channels_opened;
        self.channels_refused += other.channels_refused;
        self.handshake.merge(&other.handshake);
        self.setup.merge(&other.setup);
        self.open.merge(&other.open);
        self.first_job.merge(&other.first_job);
        self.channel_open.merge(&other.channel_open);
    }
}

/// How a tip or a template reached the connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The tip's hash in header order, or what tells a template from others; hexadecimal.
    pub key: String,
    /// When the source made it, in nanoseconds of Unix time, if it says so: the synthetic source does.
    pub made_unix_ns: Option<u64>,
    /// Connections that it reached.
    pub connections: u64,
    /// Messages that brought it: one per group, or one per channel.
    pub messages: u64,
    /// The first arrival, in nanoseconds of Unix time.
    pub first_unix_ns: u64,
    /// The last arrival.
    pub last_unix_ns: u64,
    /// Arrivals after the first one.
    pub spread: Latencies,
}

impl Spread {
    /// Adds the arrivals of another part of the connections: the later begun one's count from the other's first.
    fn merge(&mut self, other: &Self) {
        if other.first_unix_ns < self.first_unix_ns {
            self.spread = self.spread.shifted(self.first_unix_ns - other.first_unix_ns);
            self.first_unix_ns = other.first_unix_ns;
            self.spread.merge(&other.spread);
        } else {
            self.spread.merge(&other.spread.shifted(other.first_unix_ns - self.first_unix_ns));
        }
        self.last_unix_ns = self.last_unix_ns.max(other.last_unix_ns);
        self.connections += other.connections;
        self.messages += other.messages;
    }
}

fn merge_spreads(spreads: &mut Vec<Spread>, others: &[Spread]) {
    for other in others {
        match spreads.iter().position(|spread| spread.key == other.key) {
            Some(index) => spreads[index].merge(other),
            None if spreads.len() < SPREADS_MAX => spreads.push(other.clone()),
            None => {}
        }
    }
    spreads.sort_by_key(|spread| spread.first_unix_ns);
}

/// Connections over a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectionCounts {
    /// Begun, those begun again included.
    pub begun: u64,
    /// Open when the run ended.
    pub open_at_end: u64,
    /// Ended by the pool or the network.
    pub closed_by_pool: u64,
    /// Ended by events.
    pub closed_by_us: u64,
    /// Jobs that were received.
    pub jobs: u64,
    /// SetNewPrevHash messages that were received.
    pub prev_hashes: u64,
    /// SetTarget messages that were received.
    pub targets: u64,
    /// What went wrong, by text.
    pub errors: Codes,
}

impl ConnectionCounts {
    fn merge(&mut self, other: &Self) {
        self.begun += other.begun;
        self.open_at_end += other.open_at_end;
        self.closed_by_pool += other.closed_by_pool;
        self.closed_by_us += other.closed_by_us;
        self.jobs += other.jobs;
        self.prev_hashes += other.prev_hashes;
        self.targets += other.targets;
        merge_codes(&mut self.errors, &other.errors);
    }
}

/// One second of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Which, from the start of the join.
    pub at_s: u64,
    /// Shares sealed in it.
    pub submitted: u64,
    /// Shares acknowledged in it.
    pub accepted: u64,
    /// Shares refused in it.
    pub rejected: u64,
    /// Connections with a job at its end.
    pub connections: u64,
    /// Open channels at its end.
    pub channels: u64,
    /// Shares without an answer at its end.
    pub outstanding: u64,
    /// Of the shares acknowledged in it; two digits.
    pub latency: Latencies,
}

impl Second {
    /// Adds the same second of another thread.
    pub fn merge(&mut self, other: &Self) {
        self.submitted += other.submitted;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.connections += other.connections;
        self.channels += other.channels;
        self.outstanding += other.outstanding;
        self.latency.merge(&other.latency);
    }
}

/// Everything that is counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// The shares of the whole run.
    pub shares: ShareCounts,
    /// Those of the measured window.
    pub measured: Measured,
    /// How connections began.
    pub join: JoinTimes,
    /// How they began again.
    pub rejoin: JoinTimes,
    /// New tips, where work on another one was there before.
    pub tips: Vec<Spread>,
    /// New templates on a tip: extended jobs that were active at once.
    pub templates: Vec<Spread>,
    /// The connections.
    pub connections: ConnectionCounts,
    /// Second by second.
    pub seconds: Vec<Second>,
}

impl Tally {
    /// Adds what another part of the devices counted.
    pub fn merge(&mut self, other: &Self) {
        self.shares.merge(&other.shares);
        self.measured.merge(&other.measured);
        self.join.merge(&other.join);
        self.rejoin.merge(&other.rejoin);
        merge_spreads(&mut self.tips, &other.tips);
        merge_spreads(&mut self.templates, &other.templates);
        self.connections.merge(&other.connections);
        for second in &other.seconds {
            match self.seconds.binary_search_by_key(&second.at_s, |own| own.at_s) {
                Ok(index) => self.seconds[index].merge(second),
                Err(index) => self.seconds.insert(index, second.clone()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(first_unix_ns: u64, arrivals_ns: &[u64]) -> Spread {
        let mut spread = Latencies::default();
        arrivals_ns.iter().for_each(|&nanos| spread.record(nanos));
        let last_unix_ns = first_unix_ns + arrivals_ns.iter().max().copied().unwrap_or_default();
        let messages = arrivals_ns.len() as u64;
        Spread {
            key: "k".to_owned(),
            made_unix_ns: None,
            connections: messages,
            messages,
            first_unix_ns,
            last_unix_ns,
            spread,
        }
    }

    #[test]
    fn arrivals_count_from_the_first_of_all_parts() {
        let (early, late) = (spread(1_000_000_000, &[0, 5_000_000]), spread(1_010_000_000, &[0, 2_000_000]));
        for (first, second) in [(&early, &late), (&late, &early)] {
            let mut merged = vec![first.clone()];
            merge_spreads(&mut merged, std::slice::from_ref(second));
            let [merged] = &merged[..] else { panic!("one tip") };
            assert_eq!((merged.first_unix_ns, merged.last_unix_ns), (1_000_000_000, 1_012_000_000));
            assert_eq!((merged.connections, merged.spread.count()), (4, 4));
            assert!(merged.spread.max_ns().abs_diff(12_000_000) < 12_000, "{}", merged.spread.max_ns());
            assert!(merged.spread.quantile_ns(0.75).abs_diff(10_000_000) < 20_000);
        }
    }

    #[test]
    fn a_share_too_few_and_an_answer_too_many_are_seen() {
        let good = ShareCounts {
            submitted: 5,
            accepted: 2,
            outstanding: 1,
            lost: 1,
            abandoned: 1,
            ..ShareCounts::default()
        };
        for (counts, right) in [
            (good.clone(), true),
            (ShareCounts { submitted: 6, ..good.clone() }, false),
            (ShareCounts { accepted: 3, ..good.clone() }, false),
            (ShareCounts { surplus: 1, ..good.clone() }, false),
        ] {
            let mut sum = ShareCounts::default();
            sum.merge(&counts);
            assert_eq!(sum.sum_is_right, right, "{counts:?}");
        }
    }

    #[test]
    fn texts_are_bounded() {
        let mut codes = Codes::new();
        (0..2 * CODES_MAX).for_each(|n| count(&mut codes, &n.to_string()));
        assert_eq!((codes.len(), codes[OTHER_CODES]), (CODES_MAX + 1, CODES_MAX as u64));
        let mut others = codes.clone();
        merge_codes(&mut others, &(0..99).map(|n| (format!("x{n}"), 1)).collect());
        assert_eq!(others.len(), CODES_MAX + 1);
        assert_eq!(others.values().sum::<u64>(), 2 * CODES_MAX as u64 + 99);
    }
}
