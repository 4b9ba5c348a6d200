//! Values that bind by position: what a target or an extranonce prefix was when a job took hold of it.
//!
//! The shard numbers its announcements and activations of jobs; see [`Position`]. A value that replaces another holds for
//! jobs of later positions only. Replaced values are kept while a valid job can be bound to them and no longer, so there
//! are never more of them than valid jobs.

use alloc::vec::Vec;

/// A moment in a shard's work: rises by one with each announcement and each activation of a job.
///
/// At ten a second it lasts for thirteen years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(pub(super) u32);

impl Position {
    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The values before the present one, oldest first, each with the last position that is bound to it.
#[derive(Clone, Debug)]
pub(super) struct History<T>(Vec<(Position, T)>);

impl<T> Default for History<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> History<T> {
    /// The replaced value that binds a job of this position; `None` if the present one does.
    pub(super) fn at(&self, position: Position) -> Option<&T> {
        self.0.iter().find(|(until, _)| position <= *until).map(|(_, value)| value)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Keeps `value`, which was replaced at `until`, if one of the `bound` positions of valid jobs needs it, and drops
    /// what none needs any more.
    pub(super) fn replace(
        &mut self,
        value: T,
        until: Position,
        bound: impl Iterator<Item = Position> + Clone,
    ) {
        self.0.push((until, value));
        let mut after = Position(0);
        self.0.retain(|(until, _)| {
            let needed = bound.clone().any(|position| after < position && position <= *until);
            after = *until;
            needed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(of: &[u32]) -> impl Iterator<Item = Position> + Clone {
        of.iter().map(|position| Position(*position))
    }

    #[test]
    fn binds_by_position_and_forgets_what_no_job_needs() {
        let mut history = History::default();
        history.replace('a', Position(4), positions(&[2, 4]));
        assert_eq!(history.at(Position(2)), Some(&'a'));
        assert_eq!(history.at(Position(5)), None);
        history.replace('b', Position(4), positions(&[2, 4]));
        assert_eq!(history.len(), 1, "nothing was bound to b");
        history.replace('c', Position(7), positions(&[2, 4, 6]));
        assert_eq!((history.at(Position(4)), history.at(Position(6))), (Some(&'a'), Some(&'c')));
        history.replace('d', Position(9), positions(&[9]));
        assert_eq!(history.len(), 1);
        assert_eq!((history.at(Position(9)), history.at(Position(10))), (Some(&'d'), None));
        assert!(!history.is_empty());
    }

    #[test]
    fn holds_no_more_than_there_are_valid_jobs() {
        let mut history = History::default();
        for position in 1..100_u32 {
            // The first job stays, beside the last three.
            let valid: Vec<u32> = core::iter::once(1)
                .chain((position.saturating_sub(2)..=position).filter(|p| *p > 1))
                .collect();
            history.replace(position, Position(position), positions(&valid));
            assert!(history.len() <= valid.len());
        }
        assert_eq!(history.at(Position(1)), Some(&1));
    }
}
