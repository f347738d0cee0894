//! The short poll: returns the available messages at once (protocol, section 5.6).

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::envelope::{self, Frame, TokenField};
use super::request::{ReadFrom, ShortPoll};
use super::resume_token;
use crate::http::api::answer::{self, Audience, Caching, EntityTag};
use crate::http::api::error::Error;
use crate::http::api::fields::STREAM_LENGTHS;
use crate::http::api::gateway::Gateway;
use crate::http::api::polled_origins::put_status;
use crate::http::conn::Answer;
use crate::http::conn::Body;
use crate::hub::{MultiBatch, MultiReader, RequestedStream, Source as _};
use crate::stream::{Batch, Start, StreamName};

/// The longest `Stream-Lengths`, in bytes.
const LENGTHS_BYTES_MAX: usize = 4096;

/// A short poll that has not read yet.
pub(in crate::http) enum UnreadShortPoll {
    One(StreamName, RequestedMessages),
    Many(Vec<RequestedStream>),
}

/// What a short poll of one stream requests.
pub(in crate::http) struct RequestedMessages {
    start: Start,
    keep: Caching,
    audience: Audience,
    if_none_match: Option<String>,
    asks_lengths: bool,
}

impl Gateway {
    /// Answers a short poll, if the store has nothing to wait for. Otherwise returns it for
    /// [`short_poll_unread`](Self::short_poll_unread).
    pub(in crate::http) fn short_poll_at_once<A: Answer>(
        &self,
        poll: ShortPoll,
    ) -> Result<Result<A, Error>, UnreadShortPoll> {
        if let Some(client) = &poll.client {
            self.hub.device_polled(client, poll.from.starts());
        }
        let ShortPoll { from, has_offset, asks_lengths, if_none_match, client: _, audience } = poll;
        let (stream, start) = match from {
            ReadFrom::One { stream, start, .. } => (stream, start),
            ReadFrom::Many(streams) => return Err(UnreadShortPoll::Many(streams)),
        };
        // A cache may answer a HEAD, which has the same URL, from a response to a GET without an offset.
        let keep = match start {
            Start::Tail => Caching::MustNot,
            Start::Earliest if !has_offset => Caching::Revalidated,
            Start::Earliest | Start::At(_) => Caching::Pages,
        };
        let request = RequestedMessages { start, keep, audience, if_none_match, asks_lengths };
        match self.hub.read_at_once(&stream, start) {
            Some(read) => {
                Ok(read.map(|batch| self.answer_short_poll(&stream, &request, batch)).map_err(Error::from))
            }
            None => Err(UnreadShortPoll::One(stream, request)),
        }
    }

    /// Answers a short poll whose store may have to wait for something.
    pub(in crate::http) async fn short_poll_unread<A: Answer>(
        &self,
        unread: UnreadShortPoll,
    ) -> Result<A, Error> {
        match unread {
            UnreadShortPoll::One(stream, request) => {
                let batch = self.hub.read_waiting(&stream, request.start).await?;
                Ok(self.answer_short_poll(&stream, &request, batch))
            }
            // Boxed, because it is larger and less frequent.
            UnreadShortPoll::Many(streams) => Box::pin(self.short_poll_many(streams)).await,
        }
    }

    fn answer_short_poll<A: Answer>(
        &self,
        stream: &StreamName,
        request: &RequestedMessages,
        mut batch: Batch,
    ) -> A {
        let RequestedMessages { start, keep, audience, ref if_none_match, asks_lengths } = *request;
        let lengths = (asks_lengths && !batch.content_type.is_json()).then(|| cut_to_lengths(&mut batch));
        // A response that caches keep does not tell it, because it changes.
        let origin = if batch.up_to_date { self.hub.origin_status(stream) } else { None };
        let with_origin = |mut answer: A| {
            if let Some(status) = &origin {
                put_status(&mut answer, status);
            }
            answer
        };
        if start == Start::Tail {
            return with_origin(answer::messages(&batch, keep, audience));
        }
        let is_in = |tags: &String| answer::matches(tags, EntityTag::of(&batch).as_bytes());
        let unchanged = if_none_match.as_ref().is_some_and(is_in);
        if unchanged {
            let mut answer = A::begin(StatusCode::NOT_MODIFIED);
            answer::position(&mut answer, &batch);
            answer::caching(&mut answer, &batch, keep, audience);
            answer::secure(&mut answer);
            return with_origin(answer);
        }
        self.metrics.messages_out(stream.tenant_prefix(), batch.messages, batch.len());
        self.hub.trace_delivery("short-poll", stream, batch.start.position, batch.next.position);
        let mut answer = with_origin(answer::messages(&batch, keep, audience));
        if let Some(lengths) = lengths {
            answer.put(STREAM_LENGTHS, lengths.as_bytes());
        }
        answer
    }

    async fn short_poll_many<A: Answer>(&self, streams: Vec<RequestedStream>) -> Result<A, Error> {
        let mut reader = self.hub.multi_reader(streams);
        let batch = reader.read(self.limits.read_bytes_max).await?;
        Ok(many(&reader, &batch, false))
    }
}

/// Returns the lengths of the appends of a batch as the value of `Stream-Lengths`, `5,3*2` for one of 5 bytes and two of 3. Cuts the
/// batch behind the appends whose lengths fit into the field.
fn cut_to_lengths(batch: &mut Batch) -> String {
    let (mut text, mut pieces, mut positions) = (String::new(), 0, 0);
    for run in batch.pieces.chunk_by(|one, next| one.len() == next.len()) {
        let length = run.first().map_or(0, Bytes::len);
        let times = if run.len() > 1 { format!("*{}", run.len()) } else { String::new() };
        let run_text = format!("{}{length}{times}", if text.is_empty() { "" } else { "," });
        if text.len() + run_text.len() > LENGTHS_BYTES_MAX {
            break;
        }
        text.push_str(&run_text);
        pieces += run.len();
        // An append without bytes takes one position.
        positions += length.max(1) as u64 * run.len() as u64;
    }
    if pieces < batch.pieces.len() {
        batch.pieces.truncate(pieces);
        batch.messages = pieces as u64;
        batch.next.position = batch.start.position.after(positions);
        (batch.up_to_date, batch.closed) = (false, false);
    }
    text
}

/// Returns the response to a poll of many streams: always 200 with an envelope.
pub(in crate::http) fn many<A: Answer>(reader: &MultiReader, batch: &MultiBatch, superseded: bool) -> A {
    let token = TokenField::Full(resume_token::part(reader.positions()));
    let (withheld, failing) = (reader.withheld(), reader.failing_origins());
    let envelope = envelope::many(batch, withheld, &failing, &token, superseded, None, Frame::NONE);
    let mut answer = A::begin(StatusCode::OK);
    answer.put_static(CACHE_CONTROL, "no-store");
    answer::secure_messages(&mut answer);
    answer.put_static(CONTENT_TYPE, "application/json");
    answer.set_body(Body::full(envelope));
    answer
}
