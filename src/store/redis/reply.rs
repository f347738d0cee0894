//! The answers of the function library as values of the store contract.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use redis::Value;

use crate::store::log::Record;
use crate::store::note::{Note, time};
use crate::stream::{
    ContentType, Description, Epoch, EpochHistory, Gap, GapReason, Lifetime, Offset, Position, ReadError,
    Retention, Shape, Start,
};

/// The metadata of a stream that every answer has.
#[derive(Debug, Clone)]
pub(super) struct StreamHead {
    pub(super) history: EpochHistory,
    pub(super) tail: Position,
    pub(super) earliest: Position,
    pub(super) closed: bool,
    pub(super) content_type: ContentType,
    pub(super) lifetime: Lifetime,
    pub(super) retention: Retention,
    /// `None`: no message is kept.
    pub(super) appended_at: Option<SystemTime>,
}

/// Lines of the metadata: the epoch, and what differs between the appends of a call.
const EPOCH: usize = 0;
const TAIL: usize = 2;
const CLOSED: usize = 4;

/// An answer: its verdict, and what follows it.
#[derive(Debug)]
pub(super) struct EngineReply {
    pub(super) verdict: String,
    rest: Vec<Value>,
}

impl EngineReply {
    /// Parses an answer. `None`: the library has another version, or the keys are damaged.
    pub(super) fn of(value: Value) -> Option<Self> {
        let mut items = items(value)?;
        if items.is_empty() {
            return None;
        }
        Some(Self { verdict: text(items.remove(0))?, rest: items })
    }

    /// Parses the answers to the appends of a call. Only the first that has metadata of the stream has all of it; the others have its tail,
    /// and whether it is closed.
    pub(super) fn of_appends(values: Vec<Value>) -> impl Iterator<Item = Option<Self>> {
        let mut all = String::new();
        values.into_iter().map(move |value| {
            let mut reply = Self::of(value)?;
            if let Some(Value::BulkString(head)) = reply.rest.first_mut() {
                let lines = str::from_utf8(head).ok()?;
                match lines.split_once('\n') {
                    Some((_, closed)) if closed.contains('\n') => lines.clone_into(&mut all),
                    Some((tail, closed)) => *head = with_tail(&all, tail, closed).into_bytes(),
                    None => {}
                }
            }
            Some(reply)
        })
    }

    /// The epoch and tail of the stream after an append that is new, and whether it is closed. `None`: this is no verdict on one.
    pub(super) fn moved_to(&self) -> Option<(Epoch, Position, bool)> {
        let is_new = matches!(&*self.verdict, "new" | "created");
        let Some(Value::BulkString(head)) = self.rest.first().filter(|_| is_new) else { return None };
        let lines: Vec<&str> = str::from_utf8(head).ok()?.split('\n').collect();
        let line = |index: usize| lines.get(index).copied();
        Some((epoch_of(line(EPOCH)?)?, Position(line(TAIL)?.parse().ok()?), !line(CLOSED)?.is_empty()))
    }

    /// Takes the item at `index` behind the verdict.
    pub(super) fn take(&mut self, index: usize) -> Option<Value> {
        self.rest.get_mut(index).map(std::mem::take)
    }

    /// Takes the text at `index` behind the verdict; empty if there is none.
    pub(super) fn text(&mut self, index: usize) -> String {
        self.take(index).and_then(text).unwrap_or_default()
    }

    /// Takes the metadata of the stream, which is the first item behind the verdict.
    pub(super) fn head(&mut self) -> Option<StreamHead> {
        StreamHead::of(self.take(0)?)
    }
}

/// The metadata `all` with another tail, and closed or not.
fn with_tail(all: &str, tail: &str, closed: &str) -> String {
    let lines = all.split('\n').enumerate().map(|(index, line)| match index {
        TAIL => tail,
        CLOSED => closed,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

impl StreamHead {
    /// Parses metadata, which are lines.
    pub(super) fn of(value: Value) -> Option<Self> {
        let text = text(value)?;
        let lines: Vec<&str> = text.split('\n').collect();
        let [epoch, ancestors, tail, earliest, closed, content_type, lifetime, retention, appended] =
            lines.try_into().ok()?;
        let ancestor = |text: &str| {
            let (epoch, end) = text.split_once(':')?;
            Some((epoch_of(epoch)?, Position(end.parse().ok()?)))
        };
        let ancestors = ancestors.split(',').filter(|text| !text.is_empty()).map(ancestor);
        Some(Self {
            history: EpochHistory::of(ancestors.collect::<Option<_>>()?, epoch_of(epoch)?),
            tail: Position(tail.parse().ok()?),
            earliest: Position(earliest.parse().ok()?),
            closed: !closed.is_empty(),
            content_type: ContentType::stored(content_type).ok()?,
            lifetime: lifetime_of(lifetime)?,
            retention: retention_of(retention)?,
            appended_at: appended.parse().ok().filter(|at| *at > 0).map(time),
        })
    }

    pub(super) fn tail_offset(&self) -> Offset {
        self.history.offset_at(self.tail)
    }

    pub(super) fn description(self) -> Description {
        Description {
            earliest: self.history.offset_at(self.earliest),
            tail: self.tail_offset(),
            content_type: self.content_type,
            closed: self.closed,
            lifetime: self.lifetime,
            retention: self.retention,
            appended_at: self.appended_at,
            has_origin: false,
        }
    }

    /// The position of `start`. Fails if a reader cannot continue from there.
    pub(super) fn locate(&self, start: Start) -> Result<Position, ReadError> {
        let gap = |reason| ReadError::Gap(Gap { reason, earliest: self.history.offset_at(self.earliest) });
        let position = match start {
            Start::Earliest => return Ok(self.earliest),
            Start::Tail => return Ok(self.tail),
            Start::At(offset) => self.history.position_of(offset).map_err(|_| gap(GapReason::Epoch))?,
        };
        if position > self.tail {
            return Err(ReadError::BehindTail);
        }
        match self.earliest.since(position) {
            0 => Ok(position),
            missed => Err(gap(GapReason::Trimmed { missed })),
        }
    }

    /// How long the stream will exist at least.
    pub(super) fn lives_for(&self, wall: SystemTime) -> Option<Duration> {
        match self.lifetime {
            Lifetime::Unlimited => None,
            Lifetime::Idle(idle) => Some(idle),
            Lifetime::Until(end) => Some(end.duration_since(wall).unwrap_or_default()),
        }
    }
}

pub(super) fn items(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) | Value::Set(items) => Some(items),
        Value::Map(pairs) => Some(pairs.into_iter().flat_map(|(key, value)| [key, value]).collect()),
        _ => None,
    }
}

/// The entries of a session, as `HGETALL` returns them.
pub(super) fn entries(value: Value) -> Option<Vec<(Bytes, Bytes)>> {
    let fields: Option<Vec<Bytes>> = items(value)?.into_iter().map(bytes).collect();
    let mut fields = fields?.into_iter();
    Some(std::iter::from_fn(|| fields.next().zip(fields.next())).collect())
}

pub(super) fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into_bytes().into()),
        Value::Okay => Some(Bytes::from_static(b"OK")),
        Value::Int(number) => Some(number.to_string().into_bytes().into()),
        _ => None,
    }
}

/// The records of news, a list as `XRANGE` returns it.
pub(super) fn records(encoded: &[u8]) -> Option<Vec<Record<Bytes>>> {
    items(redis::parse_redis_value(encoded).ok()?)?.into_iter().map(record).collect()
}

pub(super) fn text(value: Value) -> Option<String> {
    String::from_utf8(bytes(value)?.into()).ok()
}

pub(super) fn epoch_of(text: &str) -> Option<Epoch> {
    u64::from_str_radix(text, 16).ok().map(Epoch)
}

/// A record of the log, as `XRANGE` returns it.
pub(super) fn record(entry: Value) -> Option<Record<Bytes>> {
    let [id, fields]: [Value; 2] = items(entry)?.try_into().ok()?;
    let id = text(id)?;
    let start = id.strip_prefix("0-")?.parse::<u64>().ok()?.checked_sub(1)?;
    record_of(start, items(fields)?)
}

/// The retained message, as `HGETALL` returns it. `Some(None)`: there is none.
pub(super) fn retained(fields: Value) -> Option<Option<Record<Bytes>>> {
    let fields = items(fields)?;
    if fields.is_empty() {
        return Some(None);
    }
    let is_start = |pair: &[Value]| matches!(pair.first(), Some(Value::BulkString(key)) if key == b"start");
    let start = fields.chunks(2).find(|pair| is_start(pair)).and_then(|pair| pair.get(1)).cloned();
    record_of(text(start?)?.parse().ok()?, fields).map(Some)
}

fn record_of(start: u64, fields: Vec<Value>) -> Option<Record<Bytes>> {
    let (mut content, mut header, mut ends, mut annotation) =
        (Bytes::new(), String::new(), Bytes::new(), None);
    let mut fields = fields.into_iter();
    while let Some((key, value)) = fields.next().zip(fields.next()) {
        let value = bytes(value)?;
        match &*text(key)? {
            "d" => content = value,
            "h" => header = String::from_utf8(value.into()).ok()?,
            "x" => ends = value,
            "a" => {
                let note: Note = postcard::from_bytes(&value).ok()?;
                annotation = Some(Arc::new(note.into_annotation()));
            }
            _ => {}
        }
    }
    let mut parts = header.split(':');
    let (kind, _positions, at) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
    let length = u32::try_from(content.len()).ok()?;
    let end = |chunk: &[u8]| chunk.try_into().map(u32::from_le_bytes).ok();
    let shape = match kind {
        "j" => Shape::json(length, ends.chunks(4).map(end).collect::<Option<_>>()?),
        _ => Shape::message(length),
    };
    Some(Record { start: Position(start), shape, content, at: time(at), annotation })
}

pub(super) fn lifetime_of(text: &str) -> Option<Lifetime> {
    let millis = |text: &str| text.parse::<u64>().ok();
    match text.split_at_checked(1)? {
        ("u", "") => Some(Lifetime::Unlimited),
        ("i", idle) => Some(Lifetime::Idle(Duration::from_millis(millis(idle)?))),
        ("d", end) => Some(Lifetime::Until(time(i64::try_from(millis(end)?).ok()?))),
        _ => None,
    }
}

fn retention_of(text: &str) -> Option<Retention> {
    let limit = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
    let mut limits = text.split(',').map(limit);
    let mut next = || limits.next().flatten();
    let (messages_max, bytes_max, age_max) = (next()?, next()?, next()?);
    Some(Retention { messages_max, bytes_max, age_max: age_max.map(Duration::from_millis) })
}
