//! An append, from the wire to the store: what a client sends, what the store answers, and why it may refuse.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Annotation, ContentType, Create, Epoch, Failure, InvalidMessages, Missing, Offset, Payload, Producer,
    ProducerRefusal, Retention, SessionChange, split,
};

/// An append. A front makes it, the hub hands it on, and a store decides on it.
#[derive(Debug, Clone, Default)]
pub struct Append {
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
        Some(Create { default_retention: retention, ..Create::open(content_type) })
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
        refusal: Refusal,
        /// The offset behind the last message.
        tail: Offset,
    },
    /// The store could not keep it.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Why an append is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The stream is closed.
    Closed,
    /// The body has another content type than the stream.
    ContentType,
    /// `Stream-Seq` is not above the last one.
    SequenceRegression,
    /// The producer's epoch or sequence is wrong.
    Producer(ProducerRefusal),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json() -> ContentType {
        ContentType::parse("application/json").unwrap()
    }

    fn text() -> ContentType {
        ContentType::parse("text/plain").unwrap()
    }

    fn of_any_type(body: &'static str) -> Append {
        Append::of_any_type(Bytes::from_static(body.as_bytes()), text(), 64)
    }

    #[test]
    fn a_body_is_split_by_the_declared_type_once() {
        let split = Append::of(json(), Payload::default()).with_body("[1,2]".into(), 64).unwrap();
        assert_eq!((split.payload.messages(), split.payload.shape().is_json()), (2, true));
        let whole = Append::of(text(), Payload::default()).with_body("[1,2]".into(), 64).unwrap();
        assert_eq!((whole.payload.messages(), whole.payload.len()), (1, 5));
        let unsplit = |append: Append, body: &'static str| append.with_body(body.into(), 64).unwrap_err();
        assert_eq!(unsplit(Append::of(json(), Payload::default()), ""), AppendError::Empty);
        assert_eq!(unsplit(Append::of(json(), Payload::default()), "[]"), AppendError::Empty);
        assert_eq!(unsplit(Append::default(), "x"), AppendError::NoContentType);
        assert!(matches!(unsplit(Append::of(json(), Payload::default()), "{"), AppendError::Messages(_)));
    }

    #[test]
    fn only_an_append_that_closes_may_be_empty() {
        let closing = Append::closing();
        assert!(closing.close && closing.create.is_none());
        assert!(closing.with_body(Bytes::new(), 64).unwrap().payload.is_empty());
        assert!(Append::closing().fits(&json()) && Append::closing().fits(&text()));
    }

    #[test]
    fn an_append_to_any_stream_is_split_by_the_type_that_the_stream_has() {
        let mut append = of_any_type("[1,2]");
        append.split_for(&json()).unwrap();
        assert_eq!(append.payload.messages(), 2);
        assert!(append.fits(&json()) && !append.fits(&text()));
        // The stream was deleted and created anew meanwhile, with another type.
        append.split_for(&text()).unwrap();
        assert_eq!(append.payload.messages(), 1);
        assert!(append.fits(&text()) && !append.fits(&json()));
        let mut copied = of_any_type("[1, 2]");
        copied.split_for(&json()).unwrap();
        let split = copied.payload.bytes().as_ptr();
        copied.split_for(&json()).unwrap();
        assert_eq!(copied.payload.bytes().as_ptr(), split, "what is split is not split again");
        let mut whole = of_any_type("[1,2]");
        whole.split_for(&text()).unwrap();
        assert_eq!(whole.payload.messages(), 1);
        assert!(matches!(of_any_type("{").split_for(&json()), Err(AppendError::Messages(_))));
        assert_eq!(of_any_type("[]").split_for(&json()), Err(AppendError::Empty));
        let mut declared = Append::of(text(), Payload::raw("x".into()));
        declared.split_for(&json()).unwrap();
        assert!(declared.fits(&text()) && !declared.fits(&json()));
        let undeclared = Append { payload: Payload::raw("x".into()), ..Append::default() };
        assert!(!undeclared.fits(&text()));
    }

    #[test]
    fn a_stream_is_created_as_the_append_says() {
        let retention = Retention { messages_max: Some(3), ..Retention::default() };
        let created =
            |append: Append| Append { create: Some(CreateIfMissing { retention }), ..append }.creation();
        for (append, content_type) in [
            (Append::of(json(), Payload::default()), json()),
            (of_any_type("x"), text()),
            (Append::closing(), ContentType::octet_stream()),
        ] {
            assert!(append.creation().is_none());
            assert_eq!(append.clone().or_create().create, Some(CreateIfMissing::default()));
            let create = created(append).unwrap();
            assert_eq!((create.content_type, create.default_retention), (content_type, retention));
        }
    }
}
