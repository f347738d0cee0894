//! The live forms SSE, NDJSON and WebSocket: encodes the updates of one stream or many as they arrive, and for SSE and NDJSON
//! sends them as the body of the response.

mod encoder;

use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, VARY};
use hyper::{Response, StatusCode};
use tokio_stream::Stream;

use self::encoder::{Encoder, Format, MultiEncoder, StreamEncoder};
use super::request::{LiveRead, ReadFrom};
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
    DeviceConnection, EndSignal, Hub, LiveForm, PollError, SharedBatch, Source, Tail, TailSettings, Update,
};
use crate::metrics::LiveMetrics;
use crate::stream::{CacheCursor, ContentType, Encoding, ReadError, StreamName};

pub(in crate::http) use self::encoder::{NDJSON, SSE, WEBSOCKET, cursor_seed};

/// Opens live forms. It does not need the request, so that a WebSocket can open its form after the client's first frame.
pub(in crate::http) struct LiveOpener {
    hub: Arc<Hub>,
    clock: Clock,
    metrics: Arc<LiveMetrics>,
    state: Arc<ConnectionState>,
    auth: Arc<Authenticator>,
    /// How long the form lasts. `None`: until either side closes the connection.
    life: Option<Duration>,
    format: &'static Format,
    /// The longest time without an update if a stream has an origin: each update tells its state.
    origin_heartbeat: Duration,
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
                let event = (format.one)(&Update::Gap(gap), cursor, None);
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
        let origin_heartbeat = self.limits.live_heartbeat.get();
        LiveOpener { hub, clock, metrics, state, auth, life, format, origin_heartbeat }
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
        let has_origin =
            hub.has_origins() && from.streams().any(|stream| hub.origin_status(stream).is_some());
        let quiet_max = if has_origin { heartbeat.min(self.origin_heartbeat) } else { heartbeat };
        let settings = TailSettings { heartbeat: quiet_max, life: self.life, rights_end };
        match from {
            ReadFrom::One { stream, start, cursor } => {
                let reader = match format.form {
                    Form::Sse => hub.live_reader(LiveForm::Sse, &stream, start),
                    Form::Ndjson => hub.live_reader(LiveForm::Ndjson, &stream, start),
                    _ => hub.live_reader(LiveForm::WebSocket, &stream, start),
                };
                let tail = hub.tail(reader, settings).await?;
                let first = tail.first();
                let content_type =
                    first.map_or_else(ContentType::octet_stream, |first| first.content_type.clone());
                let end = first.filter(|first| first.closed && first.is_empty()).cloned();
                let encoder = StreamEncoder::new(format, self.clock, cursor);
                let counted = self.counted(open, presence);
                let unauthorized = counted.unauthorized.clone();
                let updates =
                    Box::pin(EncodedTail { tail, encoder, form: format.form, is_first: true, counted });
                Ok(OpenLive { updates, heartbeat, stream: Some((stream, content_type)), end, unauthorized })
            }
            ReadFrom::Many(streams) => {
                let tail = hub.tail(hub.multi_reader(streams), settings).await?;
                let encoder = MultiEncoder::new(format);
                let counted = self.counted(open, presence);
                let unauthorized = counted.unauthorized.clone();
                let updates =
                    Box::pin(EncodedTail { tail, encoder, form: format.form, is_first: true, counted });
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

    fn counted(self, open: Option<OpenCharge>, presence: Option<Box<DeviceConnection>>) -> ReaderGuard {
        let unauthorized = (self.format.form == Form::WebSocket).then(Arc::default);
        ReaderGuard::new(self.metrics, self.state, unauthorized, (open, presence))
    }
}

/// A tail whose updates are encoded as they arrive.
struct EncodedTail<S: Source, E> {
    tail: Tail<S>,
    encoder: E,
    form: Form,
    is_first: bool,
    counted: ReaderGuard,
}

impl<S: Source, E: Encoder<S>> EncodedTail<S, E> {
    fn encode(&mut self, update: &S::Update) -> Option<Bytes> {
        let is_last = self.tail.has_outlived();
        let is_first = std::mem::take(&mut self.is_first);
        let (bytes, is_heartbeat) = self.encoder.encode(update, self.tail.source_mut()?, is_last);
        let bytes = match self.form {
            Form::Sse if is_last => sse::with_retry(RECONNECT_AFTER_LIFE, &bytes),
            Form::Sse if is_first => sse::with_retry(RECONNECT, &bytes),
            _ => bytes,
        };
        self.counted.sent(is_heartbeat, bytes.len());
        Some(bytes)
    }

    /// Encodes why the rights of the client have ended, if the updates end for that reason.
    fn encode_end(&mut self) -> Option<Bytes> {
        let why = self.tail.take_unauthorized()?;
        if let Some(flag) = &self.counted.unauthorized {
            let _first = flag.set(why);
        }
        Some(self.encoder.end(why, self.tail.source_mut()?))
    }
}

impl<S: Source, E: Encoder<S> + Unpin> Stream for EncodedTail<S, E> {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = self.get_mut();
        Poll::Ready(match ready!(this.tail.poll_next(context)) {
            Some(update) => this.encode(&update),
            None => this.encode_end(),
        })
    }
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

/// Counts a reader in the metrics of its live form until it is dropped.
struct ReaderGuard {
    metrics: Arc<LiveMetrics>,
    state: Arc<ConnectionState>,
    unauthorized: Option<UnauthorizedFlag>,
    /// Counts the form for its tenant, and keeps a device from being woken.
    _open: (Option<OpenCharge>, Option<Box<DeviceConnection>>),
}

impl ReaderGuard {
    fn new(
        metrics: Arc<LiveMetrics>,
        state: Arc<ConnectionState>,
        unauthorized: Option<UnauthorizedFlag>,
        open: (Option<OpenCharge>, Option<Box<DeviceConnection>>),
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

impl Drop for ReaderGuard {
    fn drop(&mut self) {
        self.metrics.open.dec();
        if self.state.is_stalled() {
            self.metrics.cut.inc();
        }
    }
}
