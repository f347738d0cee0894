//! Content types (RFC 9110, section 8.3), and what each means for message boundaries and text encodings.

use std::fmt;
use std::sync::Arc;

/// The content type of a stream or of a body, as it was sent. Two are equal if type and subtype are equal, ignoring case and
/// parameters. Cheap to clone.
#[derive(Clone)]
pub struct ContentType {
    text: TypeText,
    encoding: Encoding,
}

#[derive(Clone)]
enum TypeText {
    /// `application/json` in this spelling: the type of nearly all appends, without an allocation.
    Json,
    Other(Arc<str>),
}

const JSON: &str = "application/json";

/// How the messages of a stream are encoded in a delivery form that consists of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`: the messages are JSON values, and positions count them.
    Json,
    /// `text/*`: the messages are UTF-8 and sent unchanged.
    Text,
    /// Any other type: base64 (RFC 4648, section 4).
    Binary,
}

/// The maximum length of a content type with its parameters, in bytes.
const CONTENT_TYPE_BYTES_MAX: usize = 256;

/// The text is not a content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidContentType;

impl ContentType {
    /// Parses a `Content-Type` field value: `type/subtype` as RFC 9110 tokens, parameters optional, at most 256 bytes.
    pub fn parse(text: &str) -> Result<Self, InvalidContentType> {
        if text == JSON {
            return Ok(Self { text: TypeText::Json, encoding: Encoding::Json });
        }
        if text.len() > CONTENT_TYPE_BYTES_MAX { Err(InvalidContentType) } else { Self::stored(text) }
    }

    /// Parses like [`parse`](Self::parse), but without the limit on length, for types that were stored before there was one.
    pub fn stored(text: &str) -> Result<Self, InvalidContentType> {
        let text = text.trim();
        let essence = essence(text);
        let (kind, subtype) = essence.split_once('/').ok_or(InvalidContentType)?;
        if !is_token(kind)
            || !is_token(subtype)
            || !text.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b))
        {
            return Err(InvalidContentType);
        }
        let encoding = if essence.eq_ignore_ascii_case(JSON) {
            Encoding::Json
        } else if kind.eq_ignore_ascii_case("text") {
            Encoding::Text
        } else {
            Encoding::Binary
        };
        let text = if text == JSON { TypeText::Json } else { TypeText::Other(text.into()) };
        Ok(Self { text, encoding })
    }

    /// The content type of a stream that was created without one (protocol, section 5.1).
    pub fn octet_stream() -> Self {
        Self { text: TypeText::Other("application/octet-stream".into()), encoding: Encoding::Binary }
    }

    /// How messages of this type are encoded as text.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Whether it is `application/json`, which puts the stream in JSON mode.
    pub fn is_json(&self) -> bool {
        self.encoding == Encoding::Json
    }

    /// Whether a browser that opens a response of this type only shows its text: JSON and plain text.
    pub fn is_inert(&self) -> bool {
        self.is_json() || essence(self.as_str()).eq_ignore_ascii_case("text/plain")
    }

    /// The field value as it was sent.
    pub fn as_str(&self) -> &str {
        match &self.text {
            TypeText::Json => JSON,
            TypeText::Other(text) => text,
        }
    }
}

fn essence(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

impl PartialEq for ContentType {
    fn eq(&self, other: &Self) -> bool {
        match (&self.text, &other.text) {
            (TypeText::Json, TypeText::Json) => true,
            (TypeText::Other(one), TypeText::Other(other)) if Arc::ptr_eq(one, other) => true,
            _ => essence(self.as_str()).eq_ignore_ascii_case(essence(other.as_str())),
        }
    }
}

impl Eq for ContentType {}

impl fmt::Debug for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for InvalidContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a content type is type/subtype with optional parameters (RFC 9110, section 8.3.1), at most 256 bytes")
    }
}

impl std::error::Error for InvalidContentType {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_parameters_do_not_make_another_type() {
        let plain = ContentType::parse("application/json").unwrap();
        assert_eq!(plain, ContentType::parse("Application/JSON; charset=utf-8").unwrap());
        assert_ne!(plain, ContentType::parse("application/json-seq").unwrap());
    }

    #[test]
    fn json_text_and_the_rest() {
        for (text, encoding) in [
            ("application/json;charset=utf-8", Encoding::Json),
            ("TEXT/html", Encoding::Text),
            ("application/ndjson", Encoding::Binary),
            ("image/png", Encoding::Binary),
        ] {
            assert_eq!(ContentType::parse(text).map(|t| t.encoding()), Ok(encoding));
        }
    }

    #[test]
    fn invalid_content_types_are_refused() {
        for text in ["", "json", "/", "a/", "/b", "a b/c", "a/b\r\nx: y", "a/b; é=1"] {
            assert_eq!(ContentType::parse(text), Err(InvalidContentType), "{text:?}");
        }
    }
}
