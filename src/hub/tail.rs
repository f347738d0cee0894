//! [`Tail`]: a source as a series of updates. Every live delivery form is an encoding of this series.
//!
//! A tail reads only when it is polled and never ahead, so a client that does not read costs no more than a
//! position. There may be very many tails. So a [`Tail`] is a state machine, not a future: it stores only what
//! it needs to wait.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::drain::DrainWaiter;
use super::source::{PendingRead, Source, read_next, read_once};
use super::update::Change;
use super::{Hub, PollError};
use crate::clock::ReusableSleep;
use crate::stream::ReadError;

/// Completes when the rights of a client end, with a word for the reason.
pub type EndSignal = Pin<Box<dyn Future<Output = &'static str> + Send>>;

/// Settings of a live delivery form.
pub struct TailSettings {
    /// Interval after which an update without news is sent as a heartbeat.
    pub heartbeat: Duration,
    /// Time after which the tail ends and the client reconnects. `None`: no limit.
    pub life: Option<Duration>,
    /// When this completes, the tail ends without another update. `None`: the client has its rights without end.
    pub rights_end: Option<EndSignal>,
}

/// The updates of a source for one live delivery form. The first batch is already read.
pub struct Tail<S: Source> {
    state: TailStage<S>,
    heartbeat: Duration,
    life: TailDeadline,
    /// When the heartbeat is due; `None` while the tail does not wait.
    heartbeat_at: Option<Instant>,
    /// An update is due even without news.
    is_due: bool,
    rights: TailRights,
}

/// The rights of the client of a tail.
enum TailRights {
    /// They do not end.
    Endless,
    Until(EndSignal),
    /// They have ended, for this reason.
    Ended(&'static str),
}

enum TailStage<S: Source> {
    /// The first batch, until `poll_next` returns it.
    First(S, S::Batch),
    Waiting(S),
    /// A read, with when the append that woke the tail was reported.
    Reading(PendingRead<S>, Option<Instant>),
    /// The last update was returned. `None` only while `poll_next` runs.
    Ended(Option<S>),
}

/// Decides when a tail ends: after its life, during a drain, or when memory is critical.
struct TailDeadline {
    hub: Arc<Hub>,
    drain: DrainWaiter,
    timer: ReusableSleep,
    ends_at: Option<Instant>,
    /// In milliseconds. Drawn at the begin, because a drain wakes tails in an order that no simulation can repeat.
    drain_moment: u32,
    /// The drain is already included in `ends_at`.
    drain_noted: bool,
}

impl Hub {
    /// Opens the tail of a source and reads its first batch, so that the front can still answer an error with
    /// a status.
    pub async fn tail<S: Source>(
        self: &Arc<Self>,
        mut source: S,
        settings: TailSettings,
    ) -> Result<Tail<S>, PollError> {
        if self.is_draining() {
            return Err(PollError::Draining);
        }
        let first = read_next(&mut source, self.limits.tail_bytes_max).await?;
        let TailSettings { heartbeat, life, rights_end } = settings;
        Ok(Tail {
            state: TailStage::First(source, first),
            heartbeat,
            life: TailDeadline::begin(self, life),
            heartbeat_at: None,
            is_due: false,
            rights: rights_end.map_or(TailRights::Endless, TailRights::Until),
        })
    }
}

impl<S: Source> Tail<S> {
    /// Returns the first batch, until [`poll_next`](Self::poll_next) returns it.
    pub fn first(&self) -> Option<&S::Batch> {
        match &self.state {
            TailStage::First(_, first) => Some(first),
            TailStage::Waiting(_) | TailStage::Reading(..) | TailStage::Ended(_) => None,
        }
    }

    /// Returns the source. Its position is behind the last update. `None`: it is being read.
    pub fn source_mut(&mut self) -> Option<&mut S> {
        match &mut self.state {
            TailStage::First(source, _) | TailStage::Waiting(source) => Some(source),
            TailStage::Ended(source) => source.as_mut(),
            TailStage::Reading(..) => None,
        }
    }

    /// Whether the tail has ended because its life is over. It has not if the gateway is draining or lacks memory.
    pub fn has_outlived(&self) -> bool {
        matches!(self.state, TailStage::Ended(_)) && self.life.is_spent()
    }

    /// Takes the reason why the rights of the client have ended. `None`: the tail has not ended for that reason, or the reason was
    /// taken already.
    pub fn take_unauthorized(&mut self) -> Option<&'static str> {
        match self.rights {
            TailRights::Ended(why) => {
                self.rights = TailRights::Endless;
                Some(why)
            }
            TailRights::Endless | TailRights::Until(_) => None,
        }
    }

    /// Returns the next update: the first batch at once, later ones when there is something new, or without
    /// news when a heartbeat or the end is due. Returns `None` after the last update: the source has ended,
    /// the life of the tail is over, the gateway is draining, or a read failed; and without a last update as soon as
    /// the rights of the client end.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<S::Update>> {
        loop {
            match std::mem::replace(&mut self.state, TailStage::Ended(None)) {
                TailStage::Ended(source) => {
                    self.state = TailStage::Ended(source);
                    return Poll::Ready(None);
                }
                TailStage::First(source, first) => return Poll::Ready(Some(self.update(source, first))),
                TailStage::Waiting(mut source) => match self.poll_wait(&mut source, context) {
                    Poll::Pending => {
                        self.state = TailStage::Waiting(source);
                        return Poll::Pending;
                    }
                    Poll::Ready(None) => self.state = TailStage::Ended(Some(source)),
                    Poll::Ready(Some(Change { published, batch })) => {
                        let bytes_max = self.life.hub.limits.tail_bytes_max;
                        let Some(batch) = batch.or_else(|| source.read_known(bytes_max)) else {
                            self.state = TailStage::Reading(read_once(source, bytes_max), published);
                            continue;
                        };
                        if let Some(update) = self.update_if_due(source, batch, published) {
                            return Poll::Ready(Some(update));
                        }
                    }
                },
                TailStage::Reading(mut reading, published) => {
                    let Poll::Ready((source, batch)) = reading.as_mut().poll(context) else {
                        self.state = TailStage::Reading(reading, published);
                        return Poll::Pending;
                    };
                    match batch {
                        Ok(batch) => {
                            if let Some(update) = self.update_if_due(source, batch, published) {
                                return Poll::Ready(Some(update));
                            }
                        }
                        Err(error) => {
                            self.state = TailStage::Ended(Some(source));
                            let gap = if let ReadError::Gap(gap) = error { S::gap(gap) } else { None };
                            return Poll::Ready(gap);
                        }
                    }
                }
            }
        }
    }

    /// Waits until something may have changed or an update is due. `None`: the rights of the client have ended.
    fn poll_wait(&mut self, source: &mut S, context: &mut Context<'_>) -> Poll<Option<Change<S::Batch>>> {
        let heartbeat_at = *self.heartbeat_at.get_or_insert_with(|| Instant::now() + self.heartbeat);
        if let TailRights::Until(end) = &mut self.rights
            && let Poll::Ready(why) = end.as_mut().poll(context)
        {
            self.rights = TailRights::Ended(why);
            return Poll::Ready(None);
        }
        if let Poll::Ready(change) = source.poll_changed(context) {
            return Poll::Ready(Some(change));
        }
        ready!(self.life.poll_due(heartbeat_at, context));
        self.is_due = true;
        self.life.end_if_memory_is_critical();
        Poll::Ready(Some(Change::default()))
    }

    /// Returns a batch as an update if it has news, or if one is due; otherwise waits on.
    fn update_if_due(&mut self, source: S, batch: S::Batch, published: Option<Instant>) -> Option<S::Update> {
        if S::is_news(&batch) {
            self.life.hub.metrics.published_to_answer(published);
        }
        if S::is_news(&batch) || self.is_due {
            return Some(self.update(source, batch));
        }
        self.state = TailStage::Waiting(source);
        None
    }

    fn update(&mut self, source: S, batch: S::Batch) -> S::Update {
        (self.heartbeat_at, self.is_due) = (None, false);
        let update = batch.into();
        let is_last = S::is_last(&update) || self.life.is_over();
        self.state = if is_last { TailStage::Ended(Some(source)) } else { TailStage::Waiting(source) };
        update
    }
}

impl TailDeadline {
    fn begin(hub: &Arc<Hub>, life: Option<Duration>) -> Self {
        let ends_at = life.map(|life| Instant::now() + life);
        let drain_moment = u32::try_from(hub.drain_moment().as_millis()).unwrap_or(u32::MAX);
        let (drain, timer) = (hub.drain_waiter(), ReusableSleep::default());
        Self { hub: hub.clone(), drain, timer, ends_at, drain_moment, drain_noted: false }
    }

    fn is_over(&mut self) -> bool {
        self.note_drain();
        self.ends_at.is_some_and(|end| Instant::now() >= end)
    }

    fn is_spent(&self) -> bool {
        let is_over = self.ends_at.is_some_and(|end| Instant::now() >= end);
        is_over && !self.drain_noted && !self.hub.budget().is_critical()
    }

    /// Ends a tail that had nothing to read for a heartbeat if memory is critical, to make room for active
    /// readers.
    fn end_if_memory_is_critical(&mut self) {
        if self.hub.budget().is_critical() {
            self.ends_at = Some(Instant::now());
        }
    }

    /// Completes at `heartbeat_at`, or when the tail is over if that is earlier.
    fn poll_due(&mut self, heartbeat_at: Instant, context: &mut Context<'_>) -> Poll<()> {
        if !self.drain_noted && self.drain.poll(context).is_ready() {
            self.note_drain();
        }
        self.timer.poll(context, self.ends_at.unwrap_or(heartbeat_at).min(heartbeat_at))
    }

    /// During a drain each tail ends after a random delay, so that clients do not all reconnect at once.
    fn note_drain(&mut self) {
        if !self.drain_noted && self.hub.is_draining() {
            self.drain_noted = true;
            let end = Instant::now() + Duration::from_millis(self.drain_moment.into());
            self.ends_at = Some(self.ends_at.unwrap_or(end).min(end));
        }
    }
}
