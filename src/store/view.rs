//! The results of a read before and after their content is loaded. A read takes only the locations of messages under the lock
//! of the stream, and loads the content afterwards.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::log::{LogSlice, Placed};
use crate::stream::{Annotation, Batch, ContentType, Encoding, EpochHistory, Message, Messages, Position};

/// A range of a log, with pieces of content or their locations as `P`.
pub(super) struct View<P> {
    pub(super) content_type: ContentType,
    pub(super) epoch_history: EpochHistory,
    pub(super) from: Position,
    pub(super) slice: LogSlice<P>,
    pub(super) tail: Position,
    pub(super) closed: bool,
    pub(super) lives_for: Option<Duration>,
}

/// Messages of a log one by one, with their content or its location as `P`.
pub(super) struct MessagesView<P> {
    pub(super) content_type: ContentType,
    pub(super) epoch_history: EpochHistory,
    pub(super) messages: Vec<Placed<P>>,
    pub(super) next: Position,
    pub(super) tail: Position,
    pub(super) closed: bool,
}

impl<P> View<P> {
    /// Replaces the pieces with their content.
    pub(super) fn with_content(self, pieces: Vec<Bytes>) -> View<Bytes> {
        let Self { content_type, epoch_history, from, slice, tail, closed, lives_for } = self;
        let slice = LogSlice { pieces, messages: slice.messages, next: slice.next };
        View { content_type, epoch_history, from, slice, tail, closed, lives_for }
    }
}

impl<P> MessagesView<P> {
    /// Replaces the pieces with the content and annotation of each message.
    pub(super) fn with_content(self, contents: Vec<(Bytes, Option<Arc<Annotation>>)>) -> MessagesView<Bytes> {
        let Self { content_type, epoch_history, messages, next, tail, closed } = self;
        let messages = messages
            .into_iter()
            .zip(contents)
            .map(|(placed, (content, annotation))| placed.with(content, annotation));
        MessagesView { content_type, epoch_history, messages: messages.collect(), next, tail, closed }
    }
}

impl<P> Placed<P> {
    /// Replaces the piece with the content and annotation of the message.
    pub(super) fn with(self, piece: Bytes, annotation: Option<Arc<Annotation>>) -> Placed<Bytes> {
        let Self { start, next, piece: _, length, at, annotation: _ } = self;
        Placed { start, next, piece, length, at, annotation }
    }
}

impl View<Bytes> {
    pub(super) fn into_batch(self) -> Batch {
        let LogSlice { mut pieces, messages, mut next } = self.slice;
        let at_tail = next == self.tail;
        let closed = self.closed && at_tail;
        if self.content_type.encoding() == Encoding::Text && !closed {
            let cut = cut_begun_character(&mut pieces, at_tail);
            next = Position(next.0.saturating_sub(cut));
        }
        Batch {
            pieces,
            messages,
            start: self.epoch_history.offset_at(self.from),
            next: self.epoch_history.offset_at(next),
            tail: self.tail,
            up_to_date: at_tail,
            closed,
            epoch: self.epoch_history.own(),
            lives_for: self.lives_for,
            content_type: self.content_type,
        }
    }
}

impl MessagesView<Bytes> {
    pub(super) fn into_messages(self) -> Messages {
        let at_tail = self.next == self.tail;
        Messages {
            messages: self
                .messages
                .into_iter()
                .map(|placed| placed.into_message(&self.epoch_history))
                .collect(),
            next: self.epoch_history.offset_at(self.next),
            tail: self.tail,
            up_to_date: at_tail,
            closed: at_tail && self.closed,
            content_type: self.content_type,
        }
    }
}

impl Placed<Bytes> {
    pub(super) fn into_message(self, epoch_history: &EpochHistory) -> Message {
        Message {
            start: epoch_history.offset_at(self.start),
            next: epoch_history.offset_at(self.next),
            bytes: self.piece,
            at: self.at,
            annotation: self.annotation,
        }
    }
}

/// Cuts the first bytes of a UTF-8 character whose other bytes are not in `pieces`, and the empty messages behind them. Returns
/// the number of positions cut. Cuts nothing if nothing would be left of a batch that does not reach the tail, because its
/// reader would not get ahead.
fn cut_begun_character(pieces: &mut Vec<Bytes>, at_tail: bool) -> u64 {
    let mut end: Vec<u8> =
        pieces.iter().rev().flat_map(|piece| piece.iter().rev()).take(3).copied().collect();
    end.reverse();
    let begun =
        end.utf8_chunks().last().map(|chunk| chunk.invalid()).filter(|bytes| is_begun_character(bytes));
    let mut rest = begun.map_or(0, <[u8]>::len);
    if rest == 0 {
        return 0;
    }
    let (mut kept, mut positions) = (pieces.clone(), 0);
    while rest > 0
        && let Some(mut last) = kept.pop()
    {
        let cut = rest.min(last.len());
        rest -= cut;
        positions += cut.max(1);
        last.truncate(last.len() - cut);
        if !last.is_empty() {
            kept.push(last);
        }
    }
    if kept.is_empty() && !at_tail {
        return 0;
    }
    *pieces = kept;
    positions as u64
}

/// Whether `bytes`, which are not valid UTF-8, are the beginning of a character (RFC 3629, section 4).
fn is_begun_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
