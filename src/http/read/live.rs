//! The live forms SSE, NDJSON and WebSocket: encodes the updates of one stream or many as they arrive, and for SSE and NDJSON
//! sends them as the body of the response.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio_stream::Stream;

use super::envelope::{self, Frame, TokenField};
use super::request::{LiveRead, ReadFrom};
use super::resume_token;
use super::sse;
use crate::clock::Clock;
use crate::clock::jittered;
use crate::http::api::answer;
use crate::http::api::error::Error;
use crate::http::api::fields::{STREAM_SSE_DATA_ENCODING, X_ACCEL_BUFFERING};
use crate::http::api::form::Form;
use crate::http::api::gateway::Gateway;
use crate::http::conn::Body;
use crate::http::conn::{ConnectionState, bare};
use crate::hub::{Hub, MultiBatch, MultiReader, Source, StreamReader, Tail, TailSettings, Update, Variant};
use crate::metrics::LiveMetrics;
use crate::stream::{Batch, CacheCursor, ContentType, Encoding, StreamName};

/// The encoding of a live form.
pub(in crate::http) struct Format {
    form: Form,
    content_type: &'static str,
    /// Encodes an update of one stream.
    one: fn(&Update, CacheCursor) -> Bytes,
    /// The bytes around an envelope over many streams.
    many: Frame,
}

pub(in crate::http) const SSE: Format =
    Format { form: Form::Sse, content_type: "text/event-stream", one: sse::event, many: Frame::EVENT };

pub(in crate::http) const NDJSON: Format = Format {
    form: Form::Ndjson,
    content_type: "application/x-ndjson",
    one: |update, cursor| envelope::one(update, cursor, Frame::LINE),
    many: Frame::LINE,
};

/// The response to a handshake has no content type, and all frames with envelopes are text.
pub(in crate::http) const WEBSOCKET: Format = Format {
    form: Form::WebSocket,
    content_type: "",
    one: |update, cursor| envelope::one(update, cursor, Frame::NONE),
    many: Frame::NONE,
};

/// Opens live forms. It does not need the request, so that a WebSocket can open its form after the client's first frame.
pub(in crate::http) struct LiveOpener {
    hub: Arc<Hub>,
    clock: Clock,
    metrics: LiveMetrics,
    state: Arc<ConnectionState>,
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
}

/// Encoded updates, in one allocation.
pub(in crate::http) type Updates = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

impl Gateway {
    /// Answers with a live form as the body. Header fields stop caches from keeping it and proxies from buffering it.
    pub(in crate::http) async fn live(
        &self,
        format: &'static Format,
        live: LiveRead,
        state: Arc<ConnectionState>,
    ) -> Result<Response<Body>, Error> {
        let life = jittered(self.limits.live_life.get());
        let live = self.live_opener(format, Some(life), state).open(live).await?;
        let mut answer = bare(StatusCode::OK, Body::live(live.updates));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
        answer::secure_messages(headers);
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
        LiveOpener { hub: self.hub.clone(), clock: self.clock, metrics, state, life, format }
    }
}

impl LiveOpener {
    /// Opens the tail of one stream or many. Errors are found here, before the status of the response is sent.
    pub(in crate::http) async fn open(self, live: LiveRead) -> Result<OpenLive, Error> {
        let LiveRead { from, heartbeat } = live;
        let (hub, format) = (&self.hub, self.format);
        let settings = TailSettings { heartbeat, life: self.life };
        match from {
            ReadFrom::One { stream, start, cursor } => {
                let tail = hub.tail(hub.stream_reader(&stream, start), settings).await?;
                let content_type =
                    tail.first().map_or_else(ContentType::octet_stream, |first| first.content_type.clone());
                let encoder = StreamEncoder { format, clock: self.clock, requested: cursor, sent: None };
                let updates = encoded(tail, encoder, self.counted());
                Ok(OpenLive { updates, heartbeat, stream: Some((stream, content_type)) })
            }
            ReadFrom::Many(streams) => {
                let tail = hub.tail(hub.multi_reader(streams), settings).await?;
                let encoder = MultiEncoder { frame: format.many, full: 0, parts: 0 };
                Ok(OpenLive { updates: encoded(tail, encoder, self.counted()), heartbeat, stream: None })
            }
        }
    }

    fn counted(self) -> Counted {
        Counted::new(self.metrics, self.state)
    }
}

/// Encodes the updates of a source.
trait Encoder<S: Source>: Send + 'static {
    /// Returns the bytes of an update, and whether it is a heartbeat. `source` has already moved past the update.
    fn encode(&mut self, update: &S::Update, source: &mut S) -> (Bytes, bool);
}

fn encoded<S: Source>(tail: Tail<S>, encoder: impl Encoder<S>, counted: Counted) -> Updates {
    Box::pin(unfold((tail, encoder, counted), async |(mut tail, mut encoder, counted)| {
        let update = tail.next().await?;
        let (bytes, is_heartbeat) = encoder.encode(&update, tail.source_mut());
        counted.sent(is_heartbeat, bytes.len());
        Some((bytes, (tail, encoder, counted)))
    }))
}

/// Encodes the updates of one stream, with a cache cursor.
struct StreamEncoder {
    format: &'static Format,
    clock: Clock,
    /// The cache cursor of the request.
    requested: Option<CacheCursor>,
    /// The cache cursor that was sent last.
    sent: Option<CacheCursor>,
}

impl Encoder<StreamReader> for StreamEncoder {
    fn encode(&mut self, update: &Update, _: &mut StreamReader) -> (Bytes, bool) {
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
}

impl Encoder<MultiReader> for MultiEncoder {
    fn encode(&mut self, batch: &MultiBatch, reader: &mut MultiReader) -> (Bytes, bool) {
        let is_first = self.full == 0;
        let token = self.token(reader);
        (envelope::many(batch, &token, false, self.frame), batch.updates.is_empty() && !is_first)
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
}

impl Counted {
    fn new(metrics: LiveMetrics, state: Arc<ConnectionState>) -> Self {
        metrics.open.inc();
        Self { metrics, state }
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
