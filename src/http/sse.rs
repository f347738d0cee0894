//! Server-sent events: a `data` event for messages and a `control` event with the cursor behind each
//! (protocol, section 5.8; the format is the HTML standard's, section 9.2).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio_stream::StreamExt;

use super::body::Body;
use super::error::{Error, gap_text};
use super::fields::{STREAM_SSE_DATA_ENCODING, X_ACCEL_BUFFERING};
use super::request::Live;
use super::{Gateway, answer, bare};
use crate::hub::{Batch, Gap, TailSettings, Update};
use crate::limits::jittered;
use crate::stream::{Cursor, Encoding, StreamName};

/// What a `control` event says.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Control {
    stream_next_offset: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_cursor: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    up_to_date: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream_closed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<String>,
}

impl Gateway {
    pub(super) async fn sse(&self, name: StreamName, request: Live) -> Result<Response<Body>, Error> {
        let life = jittered(self.limits.sse_life.get());
        let settings = TailSettings { heartbeat: request.heartbeat, life, whole_characters: true };
        let tail = self.hub.tail(name, request.start, settings).await?;
        let binary = tail.first().is_some_and(|batch| batch.content_type.encoding() == Encoding::Binary);
        let (clock, mut cursor) = (self.clock, request.cursor);
        let events = tail.updates().map(move |update| {
            let next = Cursor::next(cursor, clock.now(), fastrand::u64(..));
            cursor = cursor.max(Some(next));
            event(&update, next)
        });
        let mut answer = bare(StatusCode::OK, Body::live(events));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
        if binary {
            headers.insert(STREAM_SSE_DATA_ENCODING, HeaderValue::from_static("base64"));
        }
        answer::secure(headers);
        Ok(answer)
    }
}

/// The events of one update.
pub fn event(update: &Update, cursor: Cursor) -> Bytes {
    let mut event = BytesMut::new();
    let control = match update {
        Update::Batch(batch) => {
            event.reserve(batch.len() + batch.len() / 2 + 256);
            data(&mut event, batch);
            Control {
                stream_next_offset: batch.next.to_string(),
                stream_cursor: (!batch.closed).then(|| cursor.0.to_string()),
                up_to_date: batch.up_to_date,
                stream_closed: batch.closed,
                gap: None,
            }
        }
        Update::Gap(gap) => gap_control(gap, cursor),
    };
    event.put_slice(b"event: control\ndata:");
    event.put_slice(&serde_json::to_vec(&control).unwrap_or_default());
    event.put_slice(b"\n\n");
    event.freeze()
}

fn gap_control(gap: &Gap, cursor: Cursor) -> Control {
    Control {
        stream_next_offset: gap.earliest.to_string(),
        stream_cursor: Some(cursor.0.to_string()),
        gap: Some(gap_text(gap)),
        ..Control::default()
    }
}

fn data(event: &mut BytesMut, batch: &Batch) {
    if batch.is_empty() {
        return;
    }
    event.put_slice(b"event: data\n");
    match batch.content_type.encoding() {
        Encoding::Json => {
            event.put_slice(b"data:[");
            for (index, piece) in batch.pieces.iter().enumerate() {
                event.put_slice(if index == 0 { b"" } else { b"," });
                lines(event, piece);
            }
            event.put_slice(b"]\n");
        }
        Encoding::Text => {
            let text = batch.pieces.concat();
            let text = String::from_utf8_lossy(&text);
            event.put_slice(b"data:");
            if text.starts_with(' ') {
                event.put_u8(b' ');
            }
            lines(event, text.as_bytes());
            event.put_u8(b'\n');
        }
        Encoding::Binary => {
            event.put_slice(b"data:");
            event.put_slice(STANDARD.encode(batch.pieces.concat()).as_bytes());
            event.put_u8(b'\n');
        }
    }
    event.put_u8(b'\n');
}

/// Writes `text` behind a `data:`; each line break in it, in any of the three spellings, begins a new `data:`.
/// A line that begins with a space gets another, since the reader takes one away.
fn lines(event: &mut BytesMut, text: &[u8]) {
    let mut rest = text;
    while let Some(end) = memchr::memchr2(b'\r', b'\n', rest) {
        let (line, break_and_rest) = rest.split_at(end);
        let break_bytes = if break_and_rest.starts_with(b"\r\n") { 2 } else { 1 };
        rest = break_and_rest.get(break_bytes..).unwrap_or_default();
        event.put_slice(line);
        event.put_slice(if rest.starts_with(b" ") { b"\ndata: " } else { b"\ndata:" });
    }
    event.put_slice(rest);
}
