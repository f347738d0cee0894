//! From the records of the log to the streams that they make.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::record::{Ends, Moment, Record, Said, SessionNote, StreamId, StreamState, time};
use super::scan::Scanned;
use super::segment::{Kept, Segments, Span};
use super::session_log::SessionLog;
use crate::store::entry::{self, Entry, State};
use crate::store::log::{Log, Record as Append};
use crate::store::sessions::Sessions;
use crate::stream::{Annotation, Epoch, Position, SessionChange, StreamName};

/// What has been read so far.
pub(super) struct Replay {
    segments: Arc<Segments>,
    now: SystemTime,
    streams: HashMap<StreamId, Head>,
    appends: HashMap<StreamId, Vec<Append<Arc<Kept>>>>,
    /// Where it is written that a stream has ended.
    pub(super) graves: HashMap<StreamId, Arc<Kept>>,
    sessions: Sessions,
    session_log: SessionLog,
    pub(super) next_stream: StreamId,
    pub(super) next_epoch: Epoch,
    /// Whether all that was acknowledged in the last run was synced first.
    pub(super) synced: bool,
    /// Whether the last run came to an end of its own.
    pub(super) closed: bool,
    pub(super) records: u64,
}

/// A stream without its messages.
struct Head {
    entry: Entry<Arc<Kept>>,
    /// The tail at which this was written.
    written: Position,
    earliest: Position,
    retained_from: Position,
}

impl Replay {
    pub(super) fn new(segments: Arc<Segments>, now: SystemTime) -> Self {
        Self {
            segments,
            now,
            streams: HashMap::new(),
            appends: HashMap::new(),
            graves: HashMap::new(),
            sessions: Sessions::default(),
            session_log: SessionLog::default(),
            next_stream: 1,
            next_epoch: Epoch(0),
            synced: true,
            closed: true,
            records: 0,
        }
    }

    pub(super) fn take(&mut self, scanned: Scanned) {
        self.records += 1;
        self.closed = matches!(scanned.record, Record::Closed);
        let Scanned { place, bytes, record, content } = scanned;
        let kept = || Kept::new(&self.segments, place, bytes);
        let stream = match &record {
            Record::Opened { .. } | Record::Closed => None,
            Record::Created { stream, .. }
            | Record::CreatedWith { stream, .. }
            | Record::State { stream } => Some(stream.id),
            Record::Appended { stream, .. }
            | Record::Moved { stream, .. }
            | Record::Ended { stream }
            | Record::Cleared { stream, .. }
            | Record::Renewed { stream, .. }
            | Record::Session { session: stream, .. }
            | Record::SessionChanged { session: stream, .. } => Some(*stream),
        };
        if let (Some(stream), Some(segment)) = (stream, self.segments.get(place.segment)) {
            segment.streams.lock().insert(stream);
            self.next_stream = self.next_stream.max(stream + 1);
        }
        match record {
            Record::Opened { synced, next_stream, next_epoch, .. } => {
                self.synced = synced;
                self.next_stream = self.next_stream.max(next_stream);
                self.next_epoch = self.next_epoch.max(Epoch(next_epoch));
            }
            Record::Closed => {}
            Record::Created { stream, at, ends } => {
                let (id, tail, kept) = (stream.id, Position(stream.tail), kept());
                self.head(*stream, kept.clone());
                self.append(id, tail, at, (ends, content.len()), None, kept);
            }
            Record::State { stream } => {
                let kept = kept();
                self.head(*stream, kept);
            }
            Record::CreatedWith { stream, at, ends, said } => {
                let (id, start, kept) = (stream.id, Position(stream.tail), kept());
                self.head(*stream, kept.clone());
                self.appended(id, start, at, (ends, content.len()), Some(said), kept);
            }
            Record::Appended { stream, start, at, ends, said } => {
                let kept = kept();
                self.appended(stream, Position(start), at, (ends, content.len()), said, kept);
            }
            Record::Moved { stream, start, at, ends, annotation } => {
                let annotation = annotation.map(|note| Arc::new(note.into_annotation()));
                let kept = kept();
                self.append(stream, Position(start), at, (ends, content.len()), annotation, kept);
            }
            Record::Ended { stream } => {
                self.graves.insert(stream, kept());
                if let Some(head) = self.streams.get_mut(&stream) {
                    head.entry.state = State::Deleted;
                }
            }
            Record::Cleared { stream, from } => {
                if let Some(head) = self.streams.get_mut(&stream) {
                    head.retained_from = Position(from);
                }
            }
            Record::Session { session, client, entries } => {
                let client: Arc<str> = client.into();
                self.session_log.whole(session, &client, kept());
                let entries = entries.into_iter().map(|(key, value)| (key, Some(value))).collect();
                self.sessions.apply(&SessionChange { client, anew: true, entries });
            }
            Record::SessionChanged { session, entries } => {
                let kept = kept();
                self.session(SessionNote { session, anew: false, entries }, Some(kept), bytes.into());
            }
            Record::Renewed { stream, epoch, from } => {
                self.next_epoch = self.next_epoch.max(Epoch(epoch + 1));
                if let Some(head) = self.streams.get_mut(&stream) {
                    head.entry.lineage = head.entry.lineage.fork(Position(from), Epoch(epoch));
                }
            }
        }
    }

    fn head(&mut self, state: StreamState, kept: Arc<Kept>) {
        let (id, earliest) = (state.id, Position(state.earliest));
        let (written, retained_from) = (Position(state.tail), Position(state.retained_from));
        let Some(mut entry) = state.restore(self.now) else {
            tracing::error!(stream = id, "the state of a stream is not one, and is left out");
            return;
        };
        self.next_epoch = self.next_epoch.max(Epoch(entry.lineage.own().0 + 1));
        entry.head = Some(entry::Head { content: kept, earliest });
        self.streams.insert(id, Head { entry, written, earliest, retained_from });
    }

    /// Takes a change of a session. Of one that is not known yet all is written again behind it.
    fn session(&mut self, note: SessionNote, kept: Option<Arc<Kept>>, bytes: u64) {
        let SessionNote { session, anew, entries } = note;
        if let Some(client) = self.session_log.changed(session, kept, bytes) {
            self.sessions.apply(&SessionChange { client, anew, entries });
        }
    }

    /// Takes an append, and what was said with it.
    fn appended(
        &mut self,
        stream: StreamId,
        start: Position,
        at: Moment,
        divided: (Ends, usize),
        said: Option<Box<Said>>,
        kept: Arc<Kept>,
    ) {
        let mut said = said.map(|said| *said);
        let annotation = said.as_mut().and_then(|said| said.annotation.take());
        let annotation = annotation.map(|note| Arc::new(note.into_annotation()));
        let Span { place, bytes } = kept.span();
        let end = self.append(stream, start, at, divided, annotation, kept);
        if let Some(note) = said.as_mut().and_then(|said| said.session.take()) {
            if let Some(segment) = self.segments.get(place.segment) {
                segment.streams.lock().insert(note.session);
            }
            self.session(note, None, bytes.into());
        }
        self.heard(stream, end, said, time(at));
    }

    /// Takes messages. Returns where they end.
    fn append(
        &mut self,
        stream: StreamId,
        start: Position,
        at: Moment,
        (ends, length): (Ends, usize),
        annotation: Option<Arc<Annotation>>,
        kept: Arc<Kept>,
    ) -> Position {
        let shape = ends.shape(length);
        let append = Append { start, shape, content: kept, at: time(at), annotation };
        let end = append.end();
        if end > start {
            self.appends.entry(stream).or_default().push(append);
            if let Some(head) = self.streams.get_mut(&stream) {
                head.entry.decided = head.entry.decided.max(end);
            }
        }
        end
    }

    /// What an append said to the rules of its stream. If the stream's state comes later, it knows that already.
    fn heard(&mut self, stream: StreamId, end: Position, said: Option<Said>, at: SystemTime) {
        let Some(Head { entry, .. }) = self.streams.get_mut(&stream) else { return };
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

    /// The streams, each as it was. Those that have ended are there only while forks of them are.
    pub(super) fn into_streams(mut self) -> Restored {
        self.leave_out_older_lives();
        self.count_forks();
        for appends in self.appends.values_mut() {
            // What was moved comes twice if the segment that it was moved from is still there.
            appends.sort_by_key(|append| append.start);
            appends.dedup_by_key(|append| append.start);
        }
        let appends = self.appends;
        let streams = self.streams.into_values().map(|head| head.into_entry(&appends)).collect();
        let (next_stream, next_epoch) = (self.next_stream, self.next_epoch);
        let (graves, sessions, session_log) = (self.graves, self.sessions, self.session_log);
        Restored { streams, graves, sessions, session_log, next_stream, next_epoch }
    }

    /// A name that was kept for forks is free once they are gone, which is not written. If it was taken again, they are,
    /// and whoever counts forks by name must not count those of the newer stream for the older one.
    fn leave_out_older_lives(&mut self) {
        let mut newest: HashMap<StreamName, StreamId> = HashMap::new();
        for (id, head) in &self.streams {
            let known = newest.entry(head.entry.name.clone()).or_insert(*id);
            *known = (*known).max(*id);
        }
        self.streams.retain(|id, head| newest.get(&head.entry.name) == Some(id));
    }

    fn count_forks(&mut self) {
        loop {
            let mut forks: HashMap<StreamName, usize> = HashMap::new();
            for head in self.streams.values() {
                if let Some(fork) = &head.entry.asked.fork {
                    *forks.entry(fork.source.clone()).or_default() += 1;
                }
            }
            let before = self.streams.len();
            self.streams.retain(|_, Head { entry, .. }| {
                entry.forks = forks.get(&entry.name).copied().unwrap_or_default();
                entry.state != State::Deleted || entry.forks > 0
            });
            if self.streams.len() == before {
                return;
            }
        }
    }
}

/// What the log says.
pub(super) struct Restored {
    pub(super) streams: Vec<Entry<Arc<Kept>>>,
    pub(super) graves: HashMap<StreamId, Arc<Kept>>,
    pub(super) sessions: Sessions,
    pub(super) session_log: SessionLog,
    pub(super) next_stream: StreamId,
    pub(super) next_epoch: Epoch,
}

impl Head {
    fn into_entry(self, appends: &HashMap<StreamId, Vec<Append<Arc<Kept>>>>) -> Entry<Arc<Kept>> {
        let Self { mut entry, written, earliest, retained_from } = self;
        if entry.state == State::Deleted {
            return entry;
        }
        let mut records = records(&entry, earliest, appends);
        let later = records.split_off(records.partition_point(|append| append.start < written));
        entry.log =
            Log::restore(earliest, later.first().map_or(entry.decided, |append| append.start), records);
        // Trimmed after each as it was then, since how far that goes depends on the steps.
        for append in later {
            let at = append.at;
            entry.log.push(append);
            entry.trim(at);
        }
        let own = appends.get(&entry.origin.own().0).map(Vec::as_slice).unwrap_or_default();
        let retains = |append: &&Append<_>| {
            append.start >= retained_from
                && append.end() <= entry.log.tail()
                && append.annotation.as_ref().is_some_and(|annotation| annotation.retain)
        };
        entry.retained = own.iter().rev().find(retains).cloned();
        entry.decided = entry.log.tail();
        entry
    }
}

/// The appends of a stream that may be kept: its own behind those that it shares with others, as far as one follows the
/// other. What is missing in front was trimmed.
fn records(
    entry: &Entry<Arc<Kept>>,
    earliest: Position,
    appends: &HashMap<StreamId, Vec<Append<Arc<Kept>>>>,
) -> Vec<Append<Arc<Kept>>> {
    let ancestors = entry.origin.ancestors().iter().copied();
    let stretches = ancestors.chain([(entry.origin.own(), Position(u64::MAX))]);
    let (mut records, mut from): (Vec<Append<_>>, _) = (Vec::new(), Position(0));
    for (origin, to) in stretches {
        let of_it = appends.get(&origin.0).map(Vec::as_slice).unwrap_or_default();
        for append in of_it.iter().filter(|append| append.start >= from && append.start < to) {
            let shape = append.shape.until(to.since(append.start));
            let append = Append { shape, ..append.clone() };
            if append.end() <= earliest {
                continue;
            }
            if records.last().is_some_and(|last| last.end() != append.start) {
                return records;
            }
            records.push(append);
        }
        from = to;
    }
    records
}
