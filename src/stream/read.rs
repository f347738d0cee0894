//! A read: how much it may return, the stretch of a log that it finds, and why there is none.

use std::time::Duration;

use bytes::Bytes;

use super::{ContentType, Epoch, Failure, Missing, Offset, Position, StreamName};

/// How much one read may return. Of a text stream it returns whole characters, since live forms can carry UTF-8 only and
/// go on from the offsets of polls, which could carry half a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// Bytes of messages.
    pub bytes_max: usize,
}

/// A stretch of a log.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Of the stream.
    pub content_type: ContentType,
    /// The appends, shared with the log: JSON messages with commas between them, or bytes.
    pub pieces: Vec<Bytes>,
    /// The messages in it: JSON values, or appends.
    pub messages: u64,
    /// The offset before its first message.
    pub start: Offset,
    /// The offset behind its last message.
    pub next: Offset,
    /// The position of the stream's tail when it was read.
    pub tail: Position,
    /// Whether nothing more could be read.
    pub up_to_date: bool,
    /// Whether nothing will ever follow: the stream is closed and this reaches its end.
    pub closed: bool,
    /// The life of the log that it was read from.
    pub epoch: Epoch,
    /// How long the stream will certainly exist, if that is known.
    pub lives_for: Option<Duration>,
}

impl Batch {
    /// Whether there is no message in it.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The bytes of its messages.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }
}

/// Why a stream could not be read from an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is no such stream.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The offset lies behind the tail, so this server can not have given it.
    #[error("the offset lies behind the tail of the stream")]
    BehindTail,
    /// The offset is gone.
    #[error("the messages at the offset are no longer kept")]
    Gap(Gap),
    /// The store could not read it.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Messages that a reader asked for and that are not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// The offset of the next message that is kept, or of the tail.
    pub earliest: Offset,
}

/// Why messages are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// Retention trimmed them.
    Trimmed {
        /// How many: messages in JSON mode, bytes otherwise.
        missed: u64,
    },
    /// They were damaged in the store.
    Damaged {
        /// How many at the most: messages in JSON mode, bytes otherwise.
        missed: u64,
    },
    /// The offset is from another life of the stream. How many are missed nobody can know.
    Epoch,
}

/// A part of the streams of a store, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamPage {
    /// Streams that are there, each with its tail.
    pub streams: Vec<(StreamName, Offset)>,
    /// The name behind which the next part begins; `None`: nothing follows.
    pub next: Option<StreamName>,
}
