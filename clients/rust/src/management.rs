//! Requests that manage streams: describe a stream, delete a stream, list names.

use bytes::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Deserializer};

use crate::call::{Answer, Call, RequestError};
use crate::connection::ANSWER_BYTES_MAX;
use crate::offset::Offset;
use crate::origin::in_query;
use crate::publishing::takes_json;
use crate::refusal::Refusal;
use crate::settings::Shared;

/// Most bytes of a page of names: a page has at most 1000 names of at most 1 KiB.
const PAGE_BYTES_MAX: usize = 2 << 20;

/// What the gateway tells about a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// Content type of its messages.
    pub content_type: String,
    /// The offset before the earliest message that is kept.
    pub earliest: Offset,
    /// The offset behind the last message.
    pub tail: Offset,
    /// No message will follow.
    pub is_closed: bool,
    /// How many messages are kept at most.
    pub messages_max: Option<u64>,
    /// How many bytes of messages are kept at most.
    pub bytes_max: Option<u64>,
    /// How many seconds a message is kept at most.
    pub age_max_seconds: Option<u64>,
    /// After how many seconds without a request the stream is deleted.
    pub ttl_seconds: Option<u64>,
    /// When the stream is deleted, as RFC 3339 writes it.
    pub expires_at: Option<String>,
}

impl StreamInfo {
    /// How many messages of a JSON stream are kept, or how many bytes of another one.
    pub fn kept(&self) -> u64 {
        self.tail.since(self.earliest)
    }

    /// Whether the stream takes JSON, so that its messages are JSON values and its offsets count them.
    pub fn is_json(&self) -> bool {
        takes_json(&self.content_type)
    }

    /// `None` if a field is missing or malformed, so that it is not a response of the gateway.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let number = |name: &str| text(name).and_then(|text| text.parse().ok());
        Some(Self {
            content_type: text(CONTENT_TYPE.as_str())?.to_owned(),
            earliest: text("stream-earliest-offset")?.parse().ok()?,
            tail: text("stream-next-offset")?.parse().ok()?,
            is_closed: text("stream-closed").is_some_and(|closed| closed == "true"),
            messages_max: number("stream-max-messages"),
            bytes_max: number("stream-max-bytes"),
            age_max_seconds: number("stream-max-age"),
            ttl_seconds: number("stream-ttl"),
            expires_at: text("stream-expires-at").map(str::to_owned),
        })
    }
}

/// A page of the names of streams.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct NamesPage {
    /// Names and tails, in the order of the names. It may be empty although another page follows.
    pub streams: Vec<NamedStream>,
    /// What to ask the next page for. `None`: this is the last page.
    pub next: Option<String>,
}

/// A stream in a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct NamedStream {
    /// Name of the stream.
    #[serde(rename = "stream")]
    pub name: String,
    /// The offset behind its last message.
    #[serde(deserialize_with = "offset")]
    pub tail: Offset,
}

fn offset<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Offset, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// Describes a stream. `None`: it does not exist.
pub(crate) async fn info(shared: &Shared, stream: &str) -> Result<Option<StreamInfo>, RequestError> {
    let call = about_stream(shared, Method::HEAD, stream);
    // A response to HEAD has no problem document that would tell a stream that does not exist from a path that a proxy does not know.
    match call.send(shared, |answer| StreamInfo::of(&answer.headers).is_some()).await {
        Ok(answer) => Ok(StreamInfo::of(&answer.headers)),
        Err(RequestError::Refused(Refusal { status: 404, .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes a stream. Returns whether it existed.
pub(crate) async fn delete(shared: &Shared, stream: &str) -> Result<bool, RequestError> {
    let call = about_stream(shared, Method::DELETE, stream);
    match call.send(shared, |answer| answer.status == StatusCode::NO_CONTENT).await {
        Ok(_) => Ok(true),
        Err(RequestError::Refused(refusal)) if refusal.status == 404 && refusal.kind != "unknown" => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn about_stream(shared: &Shared, method: Method, stream: &str) -> Call {
    let target = shared.endpoint.origin.stream(stream);
    Call { method, target, body: Bytes::new(), bytes_max: ANSWER_BYTES_MAX }
}

/// Lists names.
pub(crate) async fn names(
    shared: &Shared,
    prefix: &str,
    after: Option<&str>,
) -> Result<NamesPage, RequestError> {
    let mut target = format!("{}?prefix={}", shared.endpoint.origin.names(), in_query(prefix));
    if let Some(after) = after {
        target.push_str(&format!("&after={}", in_query(after)));
    }
    let call = Call { method: Method::GET, target, body: Bytes::new(), bytes_max: PAGE_BYTES_MAX };
    let page = |answer: &Answer| serde_json::from_slice(&answer.document);
    let answer = call.send(shared, |answer| page(answer).is_ok()).await?;
    page(&answer).map_err(|_| Refusal::of_status(answer.status).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_described_by_the_fields_of_the_response() {
        let mut headers = HeaderMap::new();
        assert_eq!(StreamInfo::of(&headers), None, "the response of a captive portal");
        for (name, value) in [
            ("content-type", "application/json; charset=utf-8"),
            ("stream-earliest-offset", "31e1cc947a056239_0000000000000003"),
            ("stream-next-offset", "31e1cc947a056239_000000000000000c"),
            ("stream-closed", "true"),
            ("stream-max-messages", "10"),
            ("stream-max-bytes", "2000"),
            ("stream-max-age", "60"),
            ("stream-ttl", "90"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let info = StreamInfo::of(&headers).unwrap();
        assert!(info.is_closed && info.is_json());
        assert_eq!(info.kept(), 9);
        let bounds = [info.messages_max, info.bytes_max, info.age_max_seconds, info.ttl_seconds];
        assert_eq!(bounds, [10, 2000, 60, 90].map(Some));
    }

    #[test]
    fn a_page_of_names_is_what_the_gateway_writes() {
        let page =
            r#"{"streams":[{"stream":"a/b","tail":"31e1cc947a056239_000000000000000c"}],"next":"a/b"}"#;
        let page: NamesPage = serde_json::from_str(page).unwrap();
        assert_eq!(page.next.as_deref(), Some("a/b"));
        assert_eq!(page.streams[0].tail.to_string(), "31e1cc947a056239_000000000000000c");
        let last: NamesPage = serde_json::from_str(r#"{"streams":[],"next":null}"#).unwrap();
        assert_eq!(last.next, None);
    }
}
