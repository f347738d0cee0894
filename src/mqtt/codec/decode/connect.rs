//! Decodes CONNECT, and AUTH, which has the same properties of authentication.

use std::time::Duration;

use bytes::Bytes;
use mqtt_protocol_core::mqtt::packet::{Property, v3_1_1, v5_0};

use super::fields::{MALFORMED, PROTOCOL_ERROR, message_properties, qos, seconds, text, topic, whole};
use crate::mqtt::codec::property_rules::{Carrier, check, data};
use crate::mqtt::codec::{
    Authentication, Breach, Connect, MessageProperties, Password, Reason, Version, Will,
};

/// Reason code of an AUTH that renews an authentication (MQTT 5, section 3.15.2.1).
const RE_AUTHENTICATE: u8 = 0x19;

/// Session expiry interval of a session that does not expire (MQTT 5, section 3.1.2.11.2).
const FOR_EVER: u32 = u32::MAX;

/// Bits of the connect flags (MQTT 5, section 3.1.2.3).
const RESERVED_FLAG: u8 = 1;
const WILL_FLAG: u8 = 1 << 2;
const WILL_QOS_FLAGS: u8 = 3 << 3;
const WILL_RETAIN_FLAG: u8 = 1 << 5;
const PASSWORD_FLAG: u8 = 1 << 6;
const USER_NAME_FLAG: u8 = 1 << 7;

/// Positions of the protocol level and the connect flags in the body of a CONNECT.
const LEVEL_AT: usize = 6;
const FLAGS_AT: usize = 7;
/// Position of the properties in the body of a CONNECT of MQTT 5.
const PROPERTIES_AT: usize = 10;

/// The protocol name, behind its length.
const PROTOCOL_NAME: &[u8] = b"\0\x04MQTT";
/// The protocol name of MQTT 3.1, which is not supported.
const PROTOCOL_NAME_3_1: &[u8] = b"\0\x06MQIsdp";

/// Protocol level of a bridge that speaks 3.1.1: bit 7 asks for the options No Local and Retain As Published, which
/// 3.1.1 does not have. Bridges of mosquitto and others send it, so that messages do not come back to them.
const BRIDGE_LEVEL: u8 = 0x84;
/// Start of the topic of the will of mosquitto's bridges, which tells one that does not set the bit.
const BRIDGE_WILL: &str = "$SYS/broker/connection/";

pub(super) fn connect(body: &[u8]) -> Result<Connect, Breach> {
    let (Some(&level), Some(&flags)) = (body.get(LEVEL_AT), body.get(FLAGS_AT)) else {
        return Err(MALFORMED);
    };
    let unsupported = Breach(Reason::UnsupportedProtocolVersion);
    if !body.starts_with(PROTOCOL_NAME) {
        return Err(if body.starts_with(PROTOCOL_NAME_3_1) { unsupported } else { MALFORMED });
    }
    if !matches!(level, 4 | 5 | BRIDGE_LEVEL) {
        return Err(unsupported);
    }
    let will_flags = flags & (WILL_QOS_FLAGS | WILL_RETAIN_FLAG);
    if flags & RESERVED_FLAG != 0
        || (flags & WILL_FLAG == 0 && will_flags != 0)
        || flags & WILL_QOS_FLAGS == WILL_QOS_FLAGS
    {
        return Err(MALFORMED);
    }
    match level {
        5 => connect_v5(body),
        BRIDGE_LEVEL => {
            // The library does not know the flag of bridges.
            let mut body = body.to_vec();
            body.iter_mut().skip(LEVEL_AT).take(1).for_each(|level| *level = 4);
            Ok(Connect { is_bridge: true, ..connect_v3(&body)? })
        }
        _ => connect_v3(body),
    }
}

fn password(bytes: Option<&[u8]>) -> Option<Password> {
    bytes.map(|bytes| Password(Bytes::copy_from_slice(bytes)))
}

fn connect_v3(body: &[u8]) -> Result<Connect, Breach> {
    let packet = whole(v3_1_1::Connect::parse(body), body)?;
    let will = match (packet.will_topic(), packet.will_payload()) {
        (Some(topic), Some(payload)) => Some(Will {
            topic: will_topic(topic)?,
            payload: Bytes::copy_from_slice(payload),
            qos: qos(packet.will_qos()),
            retain: packet.will_retain(),
            properties: MessageProperties::default(),
            delay: Duration::ZERO,
        }),
        _ => None,
    };
    packet.user_name().map_or(Ok(""), text)?;
    Ok(Connect {
        version: Version::V3,
        is_bridge: will.as_ref().is_some_and(|will| will.topic.starts_with(BRIDGE_WILL)),
        client_id: text(packet.client_id())?.to_owned(),
        clean_start: packet.clean_session(),
        keep_alive: seconds(packet.keep_alive().into()),
        session_expiry: if packet.clean_session() { Duration::ZERO } else { seconds(FOR_EVER) },
        receive_maximum: u16::MAX,
        packet_bytes_max: usize::MAX,
        topic_alias_maximum: 0,
        will,
        password: password(packet.password()),
        authentication: None,
    })
}

fn connect_v5(body: &[u8]) -> Result<Connect, Breach> {
    let behind = check(body.get(PROPERTIES_AT..).ok_or(MALFORMED)?, Carrier::Connect)?;
    let flags = body.get(FLAGS_AT).copied().unwrap_or_default();
    let (_client_id, mut behind) = data(behind)?;
    if flags & WILL_FLAG != 0 {
        let (_topic, rest) = data(check(behind, Carrier::Will)?)?;
        let (_payload, rest) = data(rest)?;
        behind = rest;
    }
    let named;
    let body = if flags & (PASSWORD_FLAG | USER_NAME_FLAG) == PASSWORD_FLAG {
        named = with_empty_user_name(body, behind.len())?;
        &named
    } else {
        body
    };
    let packet = whole(v5_0::Connect::parse(body), body)?;
    let will = match (packet.will_topic(), packet.will_payload()) {
        (Some(topic), Some(payload)) => Some(Will {
            topic: will_topic(topic)?,
            payload: Bytes::copy_from_slice(payload),
            qos: qos(packet.will_qos()),
            retain: packet.will_retain(),
            properties: message_properties(packet.will_props())?,
            delay: will_delay(packet.will_props()),
        }),
        _ => None,
    };
    packet.user_name().map_or(Ok(""), text)?;
    let mut connect = Connect {
        version: Version::V5,
        is_bridge: false,
        client_id: text(packet.client_id())?.to_owned(),
        clean_start: packet.clean_start(),
        keep_alive: seconds(packet.keep_alive().into()),
        session_expiry: Duration::ZERO,
        receive_maximum: u16::MAX,
        packet_bytes_max: usize::MAX,
        topic_alias_maximum: 0,
        will,
        password: password(packet.password()),
        authentication: authentication(packet.props())?,
    };
    for property in packet.props() {
        match property {
            Property::SessionExpiryInterval(p) => connect.session_expiry = seconds(p.val()),
            Property::ReceiveMaximum(p) => connect.receive_maximum = p.val(),
            Property::MaximumPacketSize(p) => connect.packet_bytes_max = p.val() as usize,
            Property::TopicAliasMaximum(p) => connect.topic_alias_maximum = p.val(),
            _ => {}
        }
    }
    if connect.receive_maximum == 0 || connect.packet_bytes_max == 0 {
        Err(PROTOCOL_ERROR)
    } else {
        Ok(connect)
    }
}

/// Adds an empty user name to a CONNECT with a password alone, which MQTT 5 allows (section 3.1.2.9) and the library refuses.
/// `password` is the length of the field with the password, which is the last one.
fn with_empty_user_name(body: &[u8], password: usize) -> Result<Vec<u8>, Breach> {
    let (before, password) = body.split_at_checked(body.len() - password).ok_or(MALFORMED)?;
    let mut named = [before, &[0, 0], password].concat();
    named.iter_mut().skip(FLAGS_AT).take(1).for_each(|flags| *flags |= USER_NAME_FLAG);
    Ok(named)
}

/// Returns the properties of enhanced authentication. Data needs a method (MQTT 5, section 3.1.2.11.10).
fn authentication(properties: &[Property]) -> Result<Option<Authentication>, Breach> {
    let (mut method, mut data) = (None, None);
    for property in properties {
        match property {
            Property::AuthenticationMethod(p) => method = Some(text(p.val())?.to_owned()),
            Property::AuthenticationData(p) => data = password(Some(p.val())),
            _ => {}
        }
    }
    match method {
        Some(method) => Ok(Some(Authentication { method, data })),
        None if data.is_some() => Err(PROTOCOL_ERROR),
        None => Ok(None),
    }
}

/// Parses AUTH. A client sends it to authenticate again; the gateway never asks it to continue.
pub(super) fn auth(body: &[u8]) -> Result<Authentication, Breach> {
    let [RE_AUTHENTICATE, properties @ ..] = body else { return Err(PROTOCOL_ERROR) };
    if !check(properties, Carrier::Auth)?.is_empty() {
        return Err(MALFORMED);
    }
    let packet = whole(v5_0::Auth::parse(body), body)?;
    authentication(packet.props().as_deref().unwrap_or_default())?.ok_or(PROTOCOL_ERROR)
}

fn will_delay(properties: &[Property]) -> Duration {
    let delay = properties.iter().find_map(|property| match property {
        Property::WillDelayInterval(delay) => Some(delay.val()),
        _ => None,
    });
    seconds(delay.unwrap_or(0))
}

/// Rejects the topic of a will, which must not be empty either.
fn will_topic(will: &str) -> Result<String, Breach> {
    if will.is_empty() { Err(MALFORMED) } else { topic(will).map(ToOwned::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of a CONNECT of MQTT 5 with these flags and this payload.
    fn body(flags: u8, payload: &[u8]) -> Vec<u8> {
        [PROTOCOL_NAME, &[5, flags, 0, 30, 0], payload].concat()
    }

    #[test]
    fn a_password_needs_no_user_name_in_mqtt_5() {
        let password = b"\0\x05token";
        for (flags, will) in [(0, &b""[..]), (WILL_FLAG, b"\0\0\x01t\0\x02hi")] {
            let payload = [&b"\0\x02id"[..], will, password].concat();
            let connect = connect(&body(flags | PASSWORD_FLAG, &payload)).unwrap();
            assert_eq!(connect.password.as_ref().map(Password::bytes), Some(&b"token"[..]));
            assert_eq!((connect.client_id.as_str(), connect.will.is_some()), ("id", flags != 0));
            let without_password = &payload[..payload.len() - password.len()];
            assert!(super::connect(&body(flags | PASSWORD_FLAG, without_password)).is_err());
        }
        // MQTT 3.1.1 does not allow it (MQTT-3.1.2-22).
        let old = [PROTOCOL_NAME, &[4, PASSWORD_FLAG, 0, 30], b"\0\x02id", password].concat();
        assert!(connect(&old).is_err());
    }
}
