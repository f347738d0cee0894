//! Server-sent events: one envelope in the data of each event of the default type (WHATWG HTML, section 9.2).

use bytes::{Bytes, BytesMut};

use super::answer::Answer;
use super::ndjson::Lines;
use crate::attempt::{End, Ended};
use crate::envelope::{ENVELOPE_BYTES_MAX, Envelope, Received};

/// An open event stream.
pub(crate) struct Sse {
    answer: Answer,
    lines: Lines,
    event: Event,
}

/// The event that is being read.
#[derive(Debug, Default)]
struct Event {
    data: BytesMut,
    /// Whether it has another type, of a later version of the protocol.
    other: bool,
}

impl Sse {
    pub(super) fn over(answer: Answer) -> Self {
        Self { answer, lines: Lines::default(), event: Event::default() }
    }

    pub(super) async fn next(&mut self) -> Result<Received, Ended> {
        while let Some(line) = self.lines.next() {
            if let Some(data) = self.event.add_line(&line)? {
                return Ok(Received::Envelope(Envelope::parse(&data)?));
            }
        }
        let bytes = self.answer.more().await?.ok_or(End::Clean)?;
        self.lines.put(&bytes)?;
        Ok(Received::Bytes)
    }
}

impl Event {
    /// Adds a line. Returns the data of the event that ends with it.
    fn add_line(&mut self, line: &Bytes) -> Result<Option<BytesMut>, End> {
        if line.is_empty() {
            let Self { data, other } = std::mem::take(self);
            return Ok(Some(data).filter(|data| !other && !data.is_empty()));
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if !self.data.is_empty() {
                    self.data.extend_from_slice(b"\n");
                }
                self.data.extend_from_slice(value);
            }
            b"event" => self.other = value != b"message",
            // Comments, and fields that are not used.
            _ => {}
        }
        if self.data.len() > ENVELOPE_BYTES_MAX { Err(End::NotGateway) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_the_default_type_are_joined_from_their_lines() {
        let mut event = Event::default();
        let mut found = Vec::new();
        for line in [
            ": hello",
            "data: {",
            "data:}",
            "id: 1",
            "",
            "event: other",
            "data: x",
            "",
            "",
            "event: message",
            "data:y",
            "",
        ] {
            found.extend(event.add_line(&Bytes::from_static(line.as_bytes())).unwrap());
        }
        assert_eq!(found, [&b"{\n}"[..], b"y"]);
    }
}
