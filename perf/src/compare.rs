//! What the figures come to beside the peer's, and beside what they should.

use crate::figures::Figure;
use crate::loads::{Limit, Load, Target};
use crate::record::Record;
use crate::run::PoolKind;

/// Whether a target is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What was aimed at.
    Aim,
    /// What must be, and not what was aimed at, if anything was.
    Must,
    /// Not what must be.
    Missed,
    /// Not what was aimed at, where nothing must be.
    NotReached,
    /// The record has not what it takes to tell.
    Unknown,
}

impl Verdict {
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Aim => "the aim is met",
            Self::Must => "met",
            Self::Missed => "**missed**",
            Self::NotReached => "not reached",
            Self::Unknown => "not measured",
        }
    }
}

/// A figure of both pools.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pair {
    figure: Figure,
    pub(crate) own: Option<f64>,
    pub(crate) peer: Option<f64>,
}

impl Pair {
    pub(crate) fn of(record: &Record, load: &Load, figure: Figure) -> Self {
        let of = |pool| record.figure(load.name, pool, figure);
        Self { figure, own: of(PoolKind::Adit), peer: of(PoolKind::Sri) }
    }

    /// How many times better ours is; none where one is missing, or nothing to divide by.
    pub(crate) fn times(self) -> Option<f64> {
        let (own, peer) = (self.own?, self.peer?);
        let (above, below) = if self.figure.is_rising() { (own, peer) } else { (peer, own) };
        (below > 0.0).then(|| above / below)
    }

    fn keeps(self, limit: Limit) -> Option<bool> {
        match limit {
            Limit::Times(times) => self.times().map(|is| is >= times),
            Limit::AtMost(most) => self.own.map(|is| is <= most),
        }
    }

    pub(crate) fn verdict(self, target: &Target) -> Verdict {
        let keeps = |limit: Option<Limit>| limit.map(|limit| self.keeps(limit));
        match (keeps(target.must), keeps(target.aim)) {
            (Some(None), _) | (_, Some(None)) | (None, None) => Verdict::Unknown,
            (Some(Some(false)), _) => Verdict::Missed,
            (_, Some(Some(true))) => Verdict::Aim,
            (Some(Some(true)), _) => Verdict::Must,
            (None, Some(Some(false))) => Verdict::NotReached,
        }
    }
}

/// The targets that are not met: load and target.
pub(crate) fn missed<'a>(
    record: &'a Record,
    loads: impl Iterator<Item = &'static Load> + 'a,
) -> impl Iterator<Item = (&'static Load, &'static Target)> + 'a {
    let targets = loads.flat_map(|load| load.targets.iter().map(move |target| (load, target)));
    targets.filter(|(load, target)| Pair::of(record, load, target.figure).verdict(target) == Verdict::Missed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    fn pair(figure: Figure, own: f64, peer: f64) -> Pair {
        Pair { figure, own: Some(own), peer: Some(peer) }
    }

    #[test]
    fn less_is_better_but_for_rates() {
        assert_eq!(pair(Figure::CpuUsPerShare, 2.0, 8.0).times(), Some(4.0));
        assert_eq!(pair(Figure::SharesPerSecond, 8.0, 2.0).times(), Some(4.0));
        assert_eq!(pair(Figure::NotServed, 0.0, 2.0).times(), None);
    }

    #[test]
    fn targets_are_judged_with_their_bound() {
        let (must, aim) = (Some(Limit::Times(3.5)), Some(Limit::Times(4.5)));
        let ratio = Target { figure: Figure::CpuUsPerShare, must, aim };
        for (own, verdict) in
            [(1.0, Verdict::Aim), (2.0, Verdict::Aim), (2.5, Verdict::Must), (3.0, Verdict::Missed)]
        {
            assert_eq!(pair(Figure::CpuUsPerShare, own, 9.0).verdict(&ratio), verdict, "{own}");
        }
        let limit = Target { figure: Figure::NotServed, must: Some(Limit::AtMost(0.0)), aim: None };
        assert_eq!(pair(Figure::NotServed, 0.0, 9.0).verdict(&limit), Verdict::Must);
        assert_eq!(pair(Figure::NotServed, 1.0, 9.0).verdict(&limit), Verdict::Missed);
        let aimed = Target { must: None, aim: limit.must, ..limit };
        assert_eq!(pair(Figure::NotServed, 0.0, 9.0).verdict(&aimed), Verdict::Aim);
        assert_eq!(pair(Figure::NotServed, 1.0, 9.0).verdict(&aimed), Verdict::NotReached);
        let alone = Pair { figure: Figure::CpuUsPerShare, own: Some(1.0), peer: None };
        assert_eq!(alone.verdict(&ratio), Verdict::Unknown);
    }

    #[test]
    fn what_is_missed_is_listed() {
        let loads = || crate::loads::LOADS.iter();
        assert_eq!(missed(&record(), loads()).count(), 0, "four times: met");
        let mut record = record();
        record.runs.iter_mut().for_each(|run| {
            run.figures.insert(Figure::CpuUsPerShare, 5.0);
        });
        let missed: Vec<_> = missed(&record, loads()).map(|(load, _)| load.name).collect();
        assert_eq!(missed, ["a"]);
    }
}
