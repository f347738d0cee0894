//! The log of one stream in memory: appends in segments, so that a fork shares the sealed ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::stream::{Annotation, Payload, Position, Retention};

/// A segment is sealed at this many appends or bytes. Trimming frees whole segments, so one more than the
/// retention allows is the most that stays.
const SEGMENT_RECORDS_MAX: usize = 256;
const SEGMENT_BYTES_MAX: usize = 256 * 1024;

/// The longest character in UTF-8 (RFC 3629, section 3).
const CHARACTER_BYTES_MAX: usize = 4;

/// Appends in order. `earliest <= tail`; what lies before `earliest` is trimmed.
#[derive(Debug, Default)]
pub(super) struct Log {
    sealed: VecDeque<Arc<[Record]>>,
    open: Vec<Record>,
    open_bytes: usize,
    earliest: Position,
    tail: Position,
    kept: Kept,
}

#[derive(Debug, Clone)]
struct Record {
    start: Position,
    payload: Payload,
    at: SystemTime,
    annotation: Option<Arc<Annotation>>,
}

/// How much lies between `earliest` and `tail`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kept {
    messages: u64,
    bytes: u64,
}

/// A message where it lies in the log.
pub(super) struct Placed {
    pub(super) start: Position,
    pub(super) next: Position,
    pub(super) bytes: Bytes,
    pub(super) at: SystemTime,
    pub(super) annotation: Option<Arc<Annotation>>,
}

/// What a read found.
pub(super) struct Stretch {
    pub(super) pieces: Vec<Bytes>,
    pub(super) messages: u64,
    pub(super) next: Position,
}

impl Record {
    fn end(&self) -> Position {
        self.start.after(self.payload.positions())
    }

    /// Whether a position is a message, as in JSON mode, so that an append can be trimmed in part.
    fn counts_messages(&self) -> bool {
        self.payload.messages() == self.payload.positions()
    }

    /// The messages behind its first `skipped` positions.
    fn messages(&self, skipped: u64) -> impl Iterator<Item = Placed> {
        let step = if self.counts_messages() { 1 } else { self.payload.positions() };
        let mut from = skipped;
        std::iter::from_fn(move || {
            if from >= self.payload.positions() {
                return None;
            }
            let start = from;
            from = (start / step + 1) * step;
            Some(Placed {
                start: self.start.after(start),
                next: self.start.after(from),
                bytes: self.payload.message_at(start),
                at: self.at,
                annotation: self.annotation.clone(),
            })
        })
    }
}

impl Log {
    pub(super) fn earliest(&self) -> Position {
        self.earliest
    }

    pub(super) fn tail(&self) -> Position {
        self.tail
    }

    /// Appends `payload`, which is not empty.
    pub(super) fn push(&mut self, payload: Payload, annotation: Option<Arc<Annotation>>, at: SystemTime) {
        if self.open.len() >= SEGMENT_RECORDS_MAX || self.open_bytes >= SEGMENT_BYTES_MAX {
            self.sealed.push_back(std::mem::take(&mut self.open).into());
            self.open_bytes = 0;
        }
        self.kept.messages += payload.messages();
        self.kept.bytes += payload.len() as u64;
        self.open_bytes += payload.len();
        let record = Record { start: self.tail, payload, at, annotation };
        self.tail = record.end();
        self.open.push(record);
    }

    /// Reads whole appends from `from` on, as many as fit into `bytes_max`, but at least one and at least the
    /// bytes of one character, so that a reader of whole characters gets on.
    pub(super) fn read(&self, from: Position, bytes_max: usize) -> Stretch {
        let mut stretch = Stretch { pieces: Vec::new(), messages: 0, next: from };
        let mut bytes = 0;
        for record in self.records_from(from) {
            let skipped = from.since(record.start);
            let piece = record.payload.since(skipped);
            if bytes >= CHARACTER_BYTES_MAX && bytes + piece.len() > bytes_max {
                break;
            }
            bytes += piece.len();
            stretch.pieces.push(piece);
            stretch.messages += record.payload.messages().saturating_sub(skipped).max(1);
            stretch.next = record.end();
        }
        stretch
    }

    /// The messages from `from` on, one by one.
    pub(super) fn messages(&self, from: Position) -> impl Iterator<Item = Placed> {
        self.records_from(from).flat_map(move |record| record.messages(from.since(record.start)))
    }

    /// The newest message that is kept.
    pub(super) fn last(&self) -> Option<Placed> {
        let record = self.open.last().or_else(|| self.sealed.back()?.last())?;
        let first = if record.counts_messages() { record.payload.positions().saturating_sub(1) } else { 0 };
        record.messages(first).next()
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
        if self.earliest == self.tail {
            self.open.clear();
            self.open_bytes = 0;
        }
    }

    /// What of the oldest append has to go: how far the earliest position moves, and what is no longer kept then.
    fn excess(&self, retention: &Retention, now: SystemTime) -> Option<(u64, Kept)> {
        let record = self.records_from(self.earliest).next()?;
        let skipped = self.earliest.since(record.start);
        let rest = record.payload.positions() - skipped;
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
        let bytes = record.payload.start_of(skipped + step) - record.payload.start_of(skipped);
        Some((step, Kept { messages: if one_by_one { step } else { 1 }, bytes: bytes as u64 }))
    }

    /// When the oldest message was appended.
    pub(super) fn oldest(&self) -> Option<SystemTime> {
        self.records_from(self.earliest).next().map(|record| record.at)
    }

    /// The log up to `end`, with the sealed segments shared.
    pub(super) fn fork(&self, end: Position) -> Self {
        let mut fork = Self { earliest: self.earliest, tail: self.earliest, ..Self::default() };
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
            let payload = record.payload.until(end.since(record.start));
            fork.open_bytes += payload.len();
            fork.open.push(Record { payload, ..record.clone() });
            fork.tail = record.end().min(end);
        }
        fork.kept = fork.count();
        fork
    }

    fn count(&self) -> Kept {
        let mut kept = Kept::default();
        for record in self.records_from(self.earliest) {
            let skipped = self.earliest.since(record.start);
            kept.messages += record.payload.messages() - if record.counts_messages() { skipped } else { 0 };
            kept.bytes += (record.payload.len() - record.payload.start_of(skipped)) as u64;
        }
        kept
    }

    /// The record that holds `from` and all behind it.
    fn records_from(&self, from: Position) -> impl Iterator<Item = &Record> {
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

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn json_log(batches: &[u64]) -> Log {
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
            log.push(
                Payload::json(values.join(",").into(), ends),
                None,
                NOW + Duration::from_secs(log.tail.0),
            );
        }
        log
    }

    fn texts(stretch: &Stretch) -> String {
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
        for from in [0, 1, 511, 512, 513, 1024, 1535] {
            let text = texts(&log.read(Position(from), usize::MAX)).replace('|', ",");
            let expected: Vec<_> = (from..1536).map(|n| n.to_string()).collect();
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
        log.push(Payload::json("9".into(), vec![1]), None, NOW);
        assert_eq!(texts(&log.read(Position(2), 99)), "9");
    }

    #[test]
    fn a_fork_is_the_log_up_to_its_point() {
        let log = json_log(&vec![3; 2 * SEGMENT_RECORDS_MAX]);
        for end in [0, 1, 3, 767, 768, 769, 1000, 1536] {
            let fork = log.fork(Position(end));
            let text = texts(&fork.read(Position(0), usize::MAX)).replace('|', ",");
            let expected: Vec<_> = (0..end).map(|n| n.to_string()).collect();
            assert_eq!((fork.tail, text), (Position(end), expected.join(",")));
            assert_eq!(fork.kept, Kept { messages: end, ..fork.kept });
        }
    }
}
