//! Whether a run was as it must be.
//!
//! A sum that is off is a fault whatever was asked for: either the pool answers wrongly or the generator counts wrongly, and
//! no figure of the run can be trusted. What a scenario's `check` bounds counts in strict runs.

use serde::{Deserialize, Serialize};

use super::Tally;
use crate::simulate::{Scenario, ShareKind};

/// What is wrong with a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Nothing is.
    pub ok: bool,
    /// What fails every run.
    pub failures: Vec<String>,
    /// What fails a strict run.
    pub misses: Vec<String>,
}

impl Verdict {
    /// Whether a run fails.
    #[must_use]
    pub fn fails(&self, strict: bool) -> bool {
        !self.failures.is_empty() || (strict && !self.misses.is_empty())
    }
}

/// Judges what was counted.
#[must_use]
pub fn judge(scenario: &Scenario, tally: &Tally) -> Verdict {
    let mut verdict = Verdict::default();
    let shares = &tally.shares;
    if !shares.sum_is_right {
        verdict.failures.push(format!(
            "the sum is off: {} submitted, but {} accepted, {} rejected, {} outstanding, {} lost, {} abandoned, and {} \
             answers for shares that were never sent",
            shares.submitted,
            shares.accepted,
            shares.rejected(),
            shares.outstanding,
            shares.lost,
            shares.abandoned,
            shares.surplus
        ));
    }
    if tally.join.connections_served == 0 {
        verdict.failures.push("no connection got a job".to_owned());
    }
    let join = &tally.join;
    for (found, asked, what) in [
        (join.connections_served, join.connections_asked, "connections got a job"),
        (join.channels_opened, join.channels_asked, "channels were opened"),
    ] {
        if found < asked {
            verdict.misses.push(format!("{found} of {asked} {what}"));
        }
    }
    let check = &scenario.check;
    for (found, max, what) in [
        (shares.rejected(), check.rejected_max, "shares rejected"),
        (shares.outstanding, check.outstanding_max, "shares without an answer"),
        (shares.lost, check.lost_max, "shares lost with connections that the pool closed"),
        (tally.measured.unsent, 0, "shares for which the pool took no bytes"),
    ] {
        if found > max {
            verdict.misses.push(format!("{found} {what}, at most {max} are allowed"));
        }
    }
    if scenario.shares.kind != ShareKind::None && shares.accepted == 0 {
        verdict.misses.push("no share was accepted".to_owned());
    }
    verdict.ok = verdict.failures.is_empty() && verdict.misses.is_empty();
    verdict
}
