//! One append as the log of a stream stores it, and the messages that a read takes from it.

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::budget::allocated_bytes;
use crate::stream::{Annotation, MessageLimit, Position, Shape};

/// The content of an append, or its location in a file.
pub(in crate::store) trait Content: Clone + Send + Sync + 'static {
    /// A range of the content.
    type Piece;

    /// A run of appends that is complete.
    type Sealed: Sealed<Self>;

    /// The memory of a stream in this kind of store besides its entry, its texts and its messages.
    const STREAM_BYTES: usize;

    /// The memory of the content besides the value itself.
    fn bytes(&self) -> u64;

    /// A range of the content; must be within it.
    fn piece(&self, range: Range<usize>) -> Self::Piece;
}

/// A run of consecutive appends that is complete. Forks share runs.
pub(in crate::store) trait Sealed<C: Content>: Debug + Send + Sync + 'static {
    /// Seals `records`, which must not be empty.
    fn seal(records: Vec<Record<C>>) -> Self;

    /// The position of the first append.
    fn start(&self) -> Position;

    /// The position after the last append.
    fn end(&self) -> Position;

    /// The memory of the run in bytes.
    fn bytes(&self) -> u64;

    /// The messages and bytes of the whole run.
    fn extent(&self) -> Extent;

    /// The record that contains `from` or is the first after it, and all later records.
    fn records_from(&self, from: Position) -> impl Iterator<Item = Cow<'_, Record<C>>>;
}

/// Messages and bytes of a range of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store) struct Extent {
    pub(in crate::store) messages: u64,
    pub(in crate::store) bytes: u64,
}

/// One append in a log.
#[derive(Debug, Clone)]
pub(in crate::store) struct Record<C> {
    /// The position of its first message. The log sets it when the record is pushed.
    pub(in crate::store) start: Position,
    pub(in crate::store) shape: Shape,
    pub(in crate::store) content: C,
    pub(in crate::store) at: SystemTime,
    /// What the publisher declared; `None` in a store that reads it together with the content.
    pub(in crate::store) annotation: Option<Arc<Annotation>>,
}

/// A message with its positions in the log.
#[derive(Debug, Clone)]
pub(in crate::store) struct Placed<P> {
    pub(in crate::store) start: Position,
    pub(in crate::store) next: Position,
    pub(in crate::store) piece: P,
    pub(in crate::store) length: usize,
    pub(in crate::store) at: SystemTime,
    pub(in crate::store) annotation: Option<Arc<Annotation>>,
}

/// The result of a read.
pub(in crate::store) struct LogSlice<P> {
    pub(in crate::store) pieces: Vec<P>,
    pub(in crate::store) messages: u64,
    pub(in crate::store) next: Position,
}

/// The maximum length of a character in UTF-8 (RFC 3629, section 3).
const CHARACTER_BYTES_MAX: usize = 4;

impl<P> LogSlice<P> {
    /// What a read from `from` on returns of consecutive appends, of which the first contains `from`, within `bytes_max`, where each
    /// append counts at least one byte. At least one append, and at least as many as the bytes of one character, so that a reader of
    /// whole characters makes progress.
    pub(in crate::store) fn of<C: Content<Piece = P>>(
        records: impl Iterator<Item: Deref<Target = Record<C>>>,
        from: Position,
        bytes_max: usize,
    ) -> Self {
        let mut slice = Self { pieces: Vec::new(), messages: 0, next: from };
        let mut bytes = 0;
        for record in records {
            let skipped = from.since(record.start);
            let range = record.shape.since(skipped);
            let size = range.len().max(1);
            if bytes >= CHARACTER_BYTES_MAX && bytes + size > bytes_max {
                break;
            }
            bytes += size;
            slice.pieces.push(record.content.piece(range));
            slice.messages += record.shape.messages().saturating_sub(skipped).max(1);
            slice.next = record.end();
        }
        slice
    }
}

/// The messages of consecutive appends from `from` on, one by one.
pub(in crate::store) fn messages_of<C: Content>(
    records: impl Iterator<Item: Deref<Target = Record<C>>>,
    from: Position,
) -> impl Iterator<Item = Placed<C::Piece>> {
    records.flat_map(move |record| {
        let mut next = from.max(record.start);
        std::iter::from_fn(move || {
            let placed = record.message_at(next.since(record.start))?;
            next = placed.next;
            Some(placed)
        })
    })
}

/// The messages that fit into `limit`, but at least one, up to a hole, and the position after the last of them.
pub(in crate::store) fn messages_within<P>(
    all: impl Iterator<Item = Placed<P>>,
    from: Position,
    limit: MessageLimit,
) -> (Vec<Placed<P>>, Position) {
    let (mut messages, mut next, mut bytes) = (Vec::new(), from, 0);
    for placed in all {
        if placed.start > next {
            break;
        }
        bytes += placed.length.max(1);
        if !messages.is_empty() && (bytes > limit.bytes_max || messages.len() >= limit.count_max) {
            break;
        }
        next = placed.next;
        messages.push(placed);
    }
    (messages, next)
}

impl<C> Record<C> {
    pub(in crate::store) fn end(&self) -> Position {
        self.start.after(self.shape.positions())
    }

    /// Whether each position is a message, as in JSON mode, so that an append can be trimmed partly.
    pub(super) fn counts_messages(&self) -> bool {
        self.shape.messages() == self.shape.positions()
    }

    /// The messages and bytes at or after `from`.
    pub(super) fn extent_from(&self, from: Position) -> Extent {
        let skipped = from.since(self.start);
        let trimmed = if self.counts_messages() { skipped } else { 0 };
        Extent {
            messages: self.shape.messages().saturating_sub(trimmed),
            bytes: self.shape.since(skipped).len() as u64,
        }
    }
}

impl<C: Content> Record<C> {
    /// The memory of the record in bytes.
    pub(in crate::store) fn bytes(&self) -> u64 {
        let annotation = self.annotation.as_deref().map_or(0, Annotation::bytes);
        (size_of::<Self>() + size_of_val(self.shape.ends()) + annotation) as u64 + self.content.bytes()
    }

    /// The last message; of a JSON append the last value.
    pub(in crate::store) fn last_message(&self) -> Option<Placed<C::Piece>> {
        let first = if self.counts_messages() { self.shape.positions().saturating_sub(1) } else { 0 };
        self.message_at(first)
    }

    /// The message that contains the position `at` (relative to the record), from `at` on.
    pub(in crate::store) fn message_at(&self, at: u64) -> Option<Placed<C::Piece>> {
        if at >= self.shape.positions() {
            return None;
        }
        let step = if self.counts_messages() { 1 } else { self.shape.positions() };
        let range = self.shape.message_at(at);
        Some(Placed {
            start: self.start.after(at),
            next: self.start.after((at / step + 1) * step),
            length: range.len(),
            piece: self.content.piece(range),
            at: self.at,
            annotation: self.annotation.clone(),
        })
    }
}

impl Extent {
    pub(super) fn plus(self, more: Self) -> Self {
        Self { messages: self.messages + more.messages, bytes: self.bytes + more.bytes }
    }
}

impl Content for Bytes {
    type Piece = Self;
    type Sealed = Box<[Record<Self>]>;

    /// The place in the table of streams.
    const STREAM_BYTES: usize = 64;

    /// The allocation of the content, and its reference counts.
    fn bytes(&self) -> u64 {
        allocated_bytes(self.len()) + 32
    }

    fn piece(&self, range: Range<usize>) -> Self {
        self.slice(range)
    }
}

impl<C: Content<Sealed = Self> + Debug> Sealed<C> for Box<[Record<C>]> {
    fn seal(records: Vec<Record<C>>) -> Self {
        records.into()
    }

    fn bytes(&self) -> u64 {
        self.iter().map(Record::bytes).sum()
    }

    fn start(&self) -> Position {
        self.first().map(|record| record.start).unwrap_or_default()
    }

    fn end(&self) -> Position {
        self.last().map(Record::end).unwrap_or_default()
    }

    fn extent(&self) -> Extent {
        self.iter().fold(Extent::default(), |extent, record| extent.plus(record.extent_from(record.start)))
    }

    fn records_from(&self, from: Position) -> impl Iterator<Item = Cow<'_, Record<C>>> {
        let first = self.partition_point(|record| record.end() <= from);
        self.iter().skip(first).map(Cow::Borrowed)
    }
}
