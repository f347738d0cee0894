//! Parser of server-sent events, as in the HTML standard (section 9.2.6), and a reader of an event stream.

use std::collections::VecDeque;

use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::PATIENCE;
use super::client::Connection;

/// One dispatched event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub data: String,
}

/// An open event stream.
pub struct Events {
    pub headers: HeaderMap,
    _connection: Connection,
    body: Incoming,
    parser: Parser,
}

/// The parser of the standard, independent of the gateway's encoder.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    after_carriage_return: bool,
    name: String,
    data: String,
    id: String,
    /// The last event id, and the reconnection time in milliseconds.
    last_event_id: String,
    retry: Option<u64>,
    events: VecDeque<(Event, String)>,
}

impl Parser {
    pub fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let ends_line = matches!(byte, b'\r' | b'\n');
            if !(self.after_carriage_return && *byte == b'\n') {
                if ends_line {
                    self.end_line();
                } else {
                    self.line.push(*byte);
                }
            }
            self.after_carriage_return = *byte == b'\r';
        }
    }

    pub fn next(&mut self) -> Option<Event> {
        let (event, id) = self.events.pop_front()?;
        self.last_event_id = id;
        Some(event)
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            if let Some(data) = data.strip_suffix('\n') {
                let name = if name.is_empty() { "message".to_owned() } else { name };
                self.events.push_back((Event { name, data: data.to_owned() }, self.id.clone()));
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id = value.to_owned(),
            "retry" => self.retry = value.parse().ok(),
            _ => {}
        }
    }
}

impl Events {
    pub(super) fn new(connection: Connection, headers: HeaderMap, body: Incoming) -> Self {
        Self { headers, _connection: connection, body, parser: Parser::default() }
    }

    /// What the reader would send as `Last-Event-ID` after the last event that was returned.
    pub fn last_event_id(&self) -> &str {
        &self.parser.last_event_id
    }

    /// After how many milliseconds the reader would reconnect.
    pub fn retry(&self) -> Option<u64> {
        self.parser.retry
    }

    /// Returns the next event; `None` when the stream has ended properly.
    pub async fn next(&mut self) -> Option<Event> {
        timeout(PATIENCE, self.try_next()).await.expect("an event in time").expect("an unbroken stream")
    }

    /// Like [`Self::next`], with a broken connection as an error.
    pub async fn try_next(&mut self) -> hyper::Result<Option<Event>> {
        loop {
            if let Some(event) = self.parser.next() {
                return Ok(Some(event));
            }
            match self.body.frame().await {
                Some(frame) => self.parser.read(frame?.data_ref().expect("data")),
                None => return Ok(None),
            }
        }
    }

    /// Returns the JSON of the next event, which must be a control event.
    pub async fn control(&mut self) -> serde_json::Value {
        let event = self.next().await.expect("a control event");
        assert_eq!(event.name, "control", "{event:?}");
        serde_json::from_str(&event.data).expect("JSON")
    }

    /// Returns the data of the next event, which must be a data event.
    pub async fn data(&mut self) -> String {
        let event = self.next().await.expect("a data event");
        assert_eq!(event.name, "data", "{event:?}");
        event.data
    }
}
