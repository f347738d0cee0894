//! The long poll: what is there, or else held until there is something (protocol, section 5.7).

use std::time::SystemTime;

use hyper::StatusCode;

use super::answer::Keep;
use super::error::Error;
use super::fields::{PREFERENCE_APPLIED, STREAM_SUPERSEDED};
use super::form::Form;
use super::live::cursor_seed;
use super::request::{Hold, LongPoll};
use super::written::{Answer, DECIMALS, decimal};
use super::{Gateway, answer};
use crate::hub::{Poll, Polled, Variant};
use crate::stream::{Batch, Cursor, StreamName};

/// What the answer to a long poll says back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answering {
    cursor: Option<Cursor>,
    hold: Hold,
}

impl Answering {
    pub(super) fn of(request: &LongPoll) -> Self {
        Self { cursor: request.cursor, hold: request.hold }
    }
}

impl LongPoll {
    /// What the hub is asked.
    pub(super) fn poll(self, stream: StreamName) -> Poll {
        Poll { stream, start: self.start, hold: self.hold.time, client: self.client }
    }
}

impl Gateway {
    pub(super) async fn long_poll<A: Answer>(&self, name: StreamName, request: LongPoll) -> Result<A, Error> {
        let answering = Answering::of(&request);
        Ok(self.polled(&self.hub.poll(request.poll(name)).await?, answering))
    }

    /// The answer to a long poll that has come to its end.
    pub(super) fn polled<A: Answer>(&self, polled: &Polled, answering: Answering) -> A {
        let (batch, now, hold) = (&polled.batch, self.clock.now(), answering.hold);
        let cursor = Cursor::next(answering.cursor, now, cursor_seed(batch));
        // An answer that ends its connection, or says that it was superseded, is nobody else's.
        if !polled.superseded && !batch.is_alone() && !self.hub.is_draining() {
            return A::shared(batch, variant(cursor, hold, now), now, |batch| write(batch, cursor, hold));
        }
        let mut answer: A = write(batch, cursor, hold);
        if polled.superseded {
            answer.put_static(STREAM_SUPERSEDED, "true");
        }
        answer
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
