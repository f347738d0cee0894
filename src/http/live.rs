//! What all live forms have in common: the tail, the cursor for caches, the counting, and the head of an answer
//! whose body never seems to end.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;
use bytes::{BufMut, Bytes, BytesMut};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio_stream::{Stream, StreamExt};

use super::body::Body;
use super::error::Error;
use super::fields::X_ACCEL_BUFFERING;
use super::form::Form;
use super::request::Live;
use super::{Gateway, Link, answer, bare};
use crate::hub::{TailSettings, Update, Variant};
use crate::metrics::LiveMetrics;
use crate::stream::{Batch, ContentType, Cursor, Encoding, StreamName};

/// How a live form writes one update.
pub(super) type Encode = fn(&Update, Cursor) -> Bytes;

/// The tail of a stream in a live form.
pub(super) struct LiveTail<S> {
    /// Of the stream.
    pub(super) content_type: ContentType,
    /// The encoded updates.
    pub(super) updates: S,
}

impl Gateway {
    /// Opens the tail of a stream. Fails while a status can still say so.
    pub(super) async fn live_tail(
        &self,
        name: StreamName,
        request: &Live,
        life: Option<Duration>,
        form: Form,
        link: Arc<Link>,
        encode: Encode,
    ) -> Result<LiveTail<impl Stream<Item = Bytes> + Send + use<>>, Error> {
        let settings = TailSettings { heartbeat: request.heartbeat, life };
        let tail = self.hub.tail(name, request.start, settings).await?;
        let content_type =
            tail.first().map_or_else(ContentType::octet_stream, |first| first.content_type.clone());
        let counted = Counted::new(self.forms.live(form), link);
        let (clock, asked, mut told) = (self.clock, request.cursor, None);
        let updates = tail.updates().map(move |update| {
            let (now, first) = (clock.now(), told.is_none());
            let still_good = told.filter(|told| *told >= Cursor::next(None, now, 0));
            let seed =
                if let Update::Batch(batch) = &update { cursor_seed(batch) } else { fastrand::u64(..) };
            let cursor = still_good.unwrap_or_else(|| Cursor::next(asked, now, seed));
            told = Some(cursor);
            let bytes = match &update {
                Update::Batch(batch) if !batch.is_alone() => {
                    let variant = Variant([form as u64, cursor.0, 0, 0]);
                    batch.made(variant, |_| encode(&update, cursor))
                }
                Update::Batch(_) | Update::Gap(_) => encode(&update, cursor),
            };
            counted.sent(!first && is_empty(&update), bytes.len());
            bytes
        });
        Ok(LiveTail { content_type, updates })
    }
}

/// What stands for chance in the cursor behind a batch: the same for all who are sent it, so that they can share the bytes.
pub(super) fn cursor_seed(batch: &Batch) -> u64 {
    fastrand::Rng::with_seed(batch.epoch.0 ^ batch.next.position.0).u64(..)
}

/// How long the data of a batch gets, or little less. What is set aside for an update stays busy until a slow reader
/// has taken it.
pub(super) fn encoded_length(batch: &Batch) -> usize {
    match batch.content_type.encoding() {
        Encoding::Binary => batch.len().div_ceil(3) * 4,
        Encoding::Json | Encoding::Text => batch.len() + batch.len() / 16,
    }
}

/// Writes bytes as one base64 text, with no copy on the way: what lives for a moment between what slow readers keep
/// for long leaves holes in the memory.
pub(super) fn put_base64<'a>(text: &mut BytesMut, pieces: impl IntoIterator<Item = &'a Bytes>) {
    let mut encoder = EncoderWriter::new(text.writer(), &STANDARD);
    // A buffer in memory takes everything.
    let _infallible =
        pieces.into_iter().try_for_each(|piece| encoder.write_all(piece)).and_then(|()| encoder.finish());
}

/// 200 with a live form as its body, which no cache keeps and no proxy holds back.
pub(super) fn streamed(
    content_type: &'static str,
    updates: impl Stream<Item = Bytes> + Send + 'static,
) -> Response<Body> {
    let mut answer = bare(StatusCode::OK, Body::live(updates));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    answer::secure(headers);
    answer
}

/// Whether an update only shows life, unless it is the first.
fn is_empty(update: &Update) -> bool {
    matches!(update, Update::Batch(batch) if batch.is_empty() && !batch.closed)
}

/// A reader being counted, from its first update until it is gone.
pub(super) struct Counted {
    metrics: LiveMetrics,
    link: Arc<Link>,
}

impl Counted {
    pub(super) fn new(metrics: LiveMetrics, link: Arc<Link>) -> Self {
        metrics.open.inc();
        Self { metrics, link }
    }

    pub(super) fn sent(&self, is_heartbeat: bool, bytes: usize) {
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
        if self.link.is_stalled() {
            self.metrics.cut.inc();
        }
    }
}
