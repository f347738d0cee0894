//! The target of a request: the stream that its path names, and the parameters of its query.

use std::borrow::Cow;

use super::error::Error;
use super::fields::Malformed;
use crate::auth::is_own;
use crate::stream::StreamName;

/// The path prefix of streams.
pub(in crate::http) const STREAMS: &str = "/v1/stream/";

/// The path at which one request reads many streams.
pub(in crate::http) const STREAMS_PATH: &str = "/v1/streams";

/// The first segment of the names that the protocol reserves (section 6).
const RESERVED: &str = "__ds";

/// Returns the stream that a path names. Percent-encoded octets are decoded once; dot segments are never resolved.
pub(in crate::http) fn stream_of_path(path: &str) -> Result<StreamName, Error> {
    let encoded = path.strip_prefix(STREAMS).ok_or(Error::NoSuchPath)?;
    if !encoded.as_bytes().contains(&b'%') {
        return stream_name(encoded);
    }
    if !has_whole_escapes(encoded) {
        return Err(Error::PercentEscape);
    }
    let decoded =
        percent_encoding::percent_decode_str(encoded).decode_utf8().map_err(|_| Error::NameNotUtf8)?;
    stream_name(&decoded)
}

/// Decodes a part of a path. `None`: it is malformed.
pub(super) fn decoded(part: &str) -> Option<String> {
    let decoded = || percent_encoding::percent_decode_str(part).decode_utf8();
    if has_whole_escapes(part) { decoded().ok().map(Cow::into_owned) } else { None }
}

/// Whether two hexadecimal digits follow each `%` (RFC 3986, section 2.1).
fn has_whole_escapes(text: &str) -> bool {
    let is_escape = |behind: &str| match behind.as_bytes() {
        [one, other, ..] => one.is_ascii_hexdigit() && other.is_ascii_hexdigit(),
        _ => false,
    };
    text.split('%').skip(1).all(is_escape)
}

/// Parses the name of a stream. A reserved name is an error.
pub(in crate::http) fn stream_name(name: &str) -> Result<StreamName, Error> {
    if name.strip_prefix(RESERVED).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        return Err(Error::Reserved);
    }
    if is_own(name) {
        return Err(Error::OwnStream);
    }
    Ok(StreamName::parse(name)?)
}

/// The known parameters of a query, decoded. Only `stream` may be repeated.
#[derive(Debug, Default)]
pub(in crate::http) struct Query<'a> {
    /// By [`Parameter`].
    values: [Option<Cow<'a, str>>; PARAMETERS],
    streams: Vec<Cow<'a, str>>,
    has_unknown: bool,
}

/// The parameters of a read, from a query or a JSON object.
pub(in crate::http) trait Parameters {
    /// Returns the text of a parameter.
    fn get(&self, parameter: Parameter) -> Option<&str>;

    /// Returns a parameter that is a whole number of seconds.
    fn seconds(&self, parameter: Parameter) -> Result<Option<u64>, Malformed>;
}

macro_rules! parameters {
    ($($parameter:ident = $name:literal),* $(,)?) => {
        /// A parameter that some request knows and that must not be repeated.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(in crate::http) enum Parameter {
            $($parameter),*
        }

        const PARAMETERS: usize = [$($name),*].len();

        impl Parameter {
            fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$parameter),)*
                    _ => None,
                }
            }

            fn name(self) -> &'static str {
                match self {
                    $(Self::$parameter => $name),*
                }
            }
        }
    };
}

parameters! {
    Offset = "offset",
    Live = "live",
    Cursor = "cursor",
    Resume = "resume",
    Timeout = "timeout",
    Client = "client",
    Heartbeat = "heartbeat",
    Lengths = "lengths",
    Create = "create",
    From = "from",
    Times = "times",
    Ticket = "ticket",
    Prefix = "prefix",
    After = "after",
}

/// The parameter that may be repeated.
const STREAM: &str = "stream";

impl<'a> Query<'a> {
    /// Parses `query` as `application/x-www-form-urlencoded`.
    pub(in crate::http) fn parse(query: Option<&'a str>) -> Result<Self, Malformed> {
        let mut parsed = Self::default();
        let mut rest = query.unwrap_or_default();
        let is_encoded = memchr::memchr2(b'%', b'+', rest.as_bytes()).is_some();
        while !rest.is_empty() {
            let end = memchr::memchr(b'&', rest.as_bytes()).unwrap_or(rest.len());
            let (pair, behind) = (rest.get(..end).unwrap_or_default(), rest.get(end + 1..));
            rest = behind.unwrap_or_default();
            let (name, value) = split_at(pair, b'=');
            let decoded = || match is_encoded {
                true => {
                    decode(value).ok_or_else(|| Malformed::parameter(name, "is not percent-encoded UTF-8"))
                }
                false => Ok(Cow::Borrowed(value)),
            };
            if name == STREAM {
                parsed.streams.push(decoded()?);
                continue;
            }
            let slot = Parameter::named(name).and_then(|known| parsed.values.get_mut(known as usize));
            let Some(slot) = slot else {
                parsed.has_unknown |= !pair.is_empty();
                continue;
            };
            let value = decoded()?;
            if slot.replace(value).is_some() {
                return Err(Malformed::parameter(name, "must not be given twice"));
            }
        }
        Ok(parsed)
    }

    /// Whether the query has parameters that no request knows. They are ignored.
    pub(in crate::http) fn has_unknown(&self) -> bool {
        self.has_unknown
    }

    /// The names of the requested streams.
    pub(in crate::http) fn streams(&self) -> impl Iterator<Item = &str> {
        self.streams.iter().map(AsRef::as_ref)
    }
}

/// Splits a text at the first such ASCII character near its beginning, which is in neither part. Each request does this several times, and
/// `split_once` takes some 120 instructions for a dozen bytes.
fn split_at(text: &str, separator: u8) -> (&str, &str) {
    let index = text.bytes().position(|byte| byte == separator).unwrap_or(text.len());
    (text.get(..index).unwrap_or_default(), text.get(index + 1..).unwrap_or_default())
}

/// The most unknown parameters that a warning names, and the most characters of each name.
const NAMED_MAX: usize = 4;
const NAME_CHARACTERS_MAX: usize = 40;

/// The warning about parameters of a query that no request knows; `None` if there are none. They are ignored, and a mistyped one
/// would go unnoticed otherwise.
pub(super) fn unknown_parameters(query: &str) -> Option<String> {
    let names = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    let is_unknown = |name: &&str| !name.is_empty() && *name != STREAM && Parameter::named(name).is_none();
    let mut unknown = names.filter(is_unknown);
    let shown = |name: &str| -> String {
        let is_shown = |one: &char| one.is_ascii_alphanumeric() || "-_.~%".contains(*one);
        name.chars().take(NAME_CHARACTERS_MAX).map(|one| if is_shown(&one) { one } else { '?' }).collect()
    };
    let named: Vec<_> = unknown.by_ref().take(NAMED_MAX).map(shown).collect();
    let others = if unknown.next().is_some() { " and others" } else { "" };
    (!named.is_empty()).then(|| format!("unknown query parameters are ignored: {}{others}", named.join(", ")))
}

impl Parameters for Query<'_> {
    fn get(&self, parameter: Parameter) -> Option<&str> {
        self.values.get(parameter as usize)?.as_deref()
    }

    fn seconds(&self, parameter: Parameter) -> Result<Option<u64>, Malformed> {
        let Some(text) = self.get(parameter) else { return Ok(None) };
        let malformed = || Malformed::parameter(parameter.name(), "must be a whole number of seconds");
        super::fields::whole_number(text).ok_or_else(malformed).map(Some)
    }
}

fn decode(value: &str) -> Option<Cow<'_, str>> {
    if !has_whole_escapes(value) {
        return None;
    }
    let spaced = value.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_parameters_are_decoded_and_others_ignored() {
        let query = Query::parse(Some("x=1&offset=a%2Cb&live=sse&offsets=2&=&%6fffset=3")).unwrap();
        assert_eq!(
            [Parameter::Offset, Parameter::Live, Parameter::Cursor].map(|parameter| query.get(parameter)),
            [Some("a,b"), Some("sse"), None]
        );
    }

    #[test]
    fn a_warning_names_unknown_parameters_and_nothing_that_breaks_its_field() {
        assert_eq!(unknown_parameters("offset=-1&live=sse&stream=a&stream=b&&=1"), None);
        let warning = unknown_parameters("ofset=1&live=sse&Timeout=3").unwrap();
        assert!(warning.ends_with(": ofset, Timeout"), "{warning}");
        let hostile = format!("a\r\nb,\u{e9}=1&{}=2&c&d&e", "x".repeat(1000));
        let warning = unknown_parameters(&hostile).unwrap();
        assert!(warning.ends_with(", c, d and others") && warning.contains("a??b??,"), "{warning}");
        assert!(
            warning.len() < 200 && warning.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
            "{warning}"
        );
        assert!(!Query::parse(Some("offset=1&")).unwrap().has_unknown());
        assert!(Query::parse(Some("offset=1&ofset=2")).unwrap().has_unknown());
    }

    #[test]
    fn twice_and_half_an_escape_are_errors() {
        for query in
            ["offset=1&offset=1", "offset=%ff", "offset=%", "offset=a%2", "offset=%2g", "stream=%%41"]
        {
            assert!(Query::parse(Some(query)).is_err(), "{query}");
        }
        for path in ["a%", "a%4", "%zz", "%%41"] {
            assert!(
                matches!(stream_of_path(&format!("{STREAMS}{path}")), Err(Error::PercentEscape)),
                "{path}"
            );
        }
    }
}
