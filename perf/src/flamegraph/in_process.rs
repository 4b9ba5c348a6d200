//! A profiler beside a shard in this process.
//!
//! The shard is the one that the benches drive: ticks of standard shares over many connections, without sockets. A timer's signal
//! samples this process's CPU time; what the simulated clients do is left out.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use pprof::{Frames, ProfilerGuardBuilder};

use self::detached::World;
use crate::failure::Failure;

#[path = "../../../engine/tests/common/detached.rs"]
mod detached;

pub(super) const TITLE: &str =
    "A shard without sockets: 1,000 connections, ticks of 64 standard shares (profiler in the process)";
const CONNECTIONS: usize = 1_000;
/// Shares of a tick, each of another connection.
const BATCH: usize = 64;
/// What belongs to the shard has this in its stack.
const TICK: &str = "share_tick";

/// Folded stacks of the shard, a line each with its count.
pub(super) fn sample(frequency: u32, span: Duration) -> Result<String, Failure> {
    let failed = |error: pprof::Error| Failure::Drawing(format!("this process cannot be profiled: {error}"));
    let mut world = World::new(CONNECTIONS);
    let (mut frames, mut sent) = (vec![Vec::new(); BATCH], Vec::new());
    let frequency = i32::try_from(frequency).unwrap_or(i32::MAX);
    let profiler = ProfilerGuardBuilder::default().frequency(frequency).build().map_err(failed)?;
    let (begun, mut first) = (Instant::now(), 0);
    while begun.elapsed() < span {
        world.seal_shares(first, &mut frames);
        world.share_tick(first, &mut frames, &mut sent);
        world.complete(&mut sent);
        first = (first + BATCH) % CONNECTIONS;
    }
    let report = profiler.report().build().map_err(failed)?;
    let mut folded = String::new();
    for (stack, count) in &report.data {
        if let Some(line) = fold(stack) {
            let _ = writeln!(folded, "{line} {count}");
        }
    }
    Ok(folded)
}

/// A stack from the tick inwards; none if there is no tick in it.
fn fold(stack: &Frames) -> Option<String> {
    let outermost_first = stack.frames.iter().rev().flat_map(|frame| frame.iter().rev());
    let names: Vec<String> = outermost_first.map(|symbol| symbol.name().replace([';', '\n'], ":")).collect();
    let tick = names.iter().position(|name| name.contains(TICK))?;
    Some(names[tick..].join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_sampled() {
        let folded = sample(500, Duration::from_millis(500)).unwrap();
        let ours = folded.lines().filter(|line| line.contains(TICK)).count();
        assert!(ours > 0 && ours == folded.lines().count(), "{folded}");
        assert!(folded.lines().any(|line| line.contains("handle_received")), "{folded}");
    }
}
