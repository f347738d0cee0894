//! The records of the log, in format 3. A later format may only add variants at the end, as format 2 added [`LogRecord::Run`]
//! and format 3 [`Ends::Empty`].

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::budget::Owner;
use crate::store::entry::{CreationRequest, Entry, State};
use crate::store::log::{Content, Log};
pub(super) use crate::store::note::{Note, UnixMillis, moment, time};
use crate::stream::{
    Append, ContentType, Create, Epoch, EpochHistory, Fork, Lifetime, Offset, Position, Producer, Retention,
    Shape, Start, StreamName, Writers,
};

/// The id of a stream, which is the epoch of its creation, or of a session.
pub(super) type StreamId = u64;

/// A record. Its messages, if any, follow it as the content of the frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum LogRecord {
    /// The first record of a segment or of a run of the store. `after` is the segment and end offset that it continues,
    /// `synced` whether everything is synced before it is acknowledged from here on, and the others are the next unused
    /// numbers.
    Opened { after: Option<(u32, u32)>, synced: bool, next_stream: StreamId, next_epoch: u64 },
    /// The store was closed, and everything before this record is synced.
    Closed,
    /// A stream is created, with its initial messages.
    Created { stream: Box<StreamRecord>, at: UnixMillis, ends: Ends },
    /// Messages of a stream, and other properties of the append.
    Appended { stream: StreamId, start: u64, at: UnixMillis, ends: Ends, said: Option<Box<AppendNote>> },
    /// Messages that were moved from a segment that is removed.
    Moved { stream: StreamId, start: u64, at: UnixMillis, ends: Ends, annotation: Option<Box<Note>> },
    /// The state of a stream at this point, without its messages. Earlier records of the state are not needed any more.
    State { stream: Box<StreamRecord> },
    /// A stream has ended. Forks may still need its messages.
    Ended { stream: StreamId },
    /// The retained message was cleared; only a message at `from` or later is retained.
    Cleared { stream: StreamId, from: u64 },
    /// A stream continues with another epoch after `from`, because later messages may have been lost. Not written any more.
    Renewed { stream: StreamId, epoch: u64, from: u64 },
    /// A whole session. Earlier records of it are not needed any more.
    Session { session: StreamId, client: Box<str>, entries: Vec<(Bytes, Bytes)> },
    /// A change of a session.
    SessionChanged { session: StreamId, entries: Vec<(Bytes, Option<Bytes>)> },
    /// A stream is created by an append.
    CreatedWith { stream: Box<StreamRecord>, at: UnixMillis, ends: Ends, said: Box<AppendNote> },
    /// The records after this one were written by a run of the store with this epoch. Its appends have this epoch, except in
    /// streams that were created in the run.
    Run { epoch: u64 },
}

impl LogRecord {
    /// What the publisher declared about the messages of the record.
    pub(super) fn into_note(self) -> Option<Box<Note>> {
        match self {
            Self::Appended { said, .. } => said.and_then(|said| said.annotation).map(Box::new),
            Self::CreatedWith { said, .. } => said.annotation.map(Box::new),
            Self::Moved { annotation, .. } => annotation,
            _ => None,
        }
    }
}

/// How the messages of an append are divided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ends {
    /// Bytes, which are one message; without bytes there is no message.
    Raw,
    /// One JSON value.
    One,
    /// JSON values with these ends.
    Many(Box<[u32]>),
    /// One message without bytes.
    Empty,
}

/// The properties of an append besides its messages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AppendNote {
    pub(super) close: bool,
    pub(super) producer: Option<Author>,
    pub(super) sequence: Option<Box<str>>,
    pub(super) annotation: Option<Note>,
    pub(super) session: Option<SessionNote>,
}

/// A change of a session that is made together with an append.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SessionNote {
    pub(super) session: StreamId,
    pub(super) anew: bool,
    pub(super) entries: Vec<(Bytes, Option<Bytes>)>,
}

/// The producer of an append, with its epoch and sequence.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Author {
    pub(super) id: Box<str>,
    pub(super) epoch: u64,
    pub(super) sequence: u64,
}

/// The state of a stream: everything except its messages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StreamRecord {
    pub(super) id: StreamId,
    pub(super) name: Box<str>,
    content_type: Box<str>,
    lifetime: LifetimeRecord,
    retention: RetentionRecord,
    asked_lifetime: Option<LifetimeRecord>,
    asked_retention: Option<RetentionRecord>,
    fork: Option<ForkPoint>,
    /// Earlier epochs with their last positions, and the current epoch.
    epoch_history: (Vec<(u64, u64)>, u64),
    /// The streams that the log consists of, as earlier creation epochs with their last positions.
    origin: Vec<(u64, u64)>,
    producers: Vec<(Author, UnixMillis)>,
    sequence: Option<Box<str>>,
    /// Set if the stream is closed, with the producer that closed it.
    closed: Option<Option<Author>>,
    /// Everything before this position is trimmed. A later position without a message was damaged.
    pub(super) trimmed: u64,
    pub(super) tail: u64,
    /// Only a message at this position or later can be retained.
    pub(super) retained_from: u64,
    /// The stream has ended, and its name is kept for forks.
    pub(super) ended: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum LifetimeRecord {
    Unlimited,
    Idle(Duration),
    Until(UnixMillis),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct RetentionRecord {
    messages_max: Option<u64>,
    bytes_max: Option<u64>,
    age_max: Option<Duration>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ForkPoint {
    source: Box<str>,
    /// `None` is the tail, `Some(None)` the beginning.
    offset: Option<Option<(u64, u64)>>,
    sub_offset: u64,
}

impl Ends {
    pub(super) fn of(shape: &Shape) -> Self {
        match (shape.is_json(), shape.ends()) {
            (false, _) if shape.is_empty_message() => Self::Empty,
            (false, _) => Self::Raw,
            (true, []) => Self::One,
            (true, ends) => Self::Many(ends.into()),
        }
    }

    /// The shape of `length` bytes of content.
    pub(super) fn shape(self, length: usize) -> Shape {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        match self {
            Self::Raw => Shape::raw(length),
            Self::One => Shape::json(length, Vec::new()),
            Self::Many(ends) => Shape::json(length, ends.into_vec()),
            Self::Empty => Shape::message(0),
        }
    }
}

impl AppendNote {
    /// The properties of an append; `None` if it has none.
    pub(super) fn of(append: &Append, session: Option<SessionNote>) -> Option<Box<Self>> {
        let said = Self {
            close: append.close,
            producer: append.producer.as_ref().map(Author::of),
            sequence: append.sequence.clone(),
            annotation: append.annotation.as_deref().map(Note::of),
            session,
        };
        let silent = !said.close
            && said.producer.is_none()
            && said.sequence.is_none()
            && said.annotation.is_none()
            && said.session.is_none();
        (!silent).then(|| Box::new(said))
    }
}

impl Author {
    fn of(producer: &Producer) -> Self {
        Self { id: (&*producer.id).into(), epoch: producer.epoch, sequence: producer.sequence }
    }

    pub(super) fn into_producer(self) -> Producer {
        Producer { id: Arc::from(self.id), epoch: self.epoch, sequence: self.sequence }
    }
}

impl StreamRecord {
    /// The state of a stream after all decided changes.
    pub(super) fn of<C: Content>(entry: &Entry<C>) -> Self {
        let author = |producer: &Producer| Author::of(producer);
        let producers = entry.writers.producers().map(|(id, epoch, sequence, seen)| {
            (Author { id: (&**id).into(), epoch, sequence }, moment(seen))
        });
        Self {
            id: entry.origin.own().0,
            name: entry.name.as_str().into(),
            content_type: entry.content_type.as_str().into(),
            lifetime: LifetimeRecord::of(entry.lifetime),
            retention: RetentionRecord::of(entry.retention),
            asked_lifetime: entry.asked.lifetime.map(LifetimeRecord::of),
            asked_retention: entry.asked.retention.map(RetentionRecord::of),
            fork: entry.asked.fork.as_ref().map(ForkPoint::of),
            epoch_history: (ancestors(&entry.epoch_history), entry.epoch_history.own().0),
            origin: ancestors(&entry.origin),
            producers: producers.collect(),
            sequence: entry.writers.last_sequence().map(Into::into),
            closed: entry.writers.is_closed().then(|| entry.writers.closed_by().map(author)),
            trimmed: entry.log.trimmed().0,
            tail: entry.decided.0,
            retained_from: entry.retained.as_ref().map_or(entry.log.tail(), |record| record.start).0,
            ended: entry.state == State::Deleted,
        }
    }

    /// The maximum size of the record in bytes.
    pub(super) fn bytes_max(&self) -> usize {
        let texts = [Some(&self.name), Some(&self.content_type), self.sequence.as_ref()];
        let texts: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
        let producers: usize = self.producers.iter().map(|(author, _)| author.id.len() + 40).sum();
        let closer = self.closed.iter().flatten().map(|author| author.id.len() + 40).sum::<usize>();
        let source = self.fork.as_ref().map_or(0, |fork| fork.source.len() + 40);
        texts + producers + closer + source + 20 * (self.epoch_history.0.len() + self.origin.len()) + 200
    }

    /// The stream without its messages; `None` if the state is invalid.
    pub(super) fn restore<C: Content>(self, owner: &Arc<Owner>, now: SystemTime) -> Option<Entry<C>> {
        let name = StreamName::stored(&self.name).ok()?;
        let asked = CreationRequest {
            lifetime: self.asked_lifetime.map(LifetimeRecord::lifetime),
            retention: self.asked_retention.map(RetentionRecord::retention),
            fork: match self.fork {
                Some(fork) => Some(fork.fork()?),
                None => None,
            },
        };
        let create = Create {
            lifetime: asked.lifetime,
            retention: asked.retention,
            fork: asked.fork,
            ..Create::open(ContentType::stored(&self.content_type).ok()?)
        };
        let origin = epoch_history(self.origin, self.id);
        // The principals are forgotten, the tenant is not.
        let owner = &owner.in_tenant(name.tenant());
        let mut entry = Entry::new(&name, &create, origin, Log::empty(Position(self.tail)), owner, now);
        entry.lifetime = self.lifetime.lifetime();
        entry.retention = self.retention.retention();
        entry.epoch_history = epoch_history(self.epoch_history.0, self.epoch_history.1);
        entry.closed = self.closed.is_some();
        let producers = self.producers.into_iter();
        let producers = producers.map(|(author, seen)| (author.into_producer(), time(seen).min(now)));
        let closed = self.closed.map(|by| by.map(Author::into_producer));
        entry.writers = Writers::remembered(producers, self.sequence, closed);
        entry.state = if self.ended { State::Deleted } else { State::Live };
        Some(entry)
    }
}

fn ancestors(epoch_history: &EpochHistory) -> Vec<(u64, u64)> {
    epoch_history.ancestors().iter().map(|(epoch, end)| (epoch.0, end.0)).collect()
}

fn epoch_history(ancestors: Vec<(u64, u64)>, own: u64) -> EpochHistory {
    let ancestors = ancestors.into_iter().map(|(epoch, end)| (Epoch(epoch), Position(end)));
    EpochHistory::of(ancestors.collect(), Epoch(own))
}

impl LifetimeRecord {
    fn of(lifetime: Lifetime) -> Self {
        match lifetime {
            Lifetime::Unlimited => Self::Unlimited,
            Lifetime::Idle(idle) => Self::Idle(idle),
            Lifetime::Until(end) => Self::Until(moment(end)),
        }
    }

    fn lifetime(self) -> Lifetime {
        match self {
            Self::Unlimited => Lifetime::Unlimited,
            Self::Idle(idle) => Lifetime::Idle(idle),
            Self::Until(end) => Lifetime::Until(time(end)),
        }
    }
}

impl RetentionRecord {
    fn of(Retention { messages_max, bytes_max, age_max }: Retention) -> Self {
        Self { messages_max, bytes_max, age_max }
    }

    fn retention(self) -> Retention {
        let Self { messages_max, bytes_max, age_max } = self;
        Retention { messages_max, bytes_max, age_max }
    }
}

impl ForkPoint {
    fn of(fork: &Fork) -> Self {
        let offset = fork.offset.and_then(|start| match start {
            Start::Tail => None,
            Start::Earliest => Some(None),
            Start::At(offset) => Some(Some((offset.epoch.0, offset.position.0))),
        });
        Self { source: fork.source.as_str().into(), offset, sub_offset: fork.sub_offset }
    }

    fn fork(self) -> Option<Fork> {
        let offset = self.offset.map(|offset| match offset {
            None => Start::Earliest,
            Some((epoch, position)) => {
                Start::At(Offset { epoch: Epoch(epoch), position: Position(position) })
            }
        });
        Some(Fork { source: StreamName::stored(&self.source).ok()?, offset, sub_offset: self.sub_offset })
    }
}
