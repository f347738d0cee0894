//! NDJSON: one envelope per line. Lines are assembled from pieces of any size.

use bytes::{Buf, Bytes, BytesMut};

use super::answer::Answer;
use crate::attempt::{End, Ended};
use crate::envelope::{ENVELOPE_BYTES_MAX, Envelope, Received};

/// An open stream of lines.
pub(crate) struct Ndjson {
    answer: Answer,
    lines: Lines,
}

impl Ndjson {
    pub(super) fn over(answer: Answer) -> Self {
        Self { answer, lines: Lines::default() }
    }

    pub(super) async fn next(&mut self) -> Result<Received, Ended> {
        if let Some(line) = self.lines.next() {
            return Ok(Received::Envelope(Envelope::parse(&line)?));
        }
        let bytes = self.answer.more().await?.ok_or(End::Clean)?;
        self.lines.put(&bytes)?;
        Ok(Received::Bytes)
    }
}

/// Bytes that were read and not taken yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    read: BytesMut,
    /// Length of the part without the end of a line.
    searched: usize,
}

impl Lines {
    /// Adds bytes. Fails if a line is longer than any of the gateway.
    pub(super) fn put(&mut self, bytes: &Bytes) -> Result<(), End> {
        self.read.extend_from_slice(bytes);
        if self.read.len() > ENVELOPE_BYTES_MAX { Err(End::NotGateway) } else { Ok(()) }
    }

    /// The next whole line without its end, which is LF or CRLF.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        debug_assert!(self.searched <= self.read.len());
        let unsearched = self.read.get(self.searched..).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', unsearched) else {
            self.searched = self.read.len();
            return None;
        };
        let line = self.read.split_to(std::mem::take(&mut self.searched) + end).freeze();
        self.read.advance(1);
        Some(line.strip_suffix(b"\r").map(|text| line.slice_ref(text)).unwrap_or(line.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_they_come() {
        let text = b"one\r\n\ntwo\nrest";
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for piece in text.chunks(size) {
                lines.put(&Bytes::from_static(piece)).unwrap();
                found.extend(std::iter::from_fn(|| lines.next()));
            }
            assert_eq!(found, [&b"one"[..], b"", b"two"], "pieces of {size}");
        }
    }
}
