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
    /// What always fails a run.
    pub faults: Vec<String>,
    /// What fails a strict run.
    pub misses: Vec<String>,
}

impl Verdict {
    /// Whether a run fails.
    #[must_use]
    pub fn fails(&self, strict: bool) -> bool {
        !self.faults.is_empty() || (strict && !self.misses.is_empty())
    }
}

/// Judges what was counted.
#[must_use]
pub fn judge(scenario: &Scenario, tally: &Tally) -> Verdict {
    let mut verdict = Verdict::default();
    let shares = &tally.shares;
    if !shares.sum_is_right {
        verdict.faults.push(format!(
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
        verdict.faults.push("no connection got a job".to_owned());
    }
    let asked = u64::from(scenario.connections);
    if tally.join.connections_served < asked {
        verdict.misses.push(format!("{} of {asked} connections got a job", tally.join.connections_served));
    }
    let opened = tally.join.channels_opened;
    if opened < scenario.devices() {
        verdict.misses.push(format!("{opened} of {} channels were opened", scenario.devices()));
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
    verdict.ok = verdict.faults.is_empty() && verdict.misses.is_empty();
    verdict
}
