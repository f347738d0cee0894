//! The long poll: what is there at once, else wait for a message, the deadline, or an end before that.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::clients::{Ending, Subject};
use super::{ClientId, Hub, ReadError, Shared, TooManyPolls};
use crate::stream::{Start, StreamName};

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
    ///
    /// There may be very many of them, so nothing is in the future while it waits that the answer does not need.
    #[allow(clippy::manual_async_fn, reason = "an async fn has room for its arguments twice")]
    pub fn poll(&self, poll: Poll) -> impl Future<Output = Result<Polled, PollError>> + Send + '_ {
        async move {
            if let Some(client) = &poll.client {
                self.clients.supersede(client, &Subject::Stream(poll.stream.clone()));
            }
            let mut next = {
                let batch = self.read(&poll.stream, poll.start).await?;
                if !batch.is_empty() || batch.closed || poll.hold.is_zero() {
                    self.metrics.messages_out(batch.messages, batch.len());
                    return Ok(Polled { batch: batch.into(), superseded: false, held: false });
                }
                batch.next
            };
            let since = Instant::now();
            let place = self
                .clients
                .hold(
                    poll.client.clone(),
                    Subject::Stream(poll.stream.clone()),
                    Some(next),
                    since + poll.hold,
                )
                .map_err(PollError::TooManyPolls)?;
            // Asked only now that the poll is on its queue: either it is seen here, or the drain sees the poll.
            if self.is_draining() {
                return Err(PollError::Draining);
            }
            let mut deadline = pin!(sleep_until(since + poll.hold));
            let (mut published, mut superseded, mut is_over) = (None, false, false);
            let answered = |batch: Shared, published: Option<Instant>, superseded: bool| {
                self.metrics.held_poll_answered(since, published);
                self.metrics.messages_out(batch.messages, batch.len());
                Ok(Polled { superseded: superseded && batch.is_empty(), batch, held: true })
            };
            loop {
                let watched = self.live.watch(&poll.stream);
                let (epoch, tail) = {
                    let batch = self.read(&poll.stream, Start::At(next)).await?;
                    if !batch.is_empty() || batch.closed || is_over {
                        let batch = watched.share(next, batch, self.limits.tail_bytes_max);
                        return answered(batch, published.filter(|_| !is_over), superseded);
                    }
                    next = batch.next;
                    (batch.epoch, batch.tail)
                };
                tokio::select! {
                    biased;
                    moved = watched.moved(next, epoch, tail) => match moved.read {
                        Some(read) => return answered(read, moved.at, false),
                        None => published = moved.at,
                    },
                    ending = place.ended() => (superseded, is_over) = (ending == Ending::Superseded, true),
                    () = deadline.as_mut() => is_over = true,
                }
            }
        }
    }
}
