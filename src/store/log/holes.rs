//! Holes in a log: damaged messages between two appends, or between the last one and the tail.

use super::{Content, Log, Part, Record};
use crate::stream::Position;

impl<C: Content> Log<C> {
    /// Moves the tail to `to` if that is after it. The positions between are a hole.
    pub(in crate::store) fn skip_to(&mut self, to: Position) {
        if to <= self.tail {
            return;
        }
        let beginning = (self.earliest == self.tail).then_some(self.earliest);
        self.holes.get_or_insert_default();
        self.tail = to;
        if let Some(beginning) = beginning {
            self.earliest = to;
            self.lose_beginning(beginning);
        }
    }

    /// The end of the trimmed messages. Messages between there and `earliest` were damaged.
    pub(in crate::store) fn trimmed(&self) -> Position {
        self.holes.as_ref().and_then(|holes| holes.trimmed).unwrap_or(self.earliest)
    }

    /// Marks the messages between `from` and `earliest` as damaged.
    pub(super) fn lose_beginning(&mut self, from: Position) {
        if from < self.earliest {
            let trimmed = &mut self.holes.get_or_insert_default().trimmed;
            *trimmed = trimmed.map_or(Some(from), |trimmed| Some(trimmed.min(from)));
        }
    }

    /// The end of the hole at `position`; `None` if there is an append.
    pub(in crate::store) fn hole_at(&self, position: Position) -> Option<Position> {
        let holes = self.holes.as_ref()?;
        let mut whole = self.records_from(position).filter(|record| !holes.damaged.contains(&record.start));
        let next = whole.next().map_or(self.tail, |record| record.start);
        (next > position).then_some(next)
    }

    /// All holes, including the one before `earliest`.
    pub(in crate::store) fn holes(&self) -> Vec<(Position, Position)> {
        let (mut found, mut end) = (Vec::new(), self.trimmed());
        let Some(holes) = &self.holes else { return found };
        for record in self.records_from(self.earliest) {
            if holes.damaged.contains(&record.start) {
                continue;
            }
            if record.start > end {
                found.push((end, record.start));
            }
            end = record.end();
        }
        if self.tail > end {
            found.push((end, self.tail));
        }
        found
    }

    /// Turns the first append at or after `from` whose content `is_lost` into a hole.
    pub(in crate::store) fn lose(&mut self, from: Position, is_lost: impl Fn(&C) -> bool) {
        let found =
            self.records_from(from).find(|record| is_lost(&record.content)).map(|record| record.start);
        if let Some(start) = found {
            self.holes.get_or_insert_default().damaged.insert(start);
            self.skip_hole();
            // The oldest append may be another one now, and its time an earlier one.
            self.next_too_old = None;
            self.free_trimmed();
        }
    }

    /// Moves `earliest` to the end of a hole that begins there.
    pub(super) fn skip_hole(&mut self) {
        if let Some(end) = self.hole_at(self.earliest) {
            let from = std::mem::replace(&mut self.earliest, end);
            self.lose_beginning(from);
            self.kept = self.count();
        }
    }

    /// Whether a read that has come to `next` must stop before `record`, because a hole begins there.
    pub(super) fn is_after_hole(&self, record: &Record<C>, next: Position) -> bool {
        record.start > next || self.holes.as_ref().is_some_and(|holes| holes.damaged.contains(&record.start))
    }

    /// Whether positions are missing between two runs, or before the open appends.
    pub(super) fn has_gaps(&self) -> bool {
        let open = self.open.first().map(|record| record.start);
        let starts = self.sealed.iter().skip(1).map(Part::start).chain(open);
        self.sealed.iter().zip(starts).any(|(part, next)| part.end < next)
    }
}
