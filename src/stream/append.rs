//! An append from the wire to the store: [`Append`], the rules that split its body into messages, the result [`Appended`], and
//! [`AppendError`].

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

use super::{
    Annotation, ContentType, Create, Epoch, Failure, Lifetime, Missing, Offset, Payload, Principal, Producer,
    ProducerRefusal, Retention, SessionChange, Shortage,
};

/// An append. A front creates it, the hub passes it on, and a store decides on it.
#[derive(Debug, Clone, Default)]
pub struct Append {
    /// The principal whose quota the messages count against.
    pub principal: Principal,
    /// The messages; empty only for an append that closes. With [`AppendType::OfStream`] the store splits them.
    pub payload: Payload,
    /// The content type of the messages.
    pub content_type: AppendType,
    /// Closes the stream in the same step as the append.
    pub close: bool,
    /// The idempotent producer, if the publisher names one.
    pub producer: Option<Producer>,
    /// `Stream-Seq`, which must be greater than the last one of the stream, compared byte by byte.
    pub sequence: Option<Box<str>>,
    /// What an MQTT publisher declared about the messages.
    pub annotation: Option<Arc<Annotation>>,
    /// A change of the publisher's session, made in the same step. It is not made if the append is refused or a duplicate.
    pub session: Option<SessionChange>,
    /// The trace context of the publisher's request, if messages are traced. It is not stored.
    pub trace: Option<Box<TraceContext>>,
    /// Creates the stream in the same step if it does not exist. If `None`, an append to a missing stream is refused.
    pub create: Option<CreateIfMissing>,
}

/// The trace context of a request (W3C Trace Context), unparsed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// The value of `traceparent`.
    pub parent: Box<str>,
    /// The value of `tracestate`; empty if there is none.
    pub state: Box<str>,
}

/// The longest `tracestate` that is kept, in bytes, as much as W3C Trace Context asks for.
const TRACE_STATE_BYTES_MAX: usize = 512;

/// The length of a `traceparent` of version 00, in bytes. Those of later versions are no shorter.
const TRACE_PARENT_BYTES: usize = 55;

/// The longest `traceparent` of a later version that is kept, in bytes.
const TRACE_PARENT_BYTES_MAX: usize = 128;

impl TraceContext {
    /// A trace context of these values. `None`: `parent` has not the lengths that the standard requires. A `state` that is too long is left out.
    pub fn new(parent: Option<&str>, state: Option<&str>) -> Option<Box<Self>> {
        let parent = parent?;
        let has_parts = [2, 35, 52].iter().all(|at| parent.as_bytes().get(*at) == Some(&b'-'));
        let is_whole = match parent.len() {
            TRACE_PARENT_BYTES => true,
            length => {
                length > TRACE_PARENT_BYTES && length <= TRACE_PARENT_BYTES_MAX && !parent.starts_with("00")
            }
        };
        if !has_parts || !is_whole {
            return None;
        }
        let state = state.filter(|state| state.len() <= TRACE_STATE_BYTES_MAX).unwrap_or_default();
        Some(Box::new(Self { parent: parent.into(), state: state.into() }))
    }
}

/// Where the content type of an append comes from.
#[derive(Debug, Clone, Default)]
pub enum AppendType {
    /// There is no content type, because there are no messages. A stream created for the append is `application/octet-stream`.
    #[default]
    Undeclared,
    /// The publisher declared it. It must be the type of the stream, unless there are no messages.
    Declared(ContentType),
    /// The messages take the content type of the stream, whatever it is.
    OfStream {
        /// The body, which the store splits by the content type of the stream.
        body: Bytes,
        /// The content type of a stream that is created for the append.
        or: ContentType,
        /// The maximum nesting depth of JSON.
        json_depth_max: usize,
    },
}

/// How a stream is created for an append to a missing stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CreateIfMissing {
    /// The retention of a stream that is created without one. The hub sets it.
    pub retention: Retention,
    /// The retention that is asked for.
    pub asked_retention: Option<Retention>,
    /// The lifetime that is asked for.
    pub lifetime: Option<Lifetime>,
}

impl Append {
    /// An append of messages that are already split.
    pub fn of(content_type: ContentType, payload: Payload) -> Self {
        Self { payload, content_type: AppendType::Declared(content_type), ..Self::default() }
    }

    /// An append to a stream of any content type. A stream created for it gets the type `or`.
    pub fn of_any_type(body: Bytes, or: ContentType, json_depth_max: usize) -> Self {
        Self { content_type: AppendType::OfStream { body, or, json_depth_max }, ..Self::default() }
    }

    /// An append that closes a stream and has no message.
    pub fn closing() -> Self {
        Self { close: true, ..Self::default() }
    }

    /// Makes the append create the stream if it does not exist.
    pub fn or_create(self) -> Self {
        Self { create: Some(CreateIfMissing::default()), ..self }
    }

    /// Sets the messages like [`set_body`](Self::set_body).
    pub fn with_body(mut self, body: Bytes, json_depth_max: usize) -> Result<Self, AppendError> {
        self.set_body(body, json_depth_max).map(|()| self)
    }

    /// Sets the messages to those in `body`. Fails if `body` is empty and the append does not close, if no content type is
    /// declared, or if JSON is invalid or nests deeper than `json_depth_max`.
    pub fn set_body(&mut self, body: Bytes, json_depth_max: usize) -> Result<(), AppendError> {
        if body.is_empty() {
            return if self.close { Ok(()) } else { Err(AppendError::Empty) };
        }
        let AppendType::Declared(content_type) = &self.content_type else {
            return Err(AppendError::NoContentType);
        };
        self.payload = split(body, content_type, json_depth_max)?;
        if self.payload.is_empty() { Err(AppendError::Empty) } else { Ok(()) }
    }

    /// Splits the body of an append to a stream of any type by the type `stream`. Does nothing if that is already done, or if
    /// the append declares its type. An empty body is an empty message, except in a JSON stream, which has none.
    pub fn split_for(&mut self, stream: &ContentType) -> Result<(), AppendError> {
        let AppendType::OfStream { body, json_depth_max, .. } = &self.content_type else { return Ok(()) };
        let is_split = !self.payload.is_empty() && self.payload.shape().is_json() == stream.is_json();
        if !is_split {
            self.payload = if stream.is_json() {
                split(body.clone(), stream, *json_depth_max)?
            } else {
                Payload::message(body.clone())
            };
        }
        if self.payload.is_empty() { Err(AppendError::Empty) } else { Ok(()) }
    }

    /// The stream to create if it does not exist; `None` if the append does not create one.
    pub fn creation(&self) -> Option<Create> {
        let CreateIfMissing { retention: default_retention, asked_retention, lifetime } = self.create?;
        let content_type = match &self.content_type {
            AppendType::Undeclared => ContentType::octet_stream(),
            AppendType::Declared(content_type) | AppendType::OfStream { or: content_type, .. } => {
                content_type.clone()
            }
        };
        let principal = self.principal;
        let create = Create::open(content_type);
        Some(Create { default_retention, retention: asked_retention, lifetime, principal, ..create })
    }

    /// Whether the messages are allowed in a stream of the type `stream`.
    pub(super) fn fits(&self, stream: &ContentType) -> bool {
        match &self.content_type {
            _ if self.payload.is_empty() => true,
            AppendType::Undeclared => false,
            AppendType::Declared(content_type) => content_type == stream,
            AppendType::OfStream { .. } => self.payload.shape().is_json() == stream.is_json(),
        }
    }
}

/// The result of an append that is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offset after its last message.
    pub tail: Offset,
    /// Whether the stream is closed now.
    pub closed: bool,
    /// Whether the append was a retry; then nothing has changed.
    pub duplicate: bool,
    /// Whether the append has created the stream.
    pub created: bool,
    /// Number of appended messages: JSON values in JSON mode, otherwise 1.
    pub messages: u64,
    /// Bytes of the appended messages.
    pub bytes: usize,
    /// The highest accepted sequence of the append's producer; `None` without a producer.
    pub highest: Option<u64>,
    /// The epoch of the log.
    pub epoch: Epoch,
}

/// Why an append failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// There is no message: the body is empty and the append does not close the stream, or the body is an empty JSON array.
    #[error("the append contains no message")]
    Empty,
    /// The append has messages and no content type.
    #[error("the body has no content type")]
    NoContentType,
    /// The body is not a valid JSON append.
    #[error(transparent)]
    Messages(#[from] InvalidMessages),
    /// The stream does not exist.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The rules of the stream refuse the append.
    #[error("the append was refused: {refusal:?}")]
    Refused {
        /// The rule that refuses it.
        refusal: AppendRefusal,
        /// The tail of the stream.
        tail: Offset,
    },
    /// The store could not keep the append.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl From<Shortage> for AppendError {
    fn from(shortage: Shortage) -> Self {
        Self::Failed(shortage.into())
    }
}

/// The rule of a stream that refuses an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendRefusal {
    /// The stream is closed.
    Closed,
    /// The body has another content type than the stream.
    ContentType,
    /// `Stream-Seq` is not greater than the last one of the stream.
    SequenceRegression,
    /// The epoch or sequence of the producer is wrong.
    Producer(ProducerRefusal),
    /// The gateway fills the stream from an origin, and nobody else appends to it.
    HasOrigin,
}

/// Why a body is not a valid JSON append.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessages {
    /// The body is not JSON (RFC 8259).
    #[error("the body is not valid JSON: {0}")]
    NotJson(String),
    /// The JSON nests deeper than the limit.
    #[error("the JSON nests deeper than {0} levels")]
    TooDeep(usize),
}

/// Splits `body` into messages by the rules of `content_type`: a JSON array is flattened by one level, any other body is one
/// message. An empty array gives an empty payload. JSON values keep their bytes and are not re-encoded.
pub fn split(body: Bytes, content_type: &ContentType, depth_max: usize) -> Result<Payload, InvalidMessages> {
    if !content_type.is_json() || body.is_empty() {
        return Ok(Payload::raw(body));
    }
    // Each level has an opening bracket. Counting those is much faster, and most bodies have few.
    if body.len() > depth_max && opening_brackets(&body) > depth_max && json_depth(&body) > depth_max {
        return Err(InvalidMessages::TooDeep(depth_max));
    }
    let not_json = |error: serde_json::Error| InvalidMessages::NotJson(error.to_string());
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    if !is_array {
        let value: &RawValue = serde_json::from_slice(&body).map_err(not_json)?;
        let is_whole = value.get().len() == body.len();
        // Moved if it can be, as the first copy of the bytes would allocate a reference count.
        let bytes = if is_whole { body } else { kept(&body, value.get().as_bytes()) };
        return Ok(Payload::json_value(bytes));
    }
    let values: Vec<&RawValue> = serde_json::from_slice(&body).map_err(not_json)?;
    let values: Vec<Bytes> = values.iter().map(|value| body.slice_ref(value.get().as_bytes())).collect();
    Ok(joined_in_place(&body, &values).unwrap_or_else(|| joined(&values)))
}

/// The values as a slice of `body`, if they are separated by single commas as encoders write them; `None` otherwise.
fn joined_in_place(body: &Bytes, values: &[Bytes]) -> Option<Payload> {
    let start_of = |value: &Bytes| value.as_ptr() as usize - body.as_ptr() as usize;
    let start = start_of(values.first()?);
    let mut end = start;
    let mut ends = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        if index > 0 && start_of(value) != end + 1 {
            return None;
        }
        end = start_of(value) + value.len();
        ends.push(u32::try_from(end - start).ok()?);
    }
    Some(Payload::json(kept(body, body.get(start..end)?), ends))
}

/// A part of `body` as a slice of it. Copies if the body is mostly white space, which would stay in memory with the slice.
fn kept(body: &Bytes, part: &[u8]) -> Bytes {
    if 2 * part.len() >= body.len() { body.slice_ref(part) } else { Bytes::copy_from_slice(part) }
}

fn joined(values: &[Bytes]) -> Payload {
    let size = values.iter().map(|value| value.len() + 1).sum();
    let mut bytes = BytesMut::with_capacity(size);
    let mut ends = Vec::with_capacity(values.len());
    for value in values {
        if !bytes.is_empty() {
            bytes.put_u8(b',');
        }
        bytes.extend_from_slice(value);
        ends.push(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    }
    Payload::json(bytes.freeze(), ends)
}

fn opening_brackets(text: &[u8]) -> usize {
    // Counts in bytes, of which the processor adds sixteen at a time.
    let add = |count: u8, byte: &u8| count.wrapping_add(u8::from(matches!(byte, b'[' | b'{')));
    text.chunks(u8::MAX.into()).map(|chunk| usize::from(chunk.iter().fold(0, add))).sum()
}

/// The maximum nesting depth of brackets outside of strings. The text need not be valid JSON.
pub fn json_depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests;
