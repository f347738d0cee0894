//! Maps positions in a log to epochs, so that an offset of another life of the stream is recognized.
//!
//! A fork shares the offsets of its source up to its point, and continues in an epoch of its own (protocol, section 8, "Offsets
//! and forked streams"). Epochs rise, so its offsets still sort, and a fork that is deleted and created again recognizes the
//! offsets of its former life.
//!
//! A store that outlives its process does likewise with each run: it keeps the offsets up to the tail that it finds and
//! continues in a new epoch. If it was opened from an older copy, offsets after that tail belong to an epoch that ends at the
//! tail, and are refused for as long as the stream exists.

use std::sync::Arc;

use super::{Epoch, Offset, Position};

/// Number of earlier runs that a log remembers; offsets of older runs are treated as offsets of another epoch. A run takes 16
/// bytes, so this is at most 4 KiB a stream.
const RUNS_MAX: usize = 256;

/// The epoch of each range of positions of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochHistory {
    /// Ranges of earlier epochs: the epoch and its last position (inclusive), in rising order. Shared because each read copies
    /// it; `None` if there are no such ranges.
    ancestors: Option<Arc<[(Epoch, Position)]>>,
    own: Epoch,
}

/// The offset belongs to another epoch of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherEpoch;

impl EpochHistory {
    /// The history of a new log.
    pub fn new(epoch: Epoch) -> Self {
        Self { ancestors: None, own: epoch }
    }

    /// The history of a fork that branches off at `at` and continues in `epoch`, which is greater than all earlier epochs.
    pub fn fork(&self, at: Position, epoch: Epoch) -> Self {
        let mut ancestors: Vec<_> =
            self.ancestors().iter().copied().take_while(|(_, end)| *end < at).collect();
        ancestors.push((self.offset_at(at).epoch, at));
        Self::of(ancestors, epoch)
    }

    /// The history of the same log in a later run of its store, which found the tail `at` and continues in `epoch`, which is
    /// greater than all earlier epochs.
    pub fn run(&self, at: Position, epoch: Epoch) -> Self {
        let Self { ancestors, own } = self.fork(at, epoch);
        let ancestors = ancestors.as_deref().unwrap_or_default();
        let kept = ancestors.get(ancestors.len().saturating_sub(RUNS_MAX)..).unwrap_or_default();
        Self::of(kept.to_vec(), own)
    }

    /// A history of the given parts, as [`ancestors`](Self::ancestors) and [`own`](Self::own) return them.
    pub fn of(ancestors: Vec<(Epoch, Position)>, own: Epoch) -> Self {
        Self { ancestors: (!ancestors.is_empty()).then(|| ancestors.into()), own }
    }

    /// The ranges of earlier epochs: each epoch with its last position (inclusive), in rising order.
    pub fn ancestors(&self) -> &[(Epoch, Position)] {
        self.ancestors.as_deref().unwrap_or_default()
    }

    /// The epoch of messages that are appended to this log now.
    pub fn own(&self) -> Epoch {
        self.own
    }

    /// The offset of a position. Each position has exactly one.
    pub fn offset_at(&self, position: Position) -> Offset {
        let ancestors = self.ancestors();
        let range = ancestors.partition_point(|(_, end)| *end < position);
        Offset { epoch: ancestors.get(range).map_or(self.own, |(epoch, _)| *epoch), position }
    }

    /// The position of an offset that this log has returned, or its source before the fork. The epoch may be a later one of
    /// this log than that of the position, as clients derive the offset of a message from that of a later one.
    pub fn position_of(&self, offset: Offset) -> Result<Position, OtherEpoch> {
        let is_of_ancestor = || {
            let ancestors = self.ancestors();
            let range = ancestors.binary_search_by_key(&offset.epoch, |(epoch, _)| *epoch).ok();
            range.and_then(|range| ancestors.get(range)).is_some_and(|(_, end)| offset.position <= *end)
        };
        let ours = offset.epoch == self.own || offset == Offset::ZERO || is_of_ancestor();
        ours.then_some(offset.position).ok_or(OtherEpoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(epoch: u64, position: u64) -> Offset {
        Offset { epoch: Epoch(epoch), position: Position(position) }
    }

    #[test]
    fn a_fork_shares_the_offsets_before_the_branch_and_owns_those_behind_it() {
        let source = EpochHistory::new(Epoch(7));
        let fork = source.fork(Position(10), Epoch(9));
        assert_eq!(fork.offset_at(Position(10)), offset(7, 10));
        assert_eq!(fork.offset_at(Position(11)), offset(9, 11));
        assert_eq!(fork.position_of(offset(7, 3)), Ok(Position(3)));
        assert_eq!(fork.position_of(offset(7, 11)), Err(OtherEpoch));
        assert_eq!(source.position_of(offset(9, 11)), Err(OtherEpoch));
    }

    #[test]
    fn an_offset_that_a_client_derives_from_a_later_one_names_the_same_position() {
        let fork = EpochHistory::new(Epoch(7)).fork(Position(10), Epoch(9));
        let (run, recreated) = (fork.run(Position(20), Epoch(12)), fork.fork(Position(5), Epoch(13)));
        for (epoch, position) in [(7, 10), (9, 10), (9, 3), (9, 20), (12, 3), (12, 21)] {
            assert_eq!(
                run.position_of(offset(epoch, position)),
                Ok(Position(position)),
                "{epoch}_{position}"
            );
        }
        for (epoch, position) in [(7, 11), (9, 21), (8, 3), (13, 3)] {
            assert_eq!(run.position_of(offset(epoch, position)), Err(OtherEpoch), "{epoch}_{position}");
        }
        assert_eq!(recreated.position_of(offset(9, 3)), Err(OtherEpoch));
    }

    #[test]
    fn a_fork_of_a_fork_at_any_point_keeps_one_offset_a_position() {
        let fork = EpochHistory::new(Epoch(1)).fork(Position(10), Epoch(2));
        for at in [0, 5, 10, 11, 20] {
            let second = fork.fork(Position(at), Epoch(3));
            for position in 0..=30 {
                let expected =
                    if position <= at { fork.offset_at(Position(position)) } else { offset(3, position) };
                assert_eq!(
                    second.offset_at(Position(position)),
                    expected,
                    "branch {at}, position {position}"
                );
            }
        }
    }

    #[test]
    fn a_run_keeps_the_offsets_that_were_given_and_refuses_those_behind_its_beginning() {
        let before = EpochHistory::new(Epoch(7));
        let after = before.run(Position(10), Epoch(9));
        assert_eq!(after.offset_at(Position(10)), offset(7, 10));
        assert_eq!(after.position_of(offset(7, 11)), Err(OtherEpoch));
        assert_eq!(after.offset_at(Position(11)), offset(9, 11));
        // A run without an append leaves no range.
        assert_eq!(after.run(Position(10), Epoch(12)), before.run(Position(10), Epoch(12)));
    }

    #[test]
    fn many_runs_are_remembered_and_the_oldest_are_told_apart() {
        let runs = 2 * RUNS_MAX as u64;
        let epoch_history = (1..=runs).fold(EpochHistory::new(Epoch(1)), |epoch_history, run| {
            epoch_history.run(Position(10 * run), Epoch(run + 1))
        });
        assert_eq!(epoch_history.ancestors().len(), RUNS_MAX);
        for run in 1..=runs {
            let known = epoch_history.position_of(offset(run, 10 * run)).is_ok();
            assert_eq!(known, run > runs - RUNS_MAX as u64, "run {run}");
        }
    }

    #[test]
    fn offsets_of_a_history_sort_by_position() {
        let epoch_history =
            EpochHistory::new(Epoch(1)).fork(Position(3), Epoch(5)).fork(Position(6), Epoch(8));
        let offsets: Vec<_> = (0..10).map(|p| epoch_history.offset_at(Position(p))).collect();
        assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
