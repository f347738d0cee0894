//! The table of all streams of a store: finding, inserting, forking, removing and sweeping them.
//!
//! The lock of a stream guards its content. An operation that adds or removes streams takes the lock of `structure` first, so
//! that forks and their sources change together.

mod expiry;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use dashmap::DashMap;
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Notify;

use super::entry::{ClockDifference, Entry, Moment, State};
use super::log::Content;
use crate::budget::{Budget, Charge, Owner};
use crate::stream::{
    Append, AppendError, AppendType, Create, CreateError, Epoch, FORK_DEPTH_MAX, Fork, GapReason, Missing,
    PAGE_STREAMS_MAX, Payload, Position, Principal, ReadError, Shortage, Start, StreamName, StreamPage,
};

/// The streams of a store that keeps content as `C`.
#[derive(Debug)]
pub(super) struct Streams<C: Content> {
    table: DashMap<StreamName, Arc<Mutex<Entry<C>>>>,
    /// The keys of `table` in order, for listings by page. Changed together with the table.
    names: RwLock<BTreeSet<StreamName>>,
    structure: Mutex<Structure>,
    /// From the time that measures ages to the time of day.
    wall_ahead: ClockDifference,
    budget: Arc<Budget>,
}

/// The owner and the epochs of a new stream.
pub(super) struct NewStream<'a> {
    /// The principal that creates it.
    pub(super) owner: &'a Arc<Owner>,
    /// The epoch of the creation, which identifies the appends of the stream.
    pub(super) origin: Epoch,
    /// The epoch of the offsets of the stream.
    pub(super) epoch: Epoch,
}

/// Data that changes together with the table.
#[derive(Debug, Default)]
pub(super) struct Structure {
    /// The times at which the sweep visits streams. A stream has at most one entry, at `Entry::scheduled`.
    agenda: BTreeSet<(SystemTime, StreamName)>,
    /// The streams that end at a time of day.
    dated: BTreeSet<(SystemTime, StreamName)>,
    /// Streams that a request found ended; the next sweep returns them.
    ended: Vec<StreamName>,
    /// The creation epochs of streams that ended by themselves, for a store that has to write that down.
    ended_ids: Vec<Epoch>,
    /// When the next sweep was last said to be due; `None`: nobody is to be told of a sooner time.
    next_sweep: Option<SystemTime>,
    /// Notified when a sweep is due before `next_sweep`.
    sooner: Arc<Notify>,
    /// Number of streams removed since the table was last shrunk.
    removed: usize,
}

impl Structure {
    /// Schedules the next visit of a stream, in place of an earlier schedule.
    fn schedule<C: Content>(&mut self, entry: &mut Entry<C>, due: Option<SystemTime>) {
        if let Some(at) = entry.scheduled.take() {
            self.agenda.remove(&(at, entry.name.clone()));
        }
        if let Some(due) = due {
            entry.scheduled = Some(due);
            self.agenda.insert((due, entry.name.clone()));
            self.is_due(due);
        }
    }
}

impl<C: Content> Streams<C> {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        let (table, names, structure, wall_ahead) = Default::default();
        Self { table, names, structure, wall_ahead, budget }
    }

    /// Sets the time of day at `now`; the difference stays until the next call.
    pub(super) fn follow_wall(&self, Moment { now, wall }: Moment) {
        self.wall_ahead.follow(now, wall);
    }

    /// `now` together with the time of day.
    pub(super) fn moment(&self, now: SystemTime) -> Moment {
        Moment { now, wall: self.wall_ahead.convert(now) }
    }

    /// The account of the principal that creates the stream `name`. Fails if there is no room for it and its initial messages.
    pub(super) fn admit(
        &self,
        name: &StreamName,
        principal: Principal,
        messages: &Payload,
    ) -> Result<Arc<Owner>, Shortage> {
        let owner = self.budget.owner_in(name.tenant(), principal);
        owner.admit_stream(messages.len() as u64)?;
        Ok(owner)
    }

    /// Charges messages that wait to be stored.
    pub(super) fn charge_waiting(&self, name: &StreamName, principal: Principal, bytes: usize) -> Charge {
        Charge::waiting(&self.budget, name.tenant(), principal, bytes)
    }

    pub(super) fn structure(&self) -> MutexGuard<'_, Structure> {
        self.structure.lock()
    }

    pub(super) fn find(&self, name: &StreamName) -> Result<Arc<Mutex<Entry<C>>>, Missing> {
        self.table.get(name).map(|entry| entry.value().clone()).ok_or(Missing::NotFound)
    }

    /// Splits the messages of an append that takes the content type of the stream, before a lock is held for it. If the stream
    /// has another type when the append is decided on, they are split again.
    pub(super) fn split_ahead(&self, name: &StreamName, append: &mut Append) -> Result<(), AppendError> {
        if !matches!(append.content_type, AppendType::OfStream { .. }) {
            return Ok(());
        }
        let found = self.find(name).and_then(|entry| {
            let entry = entry.lock();
            if entry.state == State::Begun { Ok(()) } else { entry.state.is_there() }
                .map(|()| entry.content_type.clone())
        });
        let content_type = match (found, append.creation()) {
            (Ok(content_type), _) => content_type,
            (Err(Missing::NotFound), Some(create)) => create.content_type,
            (Err(missing), _) => return Err(missing.into()),
        };
        append.split_for(&content_type)
    }

    /// Calls `act` with a live stream. A stream whose lifetime is over is removed instead.
    pub(super) fn with<T>(
        &self,
        name: &StreamName,
        now: SystemTime,
        act: impl FnOnce(&mut Entry<C>) -> T,
    ) -> Result<T, Missing> {
        let entry = self.find(name)?;
        let mut guard = entry.lock();
        match guard.state {
            State::Begun | State::Removed => return Err(Missing::NotFound),
            State::Deleted => return Err(Missing::Deleted),
            State::Live | State::Ending => {}
        }
        if !guard.has_ended(self.moment(now)) {
            return Ok(act(&mut guard));
        }
        drop(guard);
        self.end(name, now);
        Err(Missing::NotFound)
    }

    /// Removes a live stream, or only its content while it has forks. Also removes sources whose name was kept only for it.
    /// Returns the creation epochs of the removed streams.
    pub(super) fn remove(&self, structure: &mut Structure, name: &StreamName) -> Vec<Epoch> {
        let (mut next, mut ended_ids) = (Some(name.clone()), Vec::new());
        while let Some(name) = next.take() {
            let Ok(entry) = self.find(&name) else { break };
            let mut entry = entry.lock();
            let name_kept = entry.forks > 0;
            ended_ids.push(entry.origin.own());
            if let Some(end) = entry.ends_on() {
                structure.dated.remove(&(end, name.clone()));
            }
            entry.drop_content(name_kept);
            structure.schedule(&mut entry, None);
            if name_kept {
                break;
            }
            self.table.remove(&name);
            structure.removed += 1;
            self.names.write().remove(&name);
            let Some(fork) = &entry.asked.fork else { break };
            let source = fork.source.clone();
            drop(entry);
            let Ok(entry) = self.find(&source) else { break };
            let mut entry = entry.lock();
            entry.forks = entry.forks.saturating_sub(1);
            if entry.state == State::Deleted && entry.forks == 0 {
                next = Some(source);
            }
        }
        ended_ids
    }

    /// Adds a stream to the table.
    pub(super) fn insert(
        &self,
        structure: &mut Structure,
        mut entry: Entry<C>,
        now: SystemTime,
    ) -> Arc<Mutex<Entry<C>>> {
        let name = entry.name.clone();
        let due = entry.due(now);
        structure.schedule(&mut entry, due);
        if let Some(end) = entry.ends_on() {
            structure.dated.insert((end, name.clone()));
            structure.is_due(SystemTime::UNIX_EPOCH);
        }
        let entry = Arc::new(Mutex::new(entry));
        self.table.insert(name.clone(), entry.clone());
        self.names.write().insert(name);
        entry
    }

    /// Creates the entry of a fork, which its source counts from now on.
    pub(super) fn branch(
        &self,
        name: &StreamName,
        create: &Create,
        fork: &Fork,
        NewStream { owner, origin, epoch }: NewStream<'_>,
        now: SystemTime,
    ) -> Result<Entry<C>, CreateError> {
        let source = self.find(&fork.source).map_err(|_| CreateError::SourceNotFound)?;
        let mut source = source.lock();
        match source.state {
            State::Deleted => return Err(CreateError::SourceDeleted),
            State::Live if !source.has_ended(self.moment(now)) => {}
            State::Live | State::Begun | State::Ending | State::Removed => {
                return Err(CreateError::SourceNotFound);
            }
        }
        if source.content_type != create.content_type {
            return Err(CreateError::SourceContentType);
        }
        if source.depth >= FORK_DEPTH_MAX {
            return Err(CreateError::ForkTooDeep);
        }
        let anchor = source.locate(fork.offset.unwrap_or(Start::Tail)).map_err(|error| match error {
            ReadError::Gap(gap) if gap.reason != GapReason::Epoch => CreateError::ForkTrimmed(gap),
            _ => CreateError::ForkOffset,
        })?;
        let end = anchor.0.checked_add(fork.sub_offset).map(Position).filter(|end| *end <= source.log.tail());
        let end = end.ok_or(CreateError::ForkOffset)?;
        source.forks += 1;
        source.used = now;
        let log = source.log.fork(end);
        let mut entry = Entry::new(name, create, source.origin.fork(end, origin), log, owner, now);
        entry.depth = source.depth + 1;
        entry.epoch_history = source.epoch_history.fork(end, epoch);
        entry.lifetime = create.lifetime.unwrap_or(source.lifetime);
        entry.retention = create.retention.unwrap_or(source.retention);
        entry.trim(now);
        entry.recount();
        Ok(entry)
    }

    /// The name with the text that the table has.
    pub(super) fn shared_name(&self, name: &StreamName) -> StreamName {
        self.table.get(name).map_or_else(|| name.clone(), |entry| entry.key().clone())
    }

    /// Registers a waiter, so that an idle lifetime does not elapse. Returns the epoch of the stream.
    pub(super) fn attach(&self, name: &StreamName) -> Option<Epoch> {
        let entry = self.find(name).ok()?;
        let mut entry = entry.lock();
        entry.waiters += 1;
        Some(entry.epoch_history.own())
    }

    /// Reverts one `attach`, if the stream still has `epoch`.
    pub(super) fn detach(&self, name: &StreamName, epoch: Epoch, now: SystemTime) {
        if let Ok(entry) = self.find(name) {
            let mut entry = entry.lock();
            if entry.epoch_history.own() == epoch {
                entry.waiters = entry.waiters.saturating_sub(1);
                entry.used = now;
            }
        }
    }

    /// The streams that exist at `now` and whose names begin with `prefix`, after the name `after`. Visits at most
    /// [`PAGE_STREAMS_MAX`] names.
    pub(super) fn page(&self, prefix: &str, after: Option<&StreamName>, now: SystemTime) -> StreamPage {
        let from = after.map_or(Bound::Included(prefix), |after| Bound::Excluded(after.as_str()));
        let names: Vec<StreamName> = {
            let names = self.names.read();
            let following = names.range::<str, _>((from, Bound::Unbounded));
            following
                .take_while(|name| name.as_str().starts_with(prefix))
                .take(PAGE_STREAMS_MAX)
                .cloned()
                .collect()
        };
        let next = names.last().filter(|_| names.len() == PAGE_STREAMS_MAX).cloned();
        let at = self.moment(now);
        // The lock on the names is released first, because a removal takes the locks in the opposite order.
        let streams = names.into_iter().filter_map(|name| {
            let entry = self.find(&name).ok()?;
            let entry = entry.lock();
            let is_there = matches!(entry.state, State::Live | State::Ending) && !entry.has_ended(at);
            is_there.then(|| (name, entry.tail()))
        });
        StreamPage { streams: streams.collect(), next }
    }

    /// Number of streams in the table, including deleted ones whose names are kept.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}

/// The maximum step between the epochs of two runs, so that there is room for millions of runs.
const STEP_MAX: u64 = 1 << 40;

/// Assigns rising epochs, starting at a random number so that two stores never assign the same ones.
#[derive(Debug)]
pub(super) struct Epochs(AtomicU64);

impl Epochs {
    /// Starts at a random number.
    pub(super) fn random() -> Self {
        Self(AtomicU64::new(fastrand::u64(u64::from(u32::MAX)..1 << 62)))
    }

    /// Continues above `last` with a random step, so that two runs that were opened from copies of one store have different
    /// epochs.
    pub(super) fn after(last: Epoch) -> Self {
        Self(AtomicU64::new(last.0.saturating_add(fastrand::u64(1..STEP_MAX))))
    }

    /// The epoch that [`next`](Self::next) returns next.
    pub(super) fn peek(&self) -> Epoch {
        Epoch(self.0.load(Ordering::Relaxed))
    }

    /// A new epoch, greater than all earlier ones.
    pub(super) fn next(&self) -> Epoch {
        Epoch(self.0.fetch_add(1, Ordering::Relaxed))
    }
}
