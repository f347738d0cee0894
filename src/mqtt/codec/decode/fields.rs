//! Fields that several packets have, with the rules that the library does not enforce.

use std::num::NonZeroU16;
use std::time::Duration;

use mqtt_protocol_core::mqtt::packet::{Property, Qos};
use mqtt_protocol_core::mqtt::result_code::MqttError;

use crate::mqtt::codec::{Breach, MessageProperties, PacketId, Reason};
use crate::mqtt::groups::is_shared;
use crate::stream::{Filter, LEVELS_MAX, QoS};

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

/// Rejects the packet id 0.
pub(super) fn packet_id(id: u16) -> Result<PacketId, Breach> {
    NonZeroU16::new(id).map(PacketId).ok_or(PROTOCOL_ERROR)
}

/// Rejects a malformed filter, also one of a shared subscription.
pub(super) fn filter(text: &str) -> Result<Filter, Breach> {
    let parsed = Filter::of_topics(text).map_err(|_| MALFORMED)?;
    if is_shared(text) {
        // `$share/GROUP/FILTER`; the name of a group has no wildcard (MQTT 5, section 4.8.2).
        let mut levels = text.splitn(3, '/').skip(1);
        let is_name = levels.next().is_some_and(|name| !name.is_empty() && !name.contains(['+', '#']));
        if !is_name || levels.next().is_none_or(str::is_empty) {
            return Err(PROTOCOL_ERROR);
        }
    }
    Ok(parsed)
}
