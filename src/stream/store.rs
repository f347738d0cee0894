//! The contract that every store keeps: memory, disk, and later Redis.
//!
//! A store is passive. It holds logs and answers at once with what it has; whoever wants to wait does so in `hub`. Reads
//! change nothing but the time at which a stream was last used. The values of the contract are in the files beside this
//! one, by operation: `creation`, `append`, `read`, `change`.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use super::{
    Append, AppendError, Appended, Batch, ChangeError, Create, CreateError, Created, Description, Epoch,
    Failure, Message, MessageLimit, Messages, Missing, ReadError, ReadLimit, SessionChange, Start,
    StoredSession, StreamName, StreamPage,
};

/// What a store is doing for its caller. Dropping it before it is ready leaves either all or nothing done.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Streams that one [`Store::page`] looks at: its caller yields between two of them.
pub const PAGE_STREAMS_MAX: usize = 256;

/// Where messages are kept. `now` is the time of the request on `clock::Clock`, by which ages and idle times count. It never goes back,
/// and is not always the time of day.
pub trait Store: Send + Sync + 'static {
    /// Creates a stream, or finds that it exists with the same configuration.
    fn create<'a>(
        &'a self,
        name: &'a StreamName,
        create: Create,
        now: SystemTime,
    ) -> Work<'a, Result<Created, CreateError>>;

    /// Creates the stream if that is wanted, appends and closes in one step, or does nothing; a change of a session goes
    /// with it. What it answers is as durable as the store promises.
    fn append<'a>(
        &'a self,
        name: &'a StreamName,
        append: Append,
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

    /// Learns what the time of day is at `now`. Until it learns another one, the two differ by as much. That is how `Lifetime::Until`
    /// follows a clock that is set; at first both are the same.
    fn follow_wall(&self, now: SystemTime, wall: SystemTime);

    /// Removes what has ended or grown too old by `now`. Returns the names of the streams that ended by themselves
    /// since the last time, whoever noticed it first. Those are not all at once: unless it returns none, more may be left.
    fn sweep(&self, now: SystemTime) -> Vec<StreamName>;

    /// The streams that there are at `now` and whose names begin with `prefix`, in the order of their names: those behind
    /// `after`, of which it looks at no more than [`PAGE_STREAMS_MAX`]. Uses none of them.
    fn page(&self, prefix: &str, after: Option<&StreamName>, now: SystemTime) -> StreamPage;

    /// How many streams there are.
    fn streams(&self) -> usize;

    /// Whether it takes nothing any more (`Failure::Broken`).
    fn has_failed(&self) -> bool;

    /// Whether something that was kept is damaged.
    fn is_damaged(&self) -> bool;

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

    /// So many bytes are damaged by now.
    fn damaged(&self, bytes: u64);
}

/// Nobody is told.
impl Observer for () {
    fn opened(&self, _: Duration) {}
    fn synced(&self, _: Duration, _: usize, _: usize) {}
    fn read(&self, _: usize, _: usize) {}
    fn sized(&self, _: u64, _: u64) {}
    fn reclaimed(&self, _: u64) {}
    fn damaged(&self, _: u64) {}
}

/// When a store on disk syncs its log, which is what an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before an append is acknowledged, so that it survives a power cut.
    Always,
    /// At most this long after the acknowledgement: a power cut loses that much, a kill of the process nothing.
    Interval(Duration),
    /// Whenever the system does: a power cut loses some seconds, a kill of the process nothing.
    Never,
}
