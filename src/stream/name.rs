//! The name of a stream: the part of its URL after `/v1/stream/`, percent-decoded.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The maximum length of a name, in bytes of UTF-8 after percent-decoding.
pub(super) const NAME_BYTES_MAX: usize = 512;

/// A valid name: 1 to 512 bytes, no control characters, no empty, `.` or `..` segment. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(Arc<str>);

/// Why a text is not a valid stream name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidName {
    /// The text is empty.
    Empty,
    /// More than 512 bytes.
    TooLong,
    /// A control character (C0, DEL or C1), which could end a line of a log or of an SSE event.
    ControlCharacter,
    /// An empty, `.` or `..` segment, which proxies and clients rewrite.
    DotSegment,
}

impl StreamName {
    /// Checks `text`, which must be percent-decoded already.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(InvalidName::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidName::ControlCharacter);
        }
        if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(InvalidName::DotSegment);
        }
        Ok(Self(text.into()))
    }

    /// The name as text; shares the allocation.
    pub(super) fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names sort, compare and hash as their texts.
impl Borrow<str> for StreamName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a stream name must not be empty",
            Self::TooLong => "a stream name has at most 512 bytes",
            Self::ControlCharacter => "a stream name must not contain control characters",
            Self::DotSegment => "a stream name must not contain an empty, '.' or '..' segment",
        })
    }
}

impl std::error::Error for InvalidName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_and_any_script_are_allowed() {
        for name in ["a", "room/1/events", "straße", "…", "a b", "a..b", ".hidden", &"x".repeat(512)] {
            assert_eq!(StreamName::parse(name).map(|n| n.as_str().to_owned()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn names_that_a_proxy_or_a_log_could_misread_are_refused() {
        let cases = [
            ("", InvalidName::Empty),
            (&*"x".repeat(513), InvalidName::TooLong),
            ("a\0b", InvalidName::ControlCharacter),
            ("a\r\nb", InvalidName::ControlCharacter),
            ("a\u{85}b", InvalidName::ControlCharacter),
            ("..", InvalidName::DotSegment),
            ("a/../b", InvalidName::DotSegment),
            ("a//b", InvalidName::DotSegment),
            ("a/", InvalidName::DotSegment),
        ];
        for (name, reason) in cases {
            assert_eq!(StreamName::parse(name), Err(reason), "{name:?}");
        }
    }
}
