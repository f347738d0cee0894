//! The content of an append, split into messages.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

/// The messages of one append. In JSON mode they are adjacent and separated by commas, as responses need them, so any range of
/// them is a slice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload {
    bytes: Bytes,
    shape: Shape,
}

/// The boundaries of the messages of an append, without their content, which a store may keep elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shape {
    length: u32,
    division: Division,
    /// The end of each message in JSON mode; `None` if there is one message, or if the stream is not JSON.
    ends: Option<Arc<[u32]>>,
}

/// What the content of an append consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Division {
    /// No message.
    #[default]
    Nothing,
    /// One message of a stream that is not JSON. Each byte is a position; a message without bytes takes one position, so that
    /// readers can tell whether they have received it.
    Message,
    /// JSON values; each is a position.
    Json,
}

impl Payload {
    /// Content of a stream that is not JSON: one message of at most 4 GiB, or none if `bytes` is empty.
    pub fn raw(bytes: Bytes) -> Self {
        let shape = Shape::raw(length(&bytes));
        Self { bytes, shape }
    }

    /// One message of a stream that is not JSON. It may be empty.
    pub fn message(bytes: Bytes) -> Self {
        let shape = Shape::message(length(&bytes));
        Self { bytes, shape }
    }

    /// One JSON value.
    pub fn json_value(bytes: Bytes) -> Self {
        Self::json(bytes, Vec::new())
    }

    /// JSON values separated by commas in `bytes`. `ends` has the end of each value, without its comma, and may be empty for one value.
    pub fn json(bytes: Bytes, ends: Vec<u32>) -> Self {
        let shape = Shape::json(length(&bytes), ends);
        Self { bytes, shape }
    }

    /// Whether the payload has no message. A message without bytes is one.
    pub fn is_empty(&self) -> bool {
        self.shape.is_empty()
    }

    /// The size in bytes, including the commas between JSON messages.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How far the payload moves the tail: messages in JSON mode, bytes otherwise.
    pub fn positions(&self) -> u64 {
        self.shape.positions()
    }

    /// How many messages the payload counts for in retention: JSON values in JSON mode, otherwise 1.
    pub fn messages(&self) -> u64 {
        self.shape.messages()
    }

    /// The content from the position `from` (relative to the payload) to the end; shares the bytes.
    pub fn since(&self, from: u64) -> Bytes {
        self.bytes.slice(self.shape.since(from))
    }

    /// The payload up to the position `to` (relative to the payload).
    pub fn until(&self, to: u64) -> Self {
        let shape = self.shape.until(to);
        Self { bytes: self.bytes.slice(..shape.len()), shape }
    }

    /// The content.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The boundaries of the messages.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The boundaries and the content.
    pub fn into_parts(self) -> (Shape, Bytes) {
        (self.shape, self.bytes)
    }
}

impl Shape {
    /// The shape of one message of `length` bytes, or of none if that is 0.
    pub fn raw(length: u32) -> Self {
        if length == 0 { Self::default() } else { Self::message(length) }
    }

    /// The shape of one message of `length` bytes, which may be 0.
    pub fn message(length: u32) -> Self {
        Self { length, division: Division::Message, ends: None }
    }

    /// The shape of JSON values in `length` bytes; `ends` has the end of each, and may be empty for one value.
    pub fn json(length: u32, ends: Vec<u32>) -> Self {
        if length == 0 {
            return Self::default();
        }
        let ends = (ends.len() > 1).then(|| ends.into());
        Self { length, division: Division::Json, ends }
    }

    /// The size of the content in bytes.
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.division == Division::Nothing
    }

    /// Whether this is one message without bytes.
    pub fn is_empty_message(&self) -> bool {
        self.division == Division::Message && self.length == 0
    }

    /// Whether the messages are JSON values, so that positions count values.
    pub fn is_json(&self) -> bool {
        self.division == Division::Json
    }

    /// The ends of the values; empty unless there are several JSON values.
    pub fn ends(&self) -> &[u32] {
        self.ends.as_deref().unwrap_or_default()
    }

    /// How far the content moves the tail: messages in JSON mode, bytes otherwise, and 1 for a message without bytes.
    pub fn positions(&self) -> u64 {
        match self.division {
            Division::Nothing => 0,
            Division::Message => self.length.max(1).into(),
            Division::Json => self.ends().len().max(1) as u64,
        }
    }

    /// How many messages the content counts for in retention: JSON values in JSON mode, otherwise 1.
    pub fn messages(&self) -> u64 {
        match self.division {
            Division::Nothing => 0,
            Division::Message => 1,
            Division::Json => self.positions(),
        }
    }

    /// The range of bytes from the position `from` (relative to the payload) to the end.
    pub fn since(&self, from: u64) -> Range<usize> {
        self.start_of(from)..self.len()
    }

    /// The range of bytes of the message at the position `from`: one JSON value, or all bytes from there on.
    pub fn message_at(&self, from: u64) -> Range<usize> {
        let index = usize::try_from(from).unwrap_or(usize::MAX);
        let end = self.ends().get(index).map_or(self.len(), |end| *end as usize);
        self.start_of(from)..end
    }

    /// The shape of the content up to the position `to` (relative to the payload).
    pub fn until(&self, to: u64) -> Self {
        if to == 0 {
            return Self::default();
        }
        if !self.is_json() {
            let length = self.length.min(u32::try_from(to).unwrap_or(u32::MAX));
            return Self { length, ..self.clone() };
        }
        let count = usize::try_from(to).unwrap_or(usize::MAX);
        match self.ends().get(count - 1) {
            Some(end) => Self::json(*end, self.ends().iter().copied().take(count).collect()),
            None => self.clone(),
        }
    }

    /// The number of bytes before the position `from` (relative to the payload).
    pub fn start_of(&self, from: u64) -> usize {
        let count = usize::try_from(from).unwrap_or(usize::MAX);
        if from == 0 {
            0
        } else if !self.is_json() {
            count.min(self.len())
        } else {
            self.ends().get(count - 1).map_or(self.len(), |end| (*end as usize + 1).min(self.len()))
        }
    }
}

fn length(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json() -> Payload {
        Payload::json(Bytes::from_static(b"1,22,333"), vec![1, 4, 8])
    }

    #[test]
    fn json_counts_values_and_bytes_count_bytes() {
        assert_eq!((json().positions(), json().messages()), (3, 3));
        let raw = Payload::raw(Bytes::from_static(b"abc"));
        assert_eq!((raw.positions(), raw.messages()), (3, 1));
        assert_eq!((Payload::default().positions(), Payload::default().messages()), (0, 0));
        assert!(Payload::raw(Bytes::new()).is_empty() && Payload::json(Bytes::new(), Vec::new()).is_empty());
    }

    #[test]
    fn a_message_without_bytes_takes_a_position() {
        let empty = Payload::message(Bytes::new());
        assert_eq!((empty.is_empty(), empty.len(), empty.positions(), empty.messages()), (false, 0, 1, 1));
        assert_eq!((empty.until(1), empty.until(0)), (empty.clone(), Payload::default()));
        assert_eq!((empty.shape().message_at(0), empty.since(1).len()), (0..0, 0));
    }

    #[test]
    fn any_range_is_a_slice() {
        let tails: Vec<_> = (0..4).map(|from| json().since(from)).collect();
        assert_eq!(tails, [&b"1,22,333"[..], b"22,333", b"333", b""]);
        let heads: Vec<_> = (0..4).map(|to| json().until(to).since(0)).collect();
        assert_eq!(heads, [&b""[..], b"1", b"1,22", b"1,22,333"]);
        let each: Vec<_> = (0..4).map(|from| json().shape().message_at(from)).collect();
        assert_eq!(each, [0..1, 2..4, 5..8, 8..8]);
        assert_eq!(Payload::raw(Bytes::from_static(b"abc")).shape().message_at(1), 1..3);
        assert_eq!(Payload::json(Bytes::from_static(b"[1,2]"), vec![5]).shape().message_at(0), 0..5);
        assert_eq!(json().until(2).positions(), 2);
        assert_eq!(Payload::raw(Bytes::from_static(b"abc")).until(2).since(1), &b"b"[..]);
    }
}
