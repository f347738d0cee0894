//! The parent's responses as values and errors of the store contract, so that an edge answers as its parent would.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{HeaderMap, Response, StatusCode};
use serde::Deserialize;

use crate::store::log::{LogSlice, Record, messages_of, messages_within};
use crate::store::view::{MessagesView, View};
use crate::stream::{
    Append, AppendError, AppendRefusal, Appended, Batch, ChangeError, ContentType, CreateError, Created,
    Description, EpochHistory, Failure, Gap, GapReason, InvalidMessages, Lifetime, MessageLimit, Messages,
    Missing, Offset, Payload, Position, ProducerRefusal, ReadError, ReadLimit, Retention, Shortage, Start,
    StreamName, StreamPage, split,
};

/// What the types of the parent's problem documents begin with.
const PROBLEM_PREFIX: &str = "urn:pollgate:";

/// The delay of a client that appends too fast, if the parent tells none.
const TOO_FAST: Duration = Duration::from_secs(1);

/// JSON values of a page are kept in parts of this size, so that a read need not return much more than it was asked for.
const PART_BYTES: usize = 16 * 1024;

/// The most appends of a page.
const APPENDS_MAX: usize = 1 << 20;

/// Consecutive messages that the parent has returned.
#[derive(Debug, Clone)]
pub(super) struct ParentPage {
    pub(super) content_type: ContentType,
    /// JSON values in parts of about [`PART_BYTES`], or else single appends.
    pub(super) records: Vec<Record<Bytes>>,
    /// The position before the first message.
    pub(super) from: Position,
    /// The offset after the last message.
    pub(super) next: Offset,
    pub(super) up_to_date: bool,
    pub(super) closed: bool,
}

#[derive(Deserialize)]
struct ProblemType {
    #[serde(rename = "type")]
    kind: String,
}

/// The page in a response to a read from `start`, with `at` as the time of its messages. `None`: it is not one of a gateway.
pub(super) fn page(response: &Response<Bytes>, start: Start, at: SystemTime) -> Option<ParentPage> {
    let fields = response.headers();
    let content_type = ContentType::parse(text(fields, CONTENT_TYPE.as_str())?).ok()?;
    let next = next_offset(fields)?;
    let body = response.body();
    let parts = if content_type.is_json() {
        // The parent has checked the depth when the messages were appended.
        json_parts(&split(body.clone(), &content_type, usize::MAX).ok()?)
    } else {
        appends(body, text(fields, "stream-lengths")).unwrap_or_else(|| whole(body))
    };
    let positions = parts.iter().map(Payload::positions).sum();
    let from = match start {
        Start::At(offset) => offset.position,
        Start::Earliest | Start::Tail => Position(next.position.0.checked_sub(positions)?),
    };
    let mut end = from;
    let place = |part| {
        let record = Record { start: end, ..Record::of(part, None, at) };
        end = record.end();
        record
    };
    Some(ParentPage {
        content_type,
        records: parts.into_iter().map(place).collect(),
        from,
        next,
        up_to_date: is_true(fields, "stream-up-to-date"),
        closed: is_true(fields, "stream-closed"),
    })
}

fn json_parts(payload: &Payload) -> Vec<Payload> {
    let shape = payload.shape();
    let (mut parts, mut ends, mut begin) = (Vec::new(), Vec::new(), 0);
    for value in 0..shape.positions() {
        let range = shape.message_at(value);
        if ends.is_empty() {
            begin = range.start;
        }
        let length = range.end - begin;
        ends.push(u32::try_from(length).unwrap_or(u32::MAX));
        if length >= PART_BYTES || value + 1 == shape.positions() {
            parts.push(Payload::json(payload.bytes().slice(begin..range.end), std::mem::take(&mut ends)));
        }
    }
    parts
}

/// The appends in a body by their lengths, such as `5,3*2`. `None`: the lengths are not those of the body.
fn appends(body: &Bytes, lengths: Option<&str>) -> Option<Vec<Payload>> {
    let (mut rest, mut appends) = (body.clone(), Vec::new());
    for run in lengths?.split(',').filter(|run| !run.is_empty()) {
        let (length, times) = run.split_once('*').unwrap_or((run, "1"));
        let (length, times): (usize, usize) = (length.parse().ok()?, times.parse().ok()?);
        for _ in 0..times {
            // What a run of appends without bytes may claim is bounded by the positions of the page.
            if length > rest.len() || appends.len() > APPENDS_MAX {
                return None;
            }
            appends.push(Payload::message(rest.split_to(length)));
        }
    }
    rest.is_empty().then_some(appends)
}

fn whole(body: &Bytes) -> Vec<Payload> {
    if body.is_empty() { Vec::new() } else { vec![Payload::message(body.clone())] }
}

impl ParentPage {
    /// The position after the last record.
    fn end(&self) -> Position {
        self.records.last().map_or(self.from, Record::end)
    }

    /// Whether each position of the page is that of a byte or value in it.
    pub(super) fn is_exact(&self) -> bool {
        self.end() == self.next.position
    }

    /// A position of the tail that is right, or at least beyond the page.
    fn tail(&self) -> Position {
        if self.up_to_date { self.next.position } else { self.next.position.after(1) }
    }

    /// The position after what was taken of the page up to `taken`.
    fn next(&self, taken: Position) -> Position {
        if taken == self.end() { self.next.position } else { taken }
    }

    /// The beginning of the page as the result of a read. `lives_for`: see [`Batch::lives_for`].
    pub(super) fn batch(&self, limit: ReadLimit, lives_for: Option<Duration>) -> Batch {
        let mut slice = LogSlice::of(self.records.iter(), self.from, limit.bytes_max);
        slice.next = self.next(slice.next);
        let view = View {
            content_type: self.content_type.clone(),
            epoch_history: EpochHistory::new(self.next.epoch),
            from: self.from,
            slice,
            tail: self.tail(),
            closed: self.closed,
            lives_for,
        };
        view.into_batch()
    }

    /// The first messages of the page, each a value of a JSON stream, else an append.
    pub(super) fn messages(&self, limit: MessageLimit) -> Messages {
        let all = messages_of(self.records.iter(), self.from);
        let (messages, taken) = messages_within(all, self.from, limit);
        let view = MessagesView {
            content_type: self.content_type.clone(),
            epoch_history: EpochHistory::new(self.next.epoch),
            messages,
            next: self.next(taken),
            tail: self.tail(),
            closed: self.closed,
        };
        view.into_messages()
    }
}

/// A list of names.
#[derive(Deserialize)]
struct NamesBody {
    streams: Vec<NamedStream>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct NamedStream {
    stream: String,
    tail: String,
}

/// The page in a response of names.
pub(super) fn names(body: &[u8]) -> Option<StreamPage> {
    let NamesBody { streams, next } = serde_json::from_slice(body).ok()?;
    let named = |NamedStream { stream, tail }| Some((StreamName::stored(&stream).ok()?, tail.parse().ok()?));
    let next = next.map(|next| StreamName::stored(&next)).transpose().ok()?;
    Some(StreamPage { streams: streams.into_iter().filter_map(named).collect(), next })
}

/// The metadata in a response to HEAD.
pub(super) fn description(response: &Response<Bytes>) -> Option<Description> {
    let fields = response.headers();
    let tail = next_offset(fields)?;
    let ends = text(fields, "stream-expires-at").and_then(|end| end.parse::<jiff::Timestamp>().ok());
    let lifetime = match (number(fields, "stream-ttl"), ends) {
        (Some(idle), _) => Lifetime::Idle(Duration::from_secs(idle)),
        (None, Some(end)) => Lifetime::Until(end.into()),
        (None, None) => Lifetime::Unlimited,
    };
    Some(Description {
        content_type: ContentType::parse(text(fields, CONTENT_TYPE.as_str())?).ok()?,
        earliest: text(fields, "stream-earliest-offset").and_then(|text| text.parse().ok()).unwrap_or(tail),
        tail,
        appended_at: None,
        closed: is_true(fields, "stream-closed"),
        lifetime,
        retention: Retention {
            messages_max: number(fields, "stream-max-messages"),
            bytes_max: number(fields, "stream-max-bytes"),
            age_max: number(fields, "stream-max-age").map(Duration::from_secs),
        },
        has_origin: false,
    })
}

/// The result of a creation.
pub(super) fn created(response: &Response<Bytes>, asked: &ContentType) -> Option<Created> {
    let fields = response.headers();
    let tail = next_offset(fields)?;
    let content_type = text(fields, CONTENT_TYPE.as_str()).and_then(|text| ContentType::parse(text).ok());
    Some(Created {
        fresh: response.status() == StatusCode::CREATED,
        tail,
        closed: is_true(fields, "stream-closed"),
        content_type: content_type.unwrap_or_else(|| asked.clone()),
        epoch: tail.epoch,
    })
}

/// The result of an append.
pub(super) fn appended(response: &Response<Bytes>, append: &Append) -> Result<Appended, AppendError> {
    if !response.status().is_success() {
        return Err(append_error(response));
    }
    let fields = response.headers();
    let tail = next_offset(fields).ok_or(Failure::Unreachable)?;
    // 204 to an append with a producer says that it was appended already (protocol, section 5.2.1).
    let has_messages = !append.payload.is_empty();
    let duplicate = append.producer.is_some() && has_messages && response.status() == StatusCode::NO_CONTENT;
    let (messages, bytes) =
        if duplicate { (0, 0) } else { (append.payload.messages(), append.payload.len()) };
    Ok(Appended {
        tail,
        closed: is_true(fields, "stream-closed"),
        duplicate,
        // The parent does not tell. It matters only to stores that attach an epoch.
        created: false,
        messages,
        bytes,
        highest: number(fields, "producer-seq"),
        epoch: tail.epoch,
    })
}

/// Why the parent refused a read.
pub(super) fn read_error(response: &Response<Bytes>) -> ReadError {
    match kind(response).as_str() {
        "offset" => ReadError::BehindTail,
        "gap" => gap(response.headers()).map_or(Failure::Unreadable.into(), ReadError::Gap),
        kind => match missing(kind) {
            Some(missing) => missing.into(),
            None => failure(response, kind).into(),
        },
    }
}

/// Why the parent refused to describe or to delete a stream. A response to HEAD has no document.
pub(super) fn change_error(response: &Response<Bytes>) -> ChangeError {
    let kind = kind(response);
    match (missing(&kind), response.status()) {
        (Some(missing), _) => missing.into(),
        (None, StatusCode::NOT_FOUND) if kind.is_empty() => Missing::NotFound.into(),
        (None, StatusCode::GONE) if kind.is_empty() => Missing::Deleted.into(),
        _ => failure(response, &kind).into(),
    }
}

/// Why the parent refused a creation.
pub(super) fn create_error(response: &Response<Bytes>) -> CreateError {
    match kind(response).as_str() {
        "exists-differently" => CreateError::ExistsDifferently,
        "name-taken" => CreateError::NameTaken,
        "fork-source-not-found" => CreateError::SourceNotFound,
        "fork-source-deleted" => CreateError::SourceDeleted,
        "content-type-mismatch" => CreateError::SourceContentType,
        "fork-offset" => CreateError::ForkOffset,
        "fork-too-deep" => CreateError::ForkTooDeep,
        "gap" => gap(response.headers()).map_or(Failure::Unreadable.into(), CreateError::ForkTrimmed),
        kind => failure(response, kind).into(),
    }
}

fn append_error(response: &Response<Bytes>) -> AppendError {
    let fields = response.headers();
    let of_field = |name| number(fields, name).unwrap_or_default();
    let refusal = match kind(response).as_str() {
        "stream-closed" => AppendRefusal::Closed,
        "content-type-mismatch" => AppendRefusal::ContentType,
        "sequence-regression" => AppendRefusal::SequenceRegression,
        "has-origin" => AppendRefusal::HasOrigin,
        "producer-stale-epoch" => {
            AppendRefusal::Producer(ProducerRefusal::StaleEpoch { current: of_field("producer-epoch") })
        }
        "producer-epoch-start" => AppendRefusal::Producer(ProducerRefusal::EpochNotFromZero),
        "producer-sequence-gap" => AppendRefusal::Producer(ProducerRefusal::SequenceGap {
            expected: of_field("producer-expected-seq"),
            received: of_field("producer-received-seq"),
        }),
        "too-many-producers" => AppendRefusal::Producer(ProducerRefusal::TooMany),
        "empty" => return AppendError::Empty,
        "content-type" => return AppendError::NoContentType,
        "json" => {
            return AppendError::Messages(InvalidMessages::NotJson("the upstream gateway refuses it".into()));
        }
        kind => {
            return match missing(kind) {
                Some(missing) => missing.into(),
                None => failure(response, kind).into(),
            };
        }
    };
    // Only the refusal of a closed stream tells its tail, and only there it is told on.
    AppendError::Refused { refusal, tail: next_offset(fields).unwrap_or(Offset::ZERO) }
}

fn missing(kind: &str) -> Option<Missing> {
    match kind {
        "stream-not-found" => Some(Missing::NotFound),
        "stream-deleted" => Some(Missing::Deleted),
        _ => None,
    }
}

/// Why the parent failed, whatever was asked.
fn failure(response: &Response<Bytes>, kind: &str) -> Failure {
    let shortage = Shortage::ALL.into_iter().find(|shortage| shortage.as_str() == kind);
    match (kind, shortage) {
        (_, Some(shortage)) => Failure::OverBudget(shortage),
        ("store-full", _) => Failure::Full,
        ("store-short", _) => Failure::Short,
        ("too-fast", _) => Failure::TooFast(
            number(response.headers(), RETRY_AFTER.as_str()).map_or(TOO_FAST, Duration::from_secs),
        ),
        ("store-unreadable", _) => Failure::Unreadable,
        _ if response.status().is_server_error() => Failure::Unreachable,
        _ => Failure::UpstreamRefused(response.status().as_u16()),
    }
}

/// The type of a problem document without its prefix; empty if the response has none.
fn kind(response: &Response<Bytes>) -> String {
    let problem: Option<ProblemType> = serde_json::from_slice(response.body()).ok();
    let kind = problem.and_then(|problem| Some(problem.kind.strip_prefix(PROBLEM_PREFIX)?.to_owned()));
    kind.unwrap_or_default()
}

fn gap(fields: &HeaderMap) -> Option<Gap> {
    let earliest = text(fields, "stream-earliest-offset")?.parse().ok()?;
    let value = text(fields, "stream-gap")?;
    let missed = || value.split_once("missed=")?.1.parse().ok();
    let reason = match value.split(';').next()? {
        "reason=trimmed" => GapReason::Trimmed { missed: missed()? },
        "reason=damaged" => GapReason::Damaged { missed: missed()? },
        _ => GapReason::Epoch,
    };
    Some(Gap { reason, earliest })
}

fn next_offset(fields: &HeaderMap) -> Option<Offset> {
    text(fields, "stream-next-offset")?.parse().ok()
}

fn is_true(fields: &HeaderMap, name: &str) -> bool {
    text(fields, name) == Some("true")
}

fn number(fields: &HeaderMap, name: &str) -> Option<u64> {
    text(fields, name)?.parse().ok()
}

fn text<'a>(fields: &'a HeaderMap, name: &str) -> Option<&'a str> {
    fields.get(name)?.to_str().ok()
}
