//! Server-sent events of one stream: a `data` event with messages, each followed by a `control` event with the next offset
//! (protocol, section 5.8; format: HTML standard, section 9.2). Over many streams each event is an envelope.
//!
//! The first event of an update has the next offset as its `id`. A browser's `EventSource` sends the last id that it received as
//! `Last-Event-ID` when it reconnects, and the read continues there.

use std::ops::Range;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::envelope::{data_length, put_base64, put_control, put_end};
use crate::hub::{OriginStatus, Update};
use crate::stream::{Batch, CacheCursor, Encoding, Offset};

/// Delay until a reader reconnects after its connection broke or the gateway shut down. Random, so that the readers do not all
/// reconnect at once.
pub(in crate::http) const RECONNECT: Range<Duration> = Duration::from_secs(2)..Duration::from_secs(4);

/// Delay until a reader reconnects after the planned end of a response.
pub(in crate::http) const RECONNECT_AFTER_LIFE: Range<Duration> = Duration::ZERO..Duration::from_millis(500);

/// Encodes one update: a `data` event if it has messages, and a `control` event.
pub fn event(update: &Update, cursor: CacheCursor, origin: Option<&OriginStatus>) -> Bytes {
    let mut event = BytesMut::with_capacity(data_length(update) + 320);
    let has_data = match update {
        Update::Batch(batch) if !batch.is_empty() => {
            data(&mut event, batch);
            true
        }
        Update::Batch(_) | Update::Gap(_) => false,
    };
    event.put_slice(b"event: control\ndata:");
    put_control(&mut event, update, cursor, origin);
    event.put_u8(b'\n');
    if !has_data {
        id(&mut event, next_offset(update));
    }
    event.put_u8(b'\n');
    event.freeze()
}

/// Encodes a `control` event that tells why the rights of the client have ended.
pub(in crate::http) fn end(why: &'static str, offset: Option<Offset>) -> Bytes {
    let mut event = BytesMut::with_capacity(128);
    event.put_slice(b"event: control\ndata:");
    put_end(&mut event, why, offset);
    event.put_slice(b"\n\n");
    event.freeze()
}

/// Adds a `retry` field with a random time in `range` to the first of `events`: after that time a reader whose response has
/// ended reconnects.
pub(in crate::http) fn with_retry(range: Range<Duration>, events: &[u8]) -> Bytes {
    let wait = fastrand::u128(range.start.as_millis()..range.end.as_millis());
    [format!("retry:{wait}\n").as_bytes(), events].concat().into()
}

/// Replaces a batch of text so that a CR at its end is sent together with the next batch: if that begins with LF, the two are
/// one line break. `held` tells whether such a CR of the batch before is still to be sent. `None`: the batch is sent as it is.
pub(in crate::http) fn with_whole_line_breaks(batch: &Batch, held: &mut bool) -> Option<Batch> {
    if batch.content_type.encoding() != Encoding::Text {
        return None;
    }
    let had = *held;
    let ends_with_cr = batch.pieces.last().map_or(had, |last| last.ends_with(b"\r"));
    *held = ends_with_cr && !batch.closed;
    if !had && !*held {
        return None;
    }
    let mut batch = batch.clone();
    if had {
        batch.pieces.insert(0, Bytes::from_static(b"\r"));
    }
    if *held && let Some(mut last) = batch.pieces.pop() {
        last.truncate(last.len() - 1);
        batch.next.position.0 -= 1;
        batch.pieces.extend(Some(last).filter(|last| !last.is_empty()));
    }
    Some(batch)
}

fn next_offset(update: &Update) -> Offset {
    match update {
        Update::Batch(batch) => batch.next,
        Update::Gap(gap) => gap.earliest,
    }
}

fn id(event: &mut BytesMut, offset: Offset) {
    event.put_slice(b"id:");
    event.put_slice(&offset.to_text());
    event.put_u8(b'\n');
}

fn data(event: &mut BytesMut, batch: &Batch) {
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
    id(event, batch.next);
    event.put_u8(b'\n');
}

/// Writes `text` after a `data:`. Each line break in it (CR, LF or CRLF) begins a new `data:` line. A line that begins with a
/// space gets another one, because the reader removes one.
fn lines(event: &mut BytesMut, text: &[u8]) {
    let mut rest = text;
    while let Some(end) = memchr::memchr2(b'\r', b'\n', rest) {
        let (line, behind) = rest.split_at(end);
        rest = if let [b'\r', b'\n', behind @ ..] | [_, behind @ ..] = behind { behind } else { behind };
        event.put_slice(line);
        event.put_slice(if rest.starts_with(b" ") { b"\ndata: " } else { b"\ndata:" });
    }
    event.put_slice(rest);
}
