//! The long poll: what is there, or else held until there is something (protocol, section 5.7).

use std::time::SystemTime;

use hyper::StatusCode;

use super::answer::Keep;
use super::error::Error;
use super::fields::{PREFERENCE_APPLIED, STREAM_SUPERSEDED};
use super::live::cursor_seed;
use super::request::{Hold, LongPoll};
use super::written::{Answer, DECIMALS, decimal};
use super::{Gateway, answer};
use crate::hub::{Batch, Poll, Variant};
use crate::metrics::Form;
use crate::stream::{Cursor, StreamName};

impl Gateway {
    /// Small while it waits, as [`crate::hub::Hub::poll`] is.
    pub(super) fn long_poll<A: Answer>(
        &self,
        name: StreamName,
        request: LongPoll,
    ) -> impl Future<Output = Result<A, Error>> + Send + '_ {
        let LongPoll { start, cursor, hold, client } = request;
        let poll = Poll { stream: name, start, hold: hold.time, client };
        async move {
            let polled = self.hub.poll(poll).await?;
            let (batch, now) = (&polled.batch, self.clock.now());
            let cursor = Cursor::next(cursor, now, cursor_seed(batch));
            // An answer that ends its connection is nobody else's.
            if !batch.is_alone() && !self.hub.is_draining() {
                let variant = variant(cursor, hold, now);
                return Ok(A::shared(batch, variant, now, |batch| write(batch, cursor, hold)));
            }
            let mut answer: A = write(batch, cursor, hold);
            if polled.superseded {
                answer.put_static(STREAM_SUPERSEDED, "true");
            }
            Ok(answer)
        }
    }
}

fn write<A: Answer>(batch: &Batch, cursor: Cursor, hold: Hold) -> A {
    let mut answer: A = if batch.is_empty() {
        let mut answer = answer::uncached(StatusCode::NO_CONTENT);
        answer::position(&mut answer, batch);
        answer
    } else {
        answer::messages(batch, Keep::May)
    };
    answer::cursor(&mut answer, cursor);
    if hold.asked {
        let mut wait = b"wait=".to_vec();
        wait.extend_from_slice(decimal(hold.time.as_secs(), &mut [0; DECIMALS]));
        answer.put(PREFERENCE_APPLIED, &wait);
    }
    answer
}

/// All that two answers with the same batch can differ in.
fn variant(cursor: Cursor, hold: Hold, now: SystemTime) -> Variant {
    let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let hold = if hold.asked { 1 + hold.time.as_secs() } else { 0 };
    Variant([Form::LongPoll as u64, cursor.0, hold, second])
}
