//! Values of the store contract as arguments of the function library, and the names of its keys.

use std::time::SystemTime;

use sha1_smol::Sha1;

use super::functions::EngineCall;
use crate::store::note::{Note, moment};
use crate::stream::{
    Annotation, Append, AppendType, ContentType, Create, Fork, Lifetime, ORIGIN_SESSIONS, Offset, Payload,
    Principal, Producer, Retention, SessionChange, Start, StreamName,
};

/// Number of partitions. All keys of a partition are in one hash slot, so a cluster has at most as many nodes with streams. It is part
/// of the format: another number would look for streams elsewhere.
pub(super) const PARTITIONS: u64 = 128;

/// Begins the names of all keys.
const KEYS: &str = "pollgate:";

/// What the keys of the stream's partition begin with.
pub(super) fn partition_of(name: &StreamName) -> String {
    partition(partition_number(name))
}

/// The number of the stream's partition.
pub(super) fn partition_number(name: &StreamName) -> u64 {
    fnv1a(name.as_str()) % PARTITIONS
}

/// What the keys of a partition begin with.
pub(super) fn partition(number: u64) -> String {
    format!("{KEYS}{{{number}}}:")
}

/// What the keys about the gateways themselves begin with. They are in one hash slot.
pub(super) const GATEWAYS: &str = "pollgate:{gateways}:";

/// The channel of a partition for news of sessions and of streams that have ended, as lines.
pub(super) const NEWS: &str = "news";

/// The channel of a partition for the changes of its streams, with their messages, which gateways of an earlier version tell and hear.
pub(super) const MOVES: &str = "moves";

/// The channel that tells the engine that a gateway hears changes by [`ChangeChannel`]. Nothing is published on it.
const BUCKETS: &str = "buckets";

/// The channels of each partition that a gateway is always subscribed to.
pub(super) const BASE_CHANNELS: [&str; 3] = [NEWS, MOVES, BUCKETS];

/// The channel of a partition for the changes of all its streams.
const EVERY: &str = "every";

/// The name of a channel of a partition.
pub(super) fn channel_of(number: u64, channel: &str) -> String {
    format!("{}{channel}", partition(number))
}

/// The partition of one of the [`BASE_CHANNELS`].
pub(super) fn partition_of_channel(channel: &str) -> Option<u64> {
    let keys = BASE_CHANNELS.iter().find_map(|base| channel.strip_suffix(base))?;
    keys.strip_prefix(KEYS)?.strip_prefix('{')?.strip_suffix("}:")?.parse().ok()
}

/// Whether the messages of a channel are changes with their messages, not lines.
pub(super) fn has_records(channel: &[u8]) -> bool {
    !channel.ends_with(NEWS.as_bytes())
}

/// A channel for changes of streams of one partition, with their messages. A gateway subscribes to those of the streams with readers here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ChangeChannel {
    pub(super) partition: u64,
    /// The bucket of the streams; `None`: all streams of the partition.
    bucket: Option<u8>,
}

impl ChangeChannel {
    /// The channel of the streams in the bucket of this one: its number is the first byte of the SHA-1 hash of the name, which the
    /// engine's scripts can tell.
    pub(super) fn of(name: &StreamName) -> Self {
        let [bucket, ..] = Sha1::from(name.as_str()).digest().bytes();
        Self { partition: partition_number(name), bucket: Some(bucket) }
    }

    /// The channel of all streams of a partition.
    pub(super) fn every(partition: u64) -> Self {
        Self { partition, bucket: None }
    }

    /// Whether it is the channel of all streams of its partition.
    pub(super) fn is_every(self) -> bool {
        self.bucket.is_none()
    }

    /// Its name.
    pub(super) fn name(self) -> String {
        match self.bucket {
            Some(bucket) => channel_of(self.partition, &format!("{MOVES}:{bucket:02x}")),
            None => channel_of(self.partition, EVERY),
        }
    }
}

/// What the keys of a session begin with.
pub(super) fn namespace_of(session: &str) -> String {
    partition(session_partition(session))
}

/// The number of a session's partition. The origin of a stream is in the partition of the stream.
pub(super) fn session_partition(session: &str) -> u64 {
    fnv1a(session.strip_prefix(ORIGIN_SESSIONS).unwrap_or(session)) % PARTITIONS
}

/// The 64-bit FNV-1a hash (draft-eastlake-fnv), which is part of the format like the number of partitions.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Type and subtype, by which content types are compared.
fn essence(content_type: &ContentType) -> String {
    content_type.as_str().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

pub(super) fn millis(time: SystemTime) -> u64 {
    u64::try_from(moment(time)).unwrap_or_default()
}

pub(super) fn lifetime(lifetime: Lifetime) -> String {
    match lifetime {
        Lifetime::Unlimited => "u".to_owned(),
        Lifetime::Idle(idle) => format!("i{}", idle.as_millis()),
        Lifetime::Until(end) => format!("d{}", millis(end)),
    }
}

pub(super) fn retention(Retention { messages_max, bytes_max, age_max }: Retention) -> String {
    let limit = |max: Option<u64>| max.map(|max| max.to_string()).unwrap_or_default();
    let age_max = age_max.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    [messages_max, bytes_max, age_max].map(limit).join(",")
}

/// The settings that a creator asked for, which distinguish a repeated creation from a different one.
fn asked(create: &Create) -> String {
    let lifetime = create.lifetime.map_or("-".to_owned(), lifetime);
    let retention = create.retention.map_or("-".to_owned(), retention);
    let fork = create.fork.as_ref().map_or("-".to_owned(), fork);
    format!("{lifetime} {retention} {fork}")
}

/// Whom a stream counts for. Empty: the gateways themselves, which have no share.
fn creator(principal: Principal) -> String {
    if principal == Principal::GATEWAY { String::new() } else { format!("{:016x}", principal.0) }
}

fn fork(Fork { source, offset, sub_offset }: &Fork) -> String {
    let offset = match offset {
        None | Some(Start::Tail) => "tail".to_owned(),
        Some(Start::Earliest) => "earliest".to_owned(),
        Some(Start::At(offset)) => Offset::to_string(offset),
    };
    format!("{offset}+{sub_offset} {source}")
}

impl EngineCall {
    /// Adds the messages of an append: content, kind, positions, messages, ends of the values, annotation, and what becomes of the
    /// retained message: with `may_retain` what the annotation says, otherwise nothing.
    pub(super) fn messages(
        self,
        payload: &Payload,
        annotation: Option<&Annotation>,
        may_retain: bool,
    ) -> Self {
        let shape = payload.shape();
        let ends: Vec<u8> = shape.ends().iter().flat_map(|end| end.to_le_bytes()).collect();
        let retain = match annotation {
            Some(annotation) if may_retain && annotation.retain => {
                if shape.is_empty_message() {
                    "clear"
                } else {
                    "keep"
                }
            }
            _ => "",
        };
        let note = annotation.map(|annotation| postcard::to_allocvec(&Note::of(annotation)));
        // A value in memory can be written.
        let note = note.and_then(Result::ok).unwrap_or_default();
        self.with(payload.bytes())
            .with(if shape.is_json() { "j" } else { "m" })
            .number(payload.positions())
            .number(payload.messages())
            .with(ends)
            .with(note)
            .with(retain)
    }

    /// Adds a change of a session that `owner` makes.
    pub(super) fn session(self, change: &SessionChange, owner: &str) -> Self {
        let call = self.with(&*change.client).with(owner).with(if change.anew { "1" } else { "0" });
        change.entries.iter().fold(call, |call, (key, value)| match value {
            Some(value) => call.with(key).with("1").with(value),
            None => call.with(key).with("0").with(""),
        })
    }

    fn producer(self, producer: Option<&Producer>) -> Self {
        match producer {
            Some(Producer { id, epoch, sequence }) => {
                self.with(id.as_bytes()).number(*epoch).number(*sequence)
            }
            None => self.with("").with("0").with("0"),
        }
    }

    /// Adds the content type, the lifetime, the retention, what was asked for, and the creator. A fork inherits the lifetime and the retention that
    /// were not asked for.
    pub(super) fn creation(self, create: &Create, inherited: Option<(Lifetime, Retention)>) -> Self {
        let (or_lifetime, or_retention) =
            inherited.unwrap_or((Lifetime::default(), create.default_retention));
        self.with(create.content_type.as_str())
            .with(essence(&create.content_type))
            .with(lifetime(create.lifetime.unwrap_or(or_lifetime)))
            .with(retention(create.retention.unwrap_or(or_retention)))
            .with(asked(create))
            .with(creator(create.principal))
    }

    /// Adds an append.
    pub(super) fn append(self, append: &Append) -> Self {
        let (mode, declared) = match &append.content_type {
            AppendType::Undeclared => ("none", String::new()),
            AppendType::Declared(content_type) => ("declared", essence(content_type)),
            AppendType::OfStream { .. } => ("stream", String::new()),
        };
        let call = self
            .with(mode)
            .with(declared)
            .messages(&append.payload, append.annotation.as_deref(), true)
            .producer(append.producer.as_ref())
            .with(append.sequence.as_deref().unwrap_or_default())
            .with(if append.close { "1" } else { "0" });
        match append.creation() {
            Some(create) => call.with("1").creation(&create, None),
            None => call.with("0").with("").with("").with("").with("").with("").with(""),
        }
    }
}
