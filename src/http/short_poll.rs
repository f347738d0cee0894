//! The short poll: what is there, at once (protocol, section 5.6).

use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::Body;
use super::error::Error;
use super::request::ShortPoll;
use super::{Gateway, answer, bare};
use crate::stream::{Start, StreamName};

impl Gateway {
    pub(super) async fn short_poll(
        &self,
        name: StreamName,
        poll: ShortPoll,
    ) -> Result<Response<Body>, Error> {
        let batch = self.hub.read(&name, poll.start).await?;
        if poll.start == Start::Tail {
            let mut answer = answer::messages(batch);
            answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            return Ok(answer);
        }
        let unchanged =
            poll.if_none_match.is_some_and(|tags| answer::matches(&tags, &answer::entity_tag(&batch)));
        if unchanged {
            let mut answer = bare(StatusCode::NOT_MODIFIED, Body::empty());
            answer::position(answer.headers_mut(), &batch);
            answer::caching(answer.headers_mut(), &batch);
            answer::secure(answer.headers_mut());
            return Ok(answer);
        }
        self.metrics.messages_out(batch.messages, batch.len());
        let mut caching = hyper::HeaderMap::with_capacity(2);
        answer::caching(&mut caching, &batch);
        let mut answer = answer::messages(batch);
        answer.headers_mut().extend(caching);
        Ok(answer)
    }
}
