//! [`Tail`]: a source as a series of updates. Every live delivery form is an encoding of this series.
//!
//! A tail reads only when it is polled and never ahead, so a client that does not read costs no more than a
//! position.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::source::Source;
use super::update::Change;
use super::{Hub, PollError};
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
    source: S,
    heartbeat: Duration,
    life: TailDeadline,
    rights_end: Option<EndSignal>,
    /// Why the rights of the client have ended.
    unauthorized: Option<&'static str>,
    /// The first batch, until `next` returns it.
    first: Option<S::Batch>,
    ended: bool,
}

/// Decides when a tail ends: after its life, during a drain, or when memory is critical.
struct TailDeadline {
    hub: Arc<Hub>,
    ends_at: Option<Instant>,
    draining: watch::Receiver<bool>,
    /// Drawn at the begin, because a drain wakes tails in an order that no simulation can repeat.
    drain_moment: Duration,
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
        let first = source.read(self.limits.tail_bytes_max).await?;
        let TailSettings { heartbeat, life, rights_end } = settings;
        Ok(Tail {
            source,
            heartbeat,
            life: TailDeadline::begin(self, life),
            rights_end,
            unauthorized: None,
            first: Some(first),
            ended: false,
        })
    }
}

impl<S: Source> Tail<S> {
    /// Returns the first batch, until [`next`](Self::next) returns it.
    pub fn first(&self) -> Option<&S::Batch> {
        self.first.as_ref()
    }

    /// Returns the source. Its position is behind the last update.
    pub fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// Whether the tail has ended because its life is over. It has not if the gateway is draining or lacks memory.
    pub fn has_outlived(&self) -> bool {
        self.ended && self.life.is_spent()
    }

    /// Takes the reason why the rights of the client have ended. `None`: the tail has not ended for that reason, or the reason was
    /// taken already.
    pub fn take_unauthorized(&mut self) -> Option<&'static str> {
        self.unauthorized.take()
    }

    /// Returns the next update: the first batch at once, later ones when there is something new, or without
    /// news when a heartbeat or the end is due. Returns `None` after the last update: the source has ended,
    /// the life of the tail is over, the gateway is draining, or a read failed; and without a last update as soon as
    /// the rights of the client end.
    pub async fn next(&mut self) -> Option<S::Update> {
        if self.ended {
            return None;
        }
        let batch = match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => self.read_on().await,
        };
        match batch {
            Ok(None) => {
                self.ended = true;
                None
            }
            Ok(Some(batch)) => {
                let update = batch.into();
                self.ended = S::is_last(&update) || self.life.is_over();
                Some(update)
            }
            Err(error) => {
                self.ended = true;
                if let ReadError::Gap(gap) = error { S::gap(gap) } else { None }
            }
        }
    }

    /// Waits and reads. Returns `None` if the rights of the client have ended.
    async fn read_on(&mut self) -> Result<Option<S::Batch>, ReadError> {
        let heartbeat_at = Instant::now() + self.heartbeat;
        let mut is_due = false;
        loop {
            let Change { published, batch } = tokio::select! {
                biased;
                why = ended(&mut self.rights_end) => {
                    self.unauthorized = Some(why);
                    return Ok(None);
                }
                change = poll_fn(|context| self.source.poll_changed(context)) => change,
                () = self.life.sleep_until(heartbeat_at) => {
                    is_due = true;
                    self.life.end_if_memory_is_critical();
                    Change::default()
                }
            };
            let batch = match batch {
                Some(batch) => batch,
                None => self.source.read(self.life.hub.limits.tail_bytes_max).await?,
            };
            if S::is_news(&batch) {
                self.life.hub.metrics.published_to_answer(published);
            }
            if S::is_news(&batch) || is_due {
                return Ok(Some(batch));
            }
        }
    }
}

async fn ended(rights: &mut Option<EndSignal>) -> &'static str {
    match rights {
        Some(end) => end.await,
        None => pending().await,
    }
}

impl TailDeadline {
    fn begin(hub: &Arc<Hub>, life: Option<Duration>) -> Self {
        let ends_at = life.map(|life| Instant::now() + life);
        let (draining, drain_moment) = (hub.draining(), hub.drain_moment());
        Self { hub: hub.clone(), ends_at, draining, drain_moment, drain_noted: false }
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

    /// Sleeps until `heartbeat_at`, or until the tail is over if that is earlier.
    ///
    /// Cancel safe.
    async fn sleep_until(&mut self, heartbeat_at: Instant) {
        loop {
            self.note_drain();
            tokio::select! {
                () = sleep_until(self.ends_at.unwrap_or(heartbeat_at).min(heartbeat_at)) => return,
                Ok(_) = self.draining.wait_for(|draining| *draining), if !self.drain_noted => {}
            }
        }
    }

    /// During a drain each tail ends after a random delay, so that clients do not all reconnect at once.
    fn note_drain(&mut self) {
        if !self.drain_noted && *self.draining.borrow() {
            self.drain_noted = true;
            let end = Instant::now() + self.drain_moment;
            self.ends_at = Some(self.ends_at.unwrap_or(end).min(end));
        }
    }
}
