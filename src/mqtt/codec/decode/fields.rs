//! Fields that several packets have, with the rules that the library does not enforce.

use std::time::Duration;

use mqtt_protocol_core::mqtt::packet::{Property, Qos};
use mqtt_protocol_core::mqtt::result_code::MqttError;

use crate::mqtt::codec::{Breach, MessageProperties, Reason};
use crate::stream::{LEVELS_MAX, QoS};

pub(super) const MALFORMED: Breach = Breach(Reason::MalformedPacket);
pub(super) const PROTOCOL_ERROR: Breach = Breach(Reason::ProtocolError);

/// Returns the packet that the library parsed, if the packet takes the whole body.
pub(super) fn whole<P>(parsed: Result<(P, usize), MqttError>, body: &[u8]) -> Result<P, Breach> {
    let (packet, length) = parsed.map_err(|error| Breach(error.into()))?;
    if length == body.len() { Ok(packet) } else { Err(MALFORMED) }
}

pub(super) fn qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

/// Rejects a text with U+0000, and with other control characters, which a server may reject (MQTT 5, section
/// 1.5.4). They could end a line of a log or of an event.
pub(super) fn text(text: &str) -> Result<&str, Breach> {
    if text.chars().any(char::is_control) { Err(MALFORMED) } else { Ok(text) }
}

/// Rejects a topic with wildcards (MQTT 5, section 3.3.2.1), and one with too many levels. An empty one stands for an alias.
pub(super) fn topic(topic: &str) -> Result<&str, Breach> {
    let has_too_many = topic.split('/').count() > LEVELS_MAX;
    if has_too_many || topic.contains(['+', '#']) { Err(MALFORMED) } else { text(topic) }
}

/// Rejects a response topic with wildcards (MQTT 5, section 3.3.2.3.5).
pub(super) fn message_properties(properties: &[Property]) -> Result<MessageProperties, Breach> {
    let found = MessageProperties::of(properties);
    let is_invalid = |topic: &str| topic.contains(['+', '#']);
    if found.response_topic.as_deref().is_some_and(is_invalid) { Err(PROTOCOL_ERROR) } else { Ok(found) }
}

/// Returns a duration that the wire gives in seconds.
pub(super) fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}
