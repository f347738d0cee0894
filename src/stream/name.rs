//! The name of a stream: the part of its URL after `/v1/stream/`, percent-decoded.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use super::tenant::{TENANT_PREFIX_BYTES_MAX, TENANTS, Tenant, split_tenant};

/// The maximum length of a name that a client chooses over HTTP, in bytes of UTF-8 after percent-decoding.
const NAME_BYTES_MAX: usize = 512;

/// The maximum length of a name in the hub: that of an MQTT topic, and the prefix of a tenant. A topic has at most 65 535 bytes,
/// and each of them takes at most four in its name.
const STORED_NAME_BYTES_MAX: usize = 4 * 65_535 + TENANT_PREFIX_BYTES_MAX;

/// The maximum number of levels of an MQTT topic and of a topic filter. The trees of filters are as deep as their levels, and
/// are walked recursively.
pub const LEVELS_MAX: usize = 200;

/// Stands for an empty level of a topic. No topic contains U+0000, which this would be otherwise.
const EMPTY_LEVEL: &str = "%00";

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
    /// More than 200 levels of an MQTT topic.
    TooManyLevels,
    /// A control character (C0, DEL or C1), which could end a line of a log or of an SSE event.
    ControlCharacter,
    /// An empty, `.` or `..` segment, which proxies and clients rewrite.
    DotSegment,
}

impl StreamName {
    /// Checks a name of at most 512 bytes, which must be percent-decoded already.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.len() > NAME_BYTES_MAX { Err(InvalidName::TooLong) } else { Self::stored(text) }
    }

    /// Checks a name that was written down, which may be that of a long topic.
    pub fn stored(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if text.len() > STORED_NAME_BYTES_MAX {
            return Err(InvalidName::TooLong);
        }
        if is_simple(text) {
            return Ok(Self(text.into()));
        }
        let has_control = |text: &str| match text.is_ascii() {
            true => text.bytes().any(|byte| byte.is_ascii_control()),
            false => text.chars().any(char::is_control),
        };
        if has_control(text) {
            return Err(InvalidName::ControlCharacter);
        }
        if text.as_bytes().split(|byte| *byte == b'/').any(|segment| matches!(segment, b"" | b"." | b"..")) {
            return Err(InvalidName::DotSegment);
        }
        Ok(Self(text.into()))
    }

    /// The name of the stream of an MQTT topic without wildcards. Almost always that is the topic itself. A level that no
    /// name may have is escaped: an empty one is `%00`, `.` is `%2E`, and `..` is `%2E%2E`. So that this can be undone, a
    /// `%` before two digits in upper case is `%25`. See [`topic`](Self::topic).
    pub fn of_topic(topic: &str) -> Result<Self, InvalidName> {
        if topic.is_empty() {
            return Err(InvalidName::Empty);
        }
        if topic.split('/').count() > LEVELS_MAX {
            return Err(InvalidName::TooManyLevels);
        }
        Self::stored(&escaped(topic))
    }

    /// The name in the hub of the stream that clients of `tenant` know by this name.
    pub fn of_tenant(self, tenant: &Tenant) -> Self {
        if tenant.is_default() { self } else { Self([tenant.prefix(), &self.0].concat().into()) }
    }

    /// A name that sorts behind those of all tenants' streams, for walks that pass over them.
    pub fn behind_tenants() -> Self {
        // The character after `/`.
        Self([TENANTS, "0"].concat().into())
    }

    /// The tenant that the stream belongs to.
    pub fn tenant(&self) -> Tenant {
        Tenant::of(&self.0)
    }

    /// The prefix of the tenant that the stream belongs to; empty for the default tenant.
    pub fn tenant_prefix(&self) -> &str {
        split_tenant(&self.0).0
    }

    /// The name that clients of its tenant know the stream by.
    pub fn local(&self) -> &str {
        split_tenant(&self.0).1
    }

    /// The MQTT topic of the stream, see [`of_topic`](Self::of_topic). `None`: no topic has this name, because it contains
    /// a wildcard or an escape that is not needed.
    pub fn topic(&self) -> Option<Cow<'_, str>> {
        let name = self.local();
        if name.contains(['+', '#']) {
            return None;
        }
        if !name.contains('%') {
            return Some(Cow::Borrowed(name));
        }
        let levels: Option<Vec<_>> = name.split('/').map(unescaped_level).collect();
        let topic = levels?.join("/");
        (!topic.is_empty() && escaped(&topic) == name).then_some(Cow::Owned(topic))
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

/// Whether a text consists of ASCII letters, digits, hyphens and underscores, with single slashes between them. Most names do, and one look
/// at each byte tells that they are valid.
fn is_simple(text: &str) -> bool {
    let mut is_in_segment = false;
    for byte in text.bytes() {
        is_in_segment = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => true,
            b'/' if is_in_segment => false,
            _ => return false,
        };
    }
    is_in_segment
}

/// The levels of a topic or a filter as a stream name has them; see [`StreamName::of_topic`].
pub(super) fn escaped(topic: &str) -> Cow<'_, str> {
    let is_plain = |level: &str| !matches!(level, "" | "." | "..") && !level.contains('%');
    if topic.split('/').all(is_plain) {
        return Cow::Borrowed(topic);
    }
    let mut name = String::with_capacity(topic.len() + 8);
    for (index, level) in topic.split('/').enumerate() {
        if index > 0 {
            name.push('/');
        }
        match level {
            "" => name.push_str(EMPTY_LEVEL),
            "." => name.push_str("%2E"),
            ".." => name.push_str("%2E%2E"),
            level => push_escaped(&mut name, level),
        }
    }
    Cow::Owned(name)
}

fn push_escaped(name: &mut String, level: &str) {
    let mut rest = level;
    while let Some((before, behind)) = rest.split_once('%') {
        name.push_str(before);
        name.push_str(if starts_with_digits(behind) { "%25" } else { "%" });
        rest = behind;
    }
    name.push_str(rest);
}

fn starts_with_digits(text: &str) -> bool {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    text.as_bytes().first_chunk::<2>().is_some_and(|digits| digits.iter().all(is_digit))
}

/// Undoes the escapes of a level. `None`: it has another escape.
fn unescaped_level(level: &str) -> Option<String> {
    if level == EMPTY_LEVEL {
        return Some(String::new());
    }
    let (mut topic, mut rest) = (String::with_capacity(level.len()), level);
    while let Some((before, behind)) = rest.split_once('%') {
        topic.push_str(before);
        (rest, topic) = match behind {
            _ if !starts_with_digits(behind) => (behind, topic + "%"),
            _ => match behind.split_at_checked(2)? {
                ("25", behind) => (behind, topic + "%"),
                ("2E", behind) => (behind, topic + "."),
                _ => return None,
            },
        };
    }
    Some(topic + rest)
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
            Self::TooManyLevels => "a topic has at most 200 levels",
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
    fn a_topic_and_its_name_are_found_from_each_other() {
        for (topic, name) in [
            ("a/b", "a/b"),
            ("/a", "%00/a"),
            ("a//b/", "a/%00/b/%00"),
            ("/", "%00/%00"),
            (".", "%2E"),
            ("a/../b", "a/%2E%2E/b"),
            ("a../.b", "a../.b"),
            ("50%", "50%"),
            ("%", "%"),
            ("%2f/%zz", "%2f/%zz"),
            ("%2F/%00", "%252F/%2500"),
            ("%%25", "%%2525"),
            ("%2525", "%252525"),
            ("$SYS/x", "$SYS/x"),
        ] {
            let of_topic = StreamName::of_topic(topic).unwrap();
            assert_eq!((of_topic.as_str(), of_topic.topic().as_deref()), (name, Some(topic)));
        }
        let long = format!("/{}", "x".repeat(65_534));
        assert_eq!(StreamName::of_topic(&long).unwrap().topic().as_deref(), Some(&*long));
        assert_eq!(StreamName::of_topic(""), Err(InvalidName::Empty));
        assert!(StreamName::of_topic(&"/".repeat(199)).is_ok());
        assert_eq!(StreamName::of_topic(&"/".repeat(200)), Err(InvalidName::TooManyLevels));
        assert_eq!(StreamName::of_topic("a\tb"), Err(InvalidName::ControlCharacter));
    }

    #[test]
    fn a_name_that_no_topic_has_is_never_sent_as_one() {
        for name in ["a+b", "#", "a/+", "%2F", "a%00", "%2E", "x%2Ey", "%00", "%2E%2E%2E"] {
            let topic = StreamName::parse(name).unwrap().topic().map(Cow::into_owned);
            assert_eq!(topic, if name == "%2E" { Some(".".to_owned()) } else { None }, "{name}");
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
