//! How much of a latency is the machine's: what a CPU is held up by while nothing runs on it but a loop.
//!
//! Virtual CPUs share real ones, and interrupts take time on any. Whatever comes in such a pause waits for its end, however fast
//! the programs are.

use std::time::{Duration, Instant};

use crate::programs::on_cpus;

/// A shorter gap between two looks at the clock is the loop's own.
const PAUSE_MIN: Duration = Duration::from_micros(10);

/// Lets a loop look at the clock on each of the CPUs, at once, for so long. Returns how long a moment is held up, in the 99th
/// percentile of all moments, on the CPU that is the worse; none where threads cannot be kept to CPUs.
pub(crate) fn p99(cpus: &[usize], span: Duration) -> Option<Duration> {
    let of = |cpu: usize| on_cpus(&[cpu], || Ok(pauses(span))).ok().map(|pauses| delay_p99(&pauses, span));
    std::thread::scope(|scope| {
        let loops: Vec<_> = cpus.iter().map(|cpu| scope.spawn(move || of(*cpu))).collect();
        loops.into_iter().map(|one| one.join().ok().flatten()).collect::<Option<Vec<_>>>()?.into_iter().max()
    })
}

fn pauses(span: Duration) -> Vec<Duration> {
    let begun = Instant::now();
    let (mut last, mut pauses) = (begun, Vec::new());
    while last - begun < span {
        let now = Instant::now();
        if now - last >= PAUSE_MIN {
            pauses.push(now - last);
        }
        last = now;
    }
    pauses
}

/// The delay that one in a hundred moments exceeds: of a pause, all but its last `delay` are held up for longer.
fn delay_p99(pauses: &[Duration], span: Duration) -> Duration {
    let exceeded = |delay: Duration| pauses.iter().map(|pause| pause.saturating_sub(delay)).sum::<Duration>();
    let (mut low, mut high) = (Duration::ZERO, pauses.iter().max().copied().unwrap_or_default());
    while high - low > Duration::from_nanos(100) {
        let middle = (low + high) / 2;
        if exceeded(middle) * 100 > span {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn one_moment_in_a_hundred_is_held_up_for_longer() {
        let second = Duration::from_secs(1);
        assert_eq!(delay_p99(&[], second), Duration::ZERO);
        assert!(
            delay_p99(&[millis(9)], second) < Duration::from_micros(1),
            "nine in a thousand are held up at all"
        );
        // Of 30 ms in all, the first two of every three are more than 1 ms from their pause's end: one in a hundred is 2 ms from it.
        let delay = delay_p99(&[millis(3); 10], second);
        assert!((1.999..2.001).contains(&(delay.as_secs_f64() * 1e3)), "{delay:?}");
        assert_eq!(delay_p99(&[second], second).as_millis(), 990);
    }

    #[test]
    fn a_thread_that_is_kept_from_its_cpu_is_seen() {
        // Two loops on one CPU: each stands still about half of the time.
        let [one, other] = std::thread::scope(|scope| {
            [(); 2].map(|()| scope.spawn(|| p99(&[0], millis(400)))).map(|one| one.join().expect("no panic"))
        });
        let least = millis(1);
        assert!(one.zip(other).is_some_and(|(one, other)| one > least && other > least), "{one:?} {other:?}");
    }
}
