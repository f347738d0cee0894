//! The short poll: what is there, at once (protocol, section 5.6).

use hyper::{Response, StatusCode};

use super::answer::Keep;
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
            return Ok(answer::messages(batch, Keep::MustNot));
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
        Ok(answer::messages(batch, Keep::May))
    }
}
