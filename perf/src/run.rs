//! One run: a pool under a load.

use std::collections::BTreeMap;

use adit_loadgen::report::Report;
use serde::{Deserialize, Serialize};

use crate::figures::{Figure, read_all};
use crate::loads::Load;
use crate::machine::Disturbance;

/// Whose pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PoolKind {
    /// `adit pool`.
    Adit,
    /// The reference implementation's `pool_sv2`.
    Sri,
}

impl PoolKind {
    pub(crate) const ALL: [Self; 2] = [Self::Adit, Self::Sri];

    /// For people.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Adit => "Adit",
            Self::Sri => "SRI pool_sv2",
        }
    }
}

impl std::fmt::Display for PoolKind {
    /// As on the command line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Adit => "adit",
            Self::Sri => "sri",
        })
    }
}

/// What one run gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The load's name.
    pub(crate) load: String,
    pub(crate) pool: PoolKind,
    pub(crate) round: u32,
    pub(crate) figures: BTreeMap<Figure, f64>,
    /// What the load generator found wrong, and what ended the run.
    pub(crate) faults: Vec<String>,
    /// CPUs that programs kept busy during the run that have no part in it: what was not idle disturbs latencies.
    pub(crate) others_cpus: f64,
    /// CPUs that the host withheld meanwhile; not in older records, where they are among the others'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) withheld_cpus: Option<f64>,
}

impl Run {
    pub(crate) fn of(
        load: &Load,
        pool: PoolKind,
        round: u32,
        report: &Report,
        disturbance: Disturbance,
    ) -> Self {
        Self {
            load: load.name.to_owned(),
            pool,
            round,
            figures: read_all(load.figures, report),
            faults: report.verdict.failures.clone(),
            others_cpus: disturbance.others_cpus,
            withheld_cpus: Some(disturbance.withheld_cpus),
        }
    }

    /// A run that came to nothing.
    pub(crate) fn failed(load: &Load, pool: PoolKind, round: u32, fault: String) -> Self {
        let (load, figures, faults) = (load.name.to_owned(), BTreeMap::new(), vec![fault]);
        Self { load, pool, round, figures, faults, others_cpus: 0.0, withheld_cpus: None }
    }
}
