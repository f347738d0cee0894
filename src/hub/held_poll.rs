//! The long poll: answered at once if there is something to read, else held for a message, the deadline, or an earlier
//! end.
//!
//! There may be very many held polls. So a [`HeldPoll`] is a small state machine that its connection polls, not a future:
//! it has room for what it needs to wait, and uses the connection's timer.

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::clients::{HoldEnd, QueueSlot};
use super::source::Source;
use super::{ClientId, Hub, TooManyPolls};
use crate::clock::ReusableSleep;
use crate::stream::ReadError;

/// How a source is polled.
#[derive(Debug, Clone)]
pub struct PollSettings {
    /// How long to wait for something new.
    pub hold: Duration,
    /// Whose wait queue it goes to.
    pub client: Option<ClientId>,
}

/// The answer to a long poll.
pub struct Polled<S: Source> {
    /// What is new, or a batch without anything new.
    pub batch: S::Batch,
    /// The source, whose position is behind the batch.
    pub source: S,
    /// Whether a newer poll of the same client ended it.
    pub superseded: bool,
    /// Whether it had to wait.
    pub held: bool,
}

/// What becomes of a long poll at first.
pub enum PollStart<'a, S: Source> {
    /// It is answered at once.
    Answered(Polled<S>),
    /// It has to wait.
    Held(HeldPoll<'a, S>),
}

/// Why a long poll or a live form has no answer.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// The stream cannot be read from there.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The client holds too many polls.
    #[error("the client holds {} polls, which is the most it may", .0.max)]
    TooManyPolls(TooManyPolls),
    /// The gateway drains and holds no more polls.
    #[error("the gateway is shutting down")]
    Draining,
}

/// A long poll that waits. Dropping it leaves the wait queue and the streams.
pub struct HeldPoll<'a, S: Source> {
    slot: QueueSlot<'a>,
    state: HeldPollState<S>,
    /// When the append that it was woken for was answered by the store.
    published: Option<Instant>,
    /// Why the next read is the last one.
    over: Option<Over>,
}

enum HeldPollState<S: Source> {
    Waiting(S),
    PendingRead(PendingRead<S>),
    Answered,
}

/// A read, which returns the source.
type PendingRead<S> = Pin<Box<dyn Future<Output = (S, Result<<S as Source>::Batch, ReadError>)> + Send>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Deadline,
    Superseded,
    Draining,
}

impl Hub {
    /// Answers a long poll.
    ///
    /// Cancel safe: dropping the future leaves the wait queue and the streams.
    pub async fn poll<S: Source>(&self, source: S, poll: PollSettings) -> Result<Polled<S>, PollError> {
        match self.begin_poll(source, poll).await? {
            PollStart::Answered(polled) => Ok(polled),
            PollStart::Held(mut held) => {
                let mut timer = ReusableSleep::default();
                poll_fn(|context| held.poll_answer(&mut timer, context)).await
            }
        }
    }

    /// Begins a long poll, up to where it has to wait.
    pub async fn begin_poll<S: Source>(
        &self,
        mut source: S,
        poll: PollSettings,
    ) -> Result<PollStart<'_, S>, PollError> {
        let PollSettings { hold, client } = poll;
        if let Some(client) = &client {
            self.clients.supersede(client, &source.subject());
        }
        let may_wait = source.may_wait() && !hold.is_zero();
        let batch = source.read(self.limits.read_bytes_max).await?;
        if S::is_news(&batch) || !may_wait {
            return Ok(PollStart::Answered(Polled { batch, source, superseded: false, held: false }));
        }
        let (subject, offset, deadline) = (source.subject(), source.offset(), Instant::now() + hold);
        let slot = self.clients.hold(client, subject, offset, deadline).map_err(PollError::TooManyPolls)?;
        // Asked only now that the poll is on its queue: either it is seen here, or the drain sees the poll.
        if self.is_draining() {
            return Err(PollError::Draining);
        }
        Ok(PollStart::Held(HeldPoll {
            slot,
            state: HeldPollState::Waiting(source),
            published: None,
            over: None,
        }))
    }
}

impl<S: Source> HeldPoll<'_, S> {
    /// Promises that the poll's task polls it as soon as it wakes and does nothing else: then a publisher may let it read
    /// first.
    pub fn read_before_publisher_returns(&mut self) {
        if let HeldPollState::Waiting(source) = &mut self.state {
            source.read_before_publisher_returns();
        }
    }

    /// Waits for the answer, which comes once. `timer` is the same each time, or one that the same task has used.
    pub fn poll_answer(
        &mut self,
        timer: &mut ReusableSleep,
        context: &mut Context<'_>,
    ) -> Poll<Result<Polled<S>, PollError>> {
        loop {
            match std::mem::replace(&mut self.state, HeldPollState::Answered) {
                HeldPollState::Answered => return Poll::Pending,
                HeldPollState::Waiting(mut source) => {
                    let found = self.poll_woken(&mut source, timer, context);
                    match found {
                        Poll::Pending => {
                            self.state = HeldPollState::Waiting(source);
                            return Poll::Pending;
                        }
                        Poll::Ready(Some(batch)) => return Poll::Ready(Ok(self.answer(source, batch))),
                        Poll::Ready(None) => self.state = HeldPollState::PendingRead(read(source)),
                    }
                }
                HeldPollState::PendingRead(mut reading) => {
                    let Poll::Ready((source, batch)) = reading.as_mut().poll(context) else {
                        self.state = HeldPollState::PendingRead(reading);
                        return Poll::Pending;
                    };
                    let batch = batch?;
                    if S::is_news(&batch) || self.over.is_some() {
                        return Poll::Ready(Ok(self.answer(source, batch)));
                    }
                    self.state = HeldPollState::Waiting(source);
                }
            }
        }
    }

    /// Waits until it is time to read, unless another reader has read for this one.
    fn poll_woken(
        &mut self,
        source: &mut S,
        timer: &mut ReusableSleep,
        context: &mut Context<'_>,
    ) -> Poll<Option<S::Batch>> {
        if let Poll::Ready(change) = source.poll_changed(context) {
            self.published = change.published;
            return Poll::Ready(change.batch);
        }
        let deadline = self.slot.deadline();
        let (until, over) = match self.slot.poll_ended(context) {
            Poll::Ready(HoldEnd::Draining) => (None, Over::Draining),
            Poll::Ready(HoldEnd::Superseded { answer_at }) => {
                (Some(answer_at.min(deadline)), Over::Superseded)
            }
            Poll::Pending => (Some(deadline), Over::Deadline),
        };
        if let Some(until) = until {
            ready!(timer.poll(context, until));
        }
        self.over = Some(over);
        Poll::Ready(None)
    }

    fn answer(&self, source: S, batch: S::Batch) -> Polled<S> {
        let published = self.published.filter(|_| self.over.is_none());
        source.hub().metrics.held_poll_answered(self.slot.since(), published);
        let superseded = self.over == Some(Over::Superseded) && !S::is_news(&batch);
        Polled { batch, source, superseded, held: true }
    }
}

fn read<S: Source>(mut source: S) -> PendingRead<S> {
    Box::pin(async move {
        let bytes_max = source.hub().limits.read_bytes_max;
        let batch = source.read(bytes_max).await;
        (source, batch)
    })
}

impl<S: Source<Batch: fmt::Debug>> fmt::Debug for Polled<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batch, source: _, superseded, held } = self;
        let mut polled = f.debug_struct("Polled");
        polled.field("batch", batch).field("superseded", superseded).field("held", held).finish()
    }
}
