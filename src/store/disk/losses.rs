//! Finds out which messages of which streams damage has destroyed, as far as possible.

use std::collections::{BTreeMap, HashMap};

use super::kept::RecordSpan;
use super::record::{LogRecord, StreamId};
use super::scan::Damaged;
use super::segment::HEADER_BYTES;
use super::suspect::{SuspectedRecord, decode_unchecked, with_bit_restored};
use crate::stream::Position;

/// The maximum number of damaged records that are inspected closely, which takes time.
const INSPECTED_MAX: usize = 1000;

/// The losses in a log that is being read.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// The damaged places.
    pub(super) damage: Vec<RecordSpan>,
    /// Ranges of positions that are known to be damaged, by stream.
    messages: BTreeMap<StreamId, Vec<(Position, Position)>>,
    /// The size of each damaged place whose stream is unknown, in order.
    unknown: Vec<u64>,
    /// The number of entries in `unknown` before the last record that shows the tail of a stream; 0 if the stream is missing
    /// here.
    unknown_before: HashMap<StreamId, usize>,
}

impl Losses {
    /// Classifies a damaged place: messages of a stream, a record without messages, or unknown. `tail_of` returns the tail of a
    /// stream as far as the log is read. Returns the record if only one bit of it was flipped.
    pub(super) fn note(
        &mut self,
        damaged: &Damaged,
        tail_of: impl Fn(StreamId) -> Option<Position>,
    ) -> Option<LogRecord> {
        let bytes = u32::try_from(damaged.bytes.len()).unwrap_or(u32::MAX);
        self.damage.push(RecordSpan { place: damaged.place, bytes });
        if damaged.place.offset < HEADER_BYTES {
            return None;
        }
        let inspect = self.damage.len() <= INSPECTED_MAX;
        let certain = inspect.then(|| with_bit_restored(damaged)).flatten();
        let found = certain.as_ref().map(SuspectedRecord::messages).or_else(|| {
            // A record that is decoded without a valid checksum may have been another one. It is credible if it is exactly the
            // next one of its stream.
            let messages = decode_unchecked(damaged)?.messages();
            let is_next = |(stream, start, _): (_, _, _)| self.tail(stream, tail_of(stream)) == Some(start);
            messages.is_some_and(is_next).then_some(messages)
        });
        match found {
            Some(Some((stream, start, end))) => self.messages.entry(stream).or_default().push((start, end)),
            Some(None) => {}
            None => self.unknown.push(bytes.into()),
        }
        certain.map(|suspect| suspect.record)
    }

    /// Notes that a record of a stream was read.
    pub(super) fn pass(&mut self, stream: StreamId, record: &LogRecord) {
        if !self.unknown.is_empty() && shows_tail(record) {
            self.unknown_before.insert(stream, self.unknown.len());
        }
    }

    /// The tail of a stream including its messages that are known to be damaged; `tail` is the tail without them.
    fn tail(&self, stream: StreamId, tail: Option<Position>) -> Option<Position> {
        self.of(stream).iter().map(|(_, end)| *end).max().max(tail)
    }

    /// The ranges of a stream that are known to be damaged.
    pub(super) fn of(&self, stream: StreamId) -> &[(Position, Position)] {
        self.messages.get(&stream).map(Vec::as_slice).unwrap_or_default()
    }

    /// The position at which a stream continues, so that no position is assigned twice. `tail` is the tail after its last
    /// record that was read. A closed stream has no unknown messages after its tail.
    pub(super) fn continue_at(&self, stream: StreamId, tail: Position, closed: bool) -> Position {
        let before = self.unknown_before.get(&stream).copied().unwrap_or_default();
        // Each position takes at least one byte.
        let unknown = self.unknown.get(before..).unwrap_or_default().iter().sum();
        let known = self.tail(stream, Some(tail)).unwrap_or(tail);
        known.after(if closed { 0 } else { unknown })
    }
}

/// Whether a record shows the tail of its stream.
fn shows_tail(record: &LogRecord) -> bool {
    match record {
        LogRecord::Created { .. }
        | LogRecord::CreatedWith { .. }
        | LogRecord::State { .. }
        | LogRecord::Appended { .. } => true,
        LogRecord::Opened { .. }
        | LogRecord::Closed
        | LogRecord::Run { .. }
        | LogRecord::Moved { .. }
        | LogRecord::Ended { .. }
        | LogRecord::Cleared { .. }
        | LogRecord::Renewed { .. }
        | LogRecord::Session { .. }
        | LogRecord::SessionChanged { .. } => false,
    }
}
