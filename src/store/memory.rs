//! The store in memory, which ends with the process. A restart uses new epochs, so offsets of an earlier process are
//! recognized.

use std::future::ready;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::entry::{DecidedAppend, Entry, Moment};
use super::log::{Log, Record};
use super::sessions::StoredSessions;
use super::streams::{Epochs, NewStream, Streams};
use crate::budget::Budget;
use crate::stream::{
    Admission, Append, AppendError, Appended, Batch, ChangeError, Create, CreateError, Created, Description,
    Epoch, EpochHistory, Failure, Message, MessageLimit, Messages, Missing, ReadError, ReadLimit,
    SessionChange, SessionNames, SessionPage, Snapshot, Start, Store, StreamName, StreamPage, Work,
};

/// A store that keeps streams in memory.
#[derive(Debug)]
pub struct Memory {
    streams: Streams<Bytes>,
    epochs: Epochs,
    sessions: StoredSessions,
}

impl Memory {
    /// An empty store without limits. Its epochs start at a random number, so that they differ from those of earlier processes.
    pub fn new() -> Self {
        Self::within(Budget::unlimited())
    }

    /// An empty store whose streams are charged to `budget`.
    pub fn within(budget: Arc<Budget>) -> Self {
        Self { streams: Streams::new(budget), epochs: Epochs::random(), sessions: StoredSessions::default() }
    }

    fn create_now(&self, name: &StreamName, create: Create, now: SystemTime) -> Result<Created, CreateError> {
        self.streams.end(name, now);
        let mut structure = self.streams.structure();
        if let Ok(existing) = self.streams.find(name) {
            return existing.lock().created_again(&create, now);
        }
        let owner = self.streams.admit(name, create.principal, &create.payload)?;
        let epoch = self.epochs.next();
        let mut entry = match &create.fork {
            None => Entry::new(name, &create, EpochHistory::new(epoch), Log::default(), &owner, now),
            Some(fork) => {
                let beginning = NewStream { owner: &owner, origin: epoch, epoch };
                self.streams.branch(name, &create, fork, beginning, now)?
            }
        };
        entry.begin_with(&create);
        let record = (!create.payload.is_empty()).then(|| Record::of(create.payload, None, now));
        let (close, principal) = (create.closed, create.principal);
        entry.finish(DecidedAppend { record, annotation: None, close, principal }, now);
        let created = entry.created(true);
        self.streams.insert(&mut structure, entry, now);
        Ok(created)
    }

    fn append_now(
        &self,
        name: &StreamName,
        append: &mut Append,
        now: SystemTime,
    ) -> Result<Appended, AppendError> {
        self.streams.split_ahead(name, append)?;
        loop {
            let appended = self.streams.with(name, now, |entry| self.append_to(entry, append, now));
            let create = match (appended, append.creation()) {
                (Ok(outcome), _) => return outcome,
                (Err(Missing::NotFound), Some(create)) => create,
                (Err(missing), _) => return Err(missing.into()),
            };
            let mut structure = self.streams.structure();
            if self.streams.find(name).is_ok() {
                // Another request has created the stream meanwhile.
                continue;
            }
            let owner = self.streams.admit(name, create.principal, &append.payload)?;
            let epoch_history = EpochHistory::new(self.epochs.next());
            let mut entry = Entry::new(name, &create, epoch_history, Log::default(), &owner, now);
            let appended = self.append_to(&mut entry, append, now)?;
            self.streams.insert(&mut structure, entry, now);
            return Ok(Appended { created: true, ..appended });
        }
    }

    fn read_now(
        &self,
        name: &StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Result<Batch, ReadError> {
        let view =
            self.streams.with(name, now, |entry| entry.read(start, limit, self.streams.moment(now)))??;
        Ok(view.into_batch())
    }

    fn append_to(
        &self,
        entry: &mut Entry<Bytes>,
        append: &mut Append,
        now: SystemTime,
    ) -> Result<Appended, AppendError> {
        let admission = entry.decide(append, now)?;
        let (mut messages, mut bytes) = (0, 0);
        if admission == Admission::New {
            // Moved, as the first copy of its bytes would allocate a reference count.
            let payload = std::mem::take(&mut append.payload);
            (messages, bytes) = (payload.messages(), payload.len());
            let record = (!payload.is_empty()).then(|| Record::of(payload, append.annotation.clone(), now));
            let annotation = append.annotation.clone();
            let (close, principal) = (append.close, append.principal);
            entry.finish(DecidedAppend { record, annotation, close, principal }, now);
            append.session.iter().for_each(|change| self.sessions.apply(change));
        }
        Ok(Appended { messages, bytes, ..entry.appended(append, admission) })
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for Memory {
    fn create<'a>(
        &'a self,
        name: &'a StreamName,
        create: Create,
        now: SystemTime,
    ) -> Work<'a, Result<Created, CreateError>> {
        Box::pin(ready(self.create_now(name, create, now)))
    }

    fn append<'a>(
        &'a self,
        name: &'a StreamName,
        mut append: Box<Append>,
        now: SystemTime,
    ) -> Work<'a, Result<Appended, AppendError>> {
        Box::pin(ready(self.append_now(name, &mut append, now)))
    }

    fn append_at_once(
        &self,
        name: &StreamName,
        mut append: Box<Append>,
        now: SystemTime,
    ) -> Result<Result<Appended, AppendError>, Box<Append>> {
        Ok(self.append_now(name, &mut append, now))
    }

    fn read<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Batch, ReadError>> {
        Box::pin(ready(self.read_now(name, start, limit, now)))
    }

    fn read_at_once(
        &self,
        name: &StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Option<Result<Batch, ReadError>> {
        Some(self.read_now(name, start, limit, now))
    }

    fn messages<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>> {
        let view = self.streams.with(name, now, |entry| entry.messages(start, limit, now));
        let view = view.unwrap_or_else(|missing| Err(missing.into()));
        Box::pin(ready(view.map(|view| view.into_messages())))
    }

    fn peek<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>> {
        let view = self.streams.with(name, now, |entry| entry.peek(start, limit, now));
        let view = view.unwrap_or_else(|missing| Err(missing.into()));
        Box::pin(ready(view.map(|view| view.into_messages())))
    }

    fn retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Option<Message>, ReadError>> {
        let retained = self.streams.with(name, now, |entry| entry.retained(now));
        let retained =
            retained.map(|found| found.map(|(placed, epoch_history)| placed.into_message(&epoch_history)));
        Box::pin(ready(retained.map_err(ReadError::from)))
    }

    fn clear_retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<(), ChangeError>> {
        let cleared = self.streams.with(name, now, |entry| entry.clear_retained(now));
        Box::pin(ready(cleared.map_err(ChangeError::from)))
    }

    fn describe<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Description, ChangeError>> {
        let described = self.streams.with(name, now, |entry| {
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
        let snapshot = self.streams.with(name, now, |entry| entry.snapshot(now));
        Box::pin(ready(snapshot.map_err(ReadError::from)))
    }

    fn delete<'a>(&'a self, name: &'a StreamName, now: SystemTime) -> Work<'a, Result<(), ChangeError>> {
        self.streams.end(name, now);
        let mut structure = self.streams.structure();
        let exists = self.streams.find(name).and_then(|entry| entry.lock().state.is_there());
        if exists.is_ok() {
            self.streams.remove(&mut structure, name);
        }
        Box::pin(ready(exists.map_err(ChangeError::from)))
    }

    fn change_session(&self, change: SessionChange) -> Work<'_, Result<(), Failure>> {
        self.sessions.apply(&change);
        Box::pin(ready(Ok(())))
    }

    fn session_page<'a>(
        &'a self,
        names: SessionNames<'a>,
        after: Option<&'a str>,
    ) -> Work<'a, Result<SessionPage, Failure>> {
        Box::pin(ready(Ok(self.sessions.page(names, after))))
    }

    fn outlives_process(&self) -> bool {
        false
    }

    fn shared_name(&self, name: &StreamName) -> StreamName {
        self.streams.shared_name(name)
    }

    fn attach(&self, name: &StreamName) -> Option<Epoch> {
        self.streams.attach(name)
    }

    fn detach(&self, name: &StreamName, epoch: Epoch, now: SystemTime) {
        self.streams.detach(name, epoch, now);
    }

    fn follow_wall(&self, now: SystemTime, wall: SystemTime) {
        self.streams.follow_wall(Moment { now, wall });
    }

    fn sweep(&self, now: SystemTime) -> Work<'_, Result<Vec<StreamName>, Failure>> {
        // The store in memory writes down no ends of streams.
        drop(self.streams.take_ended_ids());
        Box::pin(ready(Ok(self.streams.sweep(now))))
    }

    fn next_sweep(&self) -> Option<SystemTime> {
        self.streams.next_sweep()
    }

    fn sweep_sooner(&self) -> Work<'_, ()> {
        let sooner = self.streams.sweep_sooner();
        Box::pin(async move { sooner.notified().await })
    }

    fn page<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a StreamName>,
        now: SystemTime,
    ) -> Work<'a, Result<StreamPage, Failure>> {
        Box::pin(ready(Ok(self.streams.page(prefix, after, now))))
    }

    fn streams(&self) -> usize {
        self.streams.len()
    }

    fn has_failed(&self) -> bool {
        false
    }

    fn is_damaged(&self) -> bool {
        false
    }

    fn close<'a>(&'a self) -> Work<'a, ()> {
        Box::pin(ready(()))
    }
}
