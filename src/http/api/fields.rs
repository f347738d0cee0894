//! Header fields: their names, and parsers of their values.

use std::time::{Duration, SystemTime};

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use jiff::Timestamp;
use jiff::fmt::temporal::Pieces;

use crate::stream::Offset;

macro_rules! names {
    ($($constant:ident = $name:literal),* $(,)?) => {
        $(pub(in crate::http) const $constant: HeaderName = HeaderName::from_static($name);)*
    };
}

names! {
    ALLOW_PRIVATE_NETWORK = "access-control-allow-private-network",
    CLIENT_ID = "client-id",
    LAST_EVENT_ID = "last-event-id",
    PREFER = "prefer",
    PREFERENCE_APPLIED = "preference-applied",
    PRODUCER_EPOCH = "producer-epoch",
    PRODUCER_EXPECTED_SEQ = "producer-expected-seq",
    PRODUCER_ID = "producer-id",
    PRODUCER_RECEIVED_SEQ = "producer-received-seq",
    PRODUCER_SEQ = "producer-seq",
    REQUEST_PRIVATE_NETWORK = "access-control-request-private-network",
    SEC_FETCH_DEST = "sec-fetch-dest",
    SEC_FETCH_MODE = "sec-fetch-mode",
    SEC_FETCH_SITE = "sec-fetch-site",
    STREAM_CLOSED = "stream-closed",
    STREAM_CURSOR = "stream-cursor",
    STREAM_EARLIEST_OFFSET = "stream-earliest-offset",
    STREAM_EXPIRES_AT = "stream-expires-at",
    STREAM_FORKED_FROM = "stream-forked-from",
    STREAM_FORK_OFFSET = "stream-fork-offset",
    STREAM_FORK_SUB_OFFSET = "stream-fork-sub-offset",
    STREAM_GAP = "stream-gap",
    STREAM_LENGTHS = "stream-lengths",
    STREAM_MAX_AGE = "stream-max-age",
    STREAM_MAX_BYTES = "stream-max-bytes",
    STREAM_MAX_MESSAGES = "stream-max-messages",
    STREAM_NEXT_OFFSET = "stream-next-offset",
    STREAM_ORIGIN = "stream-origin",
    STREAM_ORIGIN_INTERVAL = "stream-origin-interval",
    STREAM_ORIGIN_KEY = "stream-origin-key",
    STREAM_ORIGIN_POLL = "stream-origin-poll",
    STREAM_ORIGIN_STATUS = "stream-origin-status",
    STREAM_SEQ = "stream-seq",
    STREAM_SSE_DATA_ENCODING = "stream-sse-data-encoding",
    STREAM_SUPERSEDED = "stream-superseded",
    STREAM_TTL = "stream-ttl",
    STREAM_WARNING = "stream-warning",
    TRACEPARENT = "traceparent",
    TRACESTATE = "tracestate",
    X_ACCEL_BUFFERING = "x-accel-buffering",
    X_FORWARDED_PROTO = "x-forwarded-proto",
}

/// A header field or query parameter with an invalid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(in crate::http) struct Malformed(String);

impl Malformed {
    /// A header field; `what` continues the sentence after its name, such as "is not UTF-8".
    pub(in crate::http) fn field(name: &HeaderName, what: &str) -> Self {
        Self(format!("{name} {what}"))
    }

    /// A query parameter, or a key of a JSON body.
    pub(in crate::http) fn parameter(name: &str, what: &str) -> Self {
        Self(format!("the parameter {name} {what}"))
    }
}

/// The largest integer that JavaScript represents exactly, which is the protocol's limit.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// The digits of [`NUMBER_MAX`].
const NUMBER_DIGITS_MAX: usize = 16;

pub(in crate::http) const TRUE: HeaderValue = HeaderValue::from_static("true");

/// The header fields of a request, parsed by the fast path or by hyper.
pub(in crate::http) trait Fields {
    /// Returns the values of a field, in their order.
    fn values<'a>(&'a self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]>;
}

impl Fields for HeaderMap {
    fn values<'a>(&'a self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}

/// The header fields of a request that the fast path has parsed.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct ParsedFields<'a> {
    fields: &'a [httparse::Header<'a>],
    /// A bit for each length of a name, modulo 64. A request is searched for some twenty fields, of which it has few.
    lengths: u64,
}

impl<'a> ParsedFields<'a> {
    pub(in crate::http) fn new(fields: &'a [httparse::Header<'a>]) -> Self {
        let lengths = fields.iter().fold(0, |lengths, field| lengths | length_bit(field.name));
        Self { fields, lengths }
    }
}

fn length_bit(name: &str) -> u64 {
    1 << (name.len() % 64)
}

impl Fields for ParsedFields<'_> {
    fn values<'a>(&'a self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let name = name.as_str();
        let fields = if self.lengths & length_bit(name) == 0 { &[][..] } else { self.fields };
        NamedFields { fields: fields.iter(), name }
    }
}

/// The values of the fields with a name, which is in lower case.
struct NamedFields<'a, 'n> {
    fields: std::slice::Iter<'a, httparse::Header<'a>>,
    name: &'n str,
}

impl<'a> Iterator for NamedFields<'a, '_> {
    type Item = &'a [u8];

    // Short enough to be a part of each search, most of which end here.
    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let has_length = |field: &&httparse::Header<'_>| field.name.len() == self.name.len();
        let mut candidates = self.fields.by_ref().filter(has_length);
        candidates.find(|field| is_named(field.name, self.name)).map(|field| field.value)
    }
}

/// Whether the name of a field is `name`, which is in lower case. Most names of the same length differ in their first letter.
#[inline(never)]
fn is_named(field: &str, name: &str) -> bool {
    let (first, lower) =
        (field.as_bytes().first().map(u8::to_ascii_lowercase), name.as_bytes().first().copied());
    first == lower && field.eq_ignore_ascii_case(name)
}

/// Returns the text of a field that must not be repeated; `None` if it is absent.
pub(in crate::http) fn text<'a>(
    fields: &'a (impl Fields + ?Sized),
    name: &HeaderName,
) -> Result<Option<&'a str>, Malformed> {
    let mut values = fields.values(name);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Malformed::field(name, "must not be given twice"));
    }
    let text = std::str::from_utf8(value).map_err(|_| Malformed::field(name, "is not UTF-8"))?;
    Ok(Some(text.trim_ascii()))
}

/// Returns the elements of a list as one text, which is the same however they are spread over lines (RFC 9110, section 5.3).
/// Text that is not UTF-8 is replaced, and so equals no element that is.
pub(in crate::http) fn list(fields: &(impl Fields + ?Sized), name: &HeaderName) -> Option<String> {
    let mut lines = fields.values(name).map(String::from_utf8_lossy);
    let first = lines.next()?.into_owned();
    Some(lines.fold(first, |list, line| list + "," + &line))
}

/// Parses a number without sign, fraction, exponent or leading zeros (protocol, section 5.1).
pub(in crate::http) fn number(
    fields: &(impl Fields + ?Sized),
    name: &HeaderName,
) -> Result<Option<u64>, Malformed> {
    let parse = |text: &str| {
        whole_number(text).ok_or_else(|| {
            Malformed::field(name, "must be a whole number from 0 to 2^53 - 1 without leading zeros")
        })
    };
    text(fields, name)?.map(parse).transpose()
}

/// Whether a field is `true`, in upper or lower case; any other value counts as absent (protocol, section 4.1).
pub(in crate::http) fn flag(fields: &(impl Fields + ?Sized), name: &HeaderName) -> Result<bool, Malformed> {
    Ok(text(fields, name)?.is_some_and(|text| text.eq_ignore_ascii_case("true")))
}

/// Parses an RFC 3339 timestamp. One of the last days of the year 9999, which people write for "never", is the latest time
/// that can be represented.
pub(in crate::http) fn timestamp(
    headers: &HeaderMap,
    name: &HeaderName,
) -> Result<Option<SystemTime>, Malformed> {
    let parse = |text: &str| {
        let timestamp = text.parse().ok().or_else(|| is_last_year(text).then_some(Timestamp::MAX));
        let timestamp = timestamp.map(SystemTime::from);
        timestamp.ok_or_else(|| Malformed::field(name, "must be an RFC 3339 timestamp"))
    };
    text(headers, name)?.map(parse).transpose()
}

/// Whether a text is a date in 9999, a time, and an offset from UTC. Those behind [`Timestamp::MAX`] are no timestamp.
fn is_last_year(text: &str) -> bool {
    let is_last = |pieces: Pieces<'_>| {
        pieces.date().year() == 9999 && pieces.time().is_some() && pieces.offset().is_some()
    };
    Pieces::parse(text).is_ok_and(is_last)
}

/// Parses `Prefer: wait=S` (RFC 7240, section 4.3). Invalid preferences are ignored, as that RFC requires.
pub(in crate::http) fn preferred_wait(fields: &(impl Fields + ?Sized)) -> Option<u64> {
    let name = PREFER;
    let preferences = fields.values(&name).filter_map(|value| std::str::from_utf8(value).ok());
    let mut preferences = preferences.flat_map(|value| value.split(','));
    preferences.find_map(|preference| {
        let preference = preference.split(';').next()?;
        let (name, value) = preference.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("wait").then(|| whole_number(value)).flatten()
    })
}

pub(in crate::http) fn whole_number(text: impl AsRef<[u8]>) -> Option<u64> {
    let digits = text.as_ref();
    let is_canonical = match digits {
        [b'0'] => true,
        [first, ..] => *first != b'0' && digits.len() <= NUMBER_DIGITS_MAX,
        [] => false,
    };
    let add = |number: u64, digit: &u8| digit.is_ascii_digit().then(|| 10 * number + u64::from(digit - b'0'));
    let number = if is_canonical { digits.iter().try_fold(0, add) } else { None };
    number.filter(|number| *number <= NUMBER_MAX)
}

/// Returns a field value of a text that is known to have no control characters. If it has some, the value is empty.
pub(in crate::http) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

pub(in crate::http) fn offset_value(offset: Offset) -> HeaderValue {
    HeaderValue::from_bytes(&offset.to_text()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Returns a random `Retry-After` of 1 to 5 seconds, so that clients that were refused together do not return together.
pub(in crate::http) fn retry_after() -> HeaderValue {
    HeaderValue::from(fastrand::u64(1..=5))
}

pub(in crate::http) fn seconds(duration: Duration) -> HeaderValue {
    HeaderValue::from(duration.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_spelling() {
        for (text, number) in [("0", Some(0)), ("3600", Some(3600)), ("9007199254740991", Some(NUMBER_MAX))] {
            assert_eq!(whole_number(text), number);
        }
        for text in
            ["", "00", "03600", "+3600", "-1", "3600.0", "3.6e3", " 1", "9007199254740992", "1e99", "٣"]
        {
            assert_eq!(whole_number(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_last_days_of_the_calendar_are_dates() {
        let parse = |text: &'static str| {
            let name = STREAM_EXPIRES_AT;
            let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(text))]);
            timestamp(&headers, &name).ok().flatten()
        };
        let last = SystemTime::from(Timestamp::MAX);
        for text in ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999-23:59", "9999-12-31T00:00:00+00:00"] {
            assert_eq!(parse(text), Some(last), "{text}");
        }
        assert_eq!(parse("1970-01-01t00:00:01z"), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1)));
        for text in
            ["9999-12-31", "9999-12-31T23:59:59", "9999-12-32T00:00:00Z", "10000-01-01T00:00:00Z", "x"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn wait_is_found_among_other_preferences() {
        for (prefer, wait) in [
            ("wait=10", Some(10)),
            ("respond-async, Wait = \"7\"; x=1", Some(7)),
            ("wait=ten", None),
            ("wait", None),
            ("awaits=3", None),
        ] {
            let headers = HeaderMap::from_iter([(PREFER, HeaderValue::from_static(prefer))]);
            assert_eq!(preferred_wait(&headers), wait, "{prefer}");
        }
    }
}
