//! A report for the terminal, and the line that shows how a run goes.

use std::fmt;

use super::{JoinTimes, Latencies, Report, Second, Spread};
use crate::simulate::{Profile, ShareKind};

/// Tips and templates that are shown.
const SPREADS_SHOWN: usize = 8;

/// Nanoseconds in the unit that suits them.
pub(super) struct Short(pub(super) u64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0 as f64;
        if nanos < 1e6 {
            write!(f, "{:.0} us", nanos / 1e3)
        } else if nanos < 1e9 {
            write!(f, "{:.2} ms", nanos / 1e6)
        } else {
            write!(f, "{:.2} s", nanos / 1e9)
        }
    }
}

/// Bytes in the unit that suits them.
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        if bytes < 1e6 { write!(f, "{:.1} KB", bytes / 1e3) } else { write!(f, "{:.1} MB", bytes / 1e6) }
    }
}

/// A histogram's quantiles.
struct Quantiles<'l>(&'l Latencies);

impl fmt::Display for Quantiles<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |quantile| Short(self.0.quantile_ns(quantile));
        write!(f, "p50 {}, p99 {}, p99.9 {}, max {}", at(0.5), at(0.99), at(0.999), Short(self.0.max_ns()))
    }
}

/// One line on how a run goes.
#[must_use]
pub fn live_line(second: &Second, asked: u32) -> String {
    format!(
        "{:>5} s  {}/{asked} connections  {}/s accepted  p50 {} p99 {}  {} rejected  {} waiting",
        second.at_s,
        second.connections,
        second.accepted,
        Short(second.latency.quantile_ns(0.5)),
        Short(second.latency.quantile_ns(0.99)),
        second.rejected,
        second.outstanding
    )
}

fn write_join(f: &mut fmt::Formatter<'_>, name: &str, times: &JoinTimes) -> fmt::Result {
    writeln!(
        f,
        "{name:<15}{} connections served, {} channels opened, {} refused",
        times.connections_served, times.channels_opened, times.channels_refused
    )?;
    for (step, latencies) in [
        ("handshake", &times.handshake),
        ("set up", &times.setup),
        ("open", &times.open),
        ("first job", &times.first_job),
    ] {
        writeln!(f, "  {step:<13}{}", Quantiles(latencies))?;
    }
    Ok(())
}

/// The end of a key: of a tip in header order that is what differs, with its leading zeros left out.
pub(super) fn short_key(key: &str) -> &str {
    let key = key.trim_end_matches('0');
    key.get(key.len().saturating_sub(12)..).unwrap_or(key)
}

fn write_spreads(f: &mut fmt::Formatter<'_>, name: &str, spreads: &[Spread]) -> fmt::Result {
    if spreads.is_empty() {
        return Ok(());
    }
    writeln!(f, "{name:<15}{}; arrivals after the first, at {SPREADS_SHOWN} at most:", spreads.len())?;
    for spread in spreads.iter().rev().take(SPREADS_SHOWN).rev() {
        let last_ns = spread.last_unix_ns - spread.first_unix_ns;
        let key = short_key(&spread.key);
        writeln!(
            f,
            "  {key:<13}{} connections, {} messages: p50 {}, p99 {}, last {}",
            spread.connections,
            spread.messages,
            Short(spread.spread.quantile_ns(0.5)),
            Short(spread.spread.quantile_ns(0.99)),
            Short(last_ns)
        )?;
        if let Some(made_ns) = spread.made_unix_ns {
            let after = |arrived_ns: u64| Short(arrived_ns.saturating_sub(made_ns));
            let (first, last) = (after(spread.first_unix_ns), after(spread.last_unix_ns));
            writeln!(f, "    after the source made it: first {first}, last {last}")?;
        }
    }
    Ok(())
}

impl Report {
    fn write_load(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scenario = &self.scenario;
        let profile = match scenario.profile {
            Profile::StandardGrouped => "standard channels in groups",
            Profile::StandardJobs => "standard channels with standard jobs",
            Profile::Extended => "extended channels",
            Profile::Mixed => "standard and extended channels",
        };
        write!(f, "load           {} connections, {} {profile}, ", scenario.connections, scenario.devices())?;
        let shares = &scenario.shares;
        match shares.kind {
            ShareKind::Open => writeln!(f, "{} shares a minute each (Poisson)", shares.per_minute),
            ShareKind::Closed => {
                writeln!(
                    f,
                    "{} shares in flight per connection, {} a write",
                    shares.in_flight, shares.per_write
                )
            }
            ShareKind::None => writeln!(f, "no shares"),
            ShareKind::Hash => writeln!(f, "hashing on {} threads", shares.threads),
        }
    }

    fn write_watched(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for watched in &self.watched {
            writeln!(
                f,
                "process        {} ({}): CPU {} joining, {} measured, {:.0} ns a share; memory {} before, {} joined, {} at \
                 the end, {} at most",
                watched.pid,
                watched.name,
                Short(watched.cpu_ns_join),
                Short(watched.cpu_ns_measured),
                watched.cpu_ns_per_share_measured,
                Bytes(watched.rss_bytes_before),
                Bytes(watched.rss_bytes_joined),
                Bytes(watched.rss_bytes_end),
                Bytes(watched.rss_bytes_max)
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shares, measured) = (&self.tally.shares, &self.tally.measured);
        self.write_load(f)?;
        let phases = &self.phases;
        writeln!(
            f,
            "time           {} joining, {} warming up, {} measured, {} draining",
            Short(phases.join_ns),
            Short(phases.warmup_ns),
            Short(phases.measured_ns),
            Short(phases.drain_ns)
        )?;
        write_join(f, "join", &self.tally.join)?;
        if self.tally.rejoin.handshake.count() > 0 {
            write_join(f, "joined again", &self.tally.rejoin)?;
        }
        writeln!(
            f,
            "shares         {} submitted, {} accepted, {} rejected, {} outstanding, {} lost, {} abandoned: the sum is {}",
            shares.submitted,
            shares.accepted,
            shares.rejected(),
            shares.outstanding,
            shares.lost,
            shares.abandoned,
            if shares.sum_is_right { "right" } else { "WRONG" }
        )?;
        for (code, count) in &shares.rejected {
            writeln!(f, "  rejected     {count} {code}")?;
        }
        writeln!(
            f,
            "measured       {} accepted, {:.0} a second",
            measured.accepted, measured.accepted_per_s
        )?;
        writeln!(f, "  latency      {}", Quantiles(&measured.latency))?;
        writeln!(f, "  of it ours   {}", Quantiles(&measured.late))?;
        write_spreads(f, "tips", &self.tally.tips)?;
        write_spreads(f, "templates", &self.tally.templates)?;
        let connections = &self.tally.connections;
        writeln!(
            f,
            "connections    {} begun, {} closed by the pool, {} by us, {} open at the end; {} jobs, {} prevhashes, {} targets",
            connections.begun,
            connections.closed_by_pool,
            connections.closed_by_us,
            connections.open_at_end,
            connections.jobs,
            connections.prev_hashes,
            connections.targets
        )?;
        for (error, count) in &connections.errors {
            writeln!(f, "  failed       {count} {error}")?;
        }
        writeln!(
            f,
            "generator      CPU {} measured, memory {} at most, {} bytes a device",
            Short(self.generator.cpu_ns_measured),
            Bytes(self.generator.rss_bytes_max),
            self.generator.device_bytes
        )?;
        self.write_watched(f)?;
        for failure in self.verdict.failures.iter().chain(&self.verdict.misses) {
            writeln!(f, "not good       {failure}")?;
        }
        write!(f, "verdict        {}", if self.verdict.ok { "good" } else { "not good" })
    }
}
