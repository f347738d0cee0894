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

impl Gateway {
    pub(in crate::http) async fn short_poll<A: Answer>(&self, poll: ShortPoll) -> Result<A, Error> {
        if let Some(client) = &poll.client {
            self.hub.device_polled(client, poll.from.starts());
        }
        match poll.from {
            ReadFrom::One { stream, start, .. } => {
                // A cache may answer a HEAD, which has the same URL, from a response to a GET without an offset.
                let keep = match start {
                    Start::Tail => Caching::MustNot,
                    Start::Earliest if !poll.has_offset => Caching::Revalidated,
                    Start::Earliest | Start::At(_) => Caching::Pages,
                };
                let caching = (keep, poll.audience);
                self.short_poll_one(stream, start, caching, poll.if_none_match, poll.asks_lengths).await
            }
            // Boxed, because it is larger and less frequent.
            ReadFrom::Many(streams) => Box::pin(self.short_poll_many(streams)).await,
        }
    }

    async fn short_poll_one<A: Answer>(
        &self,
        stream: StreamName,
        start: Start,
        (keep, audience): (Caching, Audience),
        if_none_match: Option<String>,
        asks_lengths: bool,
    ) -> Result<A, Error> {
        let mut batch = self.hub.read(&stream, start).await?;
        let lengths = (asks_lengths && !batch.content_type.is_json()).then(|| cut_to_lengths(&mut batch));
        // A response that caches keep does not tell it, because it changes.
        let origin = if batch.up_to_date { self.hub.origin_status(&stream) } else { None };
        let with_origin = |mut answer: A| {
            if let Some(status) = &origin {
                put_status(&mut answer, status);
            }
            answer
        };
        if start == Start::Tail {
            return Ok(with_origin(answer::messages(&batch, keep, audience)));
        }
        let is_in = |tags: String| answer::matches(&tags, EntityTag::of(&batch).as_bytes());
        let unchanged = if_none_match.is_some_and(is_in);
        if unchanged {
            let mut answer = A::begin(StatusCode::NOT_MODIFIED);
            answer::position(&mut answer, &batch);
            answer::caching(&mut answer, &batch, keep, audience);
            answer::secure(&mut answer);
            return Ok(with_origin(answer));
        }
        self.metrics.messages_out(stream.tenant_prefix(), batch.messages, batch.len());
        self.hub.trace_delivery("short-poll", &stream, batch.start.position, batch.next.position);
        let mut answer = with_origin(answer::messages(&batch, keep, audience));
        if let Some(lengths) = lengths {
            answer.put(STREAM_LENGTHS, lengths.as_bytes());
        }
        Ok(answer)
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
