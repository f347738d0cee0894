//! [`Store`], the contract of every store: memory, disk, and later Redis.
//!
//! A store is passive: it keeps logs and answers at once with what they contain; waiting for messages happens in `hub`. Reads
//! change nothing except the time at which the stream was last used. The values of the contract are in the neighboring files by
//! operation: `creation`, `append`, `read`, `message`, `change`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{
    Append, AppendError, Appended, Batch, ChangeError, ClaimFrom, Create, CreateError, Created, Description,
    Epoch, Failure, Filter, Message, MessageLimit, Messages, Position, ReadError, ReadLimit, SessionChange,
    SessionClaim, SessionNames, SessionPage, Snapshot, Start, StreamName, StreamPage,
};

/// The future of a store operation. If it is dropped before it completes, the operation is done completely or not at all.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The maximum number of names that one [`Store::page`] visits; its caller yields between two pages.
pub const PAGE_STREAMS_MAX: usize = 256;

/// The maximum number of sessions of one [`Store::session_page`].
pub const PAGE_SESSIONS_MAX: usize = 256;

/// Keeps streams with their messages, and the sessions of clients. `now` is the time of the request by `clock::Clock::now`,
/// which measures ages and idle times; it never goes back, and may differ from the time of day.
pub trait Store: Send + Sync + 'static {
    /// Creates a stream, or reports that it exists with the same configuration.
    fn create<'a>(
        &'a self,
        name: &'a StreamName,
        create: Create,
        now: SystemTime,
    ) -> Work<'a, Result<Created, CreateError>>;

    /// Appends, and closes the stream if the append says so. Creates the stream first if it is missing and the append allows
    /// that, and changes the session that the append carries. All of this is one step, or nothing is done. When it returns, the
    /// append is as durable as the store promises ([`SyncPolicy`] on disk).
    fn append<'a>(
        &'a self,
        name: &'a StreamName,
        append: Box<Append>,
        now: SystemTime,
    ) -> Work<'a, Result<Appended, AppendError>>;

    /// Does what [`append`](Self::append) does, if it has nothing to wait for; otherwise returns the append. It saves the future.
    fn append_at_once(
        &self,
        _name: &StreamName,
        append: Box<Append>,
        _now: SystemTime,
    ) -> Result<Result<Appended, AppendError>, Box<Append>> {
        Err(append)
    }

    /// Reads from `start` on. Returns whole appends that fit into `limit`, but at least one.
    fn read<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Batch, ReadError>>;

    /// What [`read`](Self::read) returns, if it has nothing to wait for. It saves the future.
    fn read_at_once(
        &self,
        _name: &StreamName,
        _start: Start,
        _limit: ReadLimit,
        _now: SystemTime,
    ) -> Option<Result<Batch, ReadError>> {
        None
    }

    /// What a read from `start` returns as far as the store knows without asking anybody: the next messages, or that there are none. For
    /// readers that wait for further messages, and are told of them: another gateway may have appended in this moment.
    fn known(&self, name: &StreamName, start: Start, limit: ReadLimit, now: SystemTime) -> Option<Batch> {
        self.read_at_once(name, start, limit, now)?.ok()
    }

    /// Reads messages one by one, each with its annotation. If `start` is inside an append of bytes, the first message is the
    /// rest of that append.
    fn messages<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>>;

    /// Reads messages like [`messages`](Self::messages), but is not a use of the stream: it does not extend a TTL.
    fn peek<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>>;

    /// The retained message: the last message published with `retain`, or the last value if that was a JSON append, even if the
    /// log no longer keeps it. `None` if there is none, or if it was cleared or has expired. A fork begins without one.
    fn retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Option<Message>, ReadError>>;

    /// Clears the retained message; the log keeps it.
    fn clear_retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<(), ChangeError>>;

    /// Returns the metadata of a stream. This is not a use: it does not extend a TTL.
    fn describe<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Description, ChangeError>>;

    /// Returns all of a stream except its messages. The state of a writer covers no message after the tail. This
    /// is not a use of the stream.
    fn snapshot<'a>(&'a self, name: &'a StreamName, now: SystemTime)
    -> Work<'a, Result<Snapshot, ReadError>>;

    /// Deletes a stream. Its name stays taken while forks of it exist.
    fn delete<'a>(&'a self, name: &'a StreamName, now: SystemTime) -> Work<'a, Result<(), ChangeError>>;

    /// Changes the stored session of a client, as durably as an append. Changes of one session are made in the order of the
    /// calls.
    fn change_session(&self, change: SessionChange) -> Work<'_, Result<(), Failure>>;

    /// The stored sessions that `names` selects, from the first one after `after` on. Returns at most [`PAGE_SESSIONS_MAX`] of them,
    /// always in the same order.
    fn session_page<'a>(
        &'a self,
        names: SessionNames<'a>,
        after: Option<&'a str>,
    ) -> Work<'a, Result<SessionPage, Failure>>;

    /// The claims on sessions, if several gateways use the store at the same time. `None`: all sessions belong to this process.
    fn claims(&self) -> Option<&dyn SessionClaims> {
        None
    }

    /// Whether the store outlives the process. If not, fronts need not store sessions.
    fn outlives_process(&self) -> bool;

    /// The name with the text that the store has in memory for a stream of this name, if it has one. Who keeps it takes no memory for
    /// another text.
    fn shared_name(&self, name: &StreamName) -> StreamName {
        name.clone()
    }

    /// Registers a waiter on the stream, so that its TTL does not elapse until `detach` is called with the returned epoch.
    /// `None` if the stream does not exist.
    fn attach(&self, name: &StreamName) -> Option<Epoch>;

    /// Reverts one `attach`. Does nothing if the stream has another epoch by now.
    fn detach(&self, name: &StreamName, epoch: Epoch, now: SystemTime);

    /// Somebody subscribes to all streams that `filter`, which has a wildcard, matches, until [`detach_all`](Self::detach_all) is called
    /// as often. For a store that has to ask others for their names.
    fn attach_all(&self, _filter: &Filter) {}

    /// Reverts one `attach_all`.
    fn detach_all(&self, _filter: &Filter) {}

    /// Sets the time of day at `now`. The store assumes that the two keep this difference until the next call, so that
    /// `Lifetime::Until` follows a time of day that is stepped. Initially both are the same.
    fn follow_wall(&self, now: SystemTime, wall: SystemTime);

    /// Removes streams and messages that have expired by `now`. Returns streams that have ended by themselves since the last
    /// call, including those that a request found expired. One call does a bounded amount of work: until it returns none, more
    /// may be left.
    fn sweep(&self, now: SystemTime) -> Work<'_, Result<Vec<StreamName>, Failure>>;

    /// When [`sweep`](Self::sweep) has something to do next; a time that has passed: at its usual interval; `None`: not before the store
    /// is changed. From this call on, [`sweep_sooner`](Self::sweep_sooner) tells what is due before.
    fn next_sweep(&self) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH)
    }

    /// Waits until the sweep has something to do before the time that the last [`next_sweep`](Self::next_sweep) returned.
    ///
    /// Cancel safe.
    fn sweep_sooner(&self) -> Work<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// Leaves to other gateways that use the store what only one of them does. This process ends soon, and may make further calls.
    fn retire(&self) {}

    /// The streams that exist at `now` and whose names begin with `prefix`, in the order of their names, from the first name
    /// after `after` on. Visits at most [`PAGE_STREAMS_MAX`] names. This is not a use of the streams.
    fn page<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a StreamName>,
        now: SystemTime,
    ) -> Work<'a, Result<StreamPage, Failure>>;

    /// Number of streams.
    fn streams(&self) -> usize;

    /// Tells `listener` from now on what others have changed in a store that several gateways share. The other stores have nothing
    /// to tell.
    fn tell(&self, _listener: Arc<dyn NewsListener>) {}

    /// Whether what the store needs outside of this process answers.
    fn is_reachable(&self) -> bool {
        true
    }

    /// Whether the store accepts nothing more ([`Failure::Broken`]).
    fn has_failed(&self) -> bool;

    /// Whether stored messages are damaged.
    fn is_damaged(&self) -> bool;

    /// Makes everything durable that was acknowledged, whatever the [`SyncPolicy`]. No other call may follow.
    fn close<'a>(&'a self) -> Work<'a, ()>;
}

/// Who may change a stored session, in a store that several gateways use at the same time.
///
/// A session has at most one owner, which is the gateway whose work it is: it serves the client, or wakes the device. An owner that was
/// replaced cannot change the session any more, even if it does not know that yet: its changes fail with [`Failure::Superseded`].
pub trait SessionClaims: Send + Sync {
    /// Claims a session, which need not exist. Within one gateway, the caller makes sure that a session is claimed by one task.
    fn claim<'a>(
        &'a self,
        name: &'a Arc<str>,
        from: ClaimFrom,
        now: SystemTime,
    ) -> Work<'a, Result<SessionClaim, Failure>>;

    /// Releases a session. At `due`, some gateway is [told](NewsListener::orphaned) of it. If the store does not answer, the
    /// release is repeated later.
    fn release<'a>(&'a self, name: &'a Arc<str>, due: Option<SystemTime>) -> Work<'a, ()>;

    /// Tells all gateways something about a session that concerns only those that run now, by [`NewsListener::told`].
    fn tell<'a>(&'a self, name: &'a str, note: &'a str) -> Work<'a, Result<(), Failure>>;

    /// Reads a session, whoever owns it.
    fn entries<'a>(&'a self, name: &'a str) -> Work<'a, Result<Vec<(Bytes, Bytes)>, Failure>>;
}

/// Is told about changes of streams that this process has not made. Changes of its own may be told, too.
pub trait NewsListener: Send + Sync + 'static {
    /// A stream was created, appended to or closed. Readers may read it before this returns, so the caller must hold no lock of the store.
    fn moved(&self, name: &StreamName, epoch: Epoch, tail: Position, closed: bool);

    /// A stream has ended.
    fn ended(&self, name: &StreamName);

    /// News may have been missed, of any stream. The streams that are [attached](Store::attach) are told again.
    fn missed(&self);

    /// There is a new session whose name begins with [`OWN_SESSIONS`](super::OWN_SESSIONS).
    fn known(&self, session: &str);

    /// A session whose name begins with [`OWN_SESSIONS`](super::OWN_SESSIONS) has ended.
    fn gone(&self, session: &str);

    /// A gateway, which may be this one, [tells](SessionClaims::tell) something about a session.
    fn told(&self, session: &str, note: &str);

    /// Another gateway wants a session of which this one is the owner, or has become its owner.
    fn wanted(&self, session: &str);

    /// The time has come at which a session without an owner was to be looked at, or its owner has ended. May be told repeatedly.
    fn orphaned(&self, session: &str);
}

/// Receives measurements of a store that writes, for metrics. Called by the thread that does the work.
pub trait Observer: Send + Sync + 'static {
    /// The store was opened in the time `took`.
    fn opened(&self, took: Duration);

    /// A group of `changes` changes was written to the log, as `bytes` bytes.
    fn written(&self, changes: usize, bytes: usize);

    /// A sync of the log took `took`.
    fn synced(&self, took: Duration);

    /// A read found the content of `hot` records in memory and of `cold` records on disk.
    fn read(&self, hot: usize, cold: usize);

    /// The files of the store take `bytes`, of which records in use take `live`.
    fn sized(&self, bytes: u64, live: u64);

    /// A file of `bytes` that no longer held records in use was removed.
    fn reclaimed(&self, bytes: u64);

    /// `bytes` is the total size of the damaged records that are known in the files of the store.
    fn damaged(&self, bytes: u64);
}

/// Discards all measurements.
impl Observer for () {
    fn opened(&self, _: Duration) {}
    fn written(&self, _: usize, _: usize) {}
    fn synced(&self, _: Duration) {}
    fn read(&self, _: usize, _: usize) {}
    fn sized(&self, _: u64, _: u64) {}
    fn reclaimed(&self, _: u64) {}
    fn damaged(&self, _: u64) {}
}

/// When a store on disk syncs its log; this decides what an acknowledged append survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before an append is acknowledged: acknowledged appends survive a power cut.
    Always,
    /// At most this long after the acknowledgement: a power cut loses at most the appends of this time, a kill of the process
    /// nothing.
    Interval(Duration),
    /// Whenever the operating system writes: a power cut loses some seconds, a kill of the process nothing.
    Never,
}
