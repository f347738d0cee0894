//! `/v1/streams`: many streams in one request, in every form of delivery, with one cursor over all of them.

pub(super) mod cursor;
mod envelope;
mod live;
mod websocket;

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::Body;
use super::error::Error;
use super::fields::{self, PREFERENCE_APPLIED};
use super::request::{LongPollMany, PostMany, ReadMany};
use super::routes::Operation;
use super::{Gateway, Link, answer, upload};
use crate::hub::{Follow, PollMany, PolledMany};
use envelope::{CursorField, Frame};

/// Where many streams are read.
pub(super) const PATH: &str = "/v1/streams";

/// What is understood there.
pub(super) const METHODS: &str = "GET, POST, OPTIONS";

/// The body of a poll.
const WHOLE: Frame = Frame { before: b"", after: b"" };

impl Gateway {
    /// A request for many streams, once its body is there.
    pub(super) async fn posted(&self, post: Box<PostMany>, body: Incoming) -> Result<Operation, Error> {
        let body = upload::collect(body, &self.limits).await?;
        Ok(Operation::ReadMany(Box::new(post.read(&body, &self.limits, self.holds)?)))
    }

    pub(super) async fn read_many(&self, read: ReadMany, link: Arc<Link>) -> Result<Response<Body>, Error> {
        match read {
            ReadMany::ShortPoll(follows) => self.short_poll_many(follows).await,
            ReadMany::LongPoll(poll) => self.long_poll_many(poll).await,
            ReadMany::Sse(live) => self.sse_many(live, link).await,
            ReadMany::Ndjson(live) => self.ndjson_many(live, link).await,
            ReadMany::WebSocket(socket) => self.websocket_many(socket, link).await,
        }
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
