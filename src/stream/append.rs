//! An append: what a front hands in, and what becomes of it.

use std::sync::Arc;

use super::{
    Annotation, ContentType, Epoch, Failure, Missing, Offset, Payload, Producer, ProducerRefusal,
    SessionChange,
};

/// An append as a front hands it in.
#[derive(Debug, Clone)]
pub struct Append {
    /// The messages; empty only to close.
    pub payload: Payload,
    /// The content type of the body; of no account if there is none.
    pub content_type: ContentType,
    /// Close the stream with it, in the same step.
    pub close: bool,
    /// The idempotent producer, if it named itself.
    pub producer: Option<Producer>,
    /// `Stream-Seq`: above the last one of the stream, byte by byte. Its scope is the stream.
    pub sequence: Option<Box<str>>,
    /// What the publisher said of it.
    pub annotation: Option<Arc<Annotation>>,
    /// A change of the publisher's session that is done in the same step; not if the append is refused or there
    /// already.
    pub session: Option<SessionChange>,
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
    /// The highest sequence accepted from its producer, if it has one.
    pub highest: Option<u64>,
    /// The life of the log that it is in.
    pub epoch: Epoch,
}

/// Why an append was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
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
