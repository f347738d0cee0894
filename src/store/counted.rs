//! [`CountedMemory`], a store for tests of what is above a store.

use std::future::ready;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

use tokio::task::yield_now;

use super::Memory;
use crate::stream::{
    Append, AppendError, Appended, Batch, ChangeError, Create, CreateError, Created, Description, Epoch,
    Failure, Message, MessageLimit, Messages, ReadError, ReadLimit, SessionChange, SessionNames, SessionPage,
    Snapshot, Start, Store, StreamName, StreamPage, Work,
};

/// A memory store that counts its operations, which can be made to fail.
#[derive(Default)]
pub(crate) struct CountedMemory {
    memory: Memory,
    pub(crate) calls: AtomicUsize,
    /// How often it was asked for what it knows without waiting, which is nothing.
    pub(crate) looks: AtomicUsize,
    /// Messages cannot be read, as if a disk or an engine failed.
    pub(crate) fails_to_read: AtomicBool,
    /// Sessions are stored, as if the store outlived the process.
    keeps_sessions: bool,
    /// Changes of sessions that were asked for.
    pub(crate) session_changes: AtomicUsize,
    /// How often a task is polled again until a stream is described, or a session changed.
    pub(crate) polls: AtomicUsize,
    /// Appends and changes of sessions are refused.
    pub(crate) is_full: AtomicBool,
}

impl CountedMemory {
    /// A store whose sessions count as stored, as if they outlived the process.
    pub(crate) fn keeping_sessions() -> Self {
        Self { keeps_sessions: true, ..Self::default() }
    }

    async fn wait(&self) {
        for _ in 0..self.polls.load(Ordering::Relaxed) {
            yield_now().await;
        }
    }

    fn counted(&self) -> &Memory {
        self.calls.fetch_add(1, Ordering::Relaxed);
        &self.memory
    }
}

impl Store for CountedMemory {
    fn create<'a>(
        &'a self,
        name: &'a StreamName,
        create: Create,
        now: SystemTime,
    ) -> Work<'a, Result<Created, CreateError>> {
        self.counted().create(name, create, now)
    }

    fn append<'a>(
        &'a self,
        name: &'a StreamName,
        append: Box<Append>,
        now: SystemTime,
    ) -> Work<'a, Result<Appended, AppendError>> {
        if self.is_full.load(Ordering::Relaxed) {
            return Box::pin(ready(Err(AppendError::Failed(Failure::Full))));
        }
        self.counted().append(name, append, now)
    }

    fn read<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Batch, ReadError>> {
        self.counted().read(name, start, limit, now)
    }

    fn known(&self, _: &StreamName, _: Start, _: ReadLimit, _: SystemTime) -> Option<Batch> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn messages<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>> {
        if self.fails_to_read.load(Ordering::Relaxed) {
            self.calls.fetch_add(1, Ordering::Relaxed);
            return Box::pin(ready(Err(ReadError::Failed(Failure::Unreadable))));
        }
        self.counted().messages(name, start, limit, now)
    }

    fn peek<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>> {
        self.counted().peek(name, start, limit, now)
    }

    fn retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Option<Message>, ReadError>> {
        self.counted().retained(name, now)
    }

    fn clear_retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<(), ChangeError>> {
        self.counted().clear_retained(name, now)
    }

    fn describe<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Description, ChangeError>> {
        Box::pin(async move {
            self.wait().await;
            self.counted().describe(name, now).await
        })
    }

    fn snapshot<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Snapshot, ReadError>> {
        self.counted().snapshot(name, now)
    }

    fn delete<'a>(&'a self, name: &'a StreamName, now: SystemTime) -> Work<'a, Result<(), ChangeError>> {
        self.counted().delete(name, now)
    }

    fn change_session(&self, change: SessionChange) -> Work<'_, Result<(), Failure>> {
        self.session_changes.fetch_add(1, Ordering::Relaxed);
        if self.is_full.load(Ordering::Relaxed) {
            return Box::pin(ready(Err(Failure::Full)));
        }
        Box::pin(async move {
            self.wait().await;
            self.counted().change_session(change).await
        })
    }

    fn session_page<'a>(
        &'a self,
        names: SessionNames<'a>,
        after: Option<&'a str>,
    ) -> Work<'a, Result<SessionPage, Failure>> {
        self.memory.session_page(names, after)
    }

    fn outlives_process(&self) -> bool {
        self.keeps_sessions || self.memory.outlives_process()
    }

    fn attach(&self, name: &StreamName) -> Option<Epoch> {
        self.counted().attach(name)
    }

    fn detach(&self, name: &StreamName, epoch: Epoch, now: SystemTime) {
        self.counted().detach(name, epoch, now);
    }

    fn follow_wall(&self, now: SystemTime, wall: SystemTime) {
        self.memory.follow_wall(now, wall);
    }

    fn sweep(&self, now: SystemTime) -> Work<'_, Result<Vec<StreamName>, Failure>> {
        self.memory.sweep(now)
    }

    fn page<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a StreamName>,
        now: SystemTime,
    ) -> Work<'a, Result<StreamPage, Failure>> {
        self.counted().page(prefix, after, now)
    }

    fn streams(&self) -> usize {
        self.memory.streams()
    }

    fn is_damaged(&self) -> bool {
        self.memory.is_damaged()
    }

    fn has_failed(&self) -> bool {
        self.memory.has_failed()
    }

    fn close<'a>(&'a self) -> Work<'a, ()> {
        self.memory.close()
    }
}
