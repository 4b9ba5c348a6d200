//! Which kernel takes which part of a batch.
//!
//! A pass of a kernel costs the same however full it is, so one figure for each kernel decides every batch size: batches of
//! up to [`GROUP_MAX`] are split where the sum of their passes is smallest, larger ones are groups of `GROUP_MAX` and a rest.
//! The figures are measured at start, since CPUs differ by more than their features: a fast SHA-NI unit beats eight lanes of
//! AVX2 at all sizes, a slower one does not.

use std::hint::black_box;
use std::string::String;
use std::time::{Duration, Instant};
use std::vec::Vec;

use crate::arch::Kernel;
use crate::{Backend, BatchHash, Digest};

/// The lanes of the widest kernel. Those of every kernel divide it.
pub(crate) const GROUP_MAX: usize = 16;

/// After this time no further round of measurements begins. All of them take about 1 ms on an idle CPU.
const CALIBRATION_TIME_MAX: Duration = Duration::from_millis(5);

/// Rounds of measurements, and how many are enough if time runs out.
const ROUNDS: usize = 24;
const ROUNDS_MIN: usize = 3;

/// Passes per measurement, so that reading the clock does not matter.
const PASSES: u32 = 8;

/// For every batch size up to [`GROUP_MAX`], the kernel that takes its front.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan([Kernel; GROUP_MAX]);

impl Plan {
    /// All batches by one backend, the narrowest of its kernels that takes the batch in one pass; `None` if this CPU cannot
    /// run it.
    pub(crate) fn forced(backend: Backend) -> Option<Self> {
        let kernels = Kernel::of(backend);
        let mut plan = [*kernels.first()?; GROUP_MAX];
        for (size, slot) in (1..).zip(&mut plan) {
            // The widest is first.
            if let Some(kernel) = kernels.iter().rev().find(|kernel| kernel.lanes() >= size) {
                *slot = *kernel;
            }
        }
        Some(Self(plan))
    }

    /// The fastest plan for this CPU, by measurement; by assumed figures if there was no time to measure.
    pub(crate) fn calibrated() -> Self {
        let kernels: Vec<Kernel> = Backend::ALL.into_iter().rev().flat_map(Kernel::of).collect();
        Self::cheapest(
            &measure(&kernels).unwrap_or_else(|| {
                kernels.iter().map(|kernel| (*kernel, kernel.assumed_pass_ps())).collect()
            }),
        )
    }

    /// The cheapest split of every batch size for kernels whose passes cost this much. Of equal ones the first kernel wins.
    fn cheapest(costs: &[(Kernel, u64)]) -> Self {
        let mut plan = [Kernel::Portable; GROUP_MAX];
        let mut total = [0u64; GROUP_MAX + 1];
        for size in 1..=GROUP_MAX {
            let cost = |(kernel, pass): &(Kernel, u64)| pass + total[size - kernel.lanes().min(size)];
            if let Some(cheapest) = costs.iter().min_by_key(|candidate| cost(candidate)) {
                total[size] = cost(cheapest);
                plan[size - 1] = cheapest.0;
            }
        }
        Self(plan)
    }

    /// The kernel for the front of a batch of `size` messages, at least one, and how many it takes.
    #[inline]
    pub(crate) fn front(&self, size: usize) -> (Kernel, usize) {
        if size < GROUP_MAX {
            let kernel = self.0[size - 1];
            (kernel, kernel.lanes().min(size))
        } else {
            (self.bulk(), size - size % GROUP_MAX)
        }
    }

    /// The kernel for large batches.
    pub(crate) fn bulk(&self) -> Kernel {
        self.0[GROUP_MAX - 1]
    }

    /// Batch sizes and the kernels that take their front: `1..4 sha-ni, 5..8 avx-512 (8 lanes), 9.. avx-512`.
    pub(crate) fn describe(&self) -> String {
        let mut out = String::new();
        let mut first = 1;
        for run in self.0.chunk_by(|a, b| a.name() == b.name()) {
            let last = first + run.len() - 1;
            if first > 1 {
                out += ", ";
            }
            out += &match (first, last) {
                (_, GROUP_MAX) => format!("{first}.. {}", run[0].name()),
                _ if first == last => format!("{first} {}", run[0].name()),
                _ => format!("{first}..{last} {}", run[0].name()),
            };
            first = last + 1;
        }
        out
    }
}

/// The picoseconds of a full pass of each kernel: the least of several rounds, since every disturbance adds. `None` if time
/// ran out or the clock is too coarse.
fn measure(kernels: &[Kernel]) -> Option<Vec<(Kernel, u64)>> {
    let mut costs: Vec<(Kernel, u64)> = kernels.iter().map(|kernel| (*kernel, u64::MAX)).collect();
    let headers = [[0x5a; 80]; GROUP_MAX];
    let mut digests = [Digest::default(); GROUP_MAX];
    let begin = Instant::now();
    for round in 0..ROUNDS {
        if begin.elapsed() > CALIBRATION_TIME_MAX {
            if round < ROUNDS_MIN {
                return None;
            }
            break;
        }
        // Kernels take turns: a change of the clock rate meets them all.
        for (kernel, cost) in &mut costs {
            let lanes = kernel.lanes();
            let start = Instant::now();
            for _ in 0..PASSES {
                kernel.header_digests(black_box(&headers[..lanes]), &mut digests[..lanes]);
                black_box(&mut digests);
            }
            let pass = start.elapsed().as_nanos() * 1000 / u128::from(PASSES);
            *cost = (*cost).min(u64::try_from(pass).unwrap_or(u64::MAX));
        }
    }
    costs.iter().all(|(_, cost)| (1..u64::MAX / GROUP_MAX as u64).contains(cost)).then_some(costs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a plan splits a batch: the lanes taken by each pass or run of passes.
    fn split(plan: &Plan, mut size: usize) -> Vec<(&'static str, usize)> {
        let mut groups = Vec::new();
        while size > 0 {
            let (kernel, taken) = plan.front(size);
            assert!((1..=size).contains(&taken));
            groups.push((kernel.name(), taken));
            size -= taken;
        }
        groups
    }

    #[test]
    fn every_backend_covers_every_size() {
        for plan in Backend::ALL.into_iter().filter_map(Plan::forced).chain([Plan::calibrated()]) {
            for size in 0..100 {
                assert_eq!(split(&plan, size).iter().map(|(_, taken)| taken).sum::<usize>(), size);
            }
            let description = plan.describe();
            assert!(description.starts_with('1') && description.contains(".. "), "{description}");
        }
    }

    #[test]
    fn lanes_divide_the_group() {
        for kernel in Backend::ALL.into_iter().flat_map(Kernel::of) {
            assert_eq!(GROUP_MAX % kernel.lanes(), 0);
        }
    }

    #[test]
    fn a_single_kernel_is_described() {
        assert_eq!(Plan::forced(Backend::Portable).unwrap().describe(), "1.. portable");
        assert_eq!(Plan::cheapest(&[(Kernel::Portable, 1)]).describe(), "1.. portable");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn costs_decide() {
        let (&[wide], &[two, one]) = (&Kernel::of(Backend::Avx2)[..], &Kernel::of(Backend::ShaNi)[..]) else {
            return; // A CPU without both has nothing to choose between.
        };
        let plan =
            |wide_cost| Plan::cheapest(&[(wide, wide_cost), (two, 180), (one, 134), (Kernel::Portable, 500)]);
        // Four pairs cost 720: a wide pass that costs more is never taken.
        assert_eq!(plan(721).describe(), "1.. sha-ni");
        // Three pairs cost 540: it is taken from seven on.
        assert_eq!(plan(600).describe(), "1..6 sha-ni, 7.. avx2");
        assert_eq!(split(&plan(600), 11), [("avx2", 8), ("sha-ni", 2), ("sha-ni", 1)]);
        assert_eq!(split(&plan(600), 35), [("avx2", 32), ("sha-ni", 2), ("sha-ni", 1)]);
        assert_eq!(plan(1).describe(), "1.. avx2");
    }

    #[test]
    fn what_is_measured_is_in_range() {
        let kernels: Vec<Kernel> = Backend::ALL.into_iter().flat_map(Kernel::of).collect();
        let begin = Instant::now();
        if let Some(costs) = measure(&kernels) {
            assert_eq!(costs.len(), kernels.len());
            assert!(costs.iter().all(|(_, cost)| *cost > 0));
        } else {
            assert!(begin.elapsed() > CALIBRATION_TIME_MAX, "only time may be short");
        }
    }
}
