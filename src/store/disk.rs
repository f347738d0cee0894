//! The store on disk. Its messages survive the process and, with [`SyncPolicy::Always`](crate::stream::SyncPolicy), a power
//! cut.
//!
//! All streams share one log, which consists of segments of the same size (Rosenblum and Ousterhout, "The Design and
//! Implementation of a Log-Structured File System", 1992). One thread, the [`Committer`], writes pending changes in groups that
//! one sync makes durable, and makes them visible and answers them only afterwards, so that no reader sees a message that could
//! still be lost. The location of each append is in memory, about 10 bytes each (docs/design/index.md). The content of the
//! newest appends is in memory, too; other content is read from the files.

mod append;
mod begin;
mod changes;
mod check;
mod clock_file;
mod committer;
mod damage;
mod directory;
mod frame;
mod frames;
#[cfg(test)]
#[path = "../../fuzz/log_record.rs"]
mod fuzz;
mod kept;
mod losses;
mod newest;
mod open;
mod packed;
mod reclaim;
mod record;
mod replay;
mod room;
mod runs;
mod scan;
mod segment;
mod session_log;
mod sessions;
mod shared;
mod suspect;
mod table;
mod victim;

use std::future::ready;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::SystemTime;

use tokio::sync::oneshot;

use crate::budget::Charge;
use crate::store::entry::{Entry, Moment};
use crate::store::view::MessagesView;
use crate::stream::{
    Append, AppendError, Appended, Batch, ChangeError, Create, CreateError, Created, Description, Epoch,
    Failure, Message, MessageLimit, Messages, ReadError, ReadLimit, SessionChange, SessionNames, SessionPage,
    Snapshot, Start, Store, StreamName, StreamPage, Work,
};
use changes::ChangeReply;
use committer::{Committer, Job};
use directory::Directory;
use kept::{Slice, Stored};
use room::NoRoom;
use shared::DiskState;

pub use check::{Checked, check};
pub use clock_file::ClockFile;
pub use directory::OpenError;
pub use open::{DiskOptions, Opened};

/// How often a read is tried again because records were moved before it had read them. Each time, a whole segment was removed
/// meanwhile.
const READ_ATTEMPTS_MAX: usize = 16;

/// A store in a directory. If it is dropped without `close`, the effect is that of a kill of the process.
pub struct Disk {
    shared: Arc<DiskState>,
    /// `None` while it is dropped.
    jobs: Option<Sender<Job>>,
    committer: Option<JoinHandle<()>>,
    /// Locks the directory against other processes.
    _directory: Directory,
    /// Charges the cache of the newest messages to the memory budget.
    _cache: Charge,
}

impl Disk {
    fn send_job(&self, job: Job) -> Result<(), Failure> {
        self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or(Failure::Broken)
    }

    /// Makes the committer execute a change, and waits for its outcome.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Committer, ChangeReply<T>) -> Result<(), NoRoom> + Send + 'static,
    ) -> Result<T, Failure> {
        self.shared.check()?;
        let (answer, outcome) = oneshot::channel();
        let job = Job::QueuedChange(Box::new(move |committer| change(committer, answer)));
        self.send_job(job)?;
        outcome.await.map_err(|_| Failure::Broken)
    }
}

impl Disk {
    /// Reads the messages that `view` selects.
    async fn read_messages(
        &self,
        name: &StreamName,
        start: Start,
        now: SystemTime,
        view: impl Fn(&mut Entry<Stored>) -> Result<MessagesView<Slice>, ReadError> + Send,
    ) -> Result<Messages, ReadError> {
        for _ in 0..READ_ATTEMPTS_MAX {
            let view = self.shared.streams.with(name, now, &view)??;
            match self.shared.messages(view).await {
                Ok(Some(messages)) => return Ok(messages),
                Ok(None) => {}
                Err(unread) => self.shared.lose(name, start, unread, now)?,
            }
        }
        Err(Failure::Unreadable.into())
    }
}

impl Drop for Disk {
    /// Waits for the change that is being made, so that no file changes when another process opens the directory.
    fn drop(&mut self) {
        self.jobs = None;
        self.shared.close();
        if let Some(committer) = self.committer.take() {
            // The committer has logged its error.
            let _failed = committer.join();
        }
    }
}

impl Store for Disk {
    fn create<'a>(
        &'a self,
        name: &'a StreamName,
        create: Create,
        now: SystemTime,
    ) -> Work<'a, Result<Created, CreateError>> {
        let name = name.clone();
        Box::pin(async move {
            let _waiting = self.shared.streams.charge_waiting(&name, create.principal, create.payload.len());
            self.change(move |committer, answer| committer.create(name, create, now, answer)).await?
        })
    }

    fn append<'a>(
        &'a self,
        name: &'a StreamName,
        mut append: Box<Append>,
        now: SystemTime,
    ) -> Work<'a, Result<Appended, AppendError>> {
        let name = name.clone();
        Box::pin(async move {
            self.shared.streams.split_ahead(&name, &mut append)?;
            let _waiting = self.shared.streams.charge_waiting(&name, append.principal, append.payload.len());
            self.change(move |committer, answer| committer.append(name, append, now, answer)).await?
        })
    }

    fn read<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Batch, ReadError>> {
        Box::pin(async move {
            for _ in 0..READ_ATTEMPTS_MAX {
                let at = self.shared.streams.moment(now);
                let view = self.shared.streams.with(name, now, |entry| entry.read(start, limit, at))??;
                match self.shared.batch(view).await {
                    Ok(Some(batch)) => return Ok(batch),
                    Ok(None) => {}
                    Err(unread) => self.shared.lose(name, start, unread, now)?,
                }
            }
            Err(Failure::Unreadable.into())
        })
    }

    fn read_at_once(
        &self,
        name: &StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Option<Result<Batch, ReadError>> {
        let at = self.shared.streams.moment(now);
        match self.shared.streams.with(name, now, |entry| entry.read(start, limit, at)) {
            Ok(Ok(view)) => self.shared.batch_in_memory(view).map(Ok),
            Ok(Err(error)) => Some(Err(error)),
            Err(missing) => Some(Err(missing.into())),
        }
    }

    fn messages<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>> {
        Box::pin(self.read_messages(name, start, now, move |entry| entry.messages(start, limit, now)))
    }

    fn peek<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>> {
        Box::pin(self.read_messages(name, start, now, move |entry| entry.peek(start, limit, now)))
    }

    fn retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Option<Message>, ReadError>> {
        Box::pin(async move {
            for _ in 0..READ_ATTEMPTS_MAX {
                let retained = self.shared.streams.with(name, now, |entry| entry.retained(now))?;
                let Some((placed, epoch_history)) = retained else { return Ok(None) };
                let start = Start::At(epoch_history.offset_at(placed.start));
                match self.shared.content_of(placed).await {
                    Ok(Some(placed)) => return Ok(Some(placed.into_message(&epoch_history))),
                    Ok(None) => {}
                    Err(unread) => self.shared.lose(name, start, unread, now)?,
                }
            }
            Err(Failure::Unreadable.into())
        })
    }

    fn clear_retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<(), ChangeError>> {
        let name = name.clone();
        Box::pin(async move {
            self.change(move |committer, answer| committer.clear_retained(&name, now, answer)).await?
        })
    }

    fn describe<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Description, ChangeError>> {
        let described = self.shared.streams.with(name, now, |entry| {
            entry.trim(now);
            entry.description()
        });
        Box::pin(ready(described.map_err(ChangeError::from)))
    }

    fn snapshot<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Snapshot, ReadError>> {
        let name = name.clone();
        Box::pin(async move {
            let is_settled = |entry: &mut Entry<Stored>| (entry.underway == 0).then(|| entry.snapshot(now));
            if let Some(snapshot) = self.shared.streams.with(&name, now, is_settled)? {
                return Ok(snapshot);
            }
            self.change(move |committer, answer| committer.snapshot(&name, now, answer)).await?
        })
    }

    fn delete<'a>(&'a self, name: &'a StreamName, now: SystemTime) -> Work<'a, Result<(), ChangeError>> {
        let name = name.clone();
        Box::pin(
            async move { self.change(move |committer, answer| committer.delete(name, now, answer)).await? },
        )
    }

    fn change_session(&self, change: SessionChange) -> Work<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.change(move |committer, answer| committer.change_session(change, answer)).await?
        })
    }

    fn session_page<'a>(
        &'a self,
        names: SessionNames<'a>,
        after: Option<&'a str>,
    ) -> Work<'a, Result<SessionPage, Failure>> {
        Box::pin(ready(Ok(self.shared.sessions.page(names, after))))
    }

    fn outlives_process(&self) -> bool {
        true
    }

    fn shared_name(&self, name: &StreamName) -> StreamName {
        self.shared.streams.shared_name(name)
    }

    fn attach(&self, name: &StreamName) -> Option<Epoch> {
        self.shared.streams.attach(name)
    }

    fn detach(&self, name: &StreamName, epoch: Epoch, now: SystemTime) {
        self.shared.streams.detach(name, epoch, now);
    }

    fn follow_wall(&self, now: SystemTime, wall: SystemTime) {
        self.shared.streams.follow_wall(Moment { now, wall });
    }

    fn sweep(&self, now: SystemTime) -> Work<'_, Result<Vec<StreamName>, Failure>> {
        let ended = self.shared.streams.sweep(now);
        // Without a committer there is nothing to tidy.
        let _gone = self.send_job(Job::Tidy);
        Box::pin(ready(Ok(ended)))
    }

    fn next_sweep(&self) -> Option<SystemTime> {
        self.shared.streams.next_sweep()
    }

    fn sweep_sooner(&self) -> Work<'_, ()> {
        let sooner = self.shared.streams.sweep_sooner();
        Box::pin(async move { sooner.notified().await })
    }

    fn page<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a StreamName>,
        now: SystemTime,
    ) -> Work<'a, Result<StreamPage, Failure>> {
        Box::pin(ready(Ok(self.shared.streams.page(prefix, after, now))))
    }

    fn streams(&self) -> usize {
        self.shared.streams.len()
    }

    fn has_failed(&self) -> bool {
        self.shared.has_failed()
    }

    fn is_damaged(&self) -> bool {
        !self.shared.damage.is_empty()
    }

    fn close<'a>(&'a self) -> Work<'a, ()> {
        Box::pin(async move {
            let (done, closed) = oneshot::channel();
            self.shared.close();
            if self.send_job(Job::Close(done)).is_ok() {
                // A store that has failed cannot be closed, and has logged its error.
                let _failed = closed.await;
            }
        })
    }
}
