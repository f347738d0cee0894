//! Reads that return messages one by one, each with what its publisher declared about it. MQTT uses them, also for the retained
//! message.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::{ContentType, Offset, Position};

/// The maximum that one read of messages returns. At least one message is returned, whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimit {
    /// Maximum bytes of messages.
    pub bytes_max: usize,
    /// Maximum number of messages.
    pub count_max: usize,
}

/// Messages of a stream that follow each other, as [`Store::messages`](super::Store::messages) returns them.
#[derive(Debug, Clone)]
pub struct Messages {
    /// Content type of the stream.
    pub content_type: ContentType,
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// The offset after the last of them.
    pub next: Offset,
    /// The position of the stream's tail at the time of the read.
    pub tail: Position,
    /// Whether the messages reach the tail.
    pub up_to_date: bool,
    /// Whether no message will follow: the stream is closed, and the messages reach its tail.
    pub closed: bool,
}

/// A message: one value of a JSON stream, or one append to another stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The offset before the message.
    pub start: Offset,
    /// The offset after the message.
    pub next: Offset,
    /// The content, shared with the log.
    pub bytes: Bytes,
    /// The time of the append.
    pub at: SystemTime,
    /// What the publisher declared about the message.
    pub annotation: Option<Arc<Annotation>>,
}

impl Messages {
    /// The total size of the messages in bytes.
    pub fn size(&self) -> usize {
        self.messages.iter().map(|message| message.bytes.len()).sum()
    }
}

/// The quality of service with which a message is delivered (MQTT 5, section 4.3).
#[allow(clippy::enum_variant_names, reason = "the standard's own names")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
    /// QoS 2.
    ExactlyOnce,
}

/// What an MQTT publisher declared about an append (MQTT 5, section 3.3). Appends over HTTP have no annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// The client that published, so that it does not receive its own messages (No Local).
    pub publisher: Box<str>,
    /// The QoS of the publication.
    pub qos: QoS,
    /// Whether the append becomes the retained message of the stream.
    pub retain: bool,
    /// The time after which the message is not delivered.
    pub expires_at: Option<SystemTime>,
    /// Whether the content is UTF-8 text (payload format indicator).
    pub is_text: bool,
    /// Content type of the content.
    pub content_type: Option<Box<str>>,
    /// The topic to which a response is to be sent.
    pub response_topic: Option<Box<str>>,
    /// Data that relates a response to its request.
    pub correlation: Option<Bytes>,
    /// Names and values that the publisher chose, in its order.
    pub user_properties: Vec<(Box<str>, Box<str>)>,
}

impl Annotation {
    /// The approximate memory of the annotation, in bytes.
    pub fn bytes(&self) -> usize {
        let texts = [&self.content_type, &self.response_topic].into_iter().flatten().map(|text| text.len());
        let properties = self.user_properties.iter().map(|(name, value)| name.len() + value.len() + 64);
        size_of::<Self>()
            + self.publisher.len()
            + texts.sum::<usize>()
            + self.correlation.as_ref().map_or(0, Bytes::len)
            + properties.sum::<usize>()
    }

    /// Whether the message is not to be delivered any more at `now`.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// The bytes of the texts, with 8 bytes for the lengths of each property.
    pub fn size(&self) -> usize {
        let texts = [&self.content_type, &self.response_topic].into_iter().flatten().map(|text| text.len());
        let properties = self.user_properties.iter().map(|(name, value)| name.len() + value.len() + 8);
        let correlation = self.correlation.as_ref().map_or(0, Bytes::len);
        self.publisher.len() + correlation + texts.sum::<usize>() + properties.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Epoch;

    #[test]
    fn the_size_of_messages_is_the_size_of_their_content() {
        let offset = Offset { epoch: Epoch(1), position: Position(0) };
        let message = |content: &'static str| Message {
            start: offset,
            next: offset,
            bytes: content.into(),
            at: SystemTime::UNIX_EPOCH,
            annotation: None,
        };
        let messages = Messages {
            content_type: ContentType::octet_stream(),
            messages: vec![message("one"), message("three")],
            next: offset,
            tail: Position::default(),
            up_to_date: true,
            closed: false,
        };
        assert_eq!(messages.size(), 8);
    }
}
