//! The message browser: the last messages of one stream as text, and a publication by an operator.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use serde::Serialize;
use tokio::time::timeout;

use super::parameters::{ViewError, ViewParameters};
use crate::auth::is_own;
use crate::clock::{Clock, rfc3339};
use crate::hub::Hub;
use crate::stream::{
    Append, AppendError, ChangeError, ContentType, Message, MessageLimit, Offset, ReadError, StreamName,
};

/// Messages that a page has by default.
const MESSAGES_DEFAULT: usize = 20;

/// The bytes of messages that a page reads at most, and those of one message that it shows.
const PAGE_BYTES_MAX: usize = 1 << 20;
const SHOWN_BYTES_MAX: usize = 4 << 10;

/// The longest message that an operator publishes, in bytes, and how long it may take.
const BODY_BYTES_MAX: usize = 64 << 10;
const BODY_TIME: Duration = Duration::from_secs(10);

/// Nesting of the JSON of such a message.
const JSON_DEPTH_MAX: usize = 64;

/// Which messages a page has.
pub(super) struct MessageQuery {
    pub(super) stream: StreamName,
    /// They are the last ones before this offset. `None`: before the tail.
    pub(super) before: Option<Offset>,
    pub(super) limit: Option<usize>,
    pub(super) clock: Clock,
}

/// A page of messages.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MessagePage {
    stream: String,
    content_type: String,
    earliest: String,
    tail: String,
    closed: bool,
    messages: Vec<MessageView>,
    /// The offset before which the page of earlier messages ends. `None`: there are none.
    before: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MessageView {
    offset: String,
    /// When it was appended (RFC 3339).
    at: String,
    bytes: usize,
    /// The beginning of the message; octets that are not UTF-8 are replaced.
    text: String,
    is_whole: bool,
    is_utf8: bool,
}

/// Reads a page of messages. This is not a use of the stream.
pub(super) async fn messages(hub: &Hub, query: &MessageQuery) -> Result<MessagePage, ViewError> {
    let MessageQuery { stream, before, limit, clock } = query;
    let count_max = limit.unwrap_or(MESSAGES_DEFAULT);
    let description = hub.describe(stream).await.map_err(|error| match error {
        ChangeError::Missing(_) => ViewError::Missing,
        ChangeError::Failed(failure) => failure.into(),
    })?;
    let start = hub.start_of_last(stream, count_max as u64, PAGE_BYTES_MAX, *before).await?;
    let limit = MessageLimit { bytes_max: PAGE_BYTES_MAX, count_max };
    let read = hub.peek(stream, start, limit).await?;
    let end = before.map_or(read.tail, |before| before.position);
    let wall = clock.wall_offset();
    let messages: Vec<_> = read.messages.iter().filter(|message| message.next.position <= end).collect();
    let first = messages.first().map(|message| message.start);
    Ok(MessagePage {
        stream: stream.as_str().to_owned(),
        content_type: description.content_type.as_str().to_owned(),
        earliest: description.earliest.to_string(),
        tail: description.tail.to_string(),
        closed: description.closed,
        before: first
            .filter(|first| first.position > description.earliest.position)
            .map(|first| first.to_string()),
        messages: messages
            .into_iter()
            .map(|message| MessageView::of(message, rfc3339(wall.to_wall(message.at))))
            .collect(),
    })
}

impl MessageView {
    fn of(message: &Message, at: String) -> Self {
        let shown = message.bytes.get(..SHOWN_BYTES_MAX).unwrap_or(&message.bytes);
        let is_whole = shown.len() == message.bytes.len();
        let is_utf8 = match std::str::from_utf8(shown) {
            Ok(_) => true,
            // A character may be cut.
            Err(error) => !is_whole && error.error_len().is_none(),
        };
        let text = String::from_utf8_lossy(shown).into_owned();
        Self { offset: message.start.to_string(), at, bytes: message.bytes.len(), text, is_whole, is_utf8 }
    }
}

impl From<ReadError> for ViewError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Missing(_) => Self::Missing,
            ReadError::Failed(failure) => failure.into(),
            ReadError::BehindTail | ReadError::Gap(_) => {
                Self::Parameters("these messages are no longer kept; leave out `before`")
            }
        }
    }
}

/// Publishes the body of a request as a message of an existing stream. Returns the status and the text of the response.
pub(super) async fn publish(hub: &Hub, head: &Parts, body: Incoming) -> (StatusCode, String) {
    let query = ViewParameters::parse(head.uri.query().unwrap_or_default(), &["stream"], 0);
    let Some(stream) = query.and_then(|query| query.stream) else {
        return (StatusCode::BAD_REQUEST, "the parameter is stream, a name\n".to_owned());
    };
    if is_own(stream.local()) {
        return (StatusCode::FORBIDDEN, "this stream is the gateway's own\n".to_owned());
    }
    let body = match timeout(BODY_TIME, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return (StatusCode::PAYLOAD_TOO_LARGE, format!("{error}\n")),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time\n".to_owned()),
    };
    match append(hub, &stream, body).await {
        Ok(()) => (StatusCode::NO_CONTENT, String::new()),
        Err(error) => {
            let status = match &error {
                AppendError::Missing(_) => StatusCode::NOT_FOUND,
                AppendError::Refused { .. } => StatusCode::CONFLICT,
                AppendError::Failed(_) => StatusCode::INSUFFICIENT_STORAGE,
                AppendError::Empty | AppendError::NoContentType | AppendError::Messages(_) => {
                    StatusCode::BAD_REQUEST
                }
            };
            (status, format!("{error}\n"))
        }
    }
}

async fn append(hub: &Hub, stream: &StreamName, body: Bytes) -> Result<(), AppendError> {
    let append = Append::of_any_type(body, ContentType::octet_stream(), JSON_DEPTH_MAX);
    hub.publish(stream, append).await.map(drop)
}
