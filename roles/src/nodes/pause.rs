//! The pauses between two attempts to reach a node.
//!
//! They double from the shortest to the longest, and each is shortened by up to a quarter, so that clients which lost a node
//! together do not come back together.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) struct Pause {
    next: Duration,
    min: Duration,
    max: Duration,
}

impl Pause {
    /// Pauses from `min` to `max`.
    pub(super) const fn new(min: Duration, max: Duration) -> Self {
        Self { next: min, min, max }
    }

    /// The next pause.
    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        // The standard library seeds each of these anew.
        let random = RandomState::new().build_hasher().finish();
        pause - pause.mul_f64(random as f64 / u64::MAX as f64 / 4.0)
    }

    /// Begins anew with the shortest.
    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_differ() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(10));
        let mut pause = Pause::new(min, max);
        let mut longest = min;
        for _ in 0..20 {
            let next = pause.next_pause();
            assert!(next <= longest && next >= longest * 3 / 4, "{next:?} of {longest:?}");
            longest = (longest * 2).min(max);
        }
        assert_eq!(longest, max);
        let pauses: Vec<Duration> = (0..32).map(|_| pause.next_pause()).collect();
        assert!(pauses.iter().any(|other| *other != pauses[0]));
        pause.reset();
        assert!(pause.next_pause() <= min);
    }
}
