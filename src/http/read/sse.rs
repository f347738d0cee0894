//! Server-sent events of one stream: a `data` event with messages, each followed by a `control` event with the next offset
//! (protocol, section 5.8; format: HTML standard, section 9.2). Over many streams each event is an envelope.

use bytes::{BufMut, Bytes, BytesMut};

use super::envelope::{data_length, put_base64, put_control};
use crate::hub::Update;
use crate::stream::{Batch, CacheCursor, Encoding};

/// Encodes one update: a `data` event if it has messages, and a `control` event.
pub fn event(update: &Update, cursor: CacheCursor) -> Bytes {
    let mut event = BytesMut::with_capacity(data_length(update) + 256);
    if let Update::Batch(batch) = update {
        data(&mut event, batch);
    }
    event.put_slice(b"event: control\ndata:");
    put_control(&mut event, update, cursor);
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
