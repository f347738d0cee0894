//! Replay: restores streams and sessions from the records of the log.

mod result;
mod streams;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::kept::{Kept, RecordSpan, Stored};
use super::losses::Losses;
use super::record::{
    AppendNote, Ends, LogRecord, Note, SessionNote, StreamId, StreamRecord, UnixMillis, time,
};
use super::scan::{Damaged, ScanStep, Scanned};
use super::segment::Segments;
use super::session_log::SessionLog;
use crate::budget::{Budget, Owner};
use crate::store::entry::{self, State};
use crate::store::log::Record as Append;
use crate::store::sessions::StoredSessions;
use crate::stream::{Epoch, Position, Principal, SessionChange};

pub(super) use result::ReplayedLog;
use streams::{Appends, ReplayedStream};

/// The state of a replay.
pub(super) struct Replay {
    segments: Arc<Segments>,
    /// The account that is charged for everything stored before this run.
    pub(super) owner: Arc<Owner>,
    now: SystemTime,
    /// Boxed like the appends, so that each stream can be freed when it becomes an entry of the store.
    streams: HashMap<StreamId, Box<ReplayedStream>>,
    appends: HashMap<StreamId, Box<Appends>>,
    /// The greatest append time; later than `now` if a clock was wrong.
    latest: SystemTime,
    /// The records that say that a stream has ended.
    pub(super) tombstones: HashMap<StreamId, Arc<Kept>>,
    sessions: StoredSessions,
    session_log: SessionLog,
    pub(super) next_stream: StreamId,
    pub(super) next_epoch: Epoch,
    /// Whether the last run of the store synced everything before it acknowledged it.
    pub(super) synced: bool,
    /// Whether the last record is the end of a run that was closed.
    pub(super) closed: bool,
    pub(super) records: u64,
    /// The epoch of the run that wrote the records being read.
    run: Epoch,
    pub(super) losses: Losses,
}

impl Replay {
    pub(super) fn new(segments: Arc<Segments>, now: SystemTime) -> Self {
        Self {
            segments,
            owner: Budget::unlimited().owner(Principal::GATEWAY),
            now,
            streams: HashMap::new(),
            appends: HashMap::new(),
            latest: SystemTime::UNIX_EPOCH,
            tombstones: HashMap::new(),
            sessions: StoredSessions::default(),
            session_log: SessionLog::default(),
            next_stream: 1,
            next_epoch: Epoch(0),
            synced: true,
            closed: true,
            records: 0,
            run: Epoch(0),
            losses: Losses::default(),
        }
    }

    /// Processes the next step of the scan.
    pub(super) fn apply(&mut self, step: ScanStep) {
        match step {
            ScanStep::Segment(segment) => self.segments.insert(segment),
            ScanStep::LogRecord(scanned) => self.record(scanned),
            ScanStep::Damage(damaged) => self.damaged(&damaged),
        }
    }

    /// Notes damage. A session cannot report a gap to its client as a stream does, so a change of a session with one flipped bit
    /// is applied with that bit restored.
    fn damaged(&mut self, damaged: &Damaged) {
        let (streams, appends) = (&self.streams, &self.appends);
        let found = self.losses.note(damaged, |stream| {
            let decided = streams.get(&stream).map(|head| head.entry.decided);
            decided.or_else(|| appends.get(&stream)?.runs.end())
        });
        let Damaged { place, ref bytes } = *damaged;
        let bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        match found {
            Some(record @ (LogRecord::Session { .. } | LogRecord::SessionChanged { .. })) => {
                self.record(Scanned { place, bytes, record, content: Bytes::new() });
            }
            Some(LogRecord::Appended { said: Some(said), .. } | LogRecord::CreatedWith { said, .. }) => {
                self.session_of_append(said.session, RecordSpan { place, bytes })
            }
            _ => {}
        }
    }

    fn record(&mut self, scanned: Scanned) {
        self.records += 1;
        self.closed = matches!(scanned.record, LogRecord::Closed);
        let Scanned { place, bytes, record, content } = scanned;
        let kept = || Kept::new(&self.segments, place, bytes);
        let stream = match &record {
            LogRecord::Opened { .. } | LogRecord::Closed | LogRecord::Run { .. } => None,
            LogRecord::Created { stream, .. }
            | LogRecord::CreatedWith { stream, .. }
            | LogRecord::State { stream } => Some(stream.id),
            LogRecord::Appended { stream, .. }
            | LogRecord::Moved { stream, .. }
            | LogRecord::Ended { stream }
            | LogRecord::Cleared { stream, .. }
            | LogRecord::Renewed { stream, .. }
            | LogRecord::Session { session: stream, .. }
            | LogRecord::SessionChanged { session: stream, .. } => Some(*stream),
        };
        if let (Some(stream), Some(segment)) = (stream, self.segments.get(place.segment)) {
            segment.streams.lock().insert(stream);
            self.next_stream = self.next_stream.max(stream + 1);
            self.losses.pass(stream, &record);
        }
        match record {
            LogRecord::Opened { synced, next_stream, next_epoch, .. } => {
                self.synced = synced;
                self.next_stream = self.next_stream.max(next_stream);
                self.next_epoch = self.next_epoch.max(Epoch(next_epoch));
            }
            LogRecord::Closed => {}
            LogRecord::Run { epoch } => {
                self.run = Epoch(epoch);
                self.next_epoch = self.next_epoch.max(Epoch(epoch + 1));
            }
            LogRecord::Created { stream, at, ends } => {
                let (id, tail, kept) = (stream.id, Position(stream.tail), kept());
                self.head(*stream, kept.clone());
                self.append(id, tail, at, (ends, content.len()), None, kept);
            }
            LogRecord::State { stream } => {
                let kept = kept();
                self.head(*stream, kept);
            }
            LogRecord::CreatedWith { stream, at, ends, said } => {
                let (id, start, kept) = (stream.id, Position(stream.tail), kept());
                self.head(*stream, kept.clone());
                self.appended(id, start, at, (ends, content.len()), Some(said), kept);
            }
            LogRecord::Appended { stream, start, at, ends, said } => {
                let kept = kept();
                let entry = self.streams.get_mut(&stream).map(|head| &mut head.entry);
                if let Some(entry) = entry
                    && entry.epoch_history.own() < self.run
                {
                    entry.epoch_history = entry.epoch_history.run(Position(start), self.run);
                }
                self.appended(stream, Position(start), at, (ends, content.len()), said, kept);
            }
            LogRecord::Moved { stream, start, at, ends, annotation } => {
                let kept = kept();
                self.append(
                    stream,
                    Position(start),
                    at,
                    (ends, content.len()),
                    annotation.map(|note| *note),
                    kept,
                );
            }
            LogRecord::Ended { stream } => {
                self.tombstones.insert(stream, kept());
                if let Some(head) = self.streams.get_mut(&stream) {
                    head.entry.state = State::Deleted;
                }
            }
            LogRecord::Cleared { stream, from } => {
                if let Some(head) = self.streams.get_mut(&stream) {
                    head.retained_from = Position(from);
                }
            }
            LogRecord::Session { session, client, entries } => {
                let client: Arc<str> = client.into();
                self.session_log.whole(session, &client, kept());
                let entries = entries.into_iter().map(|(key, value)| (key, Some(value))).collect();
                self.sessions.apply(&SessionChange { client, anew: true, entries });
            }
            LogRecord::SessionChanged { session, entries } => {
                let kept = kept();
                self.session(SessionNote { session, anew: false, entries }, Some(kept), bytes.into());
            }
            LogRecord::Renewed { stream, epoch, from } => {
                self.next_epoch = self.next_epoch.max(Epoch(epoch + 1));
                if let Some(head) = self.streams.get_mut(&stream) {
                    head.entry.epoch_history = head.entry.epoch_history.fork(Position(from), Epoch(epoch));
                }
            }
        }
    }

    fn head(&mut self, state: StreamRecord, kept: Arc<Kept>) {
        let (id, trimmed) = (state.id, Position(state.trimmed));
        let (written, retained_from) = (Position(state.tail), Position(state.retained_from));
        let Some(mut entry) = state.restore(&self.owner, self.now) else {
            tracing::error!(
                stream = id,
                "the record of the state of a stream is invalid; the stream is left out"
            );
            return;
        };
        self.next_epoch = self.next_epoch.max(Epoch(entry.epoch_history.own().0 + 1));
        if entry.state == State::Deleted {
            self.tombstones.insert(id, kept.clone());
        }
        let content = Stored::Kept(kept);
        let before = self.streams.remove(&id).and_then(|head| head.entry.head);
        let copy = before.map_or_else(|| content.clone(), |head| head.content);
        entry.head = Some(entry::WrittenState { content, copy, trimmed });
        self.streams.insert(id, Box::new(ReplayedStream { entry, written, trimmed, retained_from }));
    }

    /// Applies a change of a session. Changes before the first record of the whole session are ignored, since that record
    /// contains them.
    fn session(&mut self, note: SessionNote, kept: Option<Arc<Kept>>, bytes: u64) {
        let SessionNote { session, anew, entries } = note;
        if let Some(client) = self.session_log.changed(session, kept, bytes) {
            self.sessions.apply(&SessionChange { client, anew, entries });
        }
    }

    /// Applies the change of a session that the record of an append contains, if there is one.
    fn session_of_append(&mut self, note: Option<SessionNote>, RecordSpan { place, bytes }: RecordSpan) {
        let Some(note) = note else { return };
        if let Some(segment) = self.segments.get(place.segment) {
            segment.streams.lock().insert(note.session);
        }
        self.session(note, None, bytes.into());
    }

    /// Adds an append with its other properties.
    fn appended(
        &mut self,
        stream: StreamId,
        start: Position,
        at: UnixMillis,
        divided: (Ends, usize),
        said: Option<Box<AppendNote>>,
        kept: Arc<Kept>,
    ) {
        let mut said = said.map(|said| *said);
        let annotation = said.as_mut().and_then(|said| said.annotation.take());
        let span = kept.span();
        let end = self.append(stream, start, at, divided, annotation, kept);
        self.session_of_append(said.as_mut().and_then(|said| said.session.take()), span);
        self.apply_note(stream, end, said, time(at).min(self.now));
    }

    /// Adds messages. Returns the position after them.
    fn append(
        &mut self,
        stream: StreamId,
        start: Position,
        at: UnixMillis,
        (ends, length): (Ends, usize),
        annotation: Option<Note>,
        kept: Arc<Kept>,
    ) -> Position {
        let shape = ends.shape(length);
        let append = Append { start, shape, content: Stored::Kept(kept), at: time(at), annotation: None };
        let end = append.end();
        if end > start {
            self.latest = self.latest.max(append.at);
            let annotation =
                annotation.filter(|note| note.retain).map(|note| Arc::new(note.into_annotation()));
            self.appends.entry(stream).or_default().push(append, annotation);
            if let Some(head) = self.streams.get_mut(&stream) {
                head.entry.decided = head.entry.decided.max(end);
            }
        }
        end
    }

    /// Applies the properties of an append to the writers of its stream. Ignored before the first record of the stream's state,
    /// which contains them.
    fn apply_note(&mut self, stream: StreamId, end: Position, said: Option<AppendNote>, at: SystemTime) {
        let Some(entry) = self.streams.get_mut(&stream).map(|head| &mut head.entry) else { return };
        entry.decided = entry.decided.max(end);
        let Some(said) = said else { return };
        let append = crate::stream::Append {
            close: said.close,
            producer: said.producer.map(super::record::Author::into_producer),
            sequence: said.sequence,
            ..Default::default()
        };
        entry.writers.record(&append, at);
        entry.closed |= append.close;
    }
}
