//! How many refused solutions the journal and the log take in a minute.
//!
//! A stranger may send as many as it likes. Those that nobody can judge, because their template is not known, may be blocks: they
//! have most of the room, and each address has a part of it. Those that are proven false are a matter for the log. What is
//! passed over is counted, and said once in a minute.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
/// Refused solutions of unknown templates in a minute, in all.
const UNJUDGED_MAX: u32 = 60;
/// And of one address.
const UNJUDGED_PER_ADDRESS_MAX: u32 = 12;
/// Solutions that are proven false in a minute.
const FALSE_MAX: u32 = 12;

/// What was refused in the present minute.
#[derive(Debug)]
pub(super) struct RefusedInMinute {
    begun: Instant,
    unjudged: u32,
    /// At most as many addresses as `unjudged` counts.
    unjudged_of: BTreeMap<Option<IpAddr>, u32>,
    proven_false: u32,
    passed_over: u64,
}

impl RefusedInMinute {
    pub(super) const fn begin(now: Instant) -> Self {
        Self { begun: now, unjudged: 0, unjudged_of: BTreeMap::new(), proven_false: 0, passed_over: 0 }
    }

    /// How many were passed over in a minute that has ended, if any were.
    pub(super) fn turn(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.begun) < MINUTE {
            return None;
        }
        let passed_over = self.passed_over;
        *self = Self::begin(now);
        (passed_over > 0).then_some(passed_over)
    }

    /// Whether there is room for one more, from this address.
    pub(super) fn take(&mut self, address: Option<IpAddr>, is_false: bool) -> bool {
        let has_room = if is_false {
            self.proven_false < FALSE_MAX
        } else {
            let of_address = self.unjudged_of.get(&address).copied().unwrap_or(0);
            self.unjudged < UNJUDGED_MAX && of_address < UNJUDGED_PER_ADDRESS_MAX
        };
        match (has_room, is_false) {
            (false, _) => self.passed_over += 1,
            (true, true) => self.proven_false += 1,
            (true, false) => {
                self.unjudged += 1;
                *self.unjudged_of.entry(address).or_default() += 1;
            }
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_room_of_all() {
        let now = Instant::now();
        let mut minute = RefusedInMinute::begin(now);
        let address = |last| Some(IpAddr::from([192, 0, 2, last]));
        let taken = |minute: &mut RefusedInMinute, address, is_false| {
            (0..1_000).filter(|_| minute.take(address, is_false)).count() as u32
        };
        assert_eq!(taken(&mut minute, address(1), true), FALSE_MAX);
        assert_eq!(taken(&mut minute, address(1), false), UNJUDGED_PER_ADDRESS_MAX);
        assert_eq!(taken(&mut minute, address(2), false), UNJUDGED_PER_ADDRESS_MAX, "another has its own");
        let others: u32 = (3..250).map(|last| taken(&mut minute, address(last), false)).sum();
        assert_eq!(others + 2 * UNJUDGED_PER_ADDRESS_MAX, UNJUDGED_MAX);
        assert!(minute.unjudged_of.len() <= UNJUDGED_MAX as usize);
        let passed_over = 250_000 - u64::from(FALSE_MAX + UNJUDGED_MAX);
        assert_eq!(minute.turn(now + MINUTE - Duration::from_millis(1)), None);
        assert_eq!(minute.turn(now + MINUTE), Some(passed_over));
        assert_eq!(minute.turn(now + 2 * MINUTE), None);
        assert!(minute.take(address(1), false));
    }
}
