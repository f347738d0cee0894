//! The epochs of a log that was forked: one offset space, many lives.
//!
//! A fork shares the offsets of its source up to the point where it branched off and goes on with an epoch of
//! its own (protocol, section 8, "Offsets and forked streams"). Since epochs rise, its offsets still sort.
//! So a fork that was deleted and made anew recognises the cursors of its former life.

use super::{Epoch, Offset, Position};

/// Which epoch each stretch of a log belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// Inherited stretches, each with the position at which it ends (inclusive), in rising order.
    ancestors: Box<[(Epoch, Position)]>,
    own: Epoch,
}

/// The offset belongs to another life of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherEpoch;

impl Lineage {
    /// A log that inherits nothing.
    pub fn new(epoch: Epoch) -> Self {
        Self { ancestors: Box::default(), own: epoch }
    }

    /// The log of a fork that branches off at `at` and goes on as `epoch`, which is above all earlier ones.
    pub fn fork(&self, at: Position, epoch: Epoch) -> Self {
        let mut ancestors: Vec<_> = self.ancestors.iter().copied().take_while(|(_, end)| *end < at).collect();
        ancestors.push((self.offset_at(at).epoch, at));
        Self { ancestors: ancestors.into(), own: epoch }
    }

    /// A log as `ancestors` and `own` said of it.
    pub fn of(ancestors: Vec<(Epoch, Position)>, own: Epoch) -> Self {
        Self { ancestors: ancestors.into(), own }
    }

    /// The stretches that it has from others, each with the position at which it ends (inclusive), in rising order.
    pub fn ancestors(&self) -> &[(Epoch, Position)] {
        &self.ancestors
    }

    /// The epoch in which this log itself is written.
    pub fn own(&self) -> Epoch {
        self.own
    }

    /// The offset of a position. Each position has exactly one.
    pub fn offset_at(&self, position: Position) -> Offset {
        let epoch =
            self.ancestors.iter().find(|(_, end)| position <= *end).map_or(self.own, |(epoch, _)| *epoch);
        Offset { epoch, position }
    }

    /// The position of an offset that this log has given, or that its source gave before the fork.
    pub fn position_of(&self, offset: Offset) -> Result<Position, OtherEpoch> {
        let ours = offset == Offset::ZERO || self.offset_at(offset.position).epoch == offset.epoch;
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
        let source = Lineage::new(Epoch(7));
        let fork = source.fork(Position(10), Epoch(9));
        assert_eq!(fork.offset_at(Position(10)), offset(7, 10));
        assert_eq!(fork.offset_at(Position(11)), offset(9, 11));
        assert_eq!(fork.position_of(offset(7, 3)), Ok(Position(3)));
        assert_eq!(fork.position_of(offset(7, 11)), Err(OtherEpoch));
        assert_eq!(source.position_of(offset(9, 11)), Err(OtherEpoch));
    }

    #[test]
    fn a_fork_of_a_fork_at_any_point_keeps_one_offset_a_position() {
        let fork = Lineage::new(Epoch(1)).fork(Position(10), Epoch(2));
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
    fn offsets_of_a_lineage_sort_by_position() {
        let lineage = Lineage::new(Epoch(1)).fork(Position(3), Epoch(5)).fork(Position(6), Epoch(8));
        let offsets: Vec<_> = (0..10).map(|p| lineage.offset_at(Position(p))).collect();
        assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
