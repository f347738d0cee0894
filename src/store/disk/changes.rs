//! What the committer does for each kind of change: decide, write down, and do it once that is synced.

use std::time::SystemTime;

use tokio::sync::oneshot::Sender;

use super::committer::Committer;
use super::record::{Ends, Record, Said, StreamState, moment};
use super::room::NoRoom;
use super::sessions::session_bytes;
use crate::store::entry::{Done, Entry, Head, State};
use crate::store::log::{Log, Record as Kept};
use crate::stream::{
    Admission, Append, AppendError, Appended, ChangeError, Create, CreateError, Created, Epoch, Failure,
    Lineage, Missing, Position, StreamName,
};

/// Where the outcome of a change goes. Whoever asked may have left.
pub(super) type Answer<T> = Sender<T>;

impl Committer {
    pub(super) fn create(
        &mut self,
        name: StreamName,
        create: Create,
        now: SystemTime,
        answer: Answer<Result<Created, CreateError>>,
    ) -> Result<(), NoRoom> {
        let shared = self.shared.clone();
        shared.streams.end(&name, now);
        self.settle(&name)?;
        if let Some(fork) = &create.fork {
            self.settle(&fork.source)?;
        }
        if let Ok(existing) = shared.streams.find(&name) {
            answer_with(answer, existing.lock().created_again(&create, now));
            return Ok(());
        }
        let beside = beside(create.payload.shape().ends().len()) + STATE_BYTES;
        // The end of a former stream of that name comes first in the log, or the two would be taken for each other.
        let room = self.write_ends().and_then(|()| self.ensure(create.payload.len(), beside, false));
        if let Err(no_room) = room {
            return refuse(answer, no_room, |failure| Err(CreateError::Failed(failure)));
        }
        let mut structure = shared.streams.structure();
        let (id, epoch) = (Epoch(self.next_stream), shared.epochs.next());
        let entry = match &create.fork {
            None => {
                let mut entry = Entry::new(&name, &create, Lineage::new(id), Log::default(), now);
                entry.lineage = Lineage::new(epoch);
                Ok(entry)
            }
            Some(fork) => shared.streams.branch(&name, &create, fork, id, epoch, now),
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
        // As it is before its first messages, which the record has beside it.
        let mut state = StreamState::of(&entry);
        state.tail = entry.log.tail().0;
        let earliest = entry.log.earliest();
        let record = Record::Created {
            stream: Box::new(state),
            at: moment(now),
            ends: Ends::of(create.payload.shape()),
        };
        let entry = shared.streams.insert(&mut structure, entry, now);
        drop(structure);
        self.know(&entry);
        let kept = self.write(&record, create.payload.bytes(), Some(id.0))?;
        self.afterwards(move || {
            let (shape, bytes) = create.payload.into_parts();
            let record = (!shape.is_empty()).then(|| {
                shared.hot.insert(kept.place(), bytes);
                let start = Position::default();
                Kept { start, shape, content: kept.clone(), at: now, annotation: None }
            });
            let mut entry = entry.lock();
            entry.head = Some(Head { content: kept, earliest });
            entry.finish(Done { record, close: create.closed }, now);
            entry.state = State::Live;
            entry.underway -= 1;
            answer_with(answer, Ok(entry.created(true)));
        });
        Ok(())
    }

    pub(super) fn append(
        &mut self,
        name: &StreamName,
        append: Append,
        now: SystemTime,
        answer: Answer<Result<Appended, AppendError>>,
    ) -> Result<(), NoRoom> {
        let shared = self.shared.clone();
        if let Err(no_room) = self.ensure(append.payload.len(), append_bytes(&append), false) {
            return refuse(answer, no_room, |failure| Err(AppendError::Failed(failure)));
        }
        let Ok(entry) = shared.streams.find(name) else {
            answer_with(answer, Err(Missing::NotFound.into()));
            return Ok(());
        };
        let mut locked = entry.lock();
        if locked.state == State::Ending {
            drop(locked);
            self.commit().map_err(NoRoom::Broken)?;
            locked = entry.lock();
        }
        let there = match locked.state {
            State::Begun => Ok(()),
            state if locked.underway == 0 && locked.has_ended(now) => {
                drop(locked);
                shared.streams.end(name, now);
                locked = entry.lock();
                state.is_there().and(Err(Missing::NotFound))
            }
            state => state.is_there(),
        };
        if let Err(missing) = there {
            answer_with(answer, Err(missing.into()));
            return Ok(());
        }
        let start = locked.decided;
        let admission = match locked.decide(&append, now) {
            Ok(admission) => admission,
            Err(error) => {
                answer_with(answer, Err(error));
                return Ok(());
            }
        };
        locked.underway += 1;
        let stream = locked.origin.own().0;
        drop(locked);
        let mut kept = None;
        if admission == Admission::New {
            let noted = append.session.as_ref().map(|change| self.note_session(change)).transpose()?;
            let session = noted.as_ref().map(|noted| noted.session);
            let record = Record::Appended {
                stream,
                start: start.0,
                at: moment(now),
                ends: Ends::of(append.payload.shape()),
                said: Said::of(&append, noted),
            };
            kept = Some(self.write(&record, append.payload.bytes(), Some(stream))?);
            if let Some(session) = session {
                self.room.active().streams.lock().insert(session);
                self.gather(session)?;
            }
        }
        self.afterwards(move || {
            let mut entry = entry.lock();
            if let Some(kept) = kept {
                let record = (!append.payload.is_empty()).then(|| {
                    let (shape, bytes) = append.payload.clone().into_parts();
                    shared.hot.insert(kept.place(), bytes);
                    Kept { start, shape, content: kept, at: now, annotation: append.annotation.clone() }
                });
                entry.finish(Done { record, close: append.close }, now);
            }
            entry.underway -= 1;
            answer_with(answer, Ok(entry.appended(&append, admission)));
        });
        Ok(())
    }

    pub(super) fn delete(
        &mut self,
        name: StreamName,
        now: SystemTime,
        answer: Answer<Result<(), ChangeError>>,
    ) -> Result<(), NoRoom> {
        let shared = self.shared.clone();
        shared.streams.end(&name, now);
        self.settle(&name)?;
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
        self.afterwards(move || {
            let structure = shared.streams.structure();
            entry.lock().underway -= 1;
            shared.streams.remove(&structure, &name);
            answer_with(answer, Ok(()));
        });
        Ok(())
    }

    pub(super) fn clear_retained(
        &mut self,
        name: &StreamName,
        now: SystemTime,
        answer: Answer<Result<(), ChangeError>>,
    ) -> Result<(), NoRoom> {
        let shared = self.shared.clone();
        self.settle(name)?;
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
        self.write(&Record::Cleared { stream, from }, &[], Some(stream))?;
        self.afterwards(move || {
            let mut entry = entry.lock();
            entry.underway -= 1;
            entry.clear_retained(now);
            answer_with(answer, Ok(()));
        });
        Ok(())
    }

    /// Does what is decided of a stream, so that a change of more than its log finds it at rest.
    fn settle(&mut self, name: &StreamName) -> Result<(), NoRoom> {
        let underway = self.shared.streams.find(name).is_ok_and(|entry| entry.lock().underway > 0);
        if underway { self.commit().map_err(NoRoom::Broken) } else { Ok(()) }
    }
}

/// Room for the state of a new stream: its name, its content type, the name of its source, and numbers.
const STATE_BYTES: usize = 4096;

/// What a list of ends takes at the most.
fn beside(ends: usize) -> usize {
    ends * 5
}

/// What an append takes at the most beside its messages.
fn append_bytes(append: &Append) -> usize {
    let producer = append.producer.as_ref().map_or(0, |producer| producer.id.len() + 32);
    let sequence = append.sequence.as_ref().map_or(0, |sequence| sequence.len());
    let annotation = append.annotation.as_deref().map_or(0, |annotation| {
        let properties = annotation.user_properties.iter().map(|(name, value)| name.len() + value.len() + 8);
        let texts = [&annotation.content_type, &annotation.response_topic].into_iter().flatten();
        annotation.publisher.len()
            + texts.map(|text| text.len()).sum::<usize>()
            + annotation.correlation.as_ref().map_or(0, bytes::Bytes::len)
            + properties.sum::<usize>()
    });
    let session = append.session.as_ref().map_or(0, session_bytes);
    beside(append.payload.shape().ends().len()) + producer + sequence + annotation + session
}

pub(super) fn answer_with<T>(answer: Answer<T>, outcome: T) {
    // Whoever asked may have left.
    let _left = answer.send(outcome);
}

/// Tells that there is no room, unless that is because the store is broken; then whoever asked learns it by silence.
pub(super) fn refuse<T>(
    answer: Answer<T>,
    no_room: NoRoom,
    outcome: impl FnOnce(Failure) -> T,
) -> Result<(), NoRoom> {
    answer_with(answer, outcome(Committer::failure(&no_room)));
    Err(no_room)
}
