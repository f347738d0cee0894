//! The live forms SSE, NDJSON and WebSocket: encodes the updates of one stream or many as they arrive, and for SSE and NDJSON
//! sends them as the body of the response.

use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, VARY};
use hyper::{Response, StatusCode};
use tokio_stream::Stream;

use super::envelope::{self, Frame, TokenField};
use super::request::{LiveRead, ReadFrom};
use super::resume_token;
use super::sse::{self, RECONNECT, RECONNECT_AFTER_LIFE};
use crate::auth::{Authenticator, Grants};
use crate::budget::OpenCharge;
use crate::clock::{Clock, jittered};
use crate::http::api::answer;
use crate::http::api::credentials::Renewals;
use crate::http::api::error::Error;
use crate::http::api::fields::{STREAM_SSE_DATA_ENCODING, X_ACCEL_BUFFERING};
use crate::http::api::form::Form;
use crate::http::api::gateway::Gateway;
use crate::http::conn::Body;
use crate::http::conn::{ConnectionState, bare};
use crate::hub::{
    DeviceConnection, EndSignal, Hub, MultiBatch, MultiReader, PollError, SharedBatch, Source, StreamReader,
    Tail, TailSettings, Update, Variant,
};
use crate::metrics::LiveMetrics;
use crate::stream::{Batch, CacheCursor, ContentType, Encoding, Offset, ReadError, StreamName};

/// The encoding of a live form.
pub(in crate::http) struct Format {
    form: Form,
    content_type: &'static str,
    /// Encodes an update of one stream.
    one: fn(&Update, CacheCursor) -> Bytes,
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
    one: |update, cursor| envelope::one(update, cursor, Frame::LINE),
    end: |why, offset| envelope::end_of_one(why, offset, Frame::LINE),
    many: Frame::LINE,
};

/// The response to a handshake has no content type, and all frames with envelopes are text.
pub(in crate::http) const WEBSOCKET: Format = Format {
    form: Form::WebSocket,
    content_type: "",
    one: |update, cursor| envelope::one(update, cursor, Frame::NONE),
    end: |why, offset| envelope::end_of_one(why, offset, Frame::NONE),
    many: Frame::NONE,
};

/// The longest event id over many streams: a full resume token of about 380 streams. An `EventSource` sends the id as a header
/// field, and proxies accept 8 KiB for one field. Over more streams events have no id.
const EVENT_ID_BYTES_MAX: usize = 6 * 1024;

/// Each event that moves the position has an id if a full resume token is at most this long, as over about 30 streams.
const SHORT_EVENT_ID_BYTES: usize = 512;

/// Opens live forms. It does not need the request, so that a WebSocket can open its form after the client's first frame.
pub(in crate::http) struct LiveOpener {
    hub: Arc<Hub>,
    clock: Clock,
    metrics: LiveMetrics,
    state: Arc<ConnectionState>,
    auth: Arc<Authenticator>,
    /// How long the form lasts. `None`: until either side closes the connection.
    life: Option<Duration>,
    format: &'static Format,
}

/// An open live form.
pub(in crate::http) struct OpenLive {
    /// The encoded updates.
    pub(in crate::http) updates: Updates,
    /// The longest time between two updates.
    pub(in crate::http) heartbeat: Duration,
    /// The stream and its content type. `None`: the form is over many streams.
    pub(in crate::http) stream: Option<(StreamName, ContentType)>,
    /// The first batch, if the stream is closed and has no message for the reader.
    end: Option<SharedBatch>,
    /// Set when the updates end because the rights of the client do, for a WebSocket, which tells it with its close frame.
    pub(in crate::http) unauthorized: Option<UnauthorizedFlag>,
}

/// Set when the rights of a client have ended.
pub(in crate::http) type UnauthorizedFlag = Arc<OnceLock<&'static str>>;

/// Encoded updates, in one allocation.
pub(in crate::http) type Updates = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

impl Gateway {
    /// Answers with a live form as the body.
    pub(in crate::http) async fn live(
        &self,
        format: &'static Format,
        live: LiveRead,
        state: Arc<ConnectionState>,
    ) -> Result<Response<Body>, Error> {
        let life = jittered(self.limits.live_life.get());
        let (reconnects, is_private) = (live.reconnects, live.is_private);
        let live = match self.live_opener(format, Some(life), state).open(live).await {
            // An `EventSource` gives up at any status but 200, and its page is not told the status.
            Err(Error::Poll(PollError::Read(ReadError::Gap(gap)))) if reconnects => {
                let cursor = CacheCursor::next(None, self.clock.wall(), fastrand::u64(..));
                let event = (format.one)(&Update::Gap(gap), cursor);
                let events = sse::with_retry(RECONNECT_AFTER_LIFE, &event);
                return Ok(live_answer(format.content_type, Body::full(events), is_private));
            }
            live => live?,
        };
        if let Some(end) = live.end.filter(|_| reconnects) {
            // 204 tells an `EventSource` not to reconnect again (HTML standard, section 9.2.3).
            let mut answer: Response<Body> = answer::uncached(StatusCode::NO_CONTENT);
            answer::position(&mut answer, &end);
            return Ok(answer);
        }
        let content_type = match (format.form, &live.stream) {
            (Form::Sse, None) => "text/event-stream; charset=utf-8",
            _ => format.content_type,
        };
        let mut answer = live_answer(content_type, Body::live(live.updates), is_private);
        let headers = answer.headers_mut();
        let is_binary =
            live.stream.is_some_and(|(_, content_type)| content_type.encoding() == Encoding::Binary);
        if format.form == Form::Sse && is_binary {
            headers.insert(STREAM_SSE_DATA_ENCODING, HeaderValue::from_static("base64"));
        }
        Ok(answer)
    }

    pub(in crate::http) fn live_opener(
        &self,
        format: &'static Format,
        life: Option<Duration>,
        state: Arc<ConnectionState>,
    ) -> LiveOpener {
        let metrics = self.forms.live(format.form);
        let (hub, auth, clock) = (self.hub.clone(), self.auth.clone(), self.clock);
        LiveOpener { hub, clock, metrics, state, auth, life, format }
    }
}

impl LiveOpener {
    /// Opens the tail of one stream or many. Errors are found here, before the status of the response is sent.
    pub(in crate::http) async fn open(self, live: LiveRead) -> Result<OpenLive, Error> {
        let LiveRead { from, heartbeat, client, grants, renewals, reconnects: _, is_private: _ } = live;
        let (hub, format) = (&self.hub, self.format);
        let presence = client.as_ref().and_then(|client| hub.device_connected(client, from.starts()));
        let rights_end = match renewals {
            Some(renewals) => Some(self.renewable_rights_end(renewals)),
            None => grants.map(|grants| self.rights_end(grants)),
        };
        let open = hub.open(&from.tenant(), false).map_err(Error::Short)?;
        let settings = TailSettings { heartbeat, life: self.life, rights_end };
        match from {
            ReadFrom::One { stream, start, cursor } => {
                let tail = hub.tail(hub.stream_reader(&stream, start), settings).await?;
                let first = tail.first();
                let content_type =
                    first.map_or_else(ContentType::octet_stream, |first| first.content_type.clone());
                let end = first.filter(|first| first.closed && first.is_empty()).cloned();
                let encoder = StreamEncoder {
                    format,
                    clock: self.clock,
                    requested: cursor,
                    sent: None,
                    held_cr: false,
                };
                let counted = self.counted(open, presence);
                let unauthorized = counted.unauthorized.clone();
                let updates = encoded(tail, encoder, format.form, counted);
                Ok(OpenLive { updates, heartbeat, stream: Some((stream, content_type)), end, unauthorized })
            }
            ReadFrom::Many(streams) => {
                let tail = hub.tail(hub.multi_reader(streams), settings).await?;
                let ids = (format.form == Form::Sse).then(EventIds::default);
                let encoder = MultiEncoder { frame: format.many, full: 0, parts: 0, ids };
                let counted = self.counted(open, presence);
                let unauthorized = counted.unauthorized.clone();
                let updates = encoded(tail, encoder, format.form, counted);
                Ok(OpenLive { updates, heartbeat, stream: None, end: None, unauthorized })
            }
        }
    }

    fn rights_end(&self, grants: Arc<Grants>) -> EndSignal {
        let end = self.auth.clone().rights_end(grants, self.clock);
        Box::pin(async { end.await.as_str() })
    }

    /// Completes when rights end that were not renewed before.
    fn renewable_rights_end(&self, mut renewals: Renewals) -> EndSignal {
        let (auth, clock) = (self.auth.clone(), self.clock);
        Box::pin(async move {
            loop {
                let grants = renewals.borrow_and_update().clone();
                tokio::select! {
                    why = auth.clone().rights_end(grants, clock) => return why.as_str(),
                    changed = renewals.changed() => if changed.is_err() { return pending().await },
                }
            }
        })
    }

    fn counted(self, open: Option<OpenCharge>, presence: Option<DeviceConnection>) -> Counted {
        let unauthorized = (self.format.form == Form::WebSocket).then(Arc::default);
        Counted::new(self.metrics, self.state, unauthorized, (open, presence))
    }
}

/// Encodes the updates of a source.
trait Encoder<S: Source>: Send + 'static {
    /// Returns the bytes of an update, and whether it is a heartbeat. `source` has already moved past the update. `is_last`:
    /// the life of the form is over.
    fn encode(&mut self, update: &S::Update, source: &mut S, is_last: bool) -> (Bytes, bool);

    /// Returns the bytes that tell why the rights of the client have ended.
    fn end(&mut self, why: &'static str, source: &S) -> Bytes;
}

fn encoded<S: Source>(tail: Tail<S>, encoder: impl Encoder<S>, form: Form, counted: Counted) -> Updates {
    Box::pin(unfold(
        (tail, encoder, counted, (form, true)),
        async |(mut tail, mut encoder, counted, (form, is_first))| {
            let Some(update) = tail.next().await else {
                let why = tail.take_unauthorized()?;
                let bytes = encoder.end(why, tail.source_mut());
                if let Some(flag) = &counted.unauthorized {
                    let _first = flag.set(why);
                }
                return Some((bytes, (tail, encoder, counted, (form, false))));
            };
            let is_last = tail.has_outlived();
            let (bytes, is_heartbeat) = encoder.encode(&update, tail.source_mut(), is_last);
            let bytes = match form {
                Form::Sse if is_last => sse::with_retry(RECONNECT_AFTER_LIFE, &bytes),
                Form::Sse if is_first => sse::with_retry(RECONNECT, &bytes),
                _ => bytes,
            };
            counted.sent(is_heartbeat, bytes.len());
            Some((bytes, (tail, encoder, counted, (form, false))))
        },
    ))
}

/// Begins a response with a live form. Header fields stop caches from keeping it, and proxies from buffering or compressing it.
fn live_answer(content_type: &'static str, body: Body, is_private: bool) -> Response<Body> {
    let mut answer = bare(StatusCode::OK, body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    if is_private {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache, no-store, no-transform"));
        headers.insert(VARY, HeaderValue::from_static(answer::VARY_BY_CREDENTIALS));
    }
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    answer::secure_messages(headers);
    answer
}

/// Encodes the updates of one stream, with a cache cursor.
struct StreamEncoder {
    format: &'static Format,
    clock: Clock,
    /// The cache cursor of the request.
    requested: Option<CacheCursor>,
    /// The cache cursor that was sent last.
    sent: Option<CacheCursor>,
    /// A CR at the end of the last batch is still to be sent. See [`sse::with_whole_line_breaks`].
    held_cr: bool,
}

impl Encoder<StreamReader> for StreamEncoder {
    fn encode(&mut self, update: &Update, _: &mut StreamReader, _: bool) -> (Bytes, bool) {
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
        let encode = self.format.one;
        match update {
            Update::Batch(batch) => {
                let bytes = if batch.is_alone() {
                    encode(update, cursor)
                } else {
                    let variant = Variant([self.format.form as u64, cursor.0, 0, 0]);
                    batch.encoded(variant, |_| encode(update, cursor))
                };
                (bytes, !is_first && batch.is_empty() && !batch.closed)
            }
            Update::Gap(_) => (encode(update, cursor), false),
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
struct MultiEncoder {
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
        let envelope = envelope::many(batch, withheld, &token, false, id.as_deref(), self.frame);
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

/// Counts a reader in the metrics of its live form until it is dropped.
struct Counted {
    metrics: LiveMetrics,
    state: Arc<ConnectionState>,
    unauthorized: Option<UnauthorizedFlag>,
    /// Counts the form for its tenant, and keeps a device from being woken.
    _open: (Option<OpenCharge>, Option<DeviceConnection>),
}

impl Counted {
    fn new(
        metrics: LiveMetrics,
        state: Arc<ConnectionState>,
        unauthorized: Option<UnauthorizedFlag>,
        open: (Option<OpenCharge>, Option<DeviceConnection>),
    ) -> Self {
        metrics.open.inc();
        Self { metrics, state, unauthorized, _open: open }
    }

    fn sent(&self, is_heartbeat: bool, bytes: usize) {
        self.metrics.envelopes.inc();
        self.metrics.bytes.inc_by(bytes as u64);
        if is_heartbeat {
            self.metrics.heartbeats.inc();
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.open.dec();
        if self.state.is_stalled() {
            self.metrics.cut.inc();
        }
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
