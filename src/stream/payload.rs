//! What an append carries, already split into messages.

use bytes::Bytes;

/// The messages of one append. In JSON mode they lie one behind the other with a comma between, which is how
/// every answer needs them, so a read of any stretch is a slice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload {
    bytes: Bytes,
    /// In JSON mode where each message ends; empty if there is one, or if the stream is not JSON.
    ends: Box<[u32]>,
    json: bool,
}

impl Payload {
    /// The body of a stream that is not JSON: bytes, with no boundaries inside.
    pub fn raw(bytes: Bytes) -> Self {
        Self { bytes, ends: Box::default(), json: false }
    }

    /// JSON values, comma-joined in `bytes`; `ends` says where each one ends (its comma excluded), so it has as
    /// many entries as there are values.
    pub fn json(bytes: Bytes, ends: Vec<u32>) -> Self {
        let ends = if ends.len() > 1 { ends.into() } else { Box::default() };
        Self { bytes, ends, json: true }
    }

    /// Whether there is nothing to append.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Its size in bytes, the commas between JSON messages included.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How far it moves the tail: messages in JSON mode, bytes otherwise.
    pub fn positions(&self) -> u64 {
        match (self.bytes.len(), self.json) {
            (0, _) => 0,
            (length, false) => length as u64,
            (_, true) => self.ends.len().max(1) as u64,
        }
    }

    /// How many messages it counts for in retention: an append of bytes is one.
    pub fn messages(&self) -> u64 {
        if self.json { self.positions() } else { u64::from(!self.bytes.is_empty()) }
    }

    /// The stretch from the position `from` (relative to its start) to its end; the bytes are shared.
    pub fn since(&self, from: u64) -> Bytes {
        self.bytes.slice(self.start_of(from)..)
    }

    /// The one message that begins at the position `from`: a JSON value, or all bytes from there on.
    pub fn message_at(&self, from: u64) -> Bytes {
        let index = usize::try_from(from).unwrap_or(usize::MAX);
        let end = self.ends.get(index).map_or(self.bytes.len(), |end| *end as usize);
        self.bytes.slice(self.start_of(from)..end)
    }

    /// The stretch before the position `to`.
    pub fn until(&self, to: u64) -> Self {
        if to == 0 {
            return Self { json: self.json, ..Self::default() };
        }
        let count = usize::try_from(to).unwrap_or(usize::MAX);
        if !self.json {
            return Self::raw(self.bytes.slice(..count.min(self.bytes.len())));
        }
        match self.ends.get(count - 1) {
            Some(end) => {
                let ends = self.ends.iter().copied().take(count).collect();
                Self::json(self.bytes.slice(..*end as usize), ends)
            }
            None => self.clone(),
        }
    }

    /// How many bytes lie before the position `from`.
    pub fn start_of(&self, from: u64) -> usize {
        let count = usize::try_from(from).unwrap_or(usize::MAX);
        if from == 0 {
            0
        } else if !self.json {
            count.min(self.bytes.len())
        } else {
            self.ends.get(count - 1).map_or(self.bytes.len(), |end| (*end as usize + 1).min(self.bytes.len()))
        }
    }
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
    }

    #[test]
    fn any_stretch_is_a_slice() {
        let tails: Vec<_> = (0..4).map(|from| json().since(from)).collect();
        assert_eq!(tails, [&b"1,22,333"[..], b"22,333", b"333", b""]);
        let heads: Vec<_> = (0..4).map(|to| json().until(to).since(0)).collect();
        assert_eq!(heads, [&b""[..], b"1", b"1,22", b"1,22,333"]);
        let each: Vec<_> = (0..4).map(|from| json().message_at(from)).collect();
        assert_eq!(each, [&b"1"[..], b"22", b"333", b""]);
        assert_eq!(Payload::raw(Bytes::from_static(b"abc")).message_at(1), &b"bc"[..]);
        assert_eq!(Payload::json(Bytes::from_static(b"[1,2]"), vec![5]).message_at(0), &b"[1,2]"[..]);
        assert_eq!(json().until(2).positions(), 2);
        assert_eq!(Payload::raw(Bytes::from_static(b"abc")).until(2).since(1), &b"b"[..]);
    }
}
