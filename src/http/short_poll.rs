//! The short poll: what is there, at once (protocol, section 5.6).

use hyper::StatusCode;

use super::answer::Keep;
use super::conn::Answer;
use super::error::Error;
use super::request::ShortPoll;
use super::{Gateway, answer};
use crate::stream::{Start, StreamName};

impl Gateway {
    pub(super) async fn short_poll<A: Answer>(&self, name: StreamName, poll: ShortPoll) -> Result<A, Error> {
        let batch = self.hub.read(&name, poll.start).await?;
        if poll.start == Start::Tail {
            return Ok(answer::messages(&batch, Keep::MustNot));
        }
        let unchanged =
            poll.if_none_match.is_some_and(|tags| answer::matches(&tags, &answer::entity_tag(&batch)));
        if unchanged {
            let mut answer = A::begin(StatusCode::NOT_MODIFIED);
            answer::position(&mut answer, &batch);
            answer::caching(&mut answer, &batch);
            answer::secure(&mut answer);
            return Ok(answer);
        }
        self.metrics.messages_out(batch.messages, batch.len());
        Ok(answer::messages(&batch, Keep::May))
    }
}
