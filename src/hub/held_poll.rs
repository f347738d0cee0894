//! The long poll: answered at once if there is something to read, otherwise held until a message arrives, the
//! deadline passes, or it is ended early.
//!
//! There may be very many held polls. So a [`HeldPoll`] is a small state machine that its connection polls,
//! not a future: it stores only what it needs to wait, and uses the timer of the connection.

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::clients::{CredentialMark, HoldEnd, QueueSlot};
use super::source::{PendingRead, Source, read_once};
use super::update::Change;
use super::{ClientId, Hub, TooManyPolls};
use crate::budget::OpenCharge;
use crate::clock::ReusableSleep;
use crate::stream::ReadError;

/// Settings of a long poll.
#[derive(Debug, Default)]
pub struct PollSettings {
    /// Maximum time to wait for something new.
    pub hold: Duration,
    /// The client whose wait queue the poll joins. `None`: anonymous.
    pub client: Option<ClientId>,
    /// The credentials with which the poll is held. `None`: they need not be checked again.
    pub credentials: Option<CredentialMark>,
    /// The place that the poll takes among what its tenant may have open. `None`: their number is not limited.
    pub open: Option<OpenCharge>,
}

/// The answer to a long poll.
pub struct Polled<S: Source> {
    /// The new messages, or a batch without news.
    pub batch: S::Batch,
    /// The source. Its position is behind the batch.
    pub source: S,
    /// A newer poll of the same client ended this one.
    pub superseded: bool,
    /// The credentials of the client have ended during the hold: it may not have messages of the batch.
    pub unauthorized: bool,
    /// The poll was held.
    pub held: bool,
    took_over: bool,
}

/// A long poll that has superseded an older one of its client, and has not read yet.
pub struct UnreadPoll<S: Source> {
    source: S,
    poll: PollSettings,
    may_wait: bool,
    /// The poll has superseded an older one.
    before: bool,
}

/// First outcome of a long poll.
pub enum PollStart<'a, S: Source> {
    /// The poll is answered at once.
    Answered(Polled<S>),
    /// The poll is held.
    Held(HeldPoll<'a, S>),
}

impl<S: Source> PollStart<'_, S> {
    /// Whether the poll has ended an older one of the same client.
    pub fn took_over(&self) -> bool {
        match self {
            Self::Answered(polled) => polled.took_over,
            Self::Held(poll) => poll.took_over,
        }
    }
}

/// Why a long poll or a live delivery form cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// The stream cannot be read from the requested position.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The client already holds the maximum number of polls.
    #[error("the client already holds {} polls, the maximum", .0.max)]
    TooManyPolls(TooManyPolls),
    /// The gateway is draining and holds no new polls.
    #[error("the gateway is shutting down")]
    Draining,
}

/// A long poll that waits. Dropping it removes it from its wait queue and from the waiters of its streams.
pub struct HeldPoll<'a, S: Source> {
    slot: QueueSlot<'a>,
    state: HeldPollState<S>,
    /// Why the next read is the last one.
    end_reason: Option<EndReason>,
    took_over: bool,
}

enum HeldPollState<S: Source> {
    Waiting(S),
    /// A read, with when the append that woke this poll was reported.
    PendingRead(PendingRead<S>, Option<Instant>),
    Answered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndReason {
    Deadline,
    Superseded,
    Draining,
    Unauthorized,
    /// The client will send no more, and might be gone.
    HalfClosed,
}

impl Hub {
    /// Runs a long poll to its answer.
    ///
    /// Cancel safe: dropping the future removes the poll from its wait queue and its waiters.
    pub async fn poll<S: Source>(&self, source: S, poll: PollSettings) -> Result<Polled<S>, PollError> {
        match self.begin_poll(source, poll).await? {
            PollStart::Answered(polled) => Ok(polled),
            PollStart::Held(mut held) => {
                let mut timer = ReusableSleep::default();
                poll_fn(|context| held.poll_answer(&mut timer, context)).await
            }
        }
    }

    /// Starts a long poll: reads once, and holds the poll if there is nothing new.
    pub async fn begin_poll<S: Source>(
        &self,
        source: S,
        poll: PollSettings,
    ) -> Result<PollStart<'_, S>, PollError> {
        match self.begin_poll_at_once(source, poll) {
            Ok(started) => started,
            Err(unread) => self.begin_unread(unread).await,
        }
    }

    /// Starts a long poll like [`begin_poll`](Self::begin_poll), if the store knows what follows without waiting for anything. Otherwise
    /// returns the poll for [`begin_unread`](Self::begin_unread).
    pub fn begin_poll_at_once<S: Source>(
        &self,
        source: S,
        poll: PollSettings,
    ) -> Result<Result<PollStart<'_, S>, PollError>, UnreadPoll<S>> {
        let supersede = |client: &ClientId| self.clients.supersede(client, &source.subject());
        let before = poll.client.as_ref().is_some_and(supersede);
        let may_wait = source.may_wait() && !poll.hold.is_zero();
        let mut unread = UnreadPoll { source, poll, may_wait, before };
        match unread.source.read_known(self.limits.read_bytes_max) {
            Some(batch) => Ok(self.begin_read(unread, batch)),
            None => Err(unread),
        }
    }

    /// Starts a long poll whose store has to wait for something.
    pub async fn begin_unread<S: Source>(
        &self,
        mut unread: UnreadPoll<S>,
    ) -> Result<PollStart<'_, S>, PollError> {
        let batch = unread.source.read(self.limits.read_bytes_max).await?;
        self.begin_read(unread, batch)
    }

    /// Answers a long poll that has read, or holds it.
    fn begin_read<S: Source>(
        &self,
        UnreadPoll { source, poll, may_wait, before }: UnreadPoll<S>,
        batch: S::Batch,
    ) -> Result<PollStart<'_, S>, PollError> {
        let PollSettings { hold, client, credentials, open } = poll;
        if S::is_news(&batch) || !may_wait {
            return Ok(PollStart::Answered(Polled {
                batch,
                source,
                superseded: false,
                unauthorized: false,
                held: false,
                took_over: before,
            }));
        }
        let (subject, offset) = (source.subject(), source.offset());
        let slot = self.clients.hold(client, subject, offset, hold, (credentials, open));
        let (slot, meanwhile) = slot.map_err(PollError::TooManyPolls)?;
        // Checked after the poll has joined its queue: either the drain is seen here, or the drain sees the
        // poll.
        if self.is_draining() {
            return Err(PollError::Draining);
        }
        Ok(PollStart::Held(HeldPoll {
            slot,
            state: HeldPollState::Waiting(source),
            end_reason: None,
            took_over: before || meanwhile,
        }))
    }
}

impl<S: Source> HeldPoll<'_, S> {
    /// Ends the poll early, as if its deadline had passed. The caller has to poll it afterwards.
    pub fn end(&mut self) {
        self.end_reason = Some(EndReason::HalfClosed);
    }

    /// Whether [`end`](Self::end) was called.
    pub fn has_ended(&self) -> bool {
        self.end_reason == Some(EndReason::HalfClosed)
    }

    /// Waits for the answer, which is returned once. `timer` is the same in each call, or another one that
    /// the same task polls.
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
                        Poll::Ready(Change { published, batch: Some(batch) }) => {
                            return Poll::Ready(Ok(self.answer(source, batch, published)));
                        }
                        Poll::Ready(Change { published, batch: None }) => {
                            let bytes_max = source.hub().limits.read_bytes_max;
                            match source.read_known(bytes_max) {
                                Some(batch) if S::is_news(&batch) || self.end_reason.is_some() => {
                                    return Poll::Ready(Ok(self.answer(source, batch, published)));
                                }
                                Some(_) => self.state = HeldPollState::Waiting(source),
                                None => {
                                    let reading = read_once(source, bytes_max);
                                    self.state = HeldPollState::PendingRead(reading, published);
                                }
                            }
                        }
                    }
                }
                HeldPollState::PendingRead(mut reading, published) => {
                    let Poll::Ready((source, batch)) = reading.as_mut().poll(context) else {
                        self.state = HeldPollState::PendingRead(reading, published);
                        return Poll::Pending;
                    };
                    let batch = batch?;
                    if S::is_news(&batch) || self.end_reason.is_some() {
                        return Poll::Ready(Ok(self.answer(source, batch, published)));
                    }
                    self.state = HeldPollState::Waiting(source);
                }
            }
        }
    }

    /// Waits until it is time to read, because something has changed or the poll ends.
    fn poll_woken(
        &mut self,
        source: &mut S,
        timer: &mut ReusableSleep,
        context: &mut Context<'_>,
    ) -> Poll<Change<S::Batch>> {
        if let Poll::Ready(change) = source.poll_changed(context) {
            return Poll::Ready(change);
        }
        if self.end_reason.is_some() {
            return Poll::Ready(Change::default());
        }
        let deadline = self.slot.deadline();
        let (until, reason) = match self.slot.poll_ended(context) {
            Poll::Ready(HoldEnd::Draining) => (None, EndReason::Draining),
            Poll::Ready(HoldEnd::Unauthorized) => (None, EndReason::Unauthorized),
            Poll::Ready(HoldEnd::Superseded { answer_after }) => {
                (Some(deadline.min(self.slot.since() + answer_after.into())), EndReason::Superseded)
            }
            Poll::Pending => (Some(deadline), EndReason::Deadline),
        };
        if let Some(until) = until {
            ready!(timer.poll(context, until));
        }
        self.end_reason = Some(reason);
        Poll::Ready(Change::default())
    }

    fn answer(&self, source: S, batch: S::Batch, published: Option<Instant>) -> Polled<S> {
        let published = published.filter(|_| self.end_reason.is_none());
        source.hub().metrics.held_poll_answered(self.slot.since(), published);
        let superseded = self.end_reason == Some(EndReason::Superseded) && !S::is_news(&batch);
        // An append may have woken the poll in the moment in which it was ended.
        let unauthorized = self.slot.ending() == Some(HoldEnd::Unauthorized);
        Polled { batch, source, superseded, unauthorized, held: true, took_over: self.took_over }
    }
}

impl<S: Source<Batch: fmt::Debug>> fmt::Debug for Polled<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { batch, source: _, superseded, unauthorized, held, took_over } = self;
        let mut polled = f.debug_struct("Polled");
        polled.field("batch", batch).field("superseded", superseded).field("unauthorized", unauthorized);
        polled.field("held", held).field("took_over", took_over).finish()
    }
}
