//! Messages one by one, for those who deliver each with what its publisher said, and the one that is retained.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::{ContentType, Offset, Position};

/// How much one read of messages may return. At least one message comes, however large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimit {
    /// Bytes of messages.
    pub bytes_max: usize,
    /// Messages.
    pub count_max: usize,
}

/// A stretch of a log, message by message.
#[derive(Debug, Clone)]
pub struct Messages {
    /// Of the stream.
    pub content_type: ContentType,
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// The offset behind the last of them.
    pub next: Offset,
    /// The position of the stream's tail when it was read.
    pub tail: Position,
    /// Whether nothing more could be read.
    pub up_to_date: bool,
    /// Whether nothing will ever follow: the stream is closed and this reaches its end.
    pub closed: bool,
}

/// One value of a JSON stream, one append of any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The offset before it.
    pub start: Offset,
    /// The offset behind it.
    pub next: Offset,
    /// The content, shared with the log.
    pub bytes: Bytes,
    /// When it was appended.
    pub at: SystemTime,
    /// What its publisher said.
    pub annotation: Option<Arc<Annotation>>,
}

impl Messages {
    /// The bytes of the messages.
    pub fn size(&self) -> usize {
        self.messages.iter().map(|message| message.bytes.len()).sum()
    }
}

/// How surely a message is to be delivered (MQTT 5, section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// Level 0.
    AtMostOnce,
    /// Level 1.
    AtLeastOnce,
    /// Level 2.
    ExactlyOnce,
}

/// What the publisher said of an append (MQTT 5, section 3.3). Appends over HTTP have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// The client that published, so that it can be spared its own messages (No Local).
    pub publisher: Box<str>,
    /// As it was published.
    pub qos: QoS,
    /// Whether it is the stream's retained message from now on.
    pub retain: bool,
    /// When it stops being worth delivering.
    pub expires_at: Option<SystemTime>,
    /// Whether the content is UTF-8 text (the payload format indicator).
    pub is_text: bool,
    /// Of the content.
    pub content_type: Option<Box<str>>,
    /// Where an answer is expected.
    pub response_topic: Option<Box<str>>,
    /// What ties an answer to its question.
    pub correlation: Option<Bytes>,
    /// Names and values of the publisher's own, in its order.
    pub user_properties: Vec<(Box<str>, Box<str>)>,
}

impl Annotation {
    /// About how many bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        let texts = [&self.content_type, &self.response_topic].into_iter().flatten().map(|text| text.len());
        let properties = self.user_properties.iter().map(|(name, value)| name.len() + value.len() + 64);
        size_of::<Self>()
            + self.publisher.len()
            + texts.sum::<usize>()
            + self.correlation.as_ref().map_or(0, Bytes::len)
            + properties.sum::<usize>()
    }

    /// Whether it is no longer worth delivering at `now`.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// The bytes of its texts, with some for their lengths.
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
    fn the_size_of_messages_is_that_of_their_content() {
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
