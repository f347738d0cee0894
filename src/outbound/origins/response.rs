//! The request to an origin, and what its response means. Pure.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, DATE, ETAG, HeaderName,
    HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use hyper::{HeaderMap, Request, Response, StatusCode};

use crate::http_client::OutboundError;
use crate::outbound::{RETRY_AFTER_MAX, retry_after};
use crate::stream::ContentType;

/// The longest entity tag and date that are kept, in bytes.
const VALIDATOR_BYTES_MAX: usize = 256;

/// What identifies the version of a response (RFC 9110, section 8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Validators {
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

/// A response that can be used.
#[derive(Debug)]
pub(super) enum Fetched {
    /// The origin has nothing new.
    Unchanged,
    /// A representation, with what identifies it.
    Body(Bytes, Validators),
}

/// Why a poll has failed. The text is the word that readers and metrics are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PollFailure {
    /// A status that is neither success nor redirect.
    #[error("status-{}", .0.as_u16())]
    Status(StatusCode),
    /// 301 or 308: the origin has another URL, which is not followed.
    #[error("moved")]
    Moved,
    /// A redirect other than 301 and 308.
    #[error("redirect")]
    Redirect,
    #[error("timeout")]
    Timeout,
    #[error("too-large")]
    TooLarge,
    /// The URL, or an address of its host, is not allowed.
    #[error("address-refused")]
    Refused,
    #[error("unreachable")]
    Unreachable,
    #[error("tls")]
    Tls,
    /// The response is not HTTP, or its connection ended early.
    #[error("malformed")]
    Malformed,
    /// The media type is not that of the stream.
    #[error("media-type")]
    MediaType,
    #[error("content-encoding")]
    ContentEncoding,
    /// The body is not valid JSON, or not an array although there is a key.
    #[error("json")]
    Json,
    /// An element has no key.
    #[error("key")]
    Key,
    #[error("too-many-elements")]
    TooManyElements,
    /// The gateway cannot store what it has received.
    #[error("store")]
    Store,
    /// The operator does not allow origins.
    #[error("disabled")]
    Disabled,
}

impl PollFailure {
    /// The word for metrics, of which there are few.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Moved | Self::Redirect => "redirect",
            Self::Timeout => "timeout",
            Self::TooLarge | Self::TooManyElements => "too-large",
            Self::Refused | Self::Disabled => "refused",
            Self::Unreachable | Self::Tls => "unreachable",
            Self::Malformed | Self::MediaType | Self::ContentEncoding | Self::Json | Self::Key => "malformed",
            Self::Store => "store",
        }
    }
}

impl From<OutboundError> for PollFailure {
    fn from(error: OutboundError) -> Self {
        match error {
            OutboundError::Request | OutboundError::Refused { .. } => Self::Refused,
            OutboundError::Lookup(_) | OutboundError::Connect(_) => Self::Unreachable,
            OutboundError::Tls(_) => Self::Tls,
            OutboundError::Http(_) => Self::Malformed,
            OutboundError::TooLarge { .. } => Self::TooLarge,
            OutboundError::Late(_) => Self::Timeout,
        }
    }
}

/// The request for the representation of an origin, unless it is the one that `known` identifies.
pub(super) fn request(content_type: &ContentType, known: &Validators) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    let fields = request.headers_mut();
    let accept = match content_type.as_str() {
        _ if content_type.is_json() => Some(HeaderValue::from_static("application/json, */*;q=0.1")),
        "application/octet-stream" => None,
        other => HeaderValue::from_str(other).ok(),
    };
    fields.insert(ACCEPT, accept.unwrap_or(HeaderValue::from_static("*/*")));
    fields.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(etag) = &known.etag {
        fields.insert(IF_NONE_MATCH, etag.clone());
    }
    if let Some(date) = &known.last_modified {
        fields.insert(IF_MODIFIED_SINCE, date.clone());
    }
    request
}

/// Returns what a response means for a stream of `content_type`.
pub(super) fn fetched(response: Response<Bytes>, content_type: &ContentType) -> Result<Fetched, PollFailure> {
    let (head, body) = response.into_parts();
    match head.status {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT => return Ok(Fetched::Unchanged),
        StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT => return Err(PollFailure::Moved),
        status if status.is_redirection() => return Err(PollFailure::Redirect),
        status => return Err(PollFailure::Status(status)),
    }
    let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    if text(CONTENT_ENCODING).is_some_and(|coding| !coding.trim().eq_ignore_ascii_case("identity")) {
        return Err(PollFailure::ContentEncoding);
    }
    if !fits(text(CONTENT_TYPE), content_type) {
        return Err(PollFailure::MediaType);
    }
    let validator =
        |name: HeaderName| head.headers.get(name).filter(|value| value.len() <= VALIDATOR_BYTES_MAX).cloned();
    let last_modified = validator(LAST_MODIFIED).filter(|_| is_settled(&head.headers));
    let validators = Validators { etag: validator(ETAG), last_modified };
    Ok(Fetched::Body(body, validators))
}

/// Whether `Last-Modified` identifies this version: a change within the same second would have the same date (RFC 9110, section
/// 8.8.2.2).
fn is_settled(fields: &HeaderMap) -> bool {
    let date = |name: HeaderName| httpdate::parse_http_date(fields.get(name)?.to_str().ok()?).ok();
    let (Some(modified), Some(now)) = (date(LAST_MODIFIED), date(DATE)) else { return false };
    now.duration_since(modified).is_ok_and(|age| age >= Duration::from_secs(1))
}

/// Whether a response with this `Content-Type` may be appended to a stream of type `stream`: JSON to JSON, anything to a stream of bytes,
/// and otherwise the same media type.
fn fits(declared: Option<&str>, stream: &ContentType) -> bool {
    let essence = |text: &str| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let declared = declared.map(essence).unwrap_or_default();
    match essence(stream.as_str()).as_str() {
        "application/octet-stream" => true,
        _ if stream.is_json() => declared == "application/json" || declared.ends_with("+json"),
        stream => declared == stream,
    }
}

/// How long the origin asks to wait: `Retry-After` of a response that is no success, otherwise the freshness that is left
/// (RFC 9111, section 4.2; `s-maxage` comes first, because the gateway is a shared cache).
pub(super) fn asked_wait(status: StatusCode, fields: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if !status.is_success() && status != StatusCode::NOT_MODIFIED {
        return retry_after(fields, now, RETRY_AFTER_MAX);
    }
    let lists = fields.get_all(CACHE_CONTROL).iter().filter_map(|list| list.to_str().ok());
    let directives: Vec<_> = lists.flat_map(|list| list.split(',')).map(str::trim).collect();
    let is = |name: &str| directives.iter().any(|directive| directive.eq_ignore_ascii_case(name));
    if is("no-cache") || is("no-store") {
        return None;
    }
    let seconds = |name: &str| {
        directives.iter().find_map(|directive| {
            let (directive, value) = directive.split_once('=')?;
            directive.eq_ignore_ascii_case(name).then(|| value.trim_matches('"').parse::<u64>().ok())?
        })
    };
    let age = fields.get(AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok()).unwrap_or(0);
    seconds("s-maxage").or_else(|| seconds("max-age")).map(|max| Duration::from_secs(max.saturating_sub(age)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, fields: &[(&'static str, &'static str)]) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from_static(b"1"));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        response
    }

    fn json() -> ContentType {
        ContentType::parse("application/json").unwrap()
    }

    #[test]
    fn each_status_means_a_body_nothing_new_or_a_failure() {
        let means = |status| match fetched(response(status, &[("content-type", "application/json")]), &json())
        {
            Ok(Fetched::Body(..)) => "body".to_owned(),
            Ok(Fetched::Unchanged) => "unchanged".to_owned(),
            Err(failure) => failure.to_string(),
        };
        for (status, meaning) in [
            (200, "body"),
            (201, "status-201"),
            (204, "unchanged"),
            (206, "status-206"),
            (301, "moved"),
            (302, "redirect"),
            (303, "redirect"),
            (304, "unchanged"),
            (307, "redirect"),
            (308, "moved"),
            (401, "status-401"),
            (404, "status-404"),
            (429, "status-429"),
            (500, "status-500"),
        ] {
            assert_eq!(means(status), meaning, "{status}");
        }
    }

    #[test]
    fn the_media_type_must_be_that_of_the_stream() {
        for (stream, declared, fits) in [
            ("application/json", "application/json", true),
            ("application/json", "Application/Geo+JSON; charset=utf-8", true),
            ("application/json", "text/html", false),
            ("application/json", "", false),
            ("text/plain", "text/plain; charset=utf-8", true),
            ("text/plain", "text/html", false),
            ("application/octet-stream", "image/png", true),
        ] {
            let outcome =
                fetched(response(200, &[("content-type", declared)]), &ContentType::parse(stream).unwrap());
            assert_eq!(outcome.is_ok(), fits, "{declared} to {stream}");
        }
        let coded = response(200, &[("content-type", "application/json"), ("content-encoding", "gzip")]);
        assert_eq!(fetched(coded, &json()).err(), Some(PollFailure::ContentEncoding));
    }

    #[test]
    fn what_a_response_asks_to_wait_for_is_read_by_its_status() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let wait = |status, fields: &[(&'static str, &'static str)]| {
            let response = response(status, fields);
            asked_wait(response.status(), response.headers(), now).map(|wait| wait.as_secs())
        };
        assert_eq!(wait(429, &[("retry-after", "30"), ("cache-control", "max-age=9")]), Some(30));
        assert_eq!(wait(503, &[("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT")]), Some(60));
        assert_eq!(wait(503, &[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]), Some(0));
        assert_eq!(wait(503, &[("retry-after", "soon")]), None);
        assert_eq!(wait(200, &[("retry-after", "30")]), None);
        assert_eq!(wait(200, &[("cache-control", "public, Max-Age=20"), ("age", "5")]), Some(15));
        assert_eq!(wait(304, &[("cache-control", "max-age=20, s-maxage=7")]), Some(7));
        assert_eq!(wait(200, &[("cache-control", "max-age=20, no-cache")]), None);
        assert_eq!(wait(200, &[("cache-control", "max-age=x")]), None);
    }

    #[test]
    fn a_request_names_the_version_that_is_known() {
        const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (date, is_known) in
            [(MODIFIED, false), ("Sun, 06 Nov 1994 08:49:38 GMT", true), ("", false), ("now", false)]
        {
            let fields = [
                ("content-type", "application/json"),
                ("etag", "\"a\""),
                ("last-modified", MODIFIED),
                ("date", date),
            ];
            let Ok(Fetched::Body(_, known)) = fetched(response(200, &fields), &json()) else { panic!() };
            let request = request(&json(), &known);
            assert_eq!(request.headers()[IF_NONE_MATCH], "\"a\"");
            // A version of this second may not be the last one of it.
            assert_eq!(request.headers().get(IF_MODIFIED_SINCE).is_some(), is_known, "{date}");
        }
    }
}
