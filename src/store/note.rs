//! Annotations and times as stores write them.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::stream::{Annotation, QoS};

/// Milliseconds since 1970.
pub(in crate::store) type UnixMillis = i64;

/// An [`Annotation`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::store) struct Note {
    publisher: Box<str>,
    quality: u8,
    pub(in crate::store) retain: bool,
    expires_at: Option<UnixMillis>,
    is_text: bool,
    content_type: Option<Box<str>>,
    response_topic: Option<Box<str>>,
    correlation: Option<Box<[u8]>>,
    user_properties: Vec<(Box<str>, Box<str>)>,
}

impl Note {
    pub(in crate::store) fn of(annotation: &Annotation) -> Self {
        Self {
            publisher: annotation.publisher.clone(),
            quality: annotation.qos as u8,
            retain: annotation.retain,
            expires_at: annotation.expires_at.map(moment),
            is_text: annotation.is_text,
            content_type: annotation.content_type.clone(),
            response_topic: annotation.response_topic.clone(),
            correlation: annotation.correlation.as_deref().map(Into::into),
            user_properties: annotation.user_properties.clone(),
        }
    }

    pub(in crate::store) fn into_annotation(self) -> Annotation {
        Annotation {
            publisher: self.publisher,
            qos: match self.quality {
                0 => QoS::AtMostOnce,
                1 => QoS::AtLeastOnce,
                _ => QoS::ExactlyOnce,
            },
            retain: self.retain,
            expires_at: self.expires_at.map(time),
            is_text: self.is_text,
            content_type: self.content_type,
            response_topic: self.response_topic,
            correlation: self.correlation.map(|bytes| bytes.into_vec().into()),
            user_properties: self.user_properties,
        }
    }
}

/// A time as it is written; times before 1970 become 0.
pub(in crate::store) fn moment(time: SystemTime) -> UnixMillis {
    let after = time.duration_since(SystemTime::UNIX_EPOCH).map(|after| after.as_millis());
    after.ok().and_then(|after| i64::try_from(after).ok()).unwrap_or_default()
}

/// A time that was written with [`moment`].
pub(in crate::store) fn time(moment: UnixMillis) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(moment).unwrap_or_default())
}
