//! What is published: JSON that says who wrote it and as which of theirs, so that each can be told from all others.

use std::fmt;

use serde::Deserialize;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Message {
    pub(crate) publisher: usize,
    /// Which of its publisher's messages on the stream, from 0.
    pub(crate) counter: u64,
    /// How many bytes of text it carries along.
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
    /// The message that a text is to the letter.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let message: Self = serde_json::from_str(text).ok()?;
        (message.to_string() == text).then_some(message)
    }
}
