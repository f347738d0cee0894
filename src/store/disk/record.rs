//! What is written: the records of format 2. A later format may add kinds of records at the end, and nothing else, as
//! format 2 has added `Run` to format 1.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::budget::Owner;
use crate::store::entry::{CreationRequest, Entry, State};
use crate::store::log::{Content, Log};
use crate::stream::{
    Annotation, Append, ContentType, Create, Epoch, EpochHistory, Fork, Lifetime, Offset, Position, Producer,
    QoS, Retention, Shape, Start, StreamName, Writers,
};

/// A stream, by the epoch of its creation; or a session.
pub(super) type StreamId = u64;

/// A record; the messages, if it has some, follow as they are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum LogRecord {
    /// The log goes on here, behind another segment that ends at an offset; whether all that is acknowledged from here
    /// on is synced first; and which numbers are not in use yet.
    Opened { after: Option<(u32, u32)>, synced: bool, next_stream: StreamId, next_epoch: u64 },
    /// The store was closed, and all before is synced.
    Closed,
    /// A stream begins, with its first messages.
    Created { stream: Box<StreamRecord>, at: UnixMillis, ends: Ends },
    /// Messages of a stream, and what was said with them.
    Appended { stream: StreamId, start: u64, at: UnixMillis, ends: Ends, said: Option<Box<AppendNote>> },
    /// Messages that were moved here from a segment that is given up.
    Moved { stream: StreamId, start: u64, at: UnixMillis, ends: Ends, annotation: Option<Box<Note>> },
    /// All of a stream but its messages, as it is at this point. It makes what was written before dispensable.
    State { stream: Box<StreamRecord> },
    /// A stream has ended. Its messages may be needed by forks.
    Ended { stream: StreamId },
    /// The retained message was cleared; only one that starts here or later is retained.
    Cleared { stream: StreamId, from: u64 },
    /// A stream goes on with another epoch, since behind `from` something may have been lost.
    Renewed { stream: StreamId, epoch: u64, from: u64 },
    /// All of a session. It makes what was written before dispensable.
    Session { session: StreamId, client: Box<str>, entries: Vec<(Bytes, Bytes)> },
    /// A change of a session.
    SessionChanged { session: StreamId, entries: Vec<(Bytes, Option<Bytes>)> },
    /// A stream begins, with an append and what was said with it.
    CreatedWith { stream: Box<StreamRecord>, at: UnixMillis, ends: Ends, said: Box<AppendNote> },
    /// What follows was written by a run of the store whose appends have this epoch, unless their stream began in it.
    Run { epoch: u64 },
}

impl LogRecord {
    /// What the publisher of its messages said.
    pub(super) fn into_note(self) -> Option<Box<Note>> {
        match self {
            Self::Appended { said, .. } => said.and_then(|said| said.annotation).map(Box::new),
            Self::CreatedWith { said, .. } => said.annotation.map(Box::new),
            Self::Moved { annotation, .. } => annotation,
            _ => None,
        }
    }
}

/// Milliseconds since 1970.
pub(super) type UnixMillis = i64;

/// How the messages of an append are divided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ends {
    /// Not at all: bytes.
    Raw,
    /// One JSON value.
    One,
    /// JSON values that end there.
    Many(Box<[u32]>),
}

/// What an append says beside its messages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AppendNote {
    pub(super) close: bool,
    pub(super) producer: Option<Author>,
    pub(super) sequence: Option<Box<str>>,
    pub(super) annotation: Option<Note>,
    pub(super) session: Option<SessionNote>,
}

/// A change that goes with an append.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SessionNote {
    pub(super) session: StreamId,
    pub(super) anew: bool,
    pub(super) entries: Vec<(Bytes, Option<Bytes>)>,
}

/// A producer and the sequence of its append.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Author {
    pub(super) id: Box<str>,
    pub(super) epoch: u64,
    pub(super) sequence: u64,
}

/// An annotation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Note {
    publisher: Box<str>,
    quality: u8,
    pub(super) retain: bool,
    expires_at: Option<UnixMillis>,
    is_text: bool,
    content_type: Option<Box<str>>,
    response_topic: Option<Box<str>>,
    correlation: Option<Box<[u8]>>,
    user_properties: Vec<(Box<str>, Box<str>)>,
}

/// All of a stream but its messages.
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
    /// Epochs and the positions at which they end, and the own one.
    epoch_history: (Vec<(u64, u64)>, u64),
    /// Whose messages the log is made of, in the same way.
    origin: Vec<(u64, u64)>,
    producers: Vec<(Author, UnixMillis)>,
    sequence: Option<Box<str>>,
    /// Closed, and by whom.
    closed: Option<Option<Author>>,
    pub(super) earliest: u64,
    pub(super) tail: u64,
    /// Only a message that starts here or later is retained.
    pub(super) retained_from: u64,
    /// Ended, and kept for its forks.
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
    /// `None`: the tail. `Some(None)`: the beginning.
    offset: Option<Option<(u64, u64)>>,
    sub_offset: u64,
}

/// A time of day as it is written.
pub(super) fn moment(time: SystemTime) -> UnixMillis {
    let after = time.duration_since(SystemTime::UNIX_EPOCH).map(|after| after.as_millis());
    after.ok().and_then(|after| i64::try_from(after).ok()).unwrap_or_default()
}

/// A time of day as it was written.
pub(super) fn time(moment: UnixMillis) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(moment).unwrap_or_default())
}

impl Ends {
    pub(super) fn of(shape: &Shape) -> Self {
        match (shape.is_json(), shape.ends()) {
            (false, _) => Self::Raw,
            (true, []) => Self::One,
            (true, ends) => Self::Many(ends.into()),
        }
    }

    /// The shape of `length` bytes that are so divided.
    pub(super) fn shape(self, length: usize) -> Shape {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        match self {
            Self::Raw => Shape::raw(length),
            Self::One => Shape::json(length, Vec::new()),
            Self::Many(ends) => Shape::json(length, ends.into_vec()),
        }
    }
}

impl AppendNote {
    /// What an append says, if anything.
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

impl Note {
    pub(super) fn of(annotation: &Annotation) -> Self {
        Self {
            publisher: annotation.publisher.clone(),
            quality: annotation.qos as u8,
            retain: annotation.retain,
            expires_at: annotation.expires_at.map(moment),
            is_text: annotation.is_text,
            content_type: annotation.content_type.clone(),
            response_topic: annotation.response_topic.clone(),
            correlation: annotation.correlation.as_deref().map(Into::into),
            user_properties: annotation.user_properties.clone(),
        }
    }

    pub(super) fn into_annotation(self) -> Annotation {
        Annotation {
            publisher: self.publisher,
            qos: match self.quality {
                0 => QoS::AtMostOnce,
                1 => QoS::AtLeastOnce,
                _ => QoS::ExactlyOnce,
            },
            retain: self.retain,
            expires_at: self.expires_at.map(time),
            is_text: self.is_text,
            content_type: self.content_type,
            response_topic: self.response_topic,
            correlation: self.correlation.map(|bytes| bytes.into_vec().into()),
            user_properties: self.user_properties,
        }
    }
}

impl StreamRecord {
    /// The state of a stream as far as decided.
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
            earliest: entry.log.earliest().0,
            tail: entry.decided.0,
            retained_from: entry.retained.as_ref().map_or(entry.log.tail(), |record| record.start).0,
            ended: entry.state == State::Deleted,
        }
    }

    /// How many bytes it takes at the most.
    pub(super) fn bytes_max(&self) -> usize {
        let texts = [Some(&self.name), Some(&self.content_type), self.sequence.as_ref()];
        let texts: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
        let producers: usize = self.producers.iter().map(|(author, _)| author.id.len() + 40).sum();
        let closer = self.closed.iter().flatten().map(|author| author.id.len() + 40).sum::<usize>();
        let source = self.fork.as_ref().map_or(0, |fork| fork.source.len() + 40);
        texts + producers + closer + source + 20 * (self.epoch_history.0.len() + self.origin.len()) + 200
    }

    /// The stream without its messages; `None`: what was written is not one.
    pub(super) fn restore<C: Content>(self, owner: &Arc<Owner>, now: SystemTime) -> Option<Entry<C>> {
        let name = StreamName::parse(&self.name).ok()?;
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
        Some(Fork { source: StreamName::parse(&self.source).ok()?, offset, sub_offset: self.sub_offset })
    }
}
