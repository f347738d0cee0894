//! Parser of server-sent events, as in the HTML standard (section 9.2.6).

use std::collections::VecDeque;

/// One dispatched event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Type of the event; empty for a plain message.
    pub name: String,
    /// Data of the event.
    pub data: String,
    /// Last id that the stream has sent.
    pub id: String,
}

/// Parses events incrementally.
#[derive(Debug, Default)]
pub struct Events {
    line: Vec<u8>,
    after_carriage_return: bool,
    next: Event,
    whole: VecDeque<Event>,
}

impl Events {
    /// Parses further bytes.
    pub fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let ends_line = matches!(byte, b'\r' | b'\n');
            if !ends_line {
                self.line.push(*byte);
            } else if !(self.after_carriage_return && *byte == b'\n') {
                self.end_line();
            }
            self.after_carriage_return = *byte == b'\r';
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        if line.is_empty() {
            let id = self.next.id.clone();
            let event = std::mem::replace(&mut self.next, Event { id, ..Event::default() });
            if !event.data.is_empty() {
                self.whole.push_back(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.next.name = value.to_owned(),
            "id" => self.next.id = value.to_owned(),
            "data" => {
                if !self.next.data.is_empty() {
                    self.next.data.push('\n');
                }
                self.next.data.push_str(value);
            }
            _ => {}
        }
    }
}

impl Iterator for Events {
    type Item = Event;

    /// Returns the next complete event.
    fn next(&mut self) -> Option<Event> {
        self.whole.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_parsed_however_their_bytes_are_split() {
        let text =
            b": hello\n\nid: 1:0\r\ndata: one\r\n\r\nevent: control\ndata:{\"a\":\ndata:1}\n\ndata: cut";
        for size in 1..text.len() {
            let mut events = Events::default();
            text.chunks(size).for_each(|chunk| events.read(chunk));
            let event =
                |name: &str, data: &str| Event { name: name.into(), data: data.into(), id: "1:0".into() };
            let whole: Vec<_> = events.collect();
            assert_eq!(whole, [event("", "one"), event("control", "{\"a\":\n1}")], "chunks of {size}");
        }
    }
}
