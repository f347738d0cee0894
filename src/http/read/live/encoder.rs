//! Encodes the updates of one stream or many in a live form, and says what differs between the forms.

use bytes::Bytes;

use crate::clock::Clock;
use crate::http::api::form::Form;
use crate::http::read::envelope::{self, Frame, TokenField};
use crate::http::read::{resume_token, sse};
use crate::hub::{MultiBatch, MultiReader, OriginStatus, SharedBatch, Source, StreamReader, Update, Variant};
use crate::stream::{Batch, CacheCursor, Offset};

/// The encoding of a live form.
pub(in crate::http) struct Format {
    pub(super) form: Form,
    pub(super) content_type: &'static str,
    /// Encodes an update of one stream, with the state of its origin if it has one.
    pub(super) one: fn(&Update, CacheCursor, Option<&OriginStatus>) -> Bytes,
    /// Encodes why the rights of a client of one stream have ended, with its offset.
    end: fn(&'static str, Option<Offset>) -> Bytes,
    /// The bytes around an envelope over many streams.
    many: Frame,
}

/// The conformance tests of the protocol require this content type without a `charset` for one stream.
pub(in crate::http) const SSE: Format = Format {
    form: Form::Sse,
    content_type: "text/event-stream",
    one: sse::event,
    end: sse::end,
    many: Frame::EVENT,
};

pub(in crate::http) const NDJSON: Format = Format {
    form: Form::Ndjson,
    content_type: "application/x-ndjson",
    one: |update, cursor, origin| envelope::one(update, cursor, origin, Frame::LINE),
    end: |why, offset| envelope::end_of_one(why, offset, Frame::LINE),
    many: Frame::LINE,
};

/// The response to a handshake has no content type, and all frames with envelopes are text.
pub(in crate::http) const WEBSOCKET: Format = Format {
    form: Form::WebSocket,
    content_type: "",
    one: |update, cursor, origin| envelope::one(update, cursor, origin, Frame::NONE),
    end: |why, offset| envelope::end_of_one(why, offset, Frame::NONE),
    many: Frame::NONE,
};

/// The longest event id over many streams: a full resume token of about 380 streams. An `EventSource` sends the id as a header
/// field, and proxies accept 8 KiB for one field. Over more streams events have no id.
const EVENT_ID_BYTES_MAX: usize = 6 * 1024;

/// Each event that moves the position has an id if a full resume token is at most this long, as over about 30 streams.
const SHORT_EVENT_ID_BYTES: usize = 512;

/// Encodes the updates of a source.
pub(super) trait Encoder<S: Source>: Send + 'static {
    /// Returns the bytes of an update, and whether it is a heartbeat. `source` has already moved past the update. `is_last`:
    /// the life of the form is over.
    fn encode(&mut self, update: &S::Update, source: &mut S, is_last: bool) -> (Bytes, bool);

    /// Returns the bytes that tell why the rights of the client have ended.
    fn end(&mut self, why: &'static str, source: &S) -> Bytes;
}

/// Encodes the updates of one stream, with a cache cursor.
pub(super) struct StreamEncoder {
    format: &'static Format,
    clock: Clock,
    /// The cache cursor of the request.
    requested: Option<CacheCursor>,
    /// The cache cursor that was sent last.
    sent: Option<CacheCursor>,
    /// A CR at the end of the last batch is still to be sent. See [`sse::with_whole_line_breaks`].
    held_cr: bool,
}

impl StreamEncoder {
    /// `requested` is the cache cursor of the request.
    pub(super) fn new(format: &'static Format, clock: Clock, requested: Option<CacheCursor>) -> Self {
        Self { format, clock, requested, sent: None, held_cr: false }
    }
}

impl Encoder<StreamReader> for StreamEncoder {
    fn encode(&mut self, update: &Update, reader: &mut StreamReader, _: bool) -> (Bytes, bool) {
        let whole = match update {
            Update::Batch(batch) if self.format.form == Form::Sse => {
                sse::with_whole_line_breaks(batch, &mut self.held_cr)
            }
            Update::Batch(_) | Update::Gap(_) => None,
        };
        let whole = whole.map(|batch| Update::from(SharedBatch::from(batch)));
        let update = whole.as_ref().unwrap_or(update);
        let (now, is_first) = (self.clock.wall(), self.sent.is_none());
        let still_good = self.sent.filter(|sent| *sent >= CacheCursor::next(None, now, 0));
        let seed = match update {
            Update::Batch(batch) => cursor_seed(batch),
            Update::Gap(_) => fastrand::u64(..),
        };
        let cursor = still_good.unwrap_or_else(|| CacheCursor::next(self.requested, now, seed));
        self.sent = Some(cursor);
        let origin = reader.origin_status();
        let origin = origin.as_deref();
        let encode = |update: &Update| (self.format.one)(update, cursor, origin);
        match update {
            Update::Batch(batch) => {
                let bytes = if batch.is_alone() {
                    encode(update)
                } else {
                    let version = origin.map_or(0, |origin| origin.version);
                    let variant = Variant([self.format.form as u64, cursor.0, version, 0]);
                    batch.encoded(variant, |_| encode(update))
                };
                (bytes, !is_first && batch.is_empty() && !batch.closed)
            }
            Update::Gap(_) => (encode(update), false),
        }
    }

    fn end(&mut self, why: &'static str, reader: &StreamReader) -> Bytes {
        (self.format.end)(why, reader.offset())
    }
}

/// Returns the random seed of the cache cursor that is sent with a batch. It is the same for all readers of the batch, so that
/// they can share the encoded bytes.
pub(in crate::http) fn cursor_seed(batch: &Batch) -> u64 {
    fastrand::Rng::with_seed(batch.epoch.0 ^ batch.next.position.0).u64(..)
}

/// Encodes the updates of many streams, with the resume token.
pub(super) struct MultiEncoder {
    frame: Frame,
    /// Length of the last full token that was sent; 0: none yet.
    full: usize,
    /// Length of the deltas that were sent since, with their dots.
    parts: usize,
    /// The ids of server-sent events. `None`: another form.
    ids: Option<EventIds>,
}

/// Decides which events over many streams have an id. The id of an event is a full resume token, because a browser's
/// `EventSource` sends only the last id when it reconnects.
#[derive(Debug, Default)]
struct EventIds {
    /// The last id is not the position of the reader.
    is_stale: bool,
    /// Bytes of the events since the last id.
    sent: usize,
}

impl MultiEncoder {
    pub(super) fn new(format: &Format) -> Self {
        let ids = (format.form == Form::Sse).then(EventIds::default);
        Self { frame: format.many, full: 0, parts: 0, ids }
    }
}

impl Encoder<MultiReader> for MultiEncoder {
    fn encode(&mut self, batch: &MultiBatch, reader: &mut MultiReader, is_last: bool) -> (Bytes, bool) {
        let (is_first, is_quiet) = (self.full == 0, batch.updates.is_empty());
        let token = self.token(reader);
        let (full, ids) = (self.full, &mut self.ids);
        let has_id = ids.as_mut().is_some_and(|ids| ids.is_due(&token, full, is_last || is_quiet));
        let id = has_id.then(|| match &token {
            TokenField::Full(token) => token.clone(),
            TokenField::Delta(_) | TokenField::Same => resume_token::part(reader.positions()),
        });
        // They are told once, in the first envelope.
        let withheld = reader.withheld().filter(|_| is_first);
        let failing = reader.failing_origins();
        let envelope = envelope::many(batch, withheld, &failing, &token, false, id.as_deref(), self.frame);
        if let Some(ids) = &mut self.ids {
            ids.sent += envelope.len();
        }
        (envelope, is_quiet && !is_first)
    }

    fn end(&mut self, why: &'static str, _: &MultiReader) -> Bytes {
        envelope::end_of_many(why, self.frame)
    }
}

impl EventIds {
    /// Whether the next event has an id. `full` is the length of a full token. `is_good_moment`: the event is a heartbeat, or the
    /// last one.
    ///
    /// A long id is sent again only after as many bytes of events, so ids at most double the bytes.
    fn is_due(&mut self, token: &TokenField, full: usize, is_good_moment: bool) -> bool {
        self.is_stale |= !matches!(token, TokenField::Same);
        let is_due = full <= SHORT_EVENT_ID_BYTES
            || self.sent >= full
            || is_good_moment
            || matches!(token, TokenField::Full(_));
        let is_due = is_due && self.is_stale && full <= EVENT_ID_BYTES_MAX;
        if is_due {
            *self = Self::default();
        }
        is_due
    }
}

impl MultiEncoder {
    /// Returns the full token at first, and again as soon as the deltas since would be longer than it. So the client's token is
    /// never longer than twice a full token.
    fn token(&mut self, reader: &mut MultiReader) -> TokenField {
        let delta = resume_token::part(reader.moved_positions());
        if self.full > 0 {
            if delta.is_empty() {
                return TokenField::Same;
            }
            self.parts += delta.len() + 1;
            if self.parts <= self.full {
                return TokenField::Delta(delta);
            }
        }
        let full = resume_token::part(reader.positions());
        (self.full, self.parts) = (full.len(), 0);
        TokenField::Full(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the ids that events of `bytes` bytes get, as a text of `i` and `-`, if a full token has `full` bytes.
    fn ids(full: usize, bytes: usize, tokens: &[TokenField]) -> String {
        let mut ids = EventIds::default();
        let mut is_due = |token: &TokenField| {
            let is_due = ids.is_due(token, full, matches!(token, TokenField::Same));
            ids.sent += bytes;
            if is_due { 'i' } else { '-' }
        };
        tokens.iter().map(&mut is_due).collect()
    }

    #[test]
    fn ids_at_most_double_the_bytes_and_are_never_longer_than_a_header_field_may_be() {
        let first = [TokenField::Full(String::new())];
        let moves = |count| vec![TokenField::Delta("x".to_owned()); count];
        let tokens = [&first[..], &moves(8), &[TokenField::Same, TokenField::Same]].concat();
        for (full, bytes, expected) in [
            // A short id is in each event that moves the position.
            (SHORT_EVENT_ID_BYTES, 10, "iiiiiiiii--"),
            // A long one after as many bytes, and at the next heartbeat.
            (1000, 250, "i---i---i--"),
            (1000, 300, "i---i---i--"),
            (1000, 400, "i--i--i--i-"),
            (EVENT_ID_BYTES_MAX, 1, "i--------i-"),
            (EVENT_ID_BYTES_MAX + 1, 1000, "-----------"),
        ] {
            assert_eq!(ids(full, bytes, &tokens), expected, "{full} bytes, {bytes} an event");
        }
    }
}
