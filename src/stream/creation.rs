//! How a stream is created, how long it lives and how much of it is kept.

use std::time::{Duration, SystemTime};

use super::{ContentType, Epoch, Failure, Gap, Offset, Payload, Principal, Shortage, Start, StreamName};

/// How many streams a fork may have behind it: its source, the source of that, and so on. Each keeps a place in the offsets
/// of the fork, and its name as long as the fork is there.
pub const FORK_DEPTH_MAX: u8 = 16;

/// How a stream is to be created.
#[derive(Debug, Clone)]
pub struct Create {
    /// Who creates it: the stream and its first messages count as that principal's.
    pub principal: Principal,
    /// Of the stream; for a fork the same as its source's.
    pub content_type: ContentType,
    /// `None`: unlimited, or as the source of a fork.
    pub lifetime: Option<Lifetime>,
    /// `None`: all is kept, or as the source of a fork.
    pub retention: Option<Retention>,
    /// What applies to a stream that says nothing of it and is no fork.
    pub default_retention: Retention,
    /// Whether nothing may follow the first messages.
    pub closed: bool,
    /// The first messages.
    pub payload: Payload,
    /// The stream it branches off from.
    pub fork: Option<Fork>,
}

impl Create {
    /// An empty stream that never ends.
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
        }
    }
}

/// Where a fork branches off (protocol, section 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The stream whose beginning it shares.
    pub source: StreamName,
    /// The point; `None` is the source's tail.
    pub offset: Option<Start>,
    /// How far behind that point: messages in JSON mode, bytes otherwise.
    pub sub_offset: u64,
}

/// The stream exists now.
#[derive(Debug, Clone)]
pub struct Created {
    /// Whether it did not before.
    pub fresh: bool,
    /// The offset behind its last message.
    pub tail: Offset,
    /// Whether it is closed.
    pub closed: bool,
    /// Its content type.
    pub content_type: ContentType,
    /// The life of its log.
    pub epoch: Epoch,
}

/// Why a stream could not be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// It exists with another configuration.
    #[error("the stream exists with another configuration")]
    ExistsDifferently,
    /// It was deleted, but forks of it still need it.
    #[error("the stream was deleted and still has forks, which keep its name")]
    NameTaken,
    /// There is no such source.
    #[error("the stream to fork from does not exist")]
    SourceNotFound,
    /// The source was deleted and lives on only for its forks.
    #[error("the stream to fork from was deleted")]
    SourceDeleted,
    /// The content type is not the source's.
    #[error("a fork has the content type of its source")]
    SourceContentType,
    /// The point is not between the source's earliest message and its tail.
    #[error("the fork offset is not an offset of the source, or the sub-offset reaches behind its tail")]
    ForkOffset,
    /// The source does not keep the messages before the point any more.
    #[error("the messages at the fork offset are no longer kept")]
    ForkTrimmed(Gap),
    /// The source is a fork of forks already.
    #[error("a fork has at most {FORK_DEPTH_MAX} streams behind it")]
    ForkTooDeep,
    /// The store could not keep it.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl From<Shortage> for CreateError {
    fn from(shortage: Shortage) -> Self {
        Self::Failed(shortage.into())
    }
}

/// What HEAD tells.
#[derive(Debug, Clone)]
pub struct Description {
    /// Of the stream.
    pub content_type: ContentType,
    /// The offset of the earliest message that is kept, or of the tail.
    pub earliest: Offset,
    /// The offset behind the last message.
    pub tail: Offset,
    /// Whether it is closed.
    pub closed: bool,
    /// When it ends by itself.
    pub lifetime: Lifetime,
    /// What is kept of it.
    pub retention: Retention,
}

/// When a stream ends by itself (protocol, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lifetime {
    /// Never.
    #[default]
    Unlimited,
    /// `Stream-TTL`: this long after the last read or write.
    Idle(Duration),
    /// `Stream-Expires-At`.
    Until(SystemTime),
}

/// What is kept of a stream; `None` is no bound. Whatever exceeds one is trimmed from the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Messages: JSON values in JSON mode, appends otherwise.
    pub messages_max: Option<u64>,
    /// Bytes of messages.
    pub bytes_max: Option<u64>,
    /// Age of a message.
    pub age_max: Option<Duration>,
}
