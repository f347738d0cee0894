//! The envelope over many streams: what is new of each, and one cursor behind all of it.

use bytes::{BufMut, Bytes, BytesMut};

use crate::http::control::Control;
use crate::http::envelope;
use crate::http::live::encoded_length;
use crate::hub::{News, Turn, Update};

/// What an envelope says of the cursor.
#[derive(Debug, Clone)]
pub(super) enum CursorField {
    /// This is the cursor from now on.
    Full(String),
    /// The cursor goes on with this.
    Then(String),
    /// It is what it was.
    Same,
}

/// What a form writes around an envelope.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) before: &'static [u8],
    pub(super) after: &'static [u8],
}

/// Writes one envelope, in one line.
pub(super) fn write(turn: &Turn, cursor: &CursorField, superseded: bool, frame: Frame) -> Bytes {
    let cursor_text = match cursor {
        CursorField::Full(text) | CursorField::Then(text) => text.as_str(),
        CursorField::Same => "",
    };
    let room: usize = turn.news.iter().map(room).sum();
    let mut envelope = BytesMut::with_capacity(room + cursor_text.len() + 128);
    envelope.put_slice(frame.before);
    envelope.put_slice(b"{\"batches\":[");
    for (index, news) in turn.news.iter().enumerate() {
        envelope.put_slice(if index == 0 { b"" } else { b"," });
        batch(&mut envelope, news);
    }
    envelope.put_slice(b"]");
    // A cursor has no character that JSON would have to escape.
    match cursor {
        CursorField::Full(_) => envelope.put_slice(b",\"cursor\":\""),
        CursorField::Then(_) => envelope.put_slice(b",\"cursorThen\":\""),
        CursorField::Same => {}
    }
    if !cursor_text.is_empty() {
        envelope.put_slice(cursor_text.as_bytes());
        envelope.put_slice(b"\"");
    }
    envelope.put_slice(if turn.up_to_date { b",\"upToDate\":true" } else { b",\"upToDate\":false" });
    envelope.put_slice(if superseded { b",\"superseded\":true}" } else { b"}" });
    envelope.put_slice(frame.after);
    envelope.freeze()
}

fn room(news: &News) -> usize {
    let data = match &news.update {
        Some(Update::Batch(batch)) => encoded_length(batch),
        Some(Update::Gap(_)) | None => 0,
    };
    news.stream.as_str().len() + data + 192
}

fn batch(envelope: &mut BytesMut, news: &News) {
    envelope.put_slice(b"{\"stream\":");
    put_string(envelope, news.stream.as_str());
    if let Some(Update::Batch(batch)) = &news.update
        && !batch.content_type.is_json()
    {
        envelope.put_slice(b",\"contentType\":");
        put_string(envelope, batch.content_type.as_str());
    }
    envelope.put_slice(b",\"data\":[");
    if let Some(Update::Batch(batch)) = &news.update {
        envelope::data(envelope, batch);
    }
    envelope.put_slice(b"],");
    let control = match &news.update {
        Some(update) => Control::of(update, None),
        None => Control::of_missing(),
    };
    envelope.put_slice(control.json().get(1..).unwrap_or_default());
}

fn put_string(envelope: &mut BytesMut, text: &str) {
    // Writing into memory does not fail, and a text is always JSON.
    let _written = serde_json::to_writer(envelope.writer(), text);
}
