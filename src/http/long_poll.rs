//! The long poll: what is there, or else held until there is something (protocol, section 5.7).

use hyper::{Response, StatusCode};

use super::answer::Keep;
use super::body::Body;
use super::error::Error;
use super::fields::{self, PREFERENCE_APPLIED, STREAM_SUPERSEDED, TRUE};
use super::request::LongPoll;
use super::{Gateway, answer};
use crate::hub::Poll;
use crate::stream::{Cursor, StreamName};

impl Gateway {
    /// Small while it waits, as [`crate::hub::Hub::poll`] is.
    pub(super) fn long_poll(
        &self,
        name: StreamName,
        request: LongPoll,
    ) -> impl Future<Output = Result<Response<Body>, Error>> + Send + '_ {
        let LongPoll { start, cursor, hold, client } = request;
        let poll = Poll { stream: name, start, hold: hold.time, client };
        async move {
            let polled = self.hub.poll(poll).await?;
            let mut answer = if polled.batch.is_empty() {
                let mut answer = answer::uncached(StatusCode::NO_CONTENT);
                answer::position(answer.headers_mut(), &polled.batch);
                answer
            } else {
                answer::messages(polled.batch, Keep::May)
            };
            let headers = answer.headers_mut();
            answer::cursor(headers, Cursor::next(cursor, self.clock.now(), fastrand::u64(..)));
            if hold.asked {
                headers.insert(PREFERENCE_APPLIED, fields::wait_value(hold.time));
            }
            if polled.superseded {
                headers.insert(STREAM_SUPERSEDED, TRUE);
            }
            Ok(answer)
        }
    }
}
