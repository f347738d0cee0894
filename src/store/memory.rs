//! The store that lives as long as the process. A restart is a new epoch, so every old offset is told apart.

mod entry;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use dashmap::DashMap;
use parking_lot::Mutex;

use super::log::Log;
use super::{
    Append, AppendError, Appended, Batch, ChangeError, Create, CreateError, Created, Description, Fork,
    GapReason, Message, MessageLimit, Messages, Missing, ReadError, ReadLimit, Store, Work,
};
use crate::stream::{Epoch, Filter, Lineage, Position, Start, StreamName};
use entry::{Entry, SWEEP_AGAIN, State};

/// All streams. A stream's own lock guards its content; `structure` is taken before it by whatever adds or
/// removes streams, so that forks and their sources change together.
#[derive(Debug)]
pub struct Memory {
    streams: DashMap<StreamName, Arc<Mutex<Entry>>>,
    structure: Mutex<Structure>,
    next_epoch: AtomicU64,
}

#[derive(Debug, Default)]
struct Structure {
    /// When to look at which stream again; entries of former lives are skipped.
    agenda: BinaryHeap<Reverse<(SystemTime, StreamName, Epoch)>>,
    /// Streams whose end a request noticed; the next sweep tells it.
    ended: Vec<StreamName>,
}

impl Memory {
    /// An empty store. Its epochs begin at random, so they differ from those of every earlier process.
    pub fn new() -> Self {
        let first = fastrand::u64(1 << 32..1 << 62);
        Self { streams: DashMap::new(), structure: Mutex::default(), next_epoch: AtomicU64::new(first) }
    }

    fn find(&self, name: &StreamName) -> Result<Arc<Mutex<Entry>>, Missing> {
        self.streams.get(name).map(|entry| entry.value().clone()).ok_or(Missing::NotFound)
    }

    /// Runs `act` on a live stream; one that has ended is removed instead.
    fn with<T>(
        &self,
        name: &StreamName,
        now: SystemTime,
        act: impl FnOnce(&mut Entry) -> T,
    ) -> Result<T, Missing> {
        let entry = self.find(name)?;
        let mut guard = entry.lock();
        match guard.state {
            State::Removed => return Err(Missing::NotFound),
            State::Deleted => return Err(Missing::Deleted),
            State::Live => {}
        }
        if !guard.has_ended(now) {
            return Ok(act(&mut guard));
        }
        drop(guard);
        self.end(name, now);
        Err(Missing::NotFound)
    }

    /// Removes the stream if it has ended by `now`.
    fn end(&self, name: &StreamName, now: SystemTime) {
        let mut structure = self.structure.lock();
        let ended = self.find(name).is_ok_and(|entry| {
            let entry = entry.lock();
            entry.state == State::Live && entry.has_ended(now)
        });
        if ended {
            self.remove(name);
            structure.ended.push(name.clone());
        }
    }

    /// Removes a live stream, or only its content while it has forks. Cascades to sources that were kept for it.
    /// The caller holds `structure`.
    fn remove(&self, name: &StreamName) {
        let mut next = Some(name.clone());
        while let Some(name) = next.take() {
            let Ok(entry) = self.find(&name) else { return };
            let mut entry = entry.lock();
            if entry.forks > 0 {
                entry.state = State::Deleted;
                entry.log = Log::default();
                entry.retained = None;
                return;
            }
            entry.state = State::Removed;
            self.streams.remove(&name);
            let Some(fork) = &entry.asked.fork else { return };
            let source = fork.source.clone();
            drop(entry);
            let Ok(entry) = self.find(&source) else { return };
            let mut entry = entry.lock();
            entry.forks = entry.forks.saturating_sub(1);
            if entry.state == State::Deleted && entry.forks == 0 {
                next = Some(source);
            }
        }
    }

    fn create_now(&self, name: &StreamName, create: Create, now: SystemTime) -> Result<Created, CreateError> {
        self.end(name, now);
        let mut structure = self.structure.lock();
        if let Ok(existing) = self.find(name) {
            let mut existing = existing.lock();
            return match existing.state {
                State::Live if existing.was_created_by(&create) => {
                    existing.used = now;
                    Ok(existing.created(false))
                }
                State::Live | State::Removed => Err(CreateError::ExistsDifferently),
                State::Deleted => Err(CreateError::NameTaken),
            };
        }
        let epoch = Epoch(self.next_epoch.fetch_add(1, Ordering::Relaxed));
        let mut entry = match &create.fork {
            None => Entry::new(&create, Lineage::new(epoch), Log::default(), now),
            Some(fork) => self.branch(&create, fork, epoch, now)?,
        };
        if !create.payload.is_empty() {
            entry.log.push(create.payload, None, now);
            entry.trim(now);
        }
        if create.closed {
            entry.writers.close();
        }
        if let Some(due) = entry.due(now) {
            structure.agenda.push(Reverse((due, name.clone(), epoch)));
        }
        let created = entry.created(true);
        self.streams.insert(name.clone(), Arc::new(Mutex::new(entry)));
        Ok(created)
    }

    fn branch(
        &self,
        create: &Create,
        fork: &Fork,
        epoch: Epoch,
        now: SystemTime,
    ) -> Result<Entry, CreateError> {
        let source = self.find(&fork.source).map_err(|_| CreateError::SourceNotFound)?;
        let mut source = source.lock();
        match source.state {
            State::Deleted => return Err(CreateError::SourceDeleted),
            State::Live if !source.has_ended(now) => {}
            State::Live | State::Removed => return Err(CreateError::SourceNotFound),
        }
        if source.content_type != create.content_type {
            return Err(CreateError::SourceContentType);
        }
        let anchor = source.locate(fork.offset.unwrap_or(Start::Tail)).map_err(|error| match error {
            ReadError::Gap(gap) if gap.reason != GapReason::Epoch => CreateError::ForkTrimmed(gap),
            _ => CreateError::ForkOffset,
        })?;
        let end = anchor.0.checked_add(fork.sub_offset).map(Position).filter(|end| *end <= source.log.tail());
        let end = end.ok_or(CreateError::ForkOffset)?;
        source.forks += 1;
        source.used = now;
        let mut entry = Entry::new(create, source.lineage.fork(end, epoch), source.log.fork(end), now);
        entry.lifetime = create.lifetime.unwrap_or(source.lifetime);
        entry.retention = create.retention.unwrap_or(source.retention);
        Ok(entry)
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
        append: &'a Append,
        now: SystemTime,
    ) -> Work<'a, Result<Appended, AppendError>> {
        Box::pin(ready(
            self.with(name, now, |entry| entry.append(append, now)).unwrap_or_else(|e| Err(e.into())),
        ))
    }

    fn read<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: ReadLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Batch, ReadError>> {
        Box::pin(ready(
            self.with(name, now, |entry| entry.read(start, limit, now)).unwrap_or_else(|e| Err(e.into())),
        ))
    }

    fn messages<'a>(
        &'a self,
        name: &'a StreamName,
        start: Start,
        limit: MessageLimit,
        now: SystemTime,
    ) -> Work<'a, Result<Messages, ReadError>> {
        let messages = self.with(name, now, |entry| entry.messages(start, limit, now));
        Box::pin(ready(messages.unwrap_or_else(|e| Err(e.into()))))
    }

    fn retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Option<Message>, ReadError>> {
        Box::pin(ready(self.with(name, now, |entry| entry.retained(now)).map_err(ReadError::from)))
    }

    fn clear_retained<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<(), ChangeError>> {
        Box::pin(ready(self.with(name, now, |entry| entry.clear_retained(now)).map_err(ChangeError::from)))
    }

    fn describe<'a>(
        &'a self,
        name: &'a StreamName,
        now: SystemTime,
    ) -> Work<'a, Result<Description, Missing>> {
        Box::pin(ready(self.with(name, now, |entry| {
            entry.trim(now);
            Description {
                content_type: entry.content_type.clone(),
                earliest: entry.lineage.offset_at(entry.log.earliest()),
                tail: entry.tail(),
                closed: entry.writers.is_closed(),
                lifetime: entry.lifetime,
                retention: entry.retention,
            }
        })))
    }

    fn delete<'a>(&'a self, name: &'a StreamName, now: SystemTime) -> Work<'a, Result<(), ChangeError>> {
        self.end(name, now);
        let _structure = self.structure.lock();
        let exists = self.find(name).and_then(|entry| match entry.lock().state {
            State::Live => Ok(()),
            State::Deleted => Err(Missing::Deleted),
            State::Removed => Err(Missing::NotFound),
        });
        if exists.is_ok() {
            self.remove(name);
        }
        Box::pin(ready(exists.map_err(ChangeError::from)))
    }

    fn attach(&self, name: &StreamName) -> Option<Epoch> {
        let entry = self.find(name).ok()?;
        let mut entry = entry.lock();
        entry.waited_for += 1;
        Some(entry.lineage.own())
    }

    fn detach(&self, name: &StreamName, epoch: Epoch, now: SystemTime) {
        if let Ok(entry) = self.find(name) {
            let mut entry = entry.lock();
            if entry.lineage.own() == epoch {
                entry.waited_for = entry.waited_for.saturating_sub(1);
                entry.used = now;
            }
        }
    }

    fn sweep(&self, now: SystemTime) -> Vec<StreamName> {
        let mut structure = self.structure.lock();
        let Structure { agenda, ended } = &mut *structure;
        while let Some(Reverse((due, ..))) = agenda.peek() {
            if *due > now {
                break;
            }
            let Some(Reverse((_, name, epoch))) = agenda.pop() else { break };
            let Ok(found) = self.find(&name) else { continue };
            let mut entry = found.lock();
            if entry.lineage.own() != epoch || entry.state != State::Live {
                continue;
            }
            if entry.has_ended(now) {
                drop(entry);
                self.remove(&name);
                ended.push(name);
            } else {
                entry.trim(now);
                if let Some(due) = entry.due(now) {
                    agenda.push(Reverse((due.max(now + SWEEP_AGAIN), name, epoch)));
                }
            }
        }
        std::mem::take(ended)
    }

    fn names(&self, filter: &Filter, now: SystemTime) -> Vec<StreamName> {
        let is_there = |entry: &Mutex<Entry>| {
            let entry = entry.lock();
            entry.state == State::Live && !entry.has_ended(now)
        };
        if let Some(name) = filter.exact() {
            let there = self.find(name).is_ok_and(|entry| is_there(&entry));
            return there.then(|| name.clone()).into_iter().collect();
        }
        // Streams are locked after the table is given back, since whoever removes one does it the other way round.
        let matching = self.streams.iter().filter(|entry| filter.matches(entry.key()));
        let found: Vec<_> = matching.map(|entry| (entry.key().clone(), entry.value().clone())).collect();
        found.into_iter().filter(|(_, entry)| is_there(entry)).map(|(name, _)| name).collect()
    }

    fn streams(&self) -> usize {
        self.streams.len()
    }
}
