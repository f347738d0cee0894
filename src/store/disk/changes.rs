//! Changes other than appends, as the committer makes them: it decides, writes a record, and completes the change after the
//! sync.

use std::time::SystemTime;

use tokio::sync::oneshot::Sender;

use super::committer::Committer;
use super::kept::Stored;
use super::newest::StoredMessages;
use super::record::{Ends, LogRecord, StreamRecord, moment};
use super::room::NoRoom;
use crate::store::entry::{DecidedAppend, Entry, State, WrittenState};
use crate::store::log::{Log, Record as Logged};
use crate::store::streams::NewStream;
use crate::stream::{
    ChangeError, Create, CreateError, Created, Epoch, EpochHistory, Failure, Position, ReadError, Snapshot,
    StreamName,
};

/// Receives the outcome of a change. The requester may be gone.
pub(super) type ChangeReply<T> = Sender<T>;

impl Committer {
    pub(super) fn create(
        &mut self,
        name: StreamName,
        create: Create,
        now: SystemTime,
        answer: ChangeReply<Result<Created, CreateError>>,
    ) -> Result<(), NoRoom> {
        let shared = self.shared.clone();
        shared.streams.end(&name, now);
        self.complete_changes(&name)?;
        if let Some(fork) = &create.fork {
            self.complete_changes(&fork.source)?;
        }
        if let Ok(existing) = shared.streams.find(&name) {
            answer_with(answer, existing.lock().created_again(&create, now));
            return Ok(());
        }
        let owner = match shared.streams.admit(&name, create.principal, &create.payload) {
            Ok(owner) => owner,
            Err(shortage) => {
                answer_with(answer, Err(shortage.into()));
                return Ok(());
            }
        };
        let state = STATE_BYTES + create.writers.as_ref().map_or(0, |writers| writers.size());
        let beside = ends_bytes_max(create.payload.shape().ends().len()) + 2 * state;
        // The log must have the end of an earlier stream of this name first; otherwise replay takes the two for one stream.
        let room = self.write_ends().and_then(|()| self.ensure(create.payload.len(), beside, false));
        if let Err(no_room) = room {
            return refuse(answer, no_room, |failure| Err(CreateError::Failed(failure)));
        }
        let mut structure = shared.streams.structure();
        let (id, epoch) = (Epoch(self.next_stream), shared.epochs.next());
        let entry = match &create.fork {
            None => {
                let mut entry =
                    Entry::new(&name, &create, EpochHistory::new(id), Log::default(), &owner, now);
                entry.epoch_history = EpochHistory::new(epoch);
                Ok(entry)
            }
            Some(fork) => {
                let beginning = NewStream { owner: &owner, origin: id, epoch };
                shared.streams.branch(&name, &create, fork, beginning, now)
            }
        };
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                answer_with(answer, Err(error));
                return Ok(());
            }
        };
        self.next_stream += 1;
        entry.state = State::Begun;
        entry.underway = 1;
        entry.begin_with(&create);
        // The state before the first messages, which are in the same record.
        let mut state = StreamRecord::of(&entry);
        state.tail = entry.log.tail().0;
        let trimmed = entry.log.trimmed();
        let state = Box::new(state);
        let copy = LogRecord::State { stream: state.clone() };
        let ends = Ends::of(create.payload.shape());
        let record = LogRecord::Created { stream: state, at: moment(now), ends };
        let entry = shared.streams.insert(&mut structure, entry, now);
        drop(structure);
        self.register(&entry);
        let copy = self.write(&copy, &[], Some(id.0))?;
        let kept = self.write(&record, create.payload.bytes(), Some(id.0))?;
        self.run_after_sync(move || {
            let (shape, bytes) = create.payload.into_parts();
            let record = (!shape.is_empty()).then(|| {
                shared.newest.push(kept.place(), StoredMessages { bytes, annotation: None });
                let start = Position::default();
                Logged { start, shape, content: Stored::Kept(kept.clone()), at: now, annotation: None }
            });
            let mut entry = entry.lock();
            let (content, copy) = (Stored::Kept(kept), Stored::Kept(copy));
            entry.head = Some(WrittenState { content, copy, trimmed });
            let done =
                DecidedAppend { record, annotation: None, close: create.closed, principal: create.principal };
            entry.finish(done, now);
            entry.state = State::Live;
            entry.underway -= 1;
            answer_with(answer, Ok(entry.created(true)));
        });
        Ok(())
    }

    pub(super) fn delete(
        &mut self,
        name: StreamName,
        now: SystemTime,
        answer: ChangeReply<Result<(), ChangeError>>,
    ) -> Result<(), NoRoom> {
        let shared = self.shared.clone();
        shared.streams.end(&name, now);
        self.complete_changes(&name)?;
        let found = shared.streams.find(&name);
        let entry = match found.and_then(|entry| entry.lock().state.is_there().map(|()| entry.clone())) {
            Ok(entry) => entry,
            Err(missing) => {
                answer_with(answer, Err(missing.into()));
                return Ok(());
            }
        };
        if let Err(no_room) = self.ensure(0, 0, true) {
            return refuse(answer, no_room, |failure| Err(ChangeError::Failed(failure)));
        }
        let stream = {
            let mut entry = entry.lock();
            entry.state = State::Ending;
            entry.underway += 1;
            entry.origin.own().0
        };
        self.write_end(stream)?;
        self.run_after_sync(move || {
            let mut structure = shared.streams.structure();
            entry.lock().underway -= 1;
            shared.streams.remove(&mut structure, &name);
            answer_with(answer, Ok(()));
        });
        Ok(())
    }

    /// Takes a snapshot of a stream after all decided changes of it are done.
    pub(super) fn snapshot(
        &mut self,
        name: &StreamName,
        now: SystemTime,
        answer: ChangeReply<Result<Snapshot, ReadError>>,
    ) -> Result<(), NoRoom> {
        self.complete_changes(name)?;
        let snapshot = self.shared.streams.with(name, now, |entry| entry.snapshot(now));
        answer_with(answer, snapshot.map_err(ReadError::from));
        Ok(())
    }

    pub(super) fn clear_retained(
        &mut self,
        name: &StreamName,
        now: SystemTime,
        answer: ChangeReply<Result<(), ChangeError>>,
    ) -> Result<(), NoRoom> {
        let shared = self.shared.clone();
        self.complete_changes(name)?;
        if let Err(no_room) = self.ensure(0, 0, true) {
            return refuse(answer, no_room, |failure| Err(ChangeError::Failed(failure)));
        }
        let found = shared.streams.with(name, now, |entry| {
            entry.underway += 1;
            (entry.origin.own().0, entry.decided.0)
        });
        let (stream, from) = match found {
            Ok(found) => found,
            Err(missing) => {
                answer_with(answer, Err(missing.into()));
                return Ok(());
            }
        };
        let Ok(entry) = shared.streams.find(name) else { return Ok(()) };
        // Written twice, because without this record the cleared message would be retained again.
        for _ in 0..2 {
            self.write(&LogRecord::Cleared { stream, from }, &[], Some(stream))?;
        }
        self.run_after_sync(move || {
            let mut entry = entry.lock();
            entry.underway -= 1;
            entry.clear_retained(now);
            answer_with(answer, Ok(()));
        });
        Ok(())
    }

    /// Completes all decided changes of a stream, so that a change of more than its log finds no change underway.
    fn complete_changes(&mut self, name: &StreamName) -> Result<(), NoRoom> {
        let underway = self.shared.streams.find(name).is_ok_and(|entry| entry.lock().underway > 0);
        if underway { self.commit().map_err(NoRoom::Broken) } else { Ok(()) }
    }
}

/// Room for the state of a new stream: its name, its content type, the name of its source, and numbers.
pub(super) const STATE_BYTES: usize = 4096;

/// The maximum bytes of a list of `ends`.
pub(super) fn ends_bytes_max(ends: usize) -> usize {
    ends * 5
}

pub(super) fn answer_with<T>(answer: ChangeReply<T>, outcome: T) {
    // The requester may be gone.
    let _left = answer.send(outcome);
}

/// Answers that there is no room. If the store is broken, the requester gets [`Failure::Broken`].
pub(super) fn refuse<T>(
    answer: ChangeReply<T>,
    no_room: NoRoom,
    outcome: impl FnOnce(Failure) -> T,
) -> Result<(), NoRoom> {
    answer_with(answer, outcome(Committer::failure(&no_room)));
    Err(no_room)
}
