//! The log of one stream: appends in segments, so that a fork shares the sealed ones. Where their content lies is the
//! store's affair.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::stream::{Annotation, Position, Retention, Shape};

/// A segment is sealed at this many appends or bytes. Trimming frees whole segments, so one more than the
/// retention allows is the most that stays.
const SEGMENT_RECORDS_MAX: usize = 64;
const SEGMENT_BYTES_MAX: usize = 64 * 1024;

/// Of the open segment trimming frees what is at least so many appends, and more than the half of it.
const TRIMMED_MIN: usize = 8;

/// The longest character in UTF-8 (RFC 3629, section 3).
const CHARACTER_BYTES_MAX: usize = 4;

/// The content of an append, or where it lies.
pub(super) trait Content: Clone + Send + Sync + 'static {
    /// A stretch of it.
    type Piece;

    /// The stretch `range`, which lies within.
    fn piece(&self, range: Range<usize>) -> Self::Piece;
}

impl Content for Bytes {
    type Piece = Self;

    fn piece(&self, range: Range<usize>) -> Self {
        self.slice(range)
    }
}

/// Appends in order. `earliest <= tail`; what lies before `earliest` is trimmed.
#[derive(Debug)]
pub(super) struct Log<C> {
    sealed: VecDeque<Arc<[Record<C>]>>,
    open: Vec<Record<C>>,
    open_bytes: usize,
    earliest: Position,
    tail: Position,
    kept: Kept,
}

/// One append.
#[derive(Debug, Clone)]
pub(super) struct Record<C> {
    /// Its first position. Told by the log when it is pushed.
    pub(super) start: Position,
    pub(super) shape: Shape,
    pub(super) content: C,
    pub(super) at: SystemTime,
    pub(super) annotation: Option<Arc<Annotation>>,
}

/// How much lies between `earliest` and `tail`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kept {
    messages: u64,
    bytes: u64,
}

/// A message where it lies in the log.
#[derive(Debug, Clone)]
pub(super) struct Placed<P> {
    pub(super) start: Position,
    pub(super) next: Position,
    pub(super) piece: P,
    pub(super) length: usize,
    pub(super) at: SystemTime,
    pub(super) annotation: Option<Arc<Annotation>>,
}

/// What a read found.
pub(super) struct Stretch<P> {
    pub(super) pieces: Vec<P>,
    pub(super) messages: u64,
    pub(super) next: Position,
}

impl<C: Content> Record<C> {
    pub(super) fn end(&self) -> Position {
        self.start.after(self.shape.positions())
    }

    /// Whether a position is a message, as in JSON mode, so that an append can be trimmed in part.
    fn counts_messages(&self) -> bool {
        self.shape.messages() == self.shape.positions()
    }

    /// Its last message: of JSON the last value.
    pub(super) fn last_message(&self) -> Option<Placed<C::Piece>> {
        let first = if self.counts_messages() { self.shape.positions().saturating_sub(1) } else { 0 };
        self.messages(first).next()
    }

    /// The messages behind its first `skipped` positions.
    fn messages(&self, skipped: u64) -> impl Iterator<Item = Placed<C::Piece>> {
        let step = if self.counts_messages() { 1 } else { self.shape.positions() };
        let mut from = skipped;
        std::iter::from_fn(move || {
            if from >= self.shape.positions() {
                return None;
            }
            let start = from;
            from = (start / step + 1) * step;
            let range = self.shape.message_at(start);
            Some(Placed {
                start: self.start.after(start),
                next: self.start.after(from),
                length: range.len(),
                piece: self.content.piece(range),
                at: self.at,
                annotation: self.annotation.clone(),
            })
        })
    }
}

impl<C> Default for Log<C> {
    fn default() -> Self {
        Self::empty(Position::default())
    }
}

impl<C> Log<C> {
    /// A log that keeps nothing and goes on at `tail`.
    pub(super) fn empty(tail: Position) -> Self {
        Self {
            sealed: VecDeque::new(),
            open: Vec::new(),
            open_bytes: 0,
            earliest: tail,
            tail,
            kept: Kept::default(),
        }
    }
}

impl<C: Content> Log<C> {
    pub(super) fn earliest(&self) -> Position {
        self.earliest
    }

    pub(super) fn tail(&self) -> Position {
        self.tail
    }

    /// How many messages are kept.
    pub(super) fn messages_kept(&self) -> u64 {
        self.kept.messages
    }

    /// Appends a record, which is not empty, at the tail.
    pub(super) fn push(&mut self, record: Record<C>) {
        if self.open.len() >= SEGMENT_RECORDS_MAX || self.open_bytes >= SEGMENT_BYTES_MAX {
            self.sealed.push_back(std::mem::take(&mut self.open).into());
            self.open_bytes = 0;
        }
        self.kept.messages += record.shape.messages();
        self.kept.bytes += record.shape.len() as u64;
        self.open_bytes += record.shape.len();
        let record = Record { start: self.tail, ..record };
        self.tail = record.end();
        self.open.push(record);
    }

    /// Reads whole appends from `from` on, as many as fit into `bytes_max`, but at least one and at least the
    /// bytes of one character, so that a reader of whole characters gets on.
    pub(super) fn read(&self, from: Position, bytes_max: usize) -> Stretch<C::Piece> {
        let mut stretch = Stretch { pieces: Vec::new(), messages: 0, next: from };
        let mut bytes = 0;
        for record in self.records_from(from) {
            let skipped = from.since(record.start);
            let range = record.shape.since(skipped);
            if bytes >= CHARACTER_BYTES_MAX && bytes + range.len() > bytes_max {
                break;
            }
            bytes += range.len();
            stretch.pieces.push(record.content.piece(range));
            stretch.messages += record.shape.messages().saturating_sub(skipped).max(1);
            stretch.next = record.end();
        }
        stretch
    }

    /// The messages from `from` on, one by one.
    pub(super) fn messages(&self, from: Position) -> impl Iterator<Item = Placed<C::Piece>> {
        self.records_from(from).flat_map(move |record| record.messages(from.since(record.start)))
    }

    /// The newest append that is kept.
    pub(super) fn last(&self) -> Option<&Record<C>> {
        self.open.last().or_else(|| self.sealed.back()?.last())
    }

    /// Trims what `retention` does not allow; the newest append stays in any case.
    pub(super) fn trim(&mut self, retention: &Retention, now: SystemTime) {
        while let Some((step, gone)) = self.excess(retention, now) {
            self.earliest = self.earliest.after(step);
            self.kept.messages -= gone.messages;
            self.kept.bytes -= gone.bytes;
        }
        while self
            .sealed
            .front()
            .and_then(|segment| segment.last())
            .is_some_and(|last| last.end() <= self.earliest)
        {
            self.sealed.pop_front();
        }
        let trimmed = self.open.partition_point(|record| record.end() <= self.earliest);
        if trimmed == self.open.len() || (trimmed >= TRIMMED_MIN && trimmed > self.open.len() / 2) {
            self.open.drain(..trimmed);
            self.open_bytes = self.open.iter().map(|record| record.shape.len()).sum();
        }
    }

    /// A log of `records`, which follow each other, and of which nothing before `earliest` is kept. It goes on at
    /// `tail` if there are none.
    pub(super) fn restore(earliest: Position, tail: Position, records: Vec<Record<C>>) -> Self {
        let mut log = Self::empty(records.first().map_or(tail, |record| record.start));
        records.into_iter().for_each(|record| log.push(record));
        log.earliest = earliest.max(log.earliest).min(log.tail);
        log.kept = log.count();
        log
    }

    /// What of the oldest append has to go: how far the earliest position moves, and what is no longer kept then.
    fn excess(&self, retention: &Retention, now: SystemTime) -> Option<(u64, Kept)> {
        let record = self.records_from(self.earliest).next()?;
        let skipped = self.earliest.since(record.start);
        let rest = record.shape.positions() - skipped;
        let one_by_one = record.counts_messages();
        let is_last = record.end() == self.tail;
        let messages_over = self.kept.messages.saturating_sub(retention.messages_max.unwrap_or(u64::MAX));
        let bytes_over = self.kept.bytes > retention.bytes_max.unwrap_or(u64::MAX);
        let too_old =
            retention.age_max.is_some_and(|max| now.duration_since(record.at).is_ok_and(|age| age > max));
        let step = if too_old || (bytes_over && !is_last) {
            rest
        } else if messages_over > 0 && one_by_one {
            rest.min(messages_over)
        } else if messages_over > 0 && !is_last {
            rest
        } else {
            return None;
        };
        let bytes = record.shape.start_of(skipped + step) - record.shape.start_of(skipped);
        Some((step, Kept { messages: if one_by_one { step } else { 1 }, bytes: bytes as u64 }))
    }

    /// When the oldest message was appended.
    pub(super) fn oldest(&self) -> Option<SystemTime> {
        self.records_from(self.earliest).next().map(|record| record.at)
    }

    /// The log up to `end`, with the sealed segments shared.
    pub(super) fn fork(&self, end: Position) -> Self {
        let mut fork = Self::empty(self.earliest);
        for segment in &self.sealed {
            if segment.last().is_none_or(|last| last.end() > end) {
                break;
            }
            fork.sealed.push_back(segment.clone());
        }
        let sealed_to =
            fork.sealed.back().and_then(|segment| segment.last()).map_or(self.earliest, Record::end);
        fork.tail = sealed_to;
        for record in self.records_from(sealed_to).take_while(|record| record.start < end) {
            let shape = record.shape.until(end.since(record.start));
            fork.open_bytes += shape.len();
            fork.open.push(Record { shape, ..record.clone() });
            fork.tail = record.end().min(end);
        }
        fork.kept = fork.count();
        fork
    }

    fn count(&self) -> Kept {
        let mut kept = Kept::default();
        for record in self.records_from(self.earliest) {
            let skipped = self.earliest.since(record.start);
            kept.messages += record.shape.messages() - if record.counts_messages() { skipped } else { 0 };
            kept.bytes += (record.shape.len() - record.shape.start_of(skipped)) as u64;
        }
        kept
    }

    /// The record that holds `from` and all behind it.
    pub(super) fn records_from(&self, from: Position) -> impl Iterator<Item = &Record<C>> {
        let first =
            self.sealed.partition_point(|segment| segment.last().is_some_and(|last| last.end() <= from));
        let sealed = self.sealed.range(first..).flat_map(|segment| segment.iter());
        let open = self.open.partition_point(|record| record.end() <= from);
        sealed.skip_while(move |record| record.end() <= from).chain(self.open.iter().skip(open))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stream::Payload;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn push(log: &mut Log<Bytes>, payload: Payload, at: SystemTime) {
        let (shape, content) = payload.into_parts();
        log.push(Record { start: Position(0), shape, content, at, annotation: None });
    }

    fn json_log(batches: &[u64]) -> Log<Bytes> {
        let mut log = Log::default();
        let mut next = 0..;
        for size in batches {
            let values: Vec<_> = next.by_ref().take(*size as usize).map(|n: u64| n.to_string()).collect();
            let mut ends = Vec::new();
            let mut end = 0;
            for value in &values {
                end += value.len() as u32;
                ends.push(end);
                end += 1;
            }
            let at = NOW + Duration::from_secs(log.tail.0);
            push(&mut log, Payload::json(values.join(",").into(), ends), at);
        }
        log
    }

    fn texts(stretch: &Stretch<Bytes>) -> String {
        stretch.pieces.iter().map(|p| String::from_utf8(p.to_vec()).unwrap()).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn a_read_begins_anywhere_even_inside_an_append() {
        let log = json_log(&[1, 3, 2]);
        let read = |from| log.read(Position(from), usize::MAX);
        assert_eq!(texts(&read(0)), "0|1,2,3|4,5");
        assert_eq!(texts(&read(2)), "2,3|4,5");
        assert_eq!((texts(&read(6)).as_str(), read(6).next), ("", Position(6)));
        assert_eq!((read(2).messages, read(2).next), (4, Position(6)));
    }

    #[test]
    fn a_read_stops_at_its_limit_but_brings_one_append_at_least() {
        let log = json_log(&[3, 3, 3]);
        assert_eq!(texts(&log.read(Position(0), 1)), "0,1,2");
        assert_eq!(texts(&log.read(Position(0), 10)), "0,1,2|3,4,5");
    }

    #[test]
    fn many_segments_read_as_one_log() {
        let log = json_log(&vec![2; 3 * SEGMENT_RECORDS_MAX]);
        assert!(log.sealed.len() >= 2);
        let (segment, all) = (2 * SEGMENT_RECORDS_MAX as u64, 6 * SEGMENT_RECORDS_MAX as u64);
        for from in [0, 1, segment - 1, segment, segment + 1, 2 * segment, all - 1] {
            let text = texts(&log.read(Position(from), usize::MAX)).replace('|', ",");
            let expected: Vec<_> = (from..all).map(|n| n.to_string()).collect();
            assert_eq!(text, expected.join(","));
        }
    }

    #[test]
    fn messages_are_trimmed_one_by_one_and_bytes_by_whole_appends() {
        let mut log = json_log(&[4, 4]);
        log.trim(&Retention { messages_max: Some(5), ..Retention::default() }, NOW);
        assert_eq!((log.earliest, texts(&log.read(log.earliest, 99)).as_str()), (Position(3), "3|4,5,6,7"));
        assert_eq!(log.kept, log.count());
        log.trim(&Retention { bytes_max: Some(2), ..Retention::default() }, NOW);
        assert_eq!((log.earliest, log.kept), (Position(4), log.count()));
    }

    #[test]
    fn age_may_empty_a_log_and_positions_go_on() {
        let mut log = json_log(&[1, 1]);
        let young = Retention { age_max: Some(Duration::from_secs(10)), ..Retention::default() };
        log.trim(&young, NOW + Duration::from_secs(11));
        assert_eq!(log.earliest, Position(1));
        log.trim(&young, NOW + Duration::from_secs(60));
        assert_eq!((log.earliest, log.tail, log.kept), (Position(2), Position(2), Kept::default()));
        push(&mut log, Payload::json("9".into(), vec![1]), NOW);
        assert_eq!(texts(&log.read(Position(2), 99)), "9");
    }

    #[test]
    fn trimming_frees_records_long_before_a_segment_is_full() {
        let mut log = json_log(&[1; 20]);
        log.trim(&Retention { messages_max: Some(9), ..Retention::default() }, NOW);
        assert_eq!((log.open.len(), log.earliest, log.kept), (9, Position(11), log.count()));
        let restored = Log::restore(log.earliest, log.tail, log.open.clone());
        assert_eq!(texts(&restored.read(log.earliest, 99)), texts(&log.read(log.earliest, 99)));
        assert_eq!((restored.earliest, restored.tail, restored.kept), (log.earliest, log.tail, log.kept));
    }

    #[test]
    fn a_fork_is_the_log_up_to_its_point() {
        let log = json_log(&vec![3; 2 * SEGMENT_RECORDS_MAX]);
        let (segment, all) = (3 * SEGMENT_RECORDS_MAX as u64, 6 * SEGMENT_RECORDS_MAX as u64);
        for end in [0, 1, 3, segment - 1, segment, segment + 1, segment + 50, all] {
            let fork = log.fork(Position(end));
            let text = texts(&fork.read(Position(0), usize::MAX)).replace('|', ",");
            let expected: Vec<_> = (0..end).map(|n| n.to_string()).collect();
            assert_eq!((fork.tail, text), (Position(end), expected.join(",")));
            assert_eq!(fork.kept, Kept { messages: end, ..fork.kept });
        }
    }
}
