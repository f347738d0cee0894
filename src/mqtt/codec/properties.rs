//! The properties of a message: converts between the properties of a packet and the annotation in the log.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mqtt_protocol_core::mqtt::packet::{PayloadFormat, Property};
use serde::{Deserialize, Serialize};

use crate::stream::{Annotation, QoS, TraceContext};

/// The properties of a message that are forwarded to subscribers (MQTT 5, section 3.3.2.3).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mqtt) struct MessageProperties {
    /// Message expiry interval, in whole seconds.
    pub(in crate::mqtt) expiry: Option<Duration>,
    pub(in crate::mqtt) is_text: bool,
    pub(in crate::mqtt) content_type: Option<Box<str>>,
    pub(in crate::mqtt) response_topic: Option<Box<str>>,
    pub(in crate::mqtt) correlation: Option<Bytes>,
    pub(in crate::mqtt) user_properties: Vec<(Box<str>, Box<str>)>,
}

impl MessageProperties {
    /// Picks the properties that belong to the message.
    pub(super) fn of(properties: &[Property]) -> Self {
        let mut found = Self::default();
        for property in properties {
            match property {
                Property::MessageExpiryInterval(p) => {
                    found.expiry = Some(Duration::from_secs(u64::from(p.val())));
                }
                Property::PayloadFormatIndicator(p) => found.is_text = p.val() == PayloadFormat::String as u8,
                Property::ContentType(p) => found.content_type = Some(p.val().into()),
                Property::ResponseTopic(p) => found.response_topic = Some(p.val().into()),
                Property::CorrelationData(p) => found.correlation = Some(Bytes::copy_from_slice(p.val())),
                Property::UserProperty(p) => found.user_properties.push((p.key().into(), p.val().into())),
                _ => {}
            }
        }
        found
    }

    /// The trace context, which user properties have by the names of the header fields of HTTP.
    pub(in crate::mqtt) fn trace(&self) -> Option<Box<TraceContext>> {
        let property =
            |name| self.user_properties.iter().find(|(key, _)| &**key == name).map(|(_, value)| &**value);
        TraceContext::new(property("traceparent"), property("tracestate"))
    }

    /// Memory that the properties take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.content_type, &self.response_topic].into_iter().flatten().map(|text| text.len());
        let pairs = self.user_properties.iter().map(|(name, value)| name.len() + value.len() + 64);
        texts.sum::<usize>() + pairs.sum::<usize>() + self.correlation.as_ref().map_or(0, Bytes::len)
    }

    /// Converts the properties to the annotation that is stored with the message.
    pub(in crate::mqtt) fn annotation(
        self,
        publisher: &str,
        qos: QoS,
        retain: bool,
        now: SystemTime,
    ) -> Annotation {
        Annotation {
            publisher: publisher.into(),
            qos,
            retain,
            expires_at: self.expiry.map(|expiry| now + expiry),
            is_text: self.is_text,
            content_type: self.content_type,
            response_topic: self.response_topic,
            correlation: self.correlation,
            user_properties: self.user_properties,
        }
    }

    /// Converts an annotation to the properties for a subscriber at `now`.
    pub(in crate::mqtt) fn from_annotation(annotation: &Annotation, now: SystemTime) -> Self {
        // Rounded up: a message that has waited for less than a second has not waited, since the interval is
        // in seconds.
        let left = |at: SystemTime| {
            let left = at.duration_since(now).unwrap_or_default();
            Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0))
        };
        Self {
            expiry: annotation.expires_at.map(left),
            is_text: annotation.is_text,
            content_type: annotation.content_type.clone(),
            response_topic: annotation.response_topic.clone(),
            correlation: annotation.correlation.clone(),
            user_properties: annotation.user_properties.clone(),
        }
    }
}
