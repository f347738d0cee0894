//! [`Message`]: JSON with its publisher and counter, so that each message is distinct.

use std::fmt;

use serde::Deserialize;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Message {
    pub(crate) publisher: usize,
    /// Number of the message among its publisher's messages on the stream, from 0.
    pub(crate) counter: u64,
    /// Number of text bytes.
    pub(crate) size: usize,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { publisher, counter, size } = self;
        let text = "x".repeat(*size);
        write!(f, r#"{{"publisher":{publisher},"counter":{counter},"size":{size},"text":"{text}"}}"#)
    }
}

impl Message {
    /// Parses a text; `None` unless it is exactly the text of a message.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let message: Self = serde_json::from_str(text).ok()?;
        (message.to_string() == text).then_some(message)
    }
}
