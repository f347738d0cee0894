//! The contract that every store keeps: memory today, disk and Redis later.
//!
//! A store is passive. It holds logs and answers at once with what it has; whoever wants to wait does so in
//! `hub`. Reads never change anything but the time at which a stream was last used.

mod disk;
mod entry;
mod epochs;
mod log;
mod memory;
mod message;
mod sessions;
mod streams;
mod view;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::stream::{
    Append, ContentType, Epoch, Filter, Lifetime, Offset, Payload, Position, Refusal, Retention,
    SessionChange, Start, StreamName,
};

pub use disk::{Checked, Disk, DiskOptions, InvalidSync, OpenError, Opened, SyncPolicy, check};
pub use memory::Memory;
pub use message::{Message, MessageLimit, Messages};
pub use sessions::StoredSession;

/// What a store is doing for its caller. Dropping it before it is ready leaves either all or nothing done.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where messages are kept. `now` is the time of the request on `clock::Clock`.
pub trait Store: Send + Sync + 'static {
    /// Creates a stream, or finds that it exists with the same configuration.
    fn create<'a>(
        &'a self,
        name: &'a StreamName,
        create: Create,
        now: SystemTime,
    ) -> Work<'a, Result<Created, CreateError>>;

    /// Appends and closes in one step, or does nothing; a change of a session goes with it. What it answers is as
    /// durable as the store promises.
    fn append<'a>(
        &'a self,
        name: &'a StreamName,
        append: &'a Append,
        now: SystemTime,
    ) -> Work<'a, Result<Appended, AppendError>>;

    /// Reads what lies behind `start`: whole appends, as many as fit into `limit` but at least one.
    fn read<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Batch, ReadError>>;

    /// Reads messages one by one, each with what its publisher said. From inside of an append of bytes the first
    /// one is the rest of that append.
    fn messages<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>>;

    /// The last message that was published to be retained (of a JSON append the last value), even if the log does
    /// not keep it any more. `None`: there was none, it was cleared, or it has expired. A fork begins without one.
    fn retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Option<Message>, ReadError>>;

    /// Forgets the retained message; the log keeps it.
    fn clear_retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<(), ChangeError>>;

    /// Tells about a stream without using it (a TTL goes on).
    fn describe<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Description, Missing>>;

    /// Deletes a stream; while forks of it exist its name stays taken.
    fn delete<'a>(&'a self, name: &'a StreamName, now: SystemTime) -> Work<'a, Result<(), ChangeError>>;

    /// Changes what is kept for a client of a front; as durable as an append. Changes of one session are done in
    /// the order in which they were asked for.
    fn change_session(&self, change: SessionChange) -> Work<'_, Result<(), Failure>>;

    /// What is kept for the clients of fronts, in no order.
    fn sessions(&self) -> Vec<StoredSession>;

    /// Whether what is kept outlives the process. If not, a front need not keep sessions here.
    fn outlives_process(&self) -> bool;

    /// Says that somebody waits for the stream, so that its TTL stands still until `detach` with the epoch that
    /// this returns. `None`: no such stream.
    fn attach(&self, name: &StreamName) -> Option<Epoch>;

    /// Takes one `attach` back; of no effect if the stream has begun another life since.
    fn detach(&self, name: &StreamName, epoch: Epoch, now: SystemTime);

    /// Removes what has ended or grown too old by `now`. Returns the names of the streams that ended by themselves
    /// since the last time, whoever noticed it first.
    fn sweep(&self, now: SystemTime) -> Vec<StreamName>;

    /// The names of the streams that there are at `now` and that `filter` matches, in no order. Uses none of them.
    fn names(&self, filter: &Filter, now: SystemTime) -> Vec<StreamName>;

    /// How many streams there are.
    fn streams(&self) -> usize;

    /// Whether it takes nothing any more (`Failure::Broken`).
    fn has_failed(&self) -> bool;

    /// Makes all durable that was acknowledged, whatever was promised, as the last thing that is asked of it.
    fn close<'a>(&'a self) -> Work<'a, ()>;
}

/// Is told of the work of a store that has some, by the thread that does it. The units are bytes.
pub trait Observer: Send + Sync + 'static {
    /// It was opened.
    fn opened(&self, took: Duration);

    /// Changes were written and synced together.
    fn synced(&self, took: Duration, changes: usize, bytes: usize);

    /// A read found so many messages in memory and so many on disk.
    fn read(&self, hot: usize, cold: usize);

    /// It takes so much room, of which so much is of messages and streams that there are.
    fn sized(&self, bytes: u64, live: u64);

    /// Room was given back.
    fn reclaimed(&self, bytes: u64);
}

/// Nobody is told.
impl Observer for () {
    fn opened(&self, _: Duration) {}
    fn synced(&self, _: Duration, _: usize, _: usize) {}
    fn read(&self, _: usize, _: usize) {}
    fn sized(&self, _: u64, _: u64) {}
    fn reclaimed(&self, _: u64) {}
}

/// How a stream is to be created.
#[derive(Debug, Clone)]
pub struct Create {
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
    /// The store could not keep it.
    #[error(transparent)]
    Failed(#[from] Failure),
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

/// Why a stream was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such stream.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The store could not keep the change.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// What is wrong with the store itself, whatever it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no room. Nothing was changed, and it may work again once there is some.
    #[error("there is no room left to keep it")]
    Full,
    /// A write could not be made durable, so nothing is taken any more until the store is opened anew. Whether this
    /// change will be there then is not known.
    #[error("the store has failed to write and takes nothing any more")]
    Broken,
    /// What was kept has been damaged since, and is never served.
    #[error("what was kept can not be read any more")]
    Unreadable,
}

/// There is no stream of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// There never was, or it ended.
    #[error("the stream does not exist")]
    NotFound,
    /// It was deleted, but forks of it still need it.
    #[error("the stream was deleted")]
    Deleted,
}

/// How much one read may return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    /// Bytes of messages.
    pub bytes_max: usize,
    /// Whether a text stream is cut between characters, for forms that can carry UTF-8 only.
    pub whole_characters: bool,
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

/// Messages that a reader asked for and that are not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// The offset of the earliest message that is kept, or of the tail.
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
    /// The offset is from another life of the stream. How many are missed nobody can know.
    Epoch,
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
