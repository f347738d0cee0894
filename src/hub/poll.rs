//! The long poll: what is there at once, else wait for a message, the deadline, or an end before that.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::Instant;

use super::clients::Subject;
use super::held::Held;
use super::{ClientId, Hub, Shared, TooManyPolls};
use crate::clock::Alarm;
use crate::stream::{ReadError, Start, StreamName};

/// A long poll as a front understood it.
#[derive(Debug, Clone)]
pub struct Poll {
    /// The stream.
    pub stream: StreamName,
    /// Where to read from.
    pub start: Start,
    /// How long to wait for a message.
    pub hold: Duration,
    /// Whose wait queue it goes to.
    pub client: Option<ClientId>,
}

/// The answer to a long poll. The batch is empty if nothing came; it has a cursor in any case.
#[derive(Debug, Clone)]
pub struct Polled {
    /// The messages.
    pub batch: Shared,
    /// Whether a newer poll of the same client ended it.
    pub superseded: bool,
    /// Whether it had to wait.
    pub held: bool,
}

/// What becomes of a long poll at first.
pub enum Begun<'a> {
    /// It is answered at once.
    Answered(Polled),
    /// It has to wait.
    Held(Held<'a>),
}

/// Why a long poll has no answer.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// The stream can not be read from there.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The client holds too many polls.
    #[error("the client holds {} polls, which is the most it may", .0.max)]
    TooManyPolls(TooManyPolls),
    /// The gateway drains and holds no more polls.
    #[error("the gateway is shutting down")]
    Draining,
}

impl Hub {
    /// Answers a long poll.
    ///
    /// Cancel safe: dropping the future leaves the wait queue and the stream.
    pub async fn poll(&self, poll: Poll) -> Result<Polled, PollError> {
        match self.begin_poll(poll).await? {
            Begun::Answered(polled) => Ok(polled),
            Begun::Held(mut held) => {
                let mut alarm = Alarm::default();
                poll_fn(|context| held.poll_answer(&mut alarm, context)).await
            }
        }
    }

    /// The same up to where it has to wait, for whoever has no room for a future while it does.
    pub async fn begin_poll(&self, poll: Poll) -> Result<Begun<'_>, PollError> {
        let subject = Subject::Stream(poll.stream.clone());
        if let Some(client) = &poll.client {
            self.clients.supersede(client, &subject);
        }
        let watched = self.live.watch(&poll.stream);
        let batch = self.read(&poll.stream, poll.start).await?;
        if !batch.is_empty() || batch.closed || poll.hold.is_zero() {
            self.metrics.messages_out(batch.messages, batch.len());
            return Ok(Begun::Answered(Polled { batch: batch.into(), superseded: false, held: false }));
        }
        let deadline = Instant::now() + poll.hold;
        let place = self
            .clients
            .hold(poll.client, subject, Some(batch.next), deadline)
            .map_err(PollError::TooManyPolls)?;
        // Asked only now that the poll is on its queue: either it is seen here, or the drain sees the poll.
        if self.is_draining() {
            return Err(PollError::Draining);
        }
        Ok(Begun::Held(Held::begin(self, place, watched, &batch)))
    }
}
