//! The appends of one stream that replay has found. Files have them in the order of their positions, except for moved ones.
//! They are sealed at once, so that a replay does not need more memory than the running store.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::kept::Stored;
use super::packed::Packed;
use crate::store::log::{RUN_BYTES_MAX, RUN_RECORDS_MAX, Record, Restored, Sealed};
use crate::stream::Position;

/// Spans are joined when there are more than this plus twice the number that was left after the last join.
const SPANS_MIN: usize = 64;

/// The appends of one stream that were found so far.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// The span of the last append in the files, with the position after it. Most streams have no other one, and a map for a
    /// single span would take as much memory as the stream.
    latest: Option<(Position, RunSpan)>,
    /// The other spans, by the position after their last append. Empty if `latest` is set after a join.
    others: BTreeMap<Position, RunSpan>,
    /// Number of spans that were left after the last join.
    joined: usize,
}

/// Consecutive appends without missing positions.
#[derive(Debug)]
struct RunSpan {
    start: Position,
    sealed: Vec<Arc<Packed>>,
    open: Vec<Record<Stored>>,
    open_bytes: usize,
}

impl RunSpan {
    fn push(&mut self, record: Record<Stored>) {
        if self.open.len() >= RUN_RECORDS_MAX || self.open_bytes >= RUN_BYTES_MAX {
            self.seal();
        }
        self.open_bytes += record.shape.len();
        self.open.push(record);
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.sealed.push(Arc::new(Packed::seal(std::mem::take(&mut self.open))));
            self.open_bytes = 0;
        }
    }

    /// Appends the span `next`, which begins where this one ends.
    fn join(&mut self, next: Self) {
        if !next.sealed.is_empty() {
            self.seal();
            self.sealed.extend(next.sealed);
        }
        next.open.into_iter().for_each(|record| self.push(record));
    }
}

impl Runs {
    /// Whether an append contains the position.
    pub(super) fn contain(&self, position: Position) -> bool {
        let is_latest = |(end, span): &(Position, RunSpan)| span.start <= position && position < *end;
        let other = || self.others.range(Position(position.0.saturating_add(1))..).next();
        self.latest.as_ref().is_some_and(is_latest) || other().is_some_and(|(_, span)| span.start <= position)
    }

    /// The position after the last append.
    pub(super) fn end(&self) -> Option<Position> {
        let latest = self.latest.as_ref().map(|(end, _)| *end);
        self.others.last_key_value().map(|(end, _)| *end).max(latest)
    }

    /// Adds an append, which must not be empty. Moved appends come twice if the segment from which they were moved still
    /// exists; the first one counts.
    pub(super) fn push(&mut self, record: Record<Stored>) {
        let (start, end) = (record.start, record.end());
        if self.contain(start) {
            return;
        }
        if let Some((latest, span)) = self.latest.as_mut().filter(|(latest, _)| *latest == start) {
            span.push(record);
            *latest = end;
            return;
        }
        let span = self.others.remove(&start);
        let mut span = span.unwrap_or(RunSpan { start, sealed: Vec::new(), open: Vec::new(), open_bytes: 0 });
        span.push(record);
        self.others.extend(self.latest.replace((end, span)));
        if self.others.len() > SPANS_MIN + 2 * self.joined {
            self.join();
        }
    }

    /// Seals all appends, so that logs can share the runs.
    pub(super) fn seal(&mut self) {
        self.join();
        self.others.values_mut().chain(self.latest.as_mut().map(|(_, span)| span)).for_each(RunSpan::seal);
    }

    /// Joins spans that follow each other.
    pub(super) fn join(&mut self) {
        if self.others.is_empty() {
            return;
        }
        self.others.extend(self.latest.take());
        let mut joined: BTreeMap<Position, RunSpan> = BTreeMap::new();
        for (end, next) in std::mem::take(&mut self.others) {
            let Some(mut before) = joined.remove(&next.start) else {
                joined.insert(end, next);
                continue;
            };
            before.join(next);
            joined.insert(end, before);
        }
        self.joined = joined.len();
        self.others = joined;
    }
}

/// The appends of a fork and its sources that make up one log, in the order of their positions.
pub(super) struct CollectedRuns {
    restored: Restored<Stored>,
    /// Appends before this position are not needed.
    trimmed: Position,
    /// The position after the last append. Positions between that and the next one were damaged.
    end: Option<Position>,
}

impl CollectedRuns {
    pub(super) fn new(trimmed: Position) -> Self {
        Self { restored: Restored { sealed: Vec::new(), open: Vec::new() }, trimmed, end: None }
    }

    /// Adds the runs that a source has between two positions; they stay shared. The runs must be joined.
    pub(super) fn share(&mut self, runs: &Runs, from: Position, to: Position) {
        let spans = runs.others.values().chain(runs.latest.as_ref().map(|(_, span)| span));
        let sealed = spans.flat_map(|span| &span.sealed);
        for run in sealed.filter(|run| run.start() >= from && run.start() < to) {
            self.push_run(run.clone(), to);
        }
    }

    /// Adds all appends that a stream has from a position on. The runs must be joined.
    pub(super) fn own(mut self, runs: Runs, from: Position) -> Restored<Stored> {
        for span in runs.others.into_values().chain(runs.latest.map(|(_, span)| span)) {
            for run in span.sealed.into_iter().filter(|run| run.start() >= from) {
                self.seal_open();
                self.push_run(run, Position(u64::MAX));
            }
            let open = span.open.into_iter().filter(|record| record.end() > self.trimmed);
            let open: Vec<_> = open.filter(|record| record.start >= from).collect();
            if !open.is_empty() {
                self.seal_open();
                self.restored.open = open;
            }
        }
        self.restored
    }

    /// Seals the open appends, because others follow after a hole.
    fn seal_open(&mut self) {
        let open = std::mem::take(&mut self.restored.open);
        if !open.is_empty() {
            self.push_run(Arc::new(Packed::seal(open)), Position(u64::MAX));
        }
    }

    fn push_run(&mut self, run: Arc<Packed>, to: Position) {
        let end = run.end().min(to);
        if end > self.trimmed && self.end.is_none_or(|end| end <= run.start()) {
            self.end = Some(end);
            self.restored.sealed.push((run, end));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::frame::FrameLocation;
    use super::super::kept::Kept;
    use super::super::segment::Segments;
    use super::*;
    use crate::budget::Budget;
    use crate::store::log::{ChargedTo, Log};
    use crate::stream::{Principal, Retention, Shape};

    /// An append of one byte at a position, in a store without files.
    fn append(segments: &Arc<Segments>, start: u64) -> Record<Stored> {
        let place = FrameLocation { segment: 1, offset: u32::try_from(start).unwrap() };
        let content = Stored::Kept(Kept::new(segments, place, 21));
        let (shape, at) = (Shape::raw(1), SystemTime::UNIX_EPOCH);
        Record { start: Position(start), shape, content, at, annotation: None }
    }

    fn runs(starts: impl IntoIterator<Item = u64>) -> Runs {
        let segments = Arc::new(Segments::new(&std::env::temp_dir()).unwrap());
        let mut runs = Runs::default();
        starts.into_iter().for_each(|start| runs.push(append(&segments, start)));
        runs.join();
        runs
    }

    /// The positions that the log of a stream keeps.
    fn kept(found: Restored<Stored>, earliest: u64, tail: u64) -> Vec<u64> {
        let creator = Budget::unlimited().owner(Principal::GATEWAY);
        let by = ChargedTo { principal: Principal::GATEWAY, creator: &creator };
        let (earliest, tail) = (Position(earliest), Position(tail));
        let log = Log::restore(earliest, tail, tail, found, &Retention::default(), by);
        log.messages(log.earliest()).map(|placed| placed.start.0).collect()
    }

    #[test]
    fn appends_are_sorted_whatever_the_order_in_the_files() {
        let orders: [Vec<u64>; 4] = [
            (0..1000).collect(),
            (0..1000).rev().collect(),
            (0..1000).map(|n| n * 7 % 1000).collect(),
            // Moved appends come twice.
            (500..1000).chain(0..700).collect(),
        ];
        for order in orders {
            let runs = runs(order.iter().copied());
            assert_eq!(runs.others.len() + usize::from(runs.latest.is_some()), 1, "{:?}", &order[..3]);
            let found = CollectedRuns::new(Position(0)).own(runs, Position(0));
            assert_eq!(kept(found, 0, 1000), (0..1000).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_fork_shares_the_appends_before_its_point() {
        let mut source = runs(0..100);
        source.seal();
        for point in [0, 1, 63, 64, 65, 100] {
            let mut gathered = CollectedRuns::new(Position(0));
            gathered.share(&source, Position(0), Position(point));
            let found = gathered.own(runs(point..point + 10), Position(point));
            assert!(found.open.len() == 10 && found.sealed.len() as u64 == point.div_ceil(64));
            assert_eq!(kept(found, 0, point + 10), (0..point + 10).collect::<Vec<_>>());
        }
    }
}
