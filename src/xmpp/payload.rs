//! Messages of streams as payloads of items (XEP-0060, section 7.1), and payloads as messages. The type of a message is what its
//! publisher has declared, or else that of its stream.
//!
//! | message | payload |
//! |---|---|
//! | a value of a JSON stream, or JSON in another stream | `<json xmlns='urn:xmpp:json:0'>` (XEP-0335) |
//! | an XML element of an XML type | the element itself |
//! | other text | `<m xmlns='urn:pollgate:0' type='text/plain'>` |
//! | anything that XML cannot carry | the same with `encoding='base64'` |

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use minidom::Element;

use super::xml::{POLLGATE, WithAttribute, element, is_text, parse_document, to_bytes};
use crate::stream::{ContentType, Message};

/// The namespace of JSON containers (XEP-0335).
pub(super) const JSON: &str = "urn:xmpp:json:0";

const BASE64: &str = "base64";

/// A message to append, from a payload.
#[derive(Debug, PartialEq)]
pub(super) struct Published {
    pub(super) bytes: Bytes,
    /// The content type of the message, and of a stream that is created for it.
    pub(super) content_type: ContentType,
}

/// The payload is not a message: its base64 or its content type is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidPayload;

impl Published {
    /// The message that a payload stands for.
    pub(super) fn of(payload: &Element) -> Result<Self, InvalidPayload> {
        if payload.is("json", JSON) {
            return Ok(Self { bytes: payload.text().into(), content_type: type_of("application/json")? });
        }
        if !payload.is("m", POLLGATE) {
            return Ok(Self { bytes: to_bytes(payload).into(), content_type: type_of("application/xml")? });
        }
        let text = payload.text();
        let (bytes, default) = match payload.attr("encoding") {
            None => (text.into_bytes(), "text/plain"),
            Some(BASE64) => {
                let digits: String = text.split_whitespace().collect();
                (BASE64_STANDARD.decode(digits).map_err(|_| InvalidPayload)?, "application/octet-stream")
            }
            Some(_) => return Err(InvalidPayload),
        };
        let content_type = type_of(payload.attr("type").unwrap_or(default))?;
        Ok(Self { bytes: bytes.into(), content_type })
    }
}

fn type_of(text: &str) -> Result<ContentType, InvalidPayload> {
    ContentType::parse(text).map_err(|_| InvalidPayload)
}

/// The payload for a message of a stream of type `stream`. A message that would take more than `bytes_max` bytes is replaced by
/// an element with its length.
pub(super) fn payload_of(message: &Message, stream: &ContentType, bytes_max: usize) -> Element {
    let bytes = &*message.bytes;
    // Markup takes up to six bytes for a character.
    let text = std::str::from_utf8(bytes).ok().filter(|text| is_text(text));
    let written = text.map_or(bytes.len().div_ceil(3) * 4, written_bytes);
    if written > bytes_max {
        return element("too-large", POLLGATE).with("bytes", bytes.len().to_string()).build();
    }
    let declared = message.annotation.as_ref().and_then(|annotation| annotation.content_type.as_deref());
    let content_type = declared.filter(|declared| is_text(declared)).unwrap_or(stream.as_str());
    let is_json =
        stream.is_json() || ContentType::parse(content_type).is_ok_and(|declared| declared.is_json());
    if let Some(text) = text.filter(|_| is_json) {
        return element("json", JSON).append(text).build();
    }
    if is_xml(content_type)
        && let Ok(parsed) = parse_document(bytes, bytes_max)
        && !parsed.is("m", POLLGATE)
    {
        return parsed;
    }
    let container = element("m", POLLGATE).with("type", content_type);
    match text {
        Some(text) => container.append(text).build(),
        None => container.with("encoding", BASE64).append(BASE64_STANDARD.encode(bytes)).build(),
    }
}

fn is_xml(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    matches!(essence, "application/xml" | "text/xml") || essence.ends_with("+xml")
}

/// An upper bound of the bytes of a text in XML.
fn written_bytes(text: &str) -> usize {
    text.len() + 5 * text.bytes().filter(|byte| matches!(byte, b'<' | b'>' | b'&' | b'"' | b'\'')).count()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::stream::Offset;

    fn message(bytes: &[u8]) -> Message {
        let (start, next, at) = (Offset::ZERO, Offset::ZERO, SystemTime::UNIX_EPOCH);
        Message { start, next, at, bytes: Bytes::copy_from_slice(bytes), annotation: None }
    }

    fn of(content_type: &str, bytes: &[u8]) -> Element {
        payload_of(&message(bytes), &ContentType::parse(content_type).unwrap(), 1000)
    }

    #[test]
    fn a_message_is_the_same_after_it_was_a_payload() {
        for (content_type, bytes) in [
            ("application/json", &b"{\"a\":[1,\"<&>\"]}"[..]),
            ("text/plain", b"one\n<two> & \"three\""),
            ("text/plain", b"a\rb"),
            ("text/plain", b""),
            ("text/plain; charset=utf-8", "\u{fffd}\u{10ffff}".as_bytes()),
            ("application/octet-stream", b"\0\x01\xff"),
            ("application/octet-stream", "\u{ffff}".as_bytes()),
            ("application/xml", b"no XML"),
            ("application/atom+xml", b"<entry xmlns='http://www.w3.org/2005/Atom'><title>x</title></entry>"),
        ] {
            let payload = of(content_type, bytes);
            let written = parse_document(&to_bytes(&payload), 4096).unwrap();
            let published = Published::of(&written).unwrap();
            assert_eq!(published.bytes, bytes, "{payload:?}");
            if !payload.has_ns("http://www.w3.org/2005/Atom") {
                assert_eq!(published.content_type.as_str(), content_type);
            }
        }
    }

    #[test]
    fn an_element_is_sent_as_it_is() {
        assert!(of("application/atom+xml", b"<a xmlns='x'/>").is("a", "x"));
        assert!(of("text/plain", b"<a xmlns='x'/>").is("m", POLLGATE));
        // Otherwise a reader could not tell it from the container of a text.
        assert!(of("text/xml", b"<m xmlns='urn:pollgate:0'>x</m>").text().starts_with("<m"));
    }

    #[test]
    fn a_message_that_is_too_large_is_told_by_its_length() {
        for bytes in [vec![b'a'; 1001], vec![0; 751], vec![b'<'; 167]] {
            let payload = of("text/plain", &bytes);
            assert_eq!(
                (payload.name(), payload.attr("bytes")),
                ("too-large", Some(&*bytes.len().to_string()))
            );
        }
        assert!(
            of("text/plain", &[b'a'; 1000]).is("m", POLLGATE)
                && of("text/plain", &[0; 750]).is("m", POLLGATE)
        );
    }

    #[test]
    fn malformed_payloads_are_refused() {
        for text in [
            "<m xmlns='urn:pollgate:0' encoding='base64'>?</m>",
            "<m xmlns='urn:pollgate:0' encoding='x'/>",
            "<m xmlns='urn:pollgate:0' type='x'/>",
        ] {
            assert_eq!(
                Published::of(&parse_document(text.as_bytes(), 1000).unwrap()),
                Err(InvalidPayload),
                "{text}"
            );
        }
    }
}
