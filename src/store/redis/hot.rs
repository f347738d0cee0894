//! [`HotTail`]: what a gateway knows of a stream with readers without asking the engine: its metadata, and its newest messages.
//!
//! A read of the engine brings the metadata. From then on each change of the stream brings a [`StreamMove`], with the messages if they are
//! few. A change that does not follow what is known ends that, and the next reader asks the engine again.

use std::collections::VecDeque;
use std::time::SystemTime;

use bytes::Bytes;

use super::reply::StreamHead;
use crate::store::log::{LogSlice, Record, messages_of, messages_within};
use crate::store::view::{MessagesView, View};
use crate::stream::{Batch, Epoch, Lifetime, MessageLimit, Messages, Position, ReadLimit, Retention, Start};

/// The tail of a stream has moved, as the news or the answer to an append of this gateway say.
#[derive(Debug, Clone)]
pub(super) struct StreamMove {
    pub(super) epoch: Epoch,
    /// The tail before and after.
    pub(super) before: Position,
    pub(super) tail: Position,
    pub(super) closed: bool,
    /// The earliest position that is kept. `None`: not told.
    pub(super) earliest: Option<Position>,
    /// The appends between `before` and `tail`. Empty: not told.
    pub(super) records: Vec<Record<Bytes>>,
}

impl StreamMove {
    /// A stream was found with this tail, whatever has happened before.
    pub(super) fn found(head: &StreamHead) -> Self {
        Self {
            epoch: head.history.own(),
            before: head.tail,
            tail: head.tail,
            closed: head.closed,
            earliest: Some(head.earliest),
            records: Vec::new(),
        }
    }

    /// Whether the records are all appends between the two tails.
    fn is_whole(&self) -> bool {
        let mut end = self.before;
        let mut follows = |record: &Record<Bytes>| std::mem::replace(&mut end, record.end()) == record.start;
        self.records.iter().all(&mut follows) && end == self.tail
    }
}

/// The metadata of a stream as of its last change, and its newest messages.
#[derive(Debug)]
pub(super) struct HotTail {
    head: StreamHead,
    /// Appends without a hole between them, the last of which may end before the tail.
    records: VecDeque<Record<Bytes>>,
    bytes: u64,
}

impl HotTail {
    pub(super) fn of(head: StreamHead) -> Self {
        Self { head, records: VecDeque::new(), bytes: 0 }
    }

    /// Whether the stream ends some time after its last reader has left.
    pub(super) fn ends_when_idle(&self) -> bool {
        matches!(self.head.lifetime, Lifetime::Idle(_))
    }

    /// Takes over the metadata that a read has found.
    pub(super) fn refresh(&mut self, head: StreamHead) {
        let is_same_log = self.head.history.own() == head.history.own();
        if !is_same_log || self.records.back().is_some_and(|last| last.end() > head.tail) {
            self.clear();
        }
        self.head = head;
    }

    /// Follows a change. Returns whether it follows what is known; if not, nothing is known any more.
    pub(super) fn advance(&mut self, moved: StreamMove) -> bool {
        let head = &mut self.head;
        if head.history.own() != moved.epoch {
            return false;
        }
        let is_known = moved.tail < head.tail || (moved.tail == head.tail && (head.closed || !moved.closed));
        if !is_known {
            if moved.before != head.tail {
                return false;
            }
            (head.tail, head.closed) = (moved.tail, moved.closed);
        }
        head.earliest = head.earliest.max(moved.earliest.unwrap_or_default());
        let Retention { messages_max, bytes_max, .. } = head.retention;
        // The append may have trimmed its own first messages.
        let is_kept = moved.earliest.is_some() || (messages_max.is_none() && bytes_max.is_none());
        if is_kept && !moved.records.is_empty() && moved.is_whole() {
            self.keep(moved.records);
        }
        true
    }

    /// Keeps appends, of which some may be known already.
    fn keep(&mut self, records: Vec<Record<Bytes>>) {
        let end = self.records.back().map(Record::end).unwrap_or_default();
        let mut new = records.into_iter().skip_while(|record| record.start < end).peekable();
        if new.peek().is_some_and(|first| first.start != end) {
            self.clear();
        }
        for record in new {
            self.bytes += record.bytes();
            self.records.push_back(record);
        }
    }

    /// Forgets the oldest messages, until the rest takes at most `bytes_max`.
    pub(super) fn shrink(&mut self, bytes_max: u64) {
        while self.bytes > bytes_max && self.forget_oldest() {}
    }

    /// Forgets the messages before `end`.
    pub(super) fn forget_until(&mut self, end: Position) {
        while self.records.front().is_some_and(|first| first.end() <= end) && self.forget_oldest() {}
    }

    fn forget_oldest(&mut self) -> bool {
        let oldest = self.records.pop_front();
        self.bytes -= oldest.as_ref().map_or(0, Record::bytes);
        oldest.is_some()
    }

    fn clear(&mut self) {
        self.records.clear();
        self.bytes = 0;
    }

    /// What a read from `start` finds: the next messages, or that there are none after the tail. `None`: that is not known.
    pub(super) fn read(
        &self,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
        wall: SystemTime,
    ) -> Option<Batch> {
        let head = &self.head;
        let from = head.locate(start).ok()?;
        let lives_for = head.lives_for(wall);
        if lives_for.is_some_and(|time| time.is_zero()) {
            return None;
        }
        let view = View {
            slice: LogSlice::of(self.records_from(from, now)?, from, limit.bytes_max),
            from,
            tail: head.tail,
            closed: head.closed,
            lives_for,
            epoch_history: head.history.clone(),
            content_type: head.content_type.clone(),
        };
        Some(view.into_batch())
    }

    /// The messages from `start` on, one by one. `None`: they are not known.
    pub(super) fn messages(
        &self,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
        wall: SystemTime,
    ) -> Option<Messages> {
        let head = &self.head;
        let from = head.locate(start).ok().filter(|from| *from < head.tail)?;
        if head.lives_for(wall).is_some_and(|time| time.is_zero()) {
            return None;
        }
        let all = messages_of(self.records_from(from, now)?, from);
        let (messages, next) = messages_within(all, from, limit);
        let view = MessagesView {
            messages,
            next,
            tail: head.tail,
            closed: head.closed,
            epoch_history: head.history.clone(),
            content_type: head.content_type.clone(),
        };
        Some(view.into_messages())
    }

    /// The append that contains `from`, and those after it; none at the tail. `None`: they are not known, or may be too old.
    fn records_from(&self, from: Position, now: SystemTime) -> Option<impl Iterator<Item = &Record<Bytes>>> {
        let first = self.records.partition_point(|record| record.end() <= from);
        let is_known = match self.records.get(first) {
            Some(record) => record.start <= from && !self.is_too_old(record, now),
            None => from == self.head.tail,
        };
        is_known.then(|| self.records.range(first..))
    }

    fn is_too_old(&self, record: &Record<Bytes>, now: SystemTime) -> bool {
        let age = now.duration_since(record.at).unwrap_or_default();
        self.head.retention.age_max.is_some_and(|max| age > max)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stream::{ContentType, EpochHistory, Shape};

    pub(in crate::store::redis) const EPOCH: Epoch = Epoch(1);

    pub(in crate::store::redis) fn head(tail: u64) -> StreamHead {
        StreamHead {
            history: EpochHistory::of(Vec::new(), EPOCH),
            tail: Position(tail),
            earliest: Position(0),
            closed: false,
            content_type: ContentType::octet_stream(),
            lifetime: Lifetime::Unlimited,
            retention: Retention::default(),
            appended_at: None,
        }
    }

    fn record(start: u64, text: &str, at: SystemTime) -> Record<Bytes> {
        Record {
            start: Position(start),
            shape: Shape::raw(text.len() as u32),
            content: Bytes::copy_from_slice(text.as_bytes()),
            at,
            annotation: None,
        }
    }

    /// The change by an append of `text`.
    pub(in crate::store::redis) fn appended(before: u64, text: &str) -> StreamMove {
        StreamMove {
            epoch: EPOCH,
            before: Position(before),
            tail: Position(before + text.len() as u64),
            closed: false,
            earliest: Some(Position(0)),
            records: vec![record(before, text, SystemTime::UNIX_EPOCH)],
        }
    }

    fn without_records(moved: StreamMove) -> StreamMove {
        StreamMove { records: Vec::new(), ..moved }
    }

    /// What a read from a position finds: the text, whether it reaches the tail, and whether the stream is closed there.
    fn read_at(tail: &HotTail, from: u64, age: u64) -> Option<(String, bool, bool)> {
        let start = Start::At(tail.head.history.offset_at(Position(from)));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(age);
        let batch = tail.read(start, ReadLimit { bytes_max: 100 }, now, now)?;
        let text = batch.pieces.concat();
        Some((String::from_utf8(text).unwrap(), batch.up_to_date, batch.closed))
    }

    pub(in crate::store::redis) fn read(tail: &HotTail, from: u64) -> Option<String> {
        read_at(tail, from, 0).map(|(text, ..)| text)
    }

    fn found(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn messages_are_read_as_far_as_changes_follow_each_other() {
        let mut tail = HotTail::of(head(10));
        assert_eq!((read(&tail, 10), read(&tail, 9), read(&tail, 11)), (found(""), None, None));
        assert!(tail.advance(appended(10, "ab")));
        assert!(tail.advance(appended(12, "cd")));
        let reads = [9, 10, 11, 12, 14].map(|from| read(&tail, from));
        assert_eq!(reads, [None, found("abcd"), found("bcd"), found("cd"), found("")]);

        assert!(tail.advance(appended(10, "ab")), "the same again, as of an own append and its news");
        assert_eq!(read(&tail, 10), found("abcd"));
        assert!(!tail.advance(appended(15, "x")), "one is missing");
        let mut other = HotTail::of(head(10));
        assert!(!other.advance(StreamMove { epoch: Epoch(2), ..appended(10, "ab") }), "a new epoch");
    }

    #[test]
    fn messages_that_did_not_come_are_not_known_and_those_after_them_are() {
        let mut tail = HotTail::of(head(0));
        assert!(tail.advance(appended(0, "ab")));
        assert!(tail.advance(without_records(appended(2, "cd"))));
        assert_eq!(read_at(&tail, 0, 0), Some(("ab".to_owned(), false, false)));
        assert_eq!((read(&tail, 2), read(&tail, 4)), (None, found("")));
        let incomplete = StreamMove { tail: Position(9), ..appended(4, "ef") };
        assert!(tail.advance(incomplete));
        assert_eq!((read(&tail, 4), read(&tail, 9)), (None, found("")));
        assert!(tail.advance(appended(9, "gh")));
        assert_eq!((read(&tail, 0), read(&tail, 9)), (None, found("gh")));

        // The answer to an append may come before the news of it, which have the messages.
        assert!(tail.advance(without_records(appended(11, "ij"))));
        assert!(tail.advance(without_records(appended(13, "kl"))));
        assert!(tail.advance(appended(11, "ij")));
        assert!(tail.advance(StreamMove { records: appended(11, "ij").records, ..appended(11, "ijkl") }));
        assert_eq!(read(&tail, 9), found("ghij"));
        assert!(tail.advance(appended(13, "kl")));
        assert_eq!(read_at(&tail, 9, 0), Some(("ghijkl".to_owned(), true, false)));
    }

    #[test]
    fn the_end_of_a_stream_is_known_and_earlier_news_do_not_undo_it() {
        let mut tail = HotTail::of(head(0));
        assert!(tail.advance(StreamMove { closed: true, ..appended(0, "ab") }));
        assert!(tail.advance(appended(0, "ab")));
        assert_eq!(read_at(&tail, 0, 0), Some(("ab".to_owned(), true, true)));
        assert_eq!(read_at(&tail, 2, 0), Some((String::new(), true, true)));
    }

    #[test]
    fn what_retention_or_a_lifetime_has_ended_is_not_known() {
        let retention = |messages_max, age_max| Retention { messages_max, age_max, bytes_max: None };
        let with = |retention| HotTail::of(StreamHead { retention, ..head(0) });
        let mut tail = with(retention(None, Some(Duration::from_secs(5))));
        assert!(tail.advance(appended(0, "ab")));
        assert_eq!((read_at(&tail, 0, 5).is_some(), read_at(&tail, 0, 6)), (true, None));
        assert!(read_at(&tail, 2, 6).is_some());

        let mut tail = with(retention(Some(1), None));
        assert!(tail.advance(StreamMove { earliest: None, ..appended(0, "ab") }));
        assert_eq!(read(&tail, 0), None, "it is not known what was trimmed");
        assert!(tail.advance(appended(2, "cd")));
        assert_eq!(read(&tail, 2), found("cd"));
        assert!(tail.advance(StreamMove { earliest: Some(Position(4)), ..appended(4, "ef") }));
        assert_eq!((read(&tail, 2), read(&tail, 4)), (None, found("ef")));

        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
        let mut tail = HotTail::of(StreamHead { lifetime: Lifetime::Until(end), ..head(0) });
        assert!(tail.advance(appended(0, "ab")));
        assert_eq!((read_at(&tail, 0, 4).is_some(), read_at(&tail, 0, 5)), (true, None));
        let messages = |age| {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(age);
            let limit = MessageLimit { bytes_max: 100, count_max: 10 };
            tail.messages(Start::Earliest, limit, now, now).map(|found| found.messages.len())
        };
        assert_eq!((messages(4), messages(5)), (Some(1), None));
    }

    #[test]
    fn the_oldest_messages_are_forgotten_first() {
        let mut tail = HotTail::of(head(0));
        assert!(tail.advance(appended(0, "ab")));
        let one = tail.bytes;
        assert!(tail.advance(appended(2, "cd")));
        tail.shrink(one);
        assert_eq!((read(&tail, 0), read(&tail, 2)), (None, found("cd")));
        tail.forget_until(Position(4));
        assert_eq!((read(&tail, 2), read(&tail, 4), tail.bytes), (None, found(""), 0));
    }

    #[test]
    fn a_read_leaves_the_messages_of_the_same_log() {
        let mut tail = HotTail::of(head(0));
        assert!(tail.advance(appended(0, "ab")));
        tail.refresh(head(2));
        assert_eq!(read(&tail, 0), found("ab"));
        tail.refresh(StreamHead { history: EpochHistory::of(Vec::new(), Epoch(2)), ..head(2) });
        assert_eq!(read(&tail, 0), None);
    }
}
