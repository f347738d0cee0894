//! The lines of an export: a line for each stream, followed by a line for each of its messages, and a line at the end with
//! their numbers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::clock::WallOffset;
use crate::stream::{
    Annotation, Append, ContentType, Create, Encoding, Fork, InvalidContentType, Lifetime, Message, Producer,
    QoS, Retention, Snapshot, StreamName, WriterStates,
};

/// A line of an export: a stream, a message of the stream before it, or the end.
#[derive(Debug)]
pub(crate) enum Line {
    Stream(Box<StreamLine>),
    Message(MessageLine),
    End(EndLine),
}

/// A stream with its settings. The field names are the JSON keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct StreamLine {
    pub(crate) stream: String,
    content_type: String,
    #[serde(default)]
    pub(crate) closed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_messages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age_seconds: Option<u64>,
    /// Set if the stream is a fork of a stream before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fork: Option<ForkNote>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    producers: Vec<ProducerNote>,
    /// The last `Stream-Seq`.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_by: Option<ProducerNote>,
}

/// The point at which a fork branches off. The messages that follow are those of the fork alone.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForkNote {
    pub(crate) source: String,
    /// The distance from the first message of the source in the export: messages of JSON, bytes otherwise.
    pub(crate) at: u64,
}

/// An idempotent producer: its last append that was accepted, and when.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProducerNote {
    id: String,
    epoch: u64,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
}

/// The last line of a complete export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndLine {
    pub(crate) end: bool,
    pub(crate) streams: usize,
    pub(crate) messages: usize,
    /// Why the export ends before it is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// A message. Its content is in exactly one of `json`, `text` and `base64`, depending on the content type of the stream.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageLine {
    pub(crate) at: Timestamp,
    #[serde(default, deserialize_with = "even_null", skip_serializing_if = "Option::is_none")]
    json: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) said: Option<PublisherNote>,
}

/// Deserializes a present `null` as the JSON message `null` instead of as an absent field.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// What an MQTT publisher declared about a message, see [`Annotation`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PublisherNote {
    publisher: String,
    quality: u8,
    #[serde(default)]
    retain: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(default)]
    is_text: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    user_properties: Vec<(String, String)>,
}

impl Line {
    /// Parses a line. A line with a `stream` key is a stream, one with an `end` key the end, any other a message.
    pub(crate) fn parse(line: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Kind {
            stream: Option<IgnoredAny>,
            end: Option<IgnoredAny>,
        }
        let kind: Kind = serde_json::from_str(line)?;
        Ok(match (kind.stream, kind.end) {
            (Some(IgnoredAny), _) => Self::Stream(Box::new(serde_json::from_str(line)?)),
            (None, Some(IgnoredAny)) => Self::End(serde_json::from_str(line)?),
            (None, None) => Self::Message(serde_json::from_str(line)?),
        })
    }
}

impl StreamLine {
    /// The line for a stream. `offset` converts the times of the store.
    pub(super) fn of(
        name: &StreamName,
        snapshot: &Snapshot,
        fork: Option<ForkNote>,
        offset: WallOffset,
    ) -> Self {
        let Snapshot { description, writers, .. } = snapshot;
        let retention = description.retention;
        let (idle_seconds, expires_at) = match description.lifetime {
            Lifetime::Unlimited => (None, None),
            Lifetime::Idle(idle) => (Some(idle.as_secs()), None),
            Lifetime::Until(end) => (None, Some(timestamp(end))),
        };
        let producers = writers.producers.iter();
        Self {
            stream: name.as_str().to_owned(),
            content_type: description.content_type.as_str().to_owned(),
            closed: description.closed,
            idle_seconds,
            expires_at,
            max_messages: retention.messages_max,
            max_bytes: retention.bytes_max,
            max_age_seconds: retention.age_max.map(|age| age.as_secs()),
            fork,
            producers: producers
                .map(|(producer, seen)| ProducerNote {
                    at: Some(timestamp(offset.to_wall(*seen))),
                    ..ProducerNote::of(producer)
                })
                .collect(),
            sequence: writers.sequence.as_deref().map(str::to_owned),
            closed_by: writers.closed_by.as_ref().map(ProducerNote::of),
        }
    }

    /// Whether the end of the stream has come at this time of day.
    pub(crate) fn has_ended(&self, wall: SystemTime) -> bool {
        self.expires_at.is_some_and(|end| SystemTime::from(end) <= wall)
    }

    pub(crate) fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The creation of the stream, and the append that closes it after its last message, if it is closed. `fork` is the source
    /// of a fork.
    pub(crate) fn creation(
        &self,
        fork: Option<Fork>,
        offset: WallOffset,
    ) -> Result<(Create, Option<Append>), InvalidContentType> {
        let idle = self.idle_seconds.map(|seconds| Lifetime::Idle(Duration::from_secs(seconds)));
        let until = self.expires_at.map(|end| Lifetime::Until(end.into()));
        let retention = Retention {
            messages_max: self.max_messages,
            bytes_max: self.max_bytes,
            age_max: self.max_age_seconds.map(Duration::from_secs),
        };
        let closing =
            Append { producer: self.closed_by.as_ref().map(ProducerNote::producer), ..Append::closing() };
        let writers = WriterStates {
            producers: self.producers.iter().filter_map(|note| self.before_the_close(note, offset)).collect(),
            sequence: self.sequence.as_deref().map(Into::into),
            closed_by: None,
        };
        let create = Create {
            // A fork that names no lifetime or retention takes over those of its source.
            lifetime: idle.or(until).or(fork.is_some().then_some(Lifetime::Unlimited)),
            retention: (retention != Retention::default() || fork.is_some()).then_some(retention),
            fork,
            writers: (writers != WriterStates::default()).then(|| Box::new(writers)),
            ..Create::open(ContentType::parse(&self.content_type)?)
        };
        Ok((create, self.closed.then_some(closing)))
    }

    /// The state of a producer before the append that closed the stream, which the import repeats; `None` if that is its first.
    fn before_the_close(&self, note: &ProducerNote, offset: WallOffset) -> Option<(Producer, SystemTime)> {
        let mut producer = note.producer();
        if self.closed_by.as_ref().is_some_and(|closer| closer.producer() == producer) {
            producer.sequence = producer.sequence.checked_sub(1)?;
        }
        let seen = note.at.map_or(SystemTime::UNIX_EPOCH, |at| offset.to_stored(at.into()));
        Some((producer, seen))
    }
}

impl ProducerNote {
    fn of(producer: &Producer) -> Self {
        Self {
            id: producer.id.as_ref().to_owned(),
            epoch: producer.epoch,
            sequence: producer.sequence,
            at: None,
        }
    }

    fn producer(&self) -> Producer {
        Producer { id: self.id.as_str().into(), epoch: self.epoch, sequence: self.sequence }
    }
}

impl MessageLine {
    /// The line for `message`. `offset` converts the times of the store.
    pub(super) fn of(message: &Message, encoding: Encoding, offset: WallOffset) -> Self {
        let text = String::from_utf8(message.bytes.to_vec()).ok();
        let json = match encoding {
            // A line break between two tokens would end the line of the export.
            Encoding::Json => text.clone().filter(|text| !text.contains(['\n', '\r'])),
            Encoding::Text | Encoding::Binary => None,
        };
        let json = json.and_then(|text| RawValue::from_string(text).ok());
        let text = text.filter(|_| encoding == Encoding::Text);
        let neither = json.is_none() && text.is_none();
        Self {
            at: timestamp(offset.to_wall(message.at)),
            json,
            text,
            base64: neither.then(|| STANDARD.encode(&message.bytes)),
            said: message.annotation.as_deref().map(|annotation| PublisherNote::of(annotation, offset)),
        }
    }

    /// The content; `None` unless exactly one content field is present and valid.
    pub(crate) fn bytes(&self) -> Option<Bytes> {
        match (&self.json, &self.text, &self.base64) {
            (Some(value), None, None) => Some(value.get().to_owned().into()),
            (None, Some(text), None) => Some(text.clone().into()),
            (None, None, Some(text)) => STANDARD.decode(text).ok().map(Bytes::from),
            _ => None,
        }
    }
}

impl PublisherNote {
    fn of(annotation: &Annotation, offset: WallOffset) -> Self {
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        Self {
            publisher: annotation.publisher.as_ref().to_owned(),
            quality: annotation.qos as u8,
            retain: annotation.retain,
            expires_at: annotation.expires_at.map(|end| timestamp(offset.to_wall(end))),
            is_text: annotation.is_text,
            content_type: text(&annotation.content_type),
            response_topic: text(&annotation.response_topic),
            correlation: annotation.correlation.as_ref().map(|bytes| STANDARD.encode(bytes)),
            user_properties: annotation
                .user_properties
                .iter()
                .map(|(name, value)| (name.as_ref().to_owned(), value.as_ref().to_owned()))
                .collect(),
        }
    }

    /// Converts the note to what a store keeps; `None` if the QoS or the base64 of `correlation` is invalid.
    pub(crate) fn into_annotation(self, offset: WallOffset) -> Option<Arc<Annotation>> {
        let quality = match self.quality {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            2 => QoS::ExactlyOnce,
            _ => return None,
        };
        let correlation = match self.correlation {
            Some(text) => Some(Bytes::from(STANDARD.decode(text).ok()?)),
            None => None,
        };
        Some(Arc::new(Annotation {
            publisher: self.publisher.into(),
            qos: quality,
            retain: self.retain,
            expires_at: self.expires_at.map(|end| offset.to_stored(end.into())),
            is_text: self.is_text,
            content_type: self.content_type.map(Into::into),
            response_topic: self.response_topic.map(Into::into),
            correlation,
            user_properties: self.user_properties.into_iter().map(|(n, v)| (n.into(), v.into())).collect(),
        }))
    }
}

/// A time in whole milliseconds, as the store on disk keeps it.
fn timestamp(time: SystemTime) -> Timestamp {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::MAX);
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}
