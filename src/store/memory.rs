//! The store that lives as long as the process. A restart is a new epoch, so every old offset is told apart.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::Mutex;

use super::log::Log;
use super::{
    Append, AppendError, Appended, Batch, Create, CreateError, Created, Description, Fork, Gap, GapReason,
    Missing, ReadError, ReadLimit, Store, Work,
};
use crate::stream::{
    Admission, ContentType, Encoding, Epoch, Lifetime, Lineage, Offset, Position, Retention, Start,
    StreamName, Writers,
};

/// How soon a stream that somebody waits for is looked at again at the earliest.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);

/// All streams. A stream's own lock guards its content; `structure` is taken before it by whatever adds or
/// removes streams, so that forks and their sources change together.
#[derive(Debug)]
pub struct Memory {
    streams: DashMap<StreamName, Arc<Mutex<Entry>>>,
    structure: Mutex<Agenda>,
    next_epoch: AtomicU64,
}

/// When to look at which stream again; entries of former lives are skipped.
type Agenda = BinaryHeap<Reverse<(SystemTime, StreamName, Epoch)>>;

#[derive(Debug)]
struct Entry {
    state: State,
    content_type: ContentType,
    lifetime: Lifetime,
    retention: Retention,
    asked: Asked,
    lineage: Lineage,
    writers: Writers,
    log: Log,
    used: SystemTime,
    waited_for: usize,
    forks: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    /// Deleted, kept for its name as long as there are forks.
    Deleted,
    /// Not in the table any more; somebody may still hold it.
    Removed,
}

/// What the creator said, to tell a repeated creation from a different one.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    lifetime: Option<Lifetime>,
    retention: Option<Retention>,
    fork: Option<Fork>,
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

    /// Removes the stream if it has ended by `now`. Whether it did.
    fn end(&self, name: &StreamName, now: SystemTime) -> bool {
        let _structure = self.structure.lock();
        let ended = self.find(name).is_ok_and(|entry| {
            let entry = entry.lock();
            entry.state == State::Live && entry.has_ended(now)
        });
        if ended {
            self.remove(name);
        }
        ended
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
        let mut agenda = self.structure.lock();
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
            entry.log.push(create.payload, now);
            entry.trim(now);
        }
        if create.closed {
            entry.writers.close();
        }
        if let Some(due) = entry.due(now) {
            agenda.push(Reverse((due, name.clone(), epoch)));
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

impl Entry {
    fn new(create: &Create, lineage: Lineage, log: Log, now: SystemTime) -> Self {
        let asked =
            Asked { lifetime: create.lifetime, retention: create.retention, fork: create.fork.clone() };
        Self {
            state: State::Live,
            content_type: create.content_type.clone(),
            lifetime: create.lifetime.unwrap_or_default(),
            retention: create.retention.unwrap_or_default(),
            asked,
            lineage,
            writers: Writers::default(),
            log,
            used: now,
            waited_for: 0,
            forks: 0,
        }
    }

    fn was_created_by(&self, create: &Create) -> bool {
        self.content_type == create.content_type
            && self.asked.lifetime == create.lifetime
            && self.asked.retention == create.retention
            && self.asked.fork == create.fork
            && self.writers.is_closed() == create.closed
    }

    fn created(&self, fresh: bool) -> Created {
        Created {
            fresh,
            tail: self.tail(),
            closed: self.writers.is_closed(),
            content_type: self.content_type.clone(),
        }
    }

    fn tail(&self) -> Offset {
        self.lineage.offset_at(self.log.tail())
    }

    fn ends_at(&self) -> Option<SystemTime> {
        let standing_still = self.waited_for > 0 && matches!(self.lifetime, Lifetime::Idle(_));
        self.lifetime.ends_at(self.used).filter(|_| !standing_still)
    }

    fn has_ended(&self, now: SystemTime) -> bool {
        self.ends_at().is_some_and(|end| end <= now)
    }

    /// When there will be something to remove; `None` if time alone never removes anything.
    fn due(&self, now: SystemTime) -> Option<SystemTime> {
        let aged = self.retention.age_max.and_then(|max| self.log.oldest().unwrap_or(now).checked_add(max));
        let ended =
            self.lifetime.ends_at(self.used).map(|end| end.max(self.ends_at().unwrap_or(now + SWEEP_AGAIN)));
        [aged, ended].into_iter().flatten().min()
    }

    /// The position of `start`, if a reader can go on from there.
    fn locate(&self, start: Start) -> Result<Position, ReadError> {
        let gap =
            |reason| ReadError::Gap(Gap { reason, earliest: self.lineage.offset_at(self.log.earliest()) });
        let position = match start {
            Start::Earliest => return Ok(self.log.earliest()),
            Start::Tail => return Ok(self.log.tail()),
            Start::At(offset) => self.lineage.position_of(offset).map_err(|_| gap(GapReason::Epoch))?,
        };
        if position > self.log.tail() {
            return Err(ReadError::BehindTail);
        }
        let missed = self.log.earliest().since(position);
        if missed > 0 { Err(gap(GapReason::Trimmed { missed })) } else { Ok(position) }
    }

    fn trim(&mut self, now: SystemTime) {
        if self.retention != Retention::default() {
            self.log.trim(&self.retention, now);
        }
    }

    fn append(&mut self, append: &Append, now: SystemTime) -> Result<Appended, AppendError> {
        let admission = self
            .writers
            .admit(append, &self.content_type, now)
            .map_err(|refusal| AppendError::Refused { refusal, tail: self.tail() })?;
        self.used = now;
        let highest = match admission {
            Admission::Duplicate { highest } => highest,
            Admission::New => {
                if !append.payload.is_empty() {
                    self.log.push(append.payload.clone(), now);
                    self.trim(now);
                }
                self.writers.record(append, now);
                append.producer.as_ref().map(|producer| producer.sequence)
            }
        };
        let duplicate = matches!(admission, Admission::Duplicate { .. });
        Ok(Appended { tail: self.tail(), closed: self.writers.is_closed(), duplicate, highest })
    }

    fn read(&mut self, start: Start, limit: ReadLimit, now: SystemTime) -> Result<Batch, ReadError> {
        self.trim(now);
        let from = self.locate(start)?;
        self.used = now;
        let tail = self.log.tail();
        let mut stretch = self.log.read(from, limit.bytes_max);
        let at_tail = stretch.next == tail;
        let closed = self.writers.is_closed() && at_tail;
        if limit.whole_characters && self.content_type.encoding() == Encoding::Text && !closed {
            let begun = cut_begun_character(&mut stretch.pieces);
            stretch.next = Position(stretch.next.0.saturating_sub(begun));
        }
        Ok(Batch {
            content_type: self.content_type.clone(),
            pieces: stretch.pieces,
            messages: stretch.messages,
            start: self.lineage.offset_at(from),
            next: self.lineage.offset_at(stretch.next),
            tail,
            up_to_date: at_tail,
            closed,
            epoch: self.lineage.own(),
            lives_for: self.lifetime.ends_at(now).map(|end| end.duration_since(now).unwrap_or_default()),
        })
    }
}

/// Cuts the first bytes of a UTF-8 character whose rest is still to come. How many they were.
fn cut_begun_character(pieces: &mut Vec<Bytes>) -> u64 {
    let mut end: Vec<u8> =
        pieces.iter().rev().flat_map(|piece| piece.iter().rev()).take(3).copied().collect();
    end.reverse();
    let begun =
        end.utf8_chunks().last().map(|chunk| chunk.invalid()).filter(|bytes| is_begun_character(bytes));
    let begun = begun.map_or(0, <[u8]>::len);
    let mut rest = begun;
    while rest > 0
        && let Some(mut last) = pieces.pop()
    {
        let cut = rest.min(last.len());
        rest -= cut;
        last.truncate(last.len() - cut);
        if !last.is_empty() {
            pieces.push(last);
        }
    }
    begun as u64
}

/// Whether `bytes`, which are no character, could become one by appending (RFC 3629, section 4).
fn is_begun_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
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

    fn delete<'a>(&'a self, name: &'a StreamName, now: SystemTime) -> Work<'a, Result<(), Missing>> {
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
        Box::pin(ready(exists))
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
        let mut ended = Vec::new();
        let mut agenda = self.structure.lock();
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
        ended
    }

    fn streams(&self) -> usize {
        self.streams.len()
    }
}
