//! Envelopes: the JSON of NDJSON lines, of WebSocket frames, and of all delivery forms over many streams. An envelope over one
//! stream has one batch and its next offset; an envelope over many streams has several batches and one resume token.

use std::io::Write;
use std::sync::Arc;
use std::time::SystemTime;

use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

use crate::http::api::error::gap_text;
use crate::http::api::polled_origins::OriginControl;
use crate::hub::{MultiBatch, OriginStatus, StreamUpdate, Update};
use crate::stream::{Batch, CacheCursor, Encoding, Gap, Offset, StreamName};

/// The length of a time with its comma, until the year 2286.
const TIME_BYTES: usize = 14;

/// The bytes that a delivery form writes around an envelope.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Frame {
    pub(in crate::http) before: &'static [u8],
    pub(in crate::http) after: &'static [u8],
}

/// The resume token in an envelope over many streams.
#[derive(Debug, Clone)]
pub(in crate::http) enum TokenField {
    /// The whole token.
    Full(String),
    /// The text that the client appends to its token, after a dot.
    Delta(String),
    /// Nothing: the token is unchanged.
    Same,
}

/// The state of a reader that a live form sends beside the messages of one stream: the `control` event of SSE, and the fields
/// beside `data` in an envelope (protocol, section 5.8).
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Control {
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_next_offset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_cursor: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    up_to_date: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream_closed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    missing: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    forbidden: bool,
    /// Why the rights of the client have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<&'static str>,
    /// The state of the origin from which the gateway fills the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_origin: Option<Box<OriginControl>>,
}

impl Frame {
    /// A JSON body, or a text frame of a WebSocket.
    pub(in crate::http) const NONE: Self = Self { before: b"", after: b"" };

    /// A line of NDJSON.
    pub(in crate::http) const LINE: Self = Self { before: b"", after: b"\n" };

    /// An SSE event of the default type.
    pub(in crate::http) const EVENT: Self = Self { before: b"data:", after: b"\n\n" };
}

/// Encodes an update of one stream as an envelope: `{"data":[...],"streamNextOffset":...}`. `data` has the messages of a JSON
/// stream as they are, the text of a text stream as a string, and base64 strings otherwise.
pub(in crate::http) fn one(
    update: &Update,
    cursor: CacheCursor,
    origin: Option<&OriginStatus>,
    frame: Frame,
) -> Bytes {
    let mut envelope = BytesMut::with_capacity(data_length(update) + 256);
    envelope.put_slice(frame.before);
    envelope.put_slice(b"{\"data\":[");
    put_data(&mut envelope, update);
    envelope.put_slice(b"]");
    put_control_fields(&mut envelope, &Control::new(update, Some(cursor)).with_origin(origin));
    envelope.put_slice(frame.after);
    envelope.freeze()
}

/// Encodes updates of many streams as an envelope, in one line. `withheld` are the streams that the client may not read, `failing`
/// are the streams whose origins fail, and `event_id` is the id of a server-sent event.
pub(in crate::http) fn many<'a>(
    batch: &MultiBatch,
    withheld: impl Iterator<Item = &'a StreamName>,
    failing: &[(&StreamName, Arc<OriginStatus>)],
    token: &TokenField,
    superseded: bool,
    event_id: Option<&str>,
    frame: Frame,
) -> Bytes {
    // A token has no characters that JSON would have to escape.
    let (name, token) = match token {
        TokenField::Full(token) => (&b",\"resume\":\""[..], token.as_str()),
        TokenField::Delta(token) => (&b",\"resumeDelta\":\""[..], token.as_str()),
        TokenField::Same => (&b""[..], ""),
    };
    let update_length = |update: &StreamUpdate| {
        let times = update.times.len() * TIME_BYTES;
        update.stream.as_str().len() + update.update.as_ref().map_or(0, data_length) + times + 192
    };
    let length: usize = batch.updates.iter().map(update_length).sum();
    let id_length = event_id.map_or(0, str::len);
    let mut envelope = BytesMut::with_capacity(length + token.len() + id_length + 128);
    if let Some(id) = event_id {
        envelope.put_slice(b"id:");
        envelope.put_slice(id.as_bytes());
        envelope.put_u8(b'\n');
    }
    envelope.put_slice(frame.before);
    envelope.put_slice(b"{\"batches\":[");
    for (index, update) in batch.updates.iter().enumerate() {
        envelope.put_slice(if index == 0 { b"" } else { b"," });
        put_stream_update(&mut envelope, update);
    }
    for (index, stream) in withheld.enumerate() {
        envelope.put_slice(if index == 0 && batch.updates.is_empty() { b"" } else { b"," });
        envelope.put_slice(b"{\"stream\":");
        put_json(&mut envelope, stream.local());
        envelope.put_slice(b",\"data\":[]");
        put_control_fields(&mut envelope, &Control::of_forbidden());
    }
    envelope.put_slice(b"]");
    envelope.put_slice(name);
    if !token.is_empty() {
        envelope.put_slice(token.as_bytes());
        envelope.put_slice(b"\"");
    }
    envelope.put_slice(if batch.up_to_date { b",\"upToDate\":true" } else { b",\"upToDate\":false" });
    put_failing_origins(&mut envelope, failing);
    envelope.put_slice(if superseded { b",\"superseded\":true}" } else { b"}" });
    envelope.put_slice(frame.after);
    envelope.freeze()
}

/// Encodes why the rights of a client of one stream have ended: `{"data":[],"streamNextOffset":...,"end":"expired"}`.
pub(in crate::http) fn end_of_one(why: &'static str, offset: Option<Offset>, frame: Frame) -> Bytes {
    let mut envelope = BytesMut::with_capacity(128);
    envelope.put_slice(frame.before);
    envelope.put_slice(b"{\"data\":[]");
    put_control_fields(&mut envelope, &Control::of_end(why, offset));
    envelope.put_slice(frame.after);
    envelope.freeze()
}

/// Encodes why the rights of a client of many streams have ended. Its resume token stays the same.
pub(in crate::http) fn end_of_many(why: &'static str, frame: Frame) -> Bytes {
    let parts =
        [frame.before, b"{\"batches\":[],\"upToDate\":false,\"end\":\"", why.as_bytes(), b"\"}", frame.after];
    parts.concat().into()
}

/// Writes the control object that tells why the rights of a client have ended.
pub(in crate::http) fn put_end(text: &mut BytesMut, why: &'static str, offset: Option<Offset>) {
    put_json(text, &Control::of_end(why, offset));
}

/// Writes the states of the origins that fail, by the names of their streams.
fn put_failing_origins(envelope: &mut BytesMut, failing: &[(&StreamName, Arc<OriginStatus>)]) {
    for (index, (stream, status)) in failing.iter().enumerate() {
        envelope.put_slice(if index == 0 { b",\"streamOrigins\":{" } else { b"," });
        put_json(envelope, stream.local());
        envelope.put_u8(b':');
        put_json(envelope, &OriginControl::new(status));
    }
    if !failing.is_empty() {
        envelope.put_u8(b'}');
    }
}

fn put_stream_update(envelope: &mut BytesMut, StreamUpdate { stream, update, times }: &StreamUpdate) {
    envelope.put_slice(b"{\"stream\":");
    put_json(envelope, stream.local());
    if let Some(Update::Batch(batch)) = update
        && !batch.content_type.is_json()
    {
        envelope.put_slice(b",\"contentType\":");
        put_json(envelope, batch.content_type.as_str());
    }
    envelope.put_slice(b",\"data\":[");
    update.iter().for_each(|update| put_data(envelope, update));
    envelope.put_slice(b"]");
    if !times.is_empty() {
        put_times(envelope, times);
    }
    let control = update.as_ref().map_or_else(Control::of_missing, |update| Control::new(update, None));
    put_control_fields(envelope, &control);
}

/// Writes the times of messages, in milliseconds since 1970.
fn put_times(envelope: &mut BytesMut, times: &[SystemTime]) {
    envelope.put_slice(b",\"times\":[");
    let mut digits = itoa::Buffer::new();
    for (index, time) in times.iter().enumerate() {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        envelope.put_slice(if index == 0 { b"" } else { b"," });
        envelope.put_slice(digits.format(since.as_millis()).as_bytes());
    }
    envelope.put_slice(b"]");
}

/// Writes the messages of an update as elements of a JSON array.
fn put_data(envelope: &mut BytesMut, update: &Update) {
    let Update::Batch(batch) = update else { return };
    match batch.content_type.encoding() {
        Encoding::Json => {
            for (index, piece) in batch.pieces.iter().enumerate() {
                envelope.put_slice(if index == 0 { b"" } else { b"," });
                put_in_one_line(envelope, piece);
            }
        }
        Encoding::Text if batch.is_empty() => {}
        Encoding::Text => {
            let text = batch.pieces.concat();
            put_json(envelope, &String::from_utf8_lossy(&text));
        }
        Encoding::Binary => {
            for (index, piece) in batch.pieces.iter().enumerate() {
                envelope.put_slice(if index == 0 { b"\"" } else { b",\"" });
                put_base64(envelope, [piece]);
                envelope.put_u8(b'"');
            }
        }
    }
}

/// Writes JSON with spaces in place of line breaks. In valid JSON they are never part of a string (RFC 8259, section 7).
fn put_in_one_line(envelope: &mut BytesMut, json: &[u8]) {
    let mut rest = json;
    while let Some(end) = memchr::memchr2(b'\r', b'\n', rest) {
        let (line, behind) = rest.split_at(end);
        envelope.put_slice(line);
        envelope.put_u8(b' ');
        rest = if let [_, behind @ ..] = behind { behind } else { behind };
    }
    envelope.put_slice(rest);
}

/// Estimates the encoded length of an update's data. It is close, because a buffer of that capacity is held until a slow client
/// has read it.
pub(in crate::http) fn data_length(update: &Update) -> usize {
    let Update::Batch(batch) = update else { return 0 };
    match batch.content_type.encoding() {
        Encoding::Binary => batch.len().div_ceil(3) * 4,
        Encoding::Json | Encoding::Text => batch.len() + batch.len() / 16,
    }
}

/// Writes the pieces as one base64 text, without an intermediate buffer: freeing such short-lived buffers between the
/// long-lived ones of slow clients would fragment memory.
pub(in crate::http) fn put_base64<'a>(text: &mut BytesMut, pieces: impl IntoIterator<Item = &'a Bytes>) {
    let mut encoder = EncoderWriter::new(text.writer(), &STANDARD);
    // Writing to memory cannot fail.
    let _infallible =
        pieces.into_iter().try_for_each(|piece| encoder.write_all(piece)).and_then(|()| encoder.finish());
}

/// Writes the control object of an update, with the cache cursor, and with the state of the origin if the stream has one.
pub(in crate::http) fn put_control(
    text: &mut BytesMut,
    update: &Update,
    cursor: CacheCursor,
    origin: Option<&OriginStatus>,
) {
    put_json(text, &Control::new(update, Some(cursor)).with_origin(origin));
}

/// Writes the fields of a control object at the end of an object that is still open, and closes that object.
fn put_control_fields(envelope: &mut BytesMut, control: &Control) {
    let start = envelope.len();
    put_json(envelope, control);
    let brace = envelope.get_mut(start);
    debug_assert_eq!(brace.as_deref(), Some(&b'{'), "a control object is a JSON object");
    if let Some(brace) = brace {
        *brace = b',';
    }
}

fn put_json(text: &mut BytesMut, value: &(impl Serialize + ?Sized)) {
    let written = serde_json::to_writer(text.writer(), value);
    debug_assert!(written.is_ok(), "writing to memory cannot fail, and all values serialize to JSON");
}

impl Control {
    /// The state after `update`. `cursor` is the cache cursor, if the delivery form has one.
    fn new(update: &Update, cursor: Option<CacheCursor>) -> Self {
        let cursor = cursor.map(|cursor| cursor.0.to_string());
        match update {
            Update::Batch(batch) => Self::of_batch(batch, cursor),
            Update::Gap(gap) => Self::of_gap(gap, cursor),
        }
    }

    fn with_origin(self, origin: Option<&OriginStatus>) -> Self {
        Self { stream_origin: origin.map(|status| Box::new(OriginControl::new(status))), ..self }
    }

    /// The state of a stream that does not exist. Its reader is up to date.
    fn of_missing() -> Self {
        Self { missing: true, up_to_date: true, ..Self::default() }
    }

    /// The state of a stream that the client may not read, whether it exists or not.
    fn of_forbidden() -> Self {
        Self { forbidden: true, up_to_date: true, ..Self::default() }
    }

    fn of_end(why: &'static str, offset: Option<Offset>) -> Self {
        let stream_next_offset = offset.map(|offset| offset.to_string());
        Self { stream_next_offset, end: Some(why), ..Self::default() }
    }

    fn of_batch(batch: &Batch, cursor: Option<String>) -> Self {
        Self {
            stream_next_offset: Some(batch.next.to_string()),
            stream_cursor: cursor.filter(|_| !batch.closed),
            up_to_date: batch.up_to_date,
            stream_closed: batch.closed,
            ..Self::default()
        }
    }

    fn of_gap(gap: &Gap, cursor: Option<String>) -> Self {
        Self {
            stream_next_offset: Some(gap.earliest.to_string()),
            stream_cursor: cursor,
            gap: Some(gap_text(gap)),
            ..Self::default()
        }
    }
}
