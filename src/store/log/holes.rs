//! Holes in a log: damaged messages between two appends, or between the last one and the tail.

use super::{Content, Log, Part, Record};
use crate::stream::Position;

impl<C: Content> Log<C> {
    /// Moves the tail to `to` if that is after it. The positions between are a hole.
    pub(in crate::store) fn skip_to(&mut self, to: Position) {
        if to <= self.tail {
            return;
        }
        if self.earliest == self.tail {
            self.earliest = to;
        } else {
            self.holes.get_or_insert_default();
        }
        self.tail = to;
    }

    /// The end of the hole at `position`; `None` if there is an append.
    pub(in crate::store) fn hole_at(&self, position: Position) -> Option<Position> {
        let holes = self.holes.as_ref()?;
        let mut whole = self.records_from(position).filter(|record| !holes.damaged.contains(&record.start));
        let next = whole.next().map_or(self.tail, |record| record.start);
        (next > position).then_some(next)
    }

    /// All holes between `earliest` and the tail.
    pub(in crate::store) fn holes(&self) -> Vec<(Position, Position)> {
        let (mut found, mut end) = (Vec::new(), self.earliest);
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

    /// Trims a hole at the beginning of the log.
    pub(super) fn skip_hole(&mut self) {
        if let Some(end) = self.hole_at(self.earliest) {
            self.earliest = end;
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
