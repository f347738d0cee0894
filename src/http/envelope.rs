//! The envelope of the forms that carry JSON: one batch of messages and the cursor behind them, in one line.

use bytes::{BufMut, Bytes, BytesMut};

use super::control::Control;
use super::live::{encoded_length, put_base64};
use crate::hub::Update;
use crate::stream::{Batch, Cursor, Encoding};

/// The envelope of one update: `{"data":[...],"streamNextOffset":...}`. `data` holds the messages of a JSON
/// stream as they are, the text of a text stream as a string, and base64 strings otherwise.
pub fn envelope(update: &Update, cursor: Cursor) -> Bytes {
    let size = match update {
        Update::Batch(batch) => encoded_length(batch),
        Update::Gap(_) => 0,
    };
    let mut envelope = BytesMut::with_capacity(size + 256);
    envelope.put_slice(b"{\"data\":[");
    if let Update::Batch(batch) = update {
        data(&mut envelope, batch);
    }
    envelope.put_slice(b"],");
    envelope.put_slice(Control::of(update, Some(cursor)).json().get(1..).unwrap_or_default());
    envelope.freeze()
}

/// The messages of a batch as elements of a JSON array.
pub(super) fn data(envelope: &mut BytesMut, batch: &Batch) {
    match batch.content_type.encoding() {
        Encoding::Json => {
            for (index, piece) in batch.pieces.iter().enumerate() {
                envelope.put_slice(if index == 0 { b"" } else { b"," });
                in_one_line(envelope, piece);
            }
        }
        Encoding::Text if batch.is_empty() => {}
        Encoding::Text => {
            let text = batch.pieces.concat();
            // Writing into memory does not fail, and a text is always JSON.
            let _written = serde_json::to_writer((&mut *envelope).writer(), &String::from_utf8_lossy(&text));
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

/// JSON with its line breaks as spaces. In valid JSON they are never part of a string (RFC 8259, section 7).
fn in_one_line(envelope: &mut BytesMut, json: &[u8]) {
    let mut rest = json;
    while let Some(end) = memchr::memchr2(b'\r', b'\n', rest) {
        let (line, break_and_rest) = rest.split_at(end);
        envelope.put_slice(line);
        envelope.put_u8(b' ');
        rest = break_and_rest.get(1..).unwrap_or_default();
    }
    envelope.put_slice(rest);
}
