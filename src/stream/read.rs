//! Reads of a stream: the limit, the result [`Batch`], and [`ReadError`] with the reasons for a [`Gap`].

use std::time::Duration;

use bytes::Bytes;

use super::{ContentType, Epoch, Failure, Missing, Offset, Position, StreamName};

/// The maximum that one read returns. From a text stream it returns whole characters, because live delivery forms can carry
/// only UTF-8 and continue from the offsets of polls, which could split a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// Maximum bytes of messages.
    pub bytes_max: usize,
}

/// Consecutive messages of a stream, as [`Store::read`](super::Store::read) returns them.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Content type of the stream.
    pub content_type: ContentType,
    /// The appends, shared with the log: comma-separated JSON values, or bytes.
    pub pieces: Vec<Bytes>,
    /// Number of messages: JSON values in JSON mode, appends otherwise.
    pub messages: u64,
    /// The offset before its first message.
    pub start: Offset,
    /// The offset after its last message.
    pub next: Offset,
    /// The position of the stream's tail at the time of the read.
    pub tail: Position,
    /// Whether the batch reaches the tail.
    pub up_to_date: bool,
    /// Whether no message will follow: the stream is closed, and the batch reaches its tail.
    pub closed: bool,
    /// The epoch of the log.
    pub epoch: Epoch,
    /// How long the stream will exist at least; `None` if its lifetime is unlimited.
    pub lives_for: Option<Duration>,
}

impl Batch {
    /// Whether the batch has no message.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The total size of the messages in bytes.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }
}

/// Why a stream could not be read from an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The stream does not exist.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The offset is beyond the tail, so this server cannot have returned it.
    #[error("the offset is beyond the tail of the stream")]
    BehindTail,
    /// The messages at the offset are gone, or the offset belongs to another epoch.
    #[error("the messages at the offset are no longer kept")]
    Gap(Gap),
    /// The store could not read the messages.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Messages that a reader asked for and that are no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Why they are gone.
    pub reason: GapReason,
    /// The offset of the next message that is kept, or of the tail.
    pub earliest: Offset,
}

/// Why messages are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// Retention trimmed them.
    Trimmed {
        /// Number of missed messages in JSON mode, of missed bytes otherwise.
        missed: u64,
    },
    /// They were damaged in the store.
    Damaged {
        /// Maximum number of missed messages in JSON mode, of missed bytes otherwise.
        missed: u64,
    },
    /// The offset belongs to another epoch of the stream. How much is missed is unknown.
    Epoch,
}

/// A page of the streams of a store, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamPage {
    /// The existing streams of the page, each with its tail.
    pub streams: Vec<(StreamName, Offset)>,
    /// The name after which the next page begins; `None` on the last page.
    pub next: Option<StreamName>,
}
