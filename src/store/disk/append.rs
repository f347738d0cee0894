//! Appends on disk, as the committer makes them: it finds or creates the stream, decides on the append, writes it as one
//! record, and completes it after the sync.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::changes::{ChangeReply, STATE_BYTES, answer_with, ends_bytes_max, refuse};
use super::committer::Committer;
use super::kept::{Kept, Stored};
use super::newest::StoredMessages;
use super::record::{AppendNote, Ends, LogRecord, SessionNote, StreamRecord, moment};
use super::room::NoRoom;
use super::sessions::session_bytes;
use crate::store::entry::{DecidedAppend, Entry, State, WrittenState};
use crate::store::log::{Log, Record as Logged};
use crate::stream::{
    Admission, Annotation, Append, AppendError, AppendType, Appended, Create, Epoch, EpochHistory, Missing,
    Position, StreamName,
};

/// A stream, shared with its readers.
type Stream = Arc<Mutex<Entry<Stored>>>;

/// An append that is decided on, with its stream.
struct Admitted {
    stream: Stream,
    append: Box<Append>,
    admission: Admission,
    /// The position of its first message.
    start: Position,
    now: SystemTime,
    /// The record of the append; `None` for a duplicate.
    kept: Option<Arc<Kept>>,
    /// The copy of the stream's state, if the append creates the stream.
    created: Option<Arc<Kept>>,
}

impl Committer {
    pub(super) fn append(
        &mut self,
        name: StreamName,
        mut append: Box<Append>,
        now: SystemTime,
        answer: ChangeReply<Result<Appended, AppendError>>,
    ) -> Result<(), NoRoom> {
        if let Err(no_room) = self.ensure(append.payload.len(), append_bytes(&append, &name), false) {
            return refuse(answer, no_room, |failure| Err(AppendError::Failed(failure)));
        }
        let stream = match (self.use_stream(&name, now)?, append.creation()) {
            (Ok(stream), _) => stream,
            (Err(Missing::NotFound), Some(create)) => {
                return self.append_to_new(&name, &create, append, now, answer);
            }
            (Err(missing), _) => {
                answer_with(answer, Err(missing.into()));
                return Ok(());
            }
        };
        if matches!(append.content_type, AppendType::OfStream { .. }) {
            // The stream may not be the one for which the messages were split, and the new split may take more room. An error
            // in the messages is found again when the append is decided on.
            let content_type = stream.lock().content_type.clone();
            let _found_again = append.split_for(&content_type);
            if let Err(no_room) = self.ensure(append.payload.len(), append_bytes(&append, &name), false) {
                stream.lock().underway -= 1;
                return refuse(answer, no_room, |failure| Err(AppendError::Failed(failure)));
            }
        }
        let (decided, start, id) = {
            let mut entry = stream.lock();
            let (start, id) = (entry.decided, entry.origin.own().0);
            (entry.decide(&mut append, now), start, id)
        };
        let admission = match decided {
            Ok(admission) => admission,
            Err(error) => {
                stream.lock().underway -= 1;
                answer_with(answer, Err(error));
                return Ok(());
            }
        };
        let mut admitted = Admitted { stream, append, admission, start, now, kept: None, created: None };
        if admission == Admission::New {
            let append = &admitted.append;
            let note = self.note_session_of(append)?;
            let session = note.as_ref().map(|note| note.session);
            let (at, ends) = (moment(now), Ends::of(append.payload.shape()));
            let said = AppendNote::of(append, note);
            let record = LogRecord::Appended { stream: id, start: start.0, at, ends, said };
            admitted.kept = Some(self.write(&record, append.payload.bytes(), Some(id))?);
            self.register_session_note(session)?;
        }
        self.answer_after_sync(admitted, answer);
        Ok(())
    }

    /// Creates a stream together with its first append. Does nothing if the append is refused.
    fn append_to_new(
        &mut self,
        name: &StreamName,
        create: &Create,
        mut append: Box<Append>,
        now: SystemTime,
        answer: ChangeReply<Result<Appended, AppendError>>,
    ) -> Result<(), NoRoom> {
        if self.shared.streams.find(name).is_ok() {
            // The stream has ended, and forks keep its name.
            answer_with(answer, Err(Missing::Deleted.into()));
            return Ok(());
        }
        // The log must have the end of an earlier stream of this name first; otherwise replay takes the two for one stream.
        let split = append.split_for(&create.content_type);
        let room = self
            .write_ends()
            .and_then(|()| self.ensure(append.payload.len(), append_bytes(&append, name), false));
        if let Err(no_room) = room {
            return refuse(answer, no_room, |failure| Err(AppendError::Failed(failure)));
        }
        let owner = match self.shared.streams.admit(name, create.principal, &append.payload) {
            Ok(owner) => owner,
            Err(shortage) => {
                answer_with(answer, Err(shortage.into()));
                return Ok(());
            }
        };
        let id = self.new_stream();
        let mut entry = Entry::new(name, create, EpochHistory::new(Epoch(id)), Log::default(), &owner, now);
        entry.epoch_history = EpochHistory::new(self.shared.epochs.next());
        let start = entry.decided;
        // The state before the append, which is in the same record.
        let state = Box::new(StreamRecord::of(&entry));
        let admission = match split.and_then(|()| entry.decide(&mut append, now)) {
            Ok(admission) => admission,
            Err(error) => {
                answer_with(answer, Err(error));
                return Ok(());
            }
        };
        (entry.state, entry.underway) = (State::Begun, 1);
        let shared = self.shared.clone();
        let stream = shared.streams.insert(&mut shared.streams.structure(), entry, now);
        self.register(&stream);
        let note = self.note_session_of(&append)?;
        let session = note.as_ref().map(|note| note.session);
        let (at, ends) = (moment(now), Ends::of(append.payload.shape()));
        let copy = LogRecord::State { stream: state.clone() };
        let record = match AppendNote::of(&append, note) {
            None => LogRecord::Created { stream: state, at, ends },
            Some(said) => LogRecord::CreatedWith { stream: state, at, ends, said },
        };
        let created = Some(self.write(&copy, &[], Some(id))?);
        let kept = self.write(&record, append.payload.bytes(), Some(id))?;
        self.register_session_note(session)?;
        let kept = Some(kept);
        self.answer_after_sync(Admitted { stream, append, admission, start, now, kept, created }, answer);
        Ok(())
    }

    /// Finds a stream and counts one more change underway, so that the stream cannot end before that change is done.
    fn use_stream(&mut self, name: &StreamName, now: SystemTime) -> Result<Result<Stream, Missing>, NoRoom> {
        let Ok(stream) = self.shared.streams.find(name) else { return Ok(Err(Missing::NotFound)) };
        let mut entry = stream.lock();
        if entry.state == State::Ending {
            drop(entry);
            self.commit().map_err(NoRoom::Broken)?;
            entry = stream.lock();
        }
        let there = match entry.state {
            State::Begun => Ok(()),
            state if entry.underway == 0 && entry.has_ended(self.shared.streams.moment(now)) => {
                drop(entry);
                self.shared.streams.end(name, now);
                return Ok(state.is_there().and(Err(Missing::NotFound)));
            }
            state => state.is_there(),
        };
        if there.is_ok() {
            entry.underway += 1;
        }
        drop(entry);
        Ok(there.map(|()| stream))
    }

    /// Writes down the session change of an append, if it has one.
    fn note_session_of(&mut self, append: &Append) -> Result<Option<SessionNote>, NoRoom> {
        append.session.as_ref().map(|change| self.note_session(change)).transpose()
    }

    /// Registers that a record with a session note is written.
    fn register_session_note(&mut self, session: Option<u64>) -> Result<(), NoRoom> {
        let Some(session) = session else { return Ok(()) };
        self.room.active().streams.lock().insert(session);
        self.compact_session(session)
    }

    fn answer_after_sync(&mut self, admitted: Admitted, answer: ChangeReply<Result<Appended, AppendError>>) {
        let shared = self.shared.clone();
        self.run_after_sync(move || {
            let Admitted { stream, append, admission, start, now, kept, created } = admitted;
            let (mut entry, is_new) = (stream.lock(), created.is_some());
            if let Some(kept) = kept {
                if let Some(copy) = created {
                    let (content, copy) = (Stored::Kept(kept.clone()), Stored::Kept(copy));
                    entry.head = Some(WrittenState { content, copy, trimmed: entry.log.trimmed() });
                    entry.state = State::Live;
                }
                let record = (!append.payload.is_empty()).then(|| {
                    let (shape, bytes) = append.payload.clone().into_parts();
                    let annotation = append.annotation.clone();
                    shared.newest.push(kept.place(), StoredMessages { bytes, annotation });
                    Logged { start, shape, content: Stored::Kept(kept), at: now, annotation: None }
                });
                let annotation = append.annotation.clone();
                entry.finish(
                    DecidedAppend { record, annotation, close: append.close, principal: append.principal },
                    now,
                );
            }
            entry.underway -= 1;
            answer_with(answer, Ok(Appended { created: is_new, ..entry.appended(&append, admission) }));
        });
    }
}

/// The maximum bytes of a record of an append besides its messages.
fn append_bytes(append: &Append, name: &StreamName) -> usize {
    let producer = append.producer.as_ref().map_or(0, |producer| producer.id.len() + 32);
    let sequence = append.sequence.as_ref().map_or(0, |sequence| sequence.len());
    let annotation = append.annotation.as_deref().map_or(0, Annotation::size);
    let session = append.session.as_ref().map_or(0, session_bytes);
    let state = if append.create.is_some() { 2 * (STATE_BYTES + name.as_str().len()) } else { 0 };
    ends_bytes_max(append.payload.shape().ends().len()) + producer + sequence + annotation + session + state
}
