//! `/v1/streams`: many streams in one request, in every form of delivery, with one cursor over all of them.

pub(super) mod cursor;
mod envelope;
mod live;
mod websocket;

use std::sync::Arc;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::conn::{Answer, Body, ConnectionState};
use super::error::Error;
use super::fields::{self, PREFERENCE_APPLIED};
use super::request::{LongPollMany, ReadMany};
use super::upgrade::Reply;
use super::{Gateway, answer};
use crate::hub::{Follow, PollMany, PolledMany};
use envelope::{CursorField, Frame};

pub(super) use live::Opening;
pub(super) use websocket::serve_as_asked;

/// The body of a poll.
const WHOLE: Frame = Frame { before: b"", after: b"" };

impl Gateway {
    pub(super) async fn read_many<A: Answer>(
        &self,
        read: ReadMany,
        link: Arc<ConnectionState>,
    ) -> Result<Reply<A>, Error> {
        let answer = match read {
            ReadMany::ShortPoll(follows) => self.short_poll_many(follows).await,
            ReadMany::LongPoll(poll) => self.long_poll_many(poll).await,
            ReadMany::Sse(live) => self.sse_many(live, link).await,
            ReadMany::Ndjson(live) => self.ndjson_many(live, link).await,
            ReadMany::WebSocket(socket) => return self.websocket_many(socket, link).await,
        };
        answer.map(|answer| Reply::http(A::from(answer)))
    }

    async fn short_poll_many(&self, follows: Vec<Follow>) -> Result<Response<Body>, Error> {
        Ok(polled(&self.hub.read_many(follows).await?))
    }

    async fn long_poll_many(&self, request: LongPollMany) -> Result<Response<Body>, Error> {
        let LongPollMany { follows, hold, client } = request;
        let polled_many = self.hub.poll_many(PollMany { follows, hold: hold.time, client }).await?;
        let mut answer = polled(&polled_many);
        if hold.asked {
            answer.headers_mut().insert(PREFERENCE_APPLIED, fields::wait_value(hold.time));
        }
        Ok(answer)
    }
}

/// The answer to a poll: 200 with an envelope in any case.
fn polled(polled: &PolledMany) -> Response<Body> {
    let cursor = CursorField::Full(cursor::part(polled.following.places()));
    let envelope = envelope::write(&polled.turn, &cursor, polled.superseded, WHOLE);
    let mut answer: Response<Body> = answer::uncached(StatusCode::OK);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *answer.body_mut() = Body::full(envelope);
    answer
}
