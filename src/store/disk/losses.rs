//! What damage has cost: which messages of which streams, as far as that can be found out.

use std::collections::{BTreeMap, HashMap};

use super::kept::RecordSpan;
use super::record::{LogRecord, StreamId};
use super::scan::Damaged;
use super::segment::HEADER_BYTES;
use super::suspect::{as_legible, with_one_bit_back};
use crate::stream::Position;

/// So many damaged records are looked at closely. A log with more is not worth the time.
const INSPECTED_MAX: usize = 1000;

/// What was damaged in a log that is being read.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Where something was no record.
    pub(super) damage: Vec<RecordSpan>,
    /// Messages that are known to be damaged, between two positions of their stream.
    messages: BTreeMap<StreamId, Vec<(Position, Position)>>,
    /// How many bytes each damage has of which nobody knows whose they were.
    unknown: Vec<u64>,
    /// How many of those lie before the last record that tells where a stream ends. None if it is not here.
    unknown_before: HashMap<StreamId, usize>,
}

impl Losses {
    /// Finds out what was damaged: messages of a stream, something without messages, or nobody knows. `tail_of` says where
    /// a stream ends as far as the log is read.
    pub(super) fn note(&mut self, damaged: &Damaged, tail_of: impl Fn(StreamId) -> Option<Position>) {
        let bytes = u32::try_from(damaged.bytes.len()).unwrap_or(u32::MAX);
        self.damage.push(RecordSpan { place: damaged.place, bytes });
        if damaged.place.offset < HEADER_BYTES {
            return;
        }
        let inspect = self.damage.len() <= INSPECTED_MAX;
        let certain = inspect.then(|| with_one_bit_back(damaged)).flatten();
        let suspect = certain.or_else(|| {
            // What only looks like a record may have been another one. The next one of its stream it hardly was by chance.
            as_legible(damaged).filter(|suspect| {
                let messages = suspect.messages();
                messages.is_some_and(|(stream, start, _)| self.tail(stream, tail_of(stream)) == Some(start))
            })
        });
        match suspect.map(|suspect| suspect.messages()) {
            Some(Some((stream, start, end))) => self.messages.entry(stream).or_default().push((start, end)),
            Some(None) => {}
            None => self.unknown.push(bytes.into()),
        }
    }

    /// A record of a stream was read.
    pub(super) fn pass(&mut self, stream: StreamId, record: &LogRecord) {
        if !self.unknown.is_empty() && tells_tail(record) {
            self.unknown_before.insert(stream, self.unknown.len());
        }
    }

    /// Where a stream ends that ends at `tail` without what is known to be damaged.
    fn tail(&self, stream: StreamId, tail: Option<Position>) -> Option<Position> {
        self.of(stream).iter().map(|(_, end)| *end).max().max(tail)
    }

    /// The messages of a stream that are known to be damaged.
    pub(super) fn of(&self, stream: StreamId) -> &[(Position, Position)] {
        self.messages.get(&stream).map(Vec::as_slice).unwrap_or_default()
    }

    /// Where a stream goes on so that no position is given twice, if the last record of it that was read ends at `tail`.
    /// Nothing follows on a closed one.
    pub(super) fn behind(&self, stream: StreamId, tail: Position, closed: bool) -> Position {
        let before = self.unknown_before.get(&stream).copied().unwrap_or_default();
        // Each position has a byte at the least.
        let unknown = self.unknown.get(before..).unwrap_or_default().iter().sum();
        let known = self.tail(stream, Some(tail)).unwrap_or(tail);
        known.after(if closed { 0 } else { unknown })
    }
}

/// Whether a record tells where its stream ends.
fn tells_tail(record: &LogRecord) -> bool {
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
