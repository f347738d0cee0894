//! Server-sent events: a `data` event for messages and a `control` event with the cursor behind each
//! (protocol, section 5.8; the format is the HTML standard's, section 9.2).

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use hyper::Response;
use hyper::header::HeaderValue;

use super::body::Body;
use super::control::Control;
use super::error::Error;
use super::fields::STREAM_SSE_DATA_ENCODING;
use super::form::Form;
use super::live::{encoded_length, put_base64, streamed};
use super::request::Live;
use super::{Gateway, Link};
use crate::clock::jittered;
use crate::hub::Update;
use crate::stream::{Batch, Cursor, Encoding, StreamName};

impl Gateway {
    pub(super) async fn sse(
        &self,
        name: StreamName,
        request: Live,
        link: Arc<Link>,
    ) -> Result<Response<Body>, Error> {
        let life = jittered(self.limits.live_life.get());
        let tail = self.live_tail(name, &request, Some(life), Form::Sse, link, event).await?;
        let mut answer = streamed("text/event-stream", tail.updates);
        if tail.content_type.encoding() == Encoding::Binary {
            answer.headers_mut().insert(STREAM_SSE_DATA_ENCODING, HeaderValue::from_static("base64"));
        }
        Ok(answer)
    }
}

/// The events of one update.
pub fn event(update: &Update, cursor: Cursor) -> Bytes {
    let mut event = BytesMut::new();
    if let Update::Batch(batch) = update {
        event.reserve(encoded_length(batch) + 256);
        data(&mut event, batch);
    }
    event.put_slice(b"event: control\ndata:");
    event.put_slice(&Control::of(update, Some(cursor)).json());
    event.put_slice(b"\n\n");
    event.freeze()
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
            put_base64(event, &batch.pieces);
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
