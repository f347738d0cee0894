//! The creation of a stream: its request and result, its lifetime and its retention.

use std::time::{Duration, SystemTime};

use super::{
    ContentType, Epoch, Failure, Gap, Offset, Payload, Principal, Producer, Shortage, Start, StreamName,
};

/// The maximum depth of a fork: its source, the source of that source, and so on. Each of these streams takes a place in the
/// offsets of the fork, and keeps its name as long as the fork exists.
pub const FORK_DEPTH_MAX: u8 = 16;

/// A request to create a stream.
#[derive(Debug, Clone)]
pub struct Create {
    /// The principal whose quota the stream and its first messages count against.
    pub principal: Principal,
    /// Content type of the stream. A fork must use the content type of its source.
    pub content_type: ContentType,
    /// Lifetime of the stream. `None`: that of the source for a fork, otherwise unlimited.
    pub lifetime: Option<Lifetime>,
    /// Retention of the stream. `None`: that of the source for a fork, otherwise `default_retention`.
    pub retention: Option<Retention>,
    /// The retention of a stream that is created without one and is not a fork.
    pub default_retention: Retention,
    /// Closes the stream after the initial messages.
    pub closed: bool,
    /// The initial messages.
    pub payload: Payload,
    /// Set if the stream is a fork.
    pub fork: Option<Fork>,
    /// What the stream remembers of its writers from the beginning, if it is imported.
    pub writers: Option<Box<WriterStates>>,
}

impl Create {
    /// The creation of an open, empty stream with unlimited lifetime and retention.
    pub fn open(content_type: ContentType) -> Self {
        Self {
            principal: Principal::GATEWAY,
            content_type,
            lifetime: None,
            retention: None,
            default_retention: Retention::default(),
            closed: false,
            payload: Payload::default(),
            fork: None,
            writers: None,
        }
    }
}

/// The source of a fork, and the point at which it branches off (protocol, section 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The stream whose messages the fork shares up to its point.
    pub source: StreamName,
    /// An offset of the source; `None` is its tail.
    pub offset: Option<Start>,
    /// Distance of the fork's point from `offset`: messages in JSON mode, bytes otherwise.
    pub sub_offset: u64,
}

/// The result of a creation; the stream exists now.
#[derive(Debug, Clone)]
pub struct Created {
    /// Whether the creation made the stream; otherwise it existed with the same configuration.
    pub fresh: bool,
    /// The offset after its last message.
    pub tail: Offset,
    /// Whether the stream is closed.
    pub closed: bool,
    /// Content type of the stream.
    pub content_type: ContentType,
    /// The epoch of its log.
    pub epoch: Epoch,
}

/// Why a stream was not created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The stream exists with another configuration.
    #[error("the stream exists with another configuration")]
    ExistsDifferently,
    /// A stream of this name was deleted, and its name stays taken while forks of it exist.
    #[error("the stream was deleted, but forks of it exist; its name is free again once they are deleted")]
    NameTaken,
    /// The source of the fork does not exist.
    #[error("the stream to fork from does not exist")]
    SourceNotFound,
    /// The source of the fork was deleted; only its name is still taken, by its other forks.
    #[error("the stream to fork from was deleted")]
    SourceDeleted,
    /// The content type of the fork differs from that of its source.
    #[error("a fork must have the content type of its source")]
    SourceContentType,
    /// The fork's point is not between the earliest message and the tail of the source.
    #[error("the fork offset is not an offset of the source, or the sub-offset reaches beyond its tail")]
    ForkOffset,
    /// The source no longer keeps the messages at the fork's offset.
    #[error("the source no longer keeps the messages at the fork offset")]
    ForkTrimmed(Gap),
    /// The source already is a fork of depth [`FORK_DEPTH_MAX`].
    #[error("a chain of forks has at most {FORK_DEPTH_MAX} sources")]
    ForkTooDeep,
    /// The store could not keep the stream.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl From<Shortage> for CreateError {
    fn from(shortage: Shortage) -> Self {
        Self::Failed(shortage.into())
    }
}

/// The metadata of a stream, as HEAD returns it.
#[derive(Debug, Clone)]
pub struct Description {
    /// Content type of the stream.
    pub content_type: ContentType,
    /// The offset of the earliest message that is kept, or the tail if none is.
    pub earliest: Offset,
    /// The offset after the last message.
    pub tail: Offset,
    /// When the newest message that is kept was appended. `None`: no message is kept.
    pub appended_at: Option<SystemTime>,
    /// Whether the stream is closed.
    pub closed: bool,
    /// When the stream is removed automatically.
    pub lifetime: Lifetime,
    /// Which messages of the stream are kept.
    pub retention: Retention,
    /// Whether the stream is filled from an origin, as far as the store knows. Only a store that several gateways use knows it.
    pub has_origin: bool,
}

/// All of a stream except its messages, at one moment: what an export needs.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The metadata.
    pub description: Description,
    /// The point at which the stream branches off its source; `None` unless it is a fork.
    pub branch: Option<Branch>,
    /// Number of sources in the chain of forks; 0 for a stream that is not a fork.
    pub depth: u8,
    /// Whether there are forks of the stream.
    pub has_forks: bool,
    /// What the stream remembers of its writers.
    pub writers: WriterStates,
}

/// The point at which a fork branches off its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// The source.
    pub source: StreamName,
    /// The offset in the fork. Its position is the same in the source.
    pub at: Offset,
}

/// What a stream remembers of its writers, so that retries are recognized.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriterStates {
    /// Each idempotent producer with the last sequence that was accepted, and the time of that append.
    pub producers: Vec<(Producer, SystemTime)>,
    /// The last `Stream-Seq`.
    pub sequence: Option<Box<str>>,
    /// The producer whose append closed the stream.
    pub closed_by: Option<Producer>,
}

impl WriterStates {
    /// The size of all ids and texts, with 40 bytes for the numbers of each producer.
    pub fn size(&self) -> usize {
        let ids: usize = self.producers.iter().map(|(producer, _)| producer.id.len() + 40).sum();
        ids + self.sequence.as_ref().map_or(0, |sequence| sequence.len())
    }
}

/// When a stream is removed automatically (protocol, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lifetime {
    /// Never.
    #[default]
    Unlimited,
    /// `Stream-TTL`: removed when this long has passed since the last read or append.
    Idle(Duration),
    /// `Stream-Expires-At`: removed at this time of day.
    Until(SystemTime),
}

impl Lifetime {
    /// How long a stream exists at least that is read when the time of day is `wall`. `None`: until it is deleted.
    pub fn left(self, wall: SystemTime) -> Option<Duration> {
        match self {
            Self::Unlimited => None,
            Self::Idle(idle) => Some(idle),
            Self::Until(end) => Some(end.duration_since(wall).unwrap_or_default()),
        }
    }
}

/// Which messages of a stream are kept; `None` is no limit. The oldest messages are trimmed until all limits hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Number of messages: JSON values in JSON mode, appends otherwise.
    pub messages_max: Option<u64>,
    /// Total bytes of messages.
    pub bytes_max: Option<u64>,
    /// Maximum age of a message.
    pub age_max: Option<Duration>,
}
