//! What a publisher said of a message beside its content, for those who deliver it with the same words.

use std::time::SystemTime;

use bytes::Bytes;

/// How surely a message is to be delivered (MQTT 5, section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quality {
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
    pub quality: Quality,
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
    /// Whether it is no longer worth delivering at `now`.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}
