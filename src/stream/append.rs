//! An append, from the wire to the store: what a client sends, how its body becomes messages, what the store
//! answers, and why it may refuse.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

use super::{
    Annotation, ContentType, Create, Epoch, Failure, Missing, Offset, Payload, Principal, Producer,
    ProducerRefusal, Retention, SessionChange, Shortage,
};

/// An append. A front makes it, the hub hands it on, and a store decides on it.
#[derive(Debug, Clone, Default)]
pub struct Append {
    /// Who appends: the messages count as that principal's.
    pub principal: Principal,
    /// The messages; empty only to close. With `AppendType::OfStream` the store splits them.
    pub payload: Payload,
    /// The content type of the messages.
    pub content_type: AppendType,
    /// Closes the stream in the same step.
    pub close: bool,
    /// The idempotent producer, if it named itself.
    pub producer: Option<Producer>,
    /// `Stream-Seq`: above the last one of the stream, byte by byte. Its scope is the stream.
    pub sequence: Option<Box<str>>,
    /// What the publisher said of the messages.
    pub annotation: Option<Arc<Annotation>>,
    /// A change of the publisher's session that is done in the same step; not if the append is refused or a duplicate.
    pub session: Option<SessionChange>,
    /// Creates the stream in the same step if it does not exist. `None`: the append is refused then.
    pub create: Option<CreateIfMissing>,
}

/// Where the content type of an append comes from.
#[derive(Debug, Clone, Default)]
pub enum AppendType {
    /// There is none, because there are no messages. A stream that is created for it is `application/octet-stream`.
    #[default]
    Undeclared,
    /// The publisher declared it. The stream has to be of this type unless there are no messages.
    Declared(ContentType),
    /// It is that of the stream.
    OfStream {
        /// The messages, which only the content type of the stream can split.
        body: Bytes,
        /// The content type of a stream that is created for it.
        or: ContentType,
        /// How deep JSON may nest.
        json_depth_max: usize,
    },
}

/// How a stream is created for an append.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CreateIfMissing {
    /// What is kept of it. The hub sets it.
    pub retention: Retention,
}

impl Append {
    /// An append of messages that are split already.
    pub fn of(content_type: ContentType, payload: Payload) -> Self {
        Self { payload, content_type: AppendType::Declared(content_type), ..Self::default() }
    }

    /// An append to a stream of any content type; one that is created for it is of the type `or`.
    pub fn of_any_type(body: Bytes, or: ContentType, json_depth_max: usize) -> Self {
        Self { content_type: AppendType::OfStream { body, or, json_depth_max }, ..Self::default() }
    }

    /// Closes a stream without a message.
    pub fn closing() -> Self {
        Self { close: true, ..Self::default() }
    }

    /// The same append, which creates the stream if it does not exist.
    pub fn or_create(self) -> Self {
        Self { create: Some(CreateIfMissing::default()), ..self }
    }

    /// The same append with the messages of `body`, which may be empty only to close. JSON nests at most
    /// `json_depth_max` levels deep.
    pub fn with_body(mut self, body: Bytes, json_depth_max: usize) -> Result<Self, AppendError> {
        if body.is_empty() {
            return if self.close { Ok(self) } else { Err(AppendError::Empty) };
        }
        let AppendType::Declared(content_type) = &self.content_type else {
            return Err(AppendError::NoContentType);
        };
        self.payload = split(body, content_type, json_depth_max)?;
        if self.payload.is_empty() { Err(AppendError::Empty) } else { Ok(self) }
    }

    /// Splits the messages of an append to a stream of any type, by the type `stream`. Of no effect if that was done
    /// before, or if the append declares its type.
    pub fn split_for(&mut self, stream: &ContentType) -> Result<(), AppendError> {
        let AppendType::OfStream { body, json_depth_max, .. } = &self.content_type else { return Ok(()) };
        let is_split = !self.payload.is_empty() && self.payload.shape().is_json() == stream.is_json();
        if !is_split {
            self.payload = split(body.clone(), stream, *json_depth_max)?;
        }
        if self.payload.is_empty() { Err(AppendError::Empty) } else { Ok(()) }
    }

    /// The stream to create if there is none.
    pub fn creation(&self) -> Option<Create> {
        let CreateIfMissing { retention } = self.create?;
        let content_type = match &self.content_type {
            AppendType::Undeclared => ContentType::octet_stream(),
            AppendType::Declared(content_type) | AppendType::OfStream { or: content_type, .. } => {
                content_type.clone()
            }
        };
        Some(Create { default_retention: retention, principal: self.principal, ..Create::open(content_type) })
    }

    /// Whether the messages may be in a stream of the type `stream`.
    pub(super) fn fits(&self, stream: &ContentType) -> bool {
        match &self.content_type {
            _ if self.payload.is_empty() => true,
            AppendType::Undeclared => false,
            AppendType::Declared(content_type) => content_type == stream,
            AppendType::OfStream { .. } => self.payload.shape().is_json() == stream.is_json(),
        }
    }
}

/// The append is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offset behind its last message.
    pub tail: Offset,
    /// Whether the stream is closed.
    pub closed: bool,
    /// Whether it was there before; then nothing was changed.
    pub duplicate: bool,
    /// Whether the stream was created for it.
    pub created: bool,
    /// The messages that it has added: JSON values, or one for bytes.
    pub messages: u64,
    /// The bytes of those messages.
    pub bytes: usize,
    /// The highest sequence accepted from its producer, if it has one.
    pub highest: Option<u64>,
    /// The life of the log that it is in.
    pub epoch: Epoch,
}

/// Why an append was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// There is no message, and the stream is not to be closed.
    #[error("there is nothing to append")]
    Empty,
    /// Messages need a content type.
    #[error("the body has no content type")]
    NoContentType,
    /// The messages are wrong.
    #[error(transparent)]
    Messages(#[from] InvalidMessages),
    /// There is no such stream to append to.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The rules of the stream refuse it.
    #[error("the append was refused: {refusal:?}")]
    Refused {
        /// Why.
        refusal: AppendRefusal,
        /// The offset behind the last message.
        tail: Offset,
    },
    /// The store could not keep it.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl From<Shortage> for AppendError {
    fn from(shortage: Shortage) -> Self {
        Self::Failed(shortage.into())
    }
}

/// Why an append is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendRefusal {
    /// The stream is closed.
    Closed,
    /// The body has another content type than the stream.
    ContentType,
    /// `Stream-Seq` is not above the last one.
    SequenceRegression,
    /// The producer's epoch or sequence is wrong.
    Producer(ProducerRefusal),
}

/// Why a body is no JSON append.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessages {
    /// It is not JSON (RFC 8259).
    #[error("the body is not valid JSON: {0}")]
    NotJson(String),
    /// It nests deeper than the limit.
    #[error("the JSON nests deeper than {0} levels")]
    TooDeep(usize),
}

/// Splits `body` by the rules of `content_type`: JSON arrays are flattened by one level, anything else is one
/// piece. An empty array is an empty payload. JSON values keep their bytes; nothing is re-encoded.
pub fn split(body: Bytes, content_type: &ContentType, depth_max: usize) -> Result<Payload, InvalidMessages> {
    if !content_type.is_json() || body.is_empty() {
        return Ok(Payload::raw(body));
    }
    if json_depth(&body) > depth_max {
        return Err(InvalidMessages::TooDeep(depth_max));
    }
    let not_json = |error: serde_json::Error| InvalidMessages::NotJson(error.to_string());
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let values: Vec<&RawValue> = if is_array {
        serde_json::from_slice(&body).map_err(not_json)?
    } else {
        vec![serde_json::from_slice(&body).map_err(not_json)?]
    };
    let values: Vec<Bytes> = values.iter().map(|value| body.slice_ref(value.get().as_bytes())).collect();
    Ok(joined_in_place(&body, &values).unwrap_or_else(|| joined(&values)))
}

/// The values as they lie in the body, if just a comma is between them, as encoders write them.
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
    // What is kept must not keep a body alive that is mostly white space.
    let is_most = 2 * (end - start) >= body.len();
    let bytes = if is_most { body.slice(start..end) } else { Bytes::copy_from_slice(body.get(start..end)?) };
    Some(Payload::json(bytes, ends))
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

/// How deep brackets nest outside of strings, whether or not the text is JSON.
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
