//! [`StateStream`]: tells the state of an origin in a stream of its own, for readers whose delivery form has no control field: MQTT
//! clients subscribe to it. It has one message, which is retained, and another one only if the state changes.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use crate::clock::rfc3339;
use crate::hub::{Hub, OriginState, PolledOrigin};
use crate::stream::{Annotation, Append, ContentType, CreateIfMissing, Payload, QoS, Retention, StreamName};

/// Begins the name of the stream, before that of the stream that is filled. MQTT clients cannot publish to `$SYS`, and no wildcard in
/// the first level matches it.
const PREFIX: &str = "$SYS/origin/";

const JSON_DEPTH_MAX: usize = 2;

/// The stream with the state of one origin.
pub(super) struct StateStream {
    /// `None`: the name would be too long.
    name: Option<StreamName>,
    /// The state that was told last.
    told: OriginState,
}

impl StateStream {
    pub(super) fn of(origin: &PolledOrigin) -> Self {
        let stream = origin.stream();
        let name = StreamName::parse(&[PREFIX, stream.local()].concat()).ok();
        // What the gateway that has polled before has told.
        let told = origin.status().state.clone();
        Self { name: name.map(|name| name.of_tenant(&stream.tenant())), told }
    }

    /// Tells the state, if it is another one than before. If it cannot be stored, the next poll tries again.
    pub(super) async fn tell(&mut self, origin: &PolledOrigin, hub: &Hub) {
        let status = origin.status();
        let Some(name) = self.name.as_ref().filter(|_| self.told != status.state) else { return };
        let (since, reason) = match &status.state {
            OriginState::Failing { since, reason } => (Some(rfc3339(*since)), Some(reason.to_string())),
            OriginState::Pending | OriginState::Ok => (None, None),
        };
        let message = json!({
            "state": status.state.as_str(),
            "since": since,
            "reason": reason,
            "checked": status.checked.map(rfc3339),
        });
        let Some(append) = retained(Bytes::from(message.to_string()), origin) else { return };
        match hub.publish(name, append).await {
            Ok(_) => self.told = status.state.clone(),
            Err(error) => {
                tracing::debug!(stream = name.as_str(), %error, "cannot tell the state of an origin")
            }
        }
    }

    /// The origin has ended.
    pub(super) async fn end(self, hub: &Hub) {
        if let Some(name) = self.name {
            let _missing = hub.delete(&name).await;
        }
    }
}

/// An append that becomes the retained message of a stream, which is created if it does not exist.
fn retained(message: Bytes, origin: &PolledOrigin) -> Option<Append> {
    let json_type = ContentType::stored("application/json").ok()?;
    let append = Append::of(json_type, Payload::default()).with_body(message, JSON_DEPTH_MAX).ok()?;
    let asked_retention = Some(Retention { messages_max: Some(1), ..Retention::default() });
    let create = CreateIfMissing { asked_retention, ..CreateIfMissing::default() };
    let annotation = Annotation {
        publisher: "".into(),
        qos: QoS::AtLeastOnce,
        retain: true,
        expires_at: None,
        is_text: true,
        content_type: Some("application/json".into()),
        response_topic: None,
        correlation: None,
        user_properties: Vec::new(),
    };
    let (create, annotation) = (Some(create), Some(Arc::new(annotation)));
    Some(Append { principal: origin.principal(), create, annotation, ..append })
}
