//! Server-sent events: an envelope in the data of each event of the default type (WHATWG HTML, section 9.2).

use bytes::{Bytes, BytesMut};

use super::answer::Answer;
use super::ndjson::Lines;
use crate::attempt::{End, Ended};
use crate::envelope::{ENVELOPE_BYTES_MAX, Envelope, Got};

/// An open event stream.
pub(crate) struct Sse {
    answer: Answer,
    lines: Lines,
    event: Event,
}

/// The event whose lines are coming.
#[derive(Debug, Default)]
struct Event {
    data: BytesMut,
    /// Whether it is of another type, of a later version of the wire.
    other: bool,
}

impl Sse {
    pub(super) fn over(answer: Answer) -> Self {
        Self { answer, lines: Lines::default(), event: Event::default() }
    }

    pub(super) async fn next(&mut self) -> Result<Got, Ended> {
        while let Some(line) = self.lines.next() {
            if let Some(data) = self.event.take(&line)? {
                return Ok(Got::Envelope(Envelope::parse(&data)?));
            }
        }
        let bytes = self.answer.more().await?.ok_or(End::Clean)?;
        self.lines.put(&bytes)?;
        Ok(Got::Bytes)
    }
}

impl Event {
    /// Takes a line; the data of an event that ends with it.
    fn take(&mut self, line: &Bytes) -> Result<Option<BytesMut>, End> {
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
            // Comments and fields that say nothing here.
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
            found.extend(event.take(&Bytes::from_static(line.as_bytes())).unwrap());
        }
        assert_eq!(found, [&b"{\n}"[..], b"y"]);
    }
}
