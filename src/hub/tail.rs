//! The tail of a source as a series of updates: what every live form is an encoding of.
//!
//! It reads when it is polled and never ahead, so a client that does not read costs a position.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::source::Source;
use super::update::Change;
use super::{Hub, PollError};
use crate::stream::ReadError;

/// How a live form wants its tail.
#[derive(Debug, Clone, Copy)]
pub struct TailSettings {
    /// The longest silence.
    pub heartbeat: Duration,
    /// When the tail ends so that the client comes again; `None`: never by itself.
    pub life: Option<Duration>,
}

/// A live form's view of a source, with the first batch already read.
pub struct Tail<S: Source> {
    source: S,
    heartbeat: Duration,
    life: TailDeadline,
    /// The first batch until it is told.
    first: Option<S::Batch>,
    ended: bool,
}

/// How long a live form goes on: for its life, or until the gateway drains.
struct TailDeadline {
    hub: Arc<Hub>,
    ends_at: Option<Instant>,
    draining: watch::Receiver<bool>,
    /// The drain has been noted in `ends_at`.
    leaving: bool,
}

impl Hub {
    /// Opens the tail of a source. Errors come here, as long as the front can still answer with a status.
    pub async fn tail<S: Source>(
        self: &Arc<Self>,
        mut source: S,
        settings: TailSettings,
    ) -> Result<Tail<S>, PollError> {
        if self.is_draining() {
            return Err(PollError::Draining);
        }
        let first = source.read(self.limits.tail_bytes_max).await?;
        let TailSettings { heartbeat, life } = settings;
        Ok(Tail {
            source,
            heartbeat,
            life: TailDeadline::begin(self, life),
            first: Some(first),
            ended: false,
        })
    }
}

impl<S: Source> Tail<S> {
    /// The first batch, until it is told.
    pub fn first(&self) -> Option<&S::Batch> {
        self.first.as_ref()
    }

    /// The source, whose position is behind the last update.
    pub fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// The next update: the first one at once, others when there is something new, or without anything new when it is
    /// time for a heartbeat or for the end. `None` behind the last one: when the source has ended, after the tail's life,
    /// when the gateway drains, and when a read fails.
    pub async fn next(&mut self) -> Option<S::Update> {
        if self.ended {
            return None;
        }
        let batch = match self.first.take() {
            Some(first) => Ok(first),
            None => self.read_on().await,
        };
        match batch {
            Ok(batch) => {
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

    async fn read_on(&mut self) -> Result<S::Batch, ReadError> {
        let heartbeat_at = Instant::now() + self.heartbeat;
        let mut is_due = false;
        loop {
            let Change { published, batch } = tokio::select! {
                biased;
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
                return Ok(batch);
            }
        }
    }
}

impl TailDeadline {
    fn begin(hub: &Arc<Hub>, life: Option<Duration>) -> Self {
        let ends_at = life.map(|life| Instant::now() + life);
        Self { hub: hub.clone(), ends_at, draining: hub.draining(), leaving: false }
    }

    fn is_over(&mut self) -> bool {
        self.note_drain();
        self.ends_at.is_some_and(|end| Instant::now() >= end)
    }

    /// A reader that has had nothing to read for a heartbeat makes room for those that have.
    fn end_if_memory_is_critical(&mut self) {
        if self.hub.budget().is_critical() {
            self.ends_at = Some(Instant::now());
        }
    }

    /// Sleeps until `heartbeat_at`, or until it is over before that.
    ///
    /// Cancel safe.
    async fn sleep_until(&mut self, heartbeat_at: Instant) {
        loop {
            self.note_drain();
            tokio::select! {
                () = sleep_until(self.ends_at.unwrap_or(heartbeat_at).min(heartbeat_at)) => return,
                Ok(_) = self.draining.wait_for(|draining| *draining), if !self.leaving => {}
            }
        }
    }

    /// In a drain each live form ends at a moment of its own, so that not all clients come again at once.
    fn note_drain(&mut self) {
        if !self.leaving && *self.draining.borrow() {
            self.leaving = true;
            let end = Instant::now() + self.hub.drain_moment();
            self.ends_at = Some(self.ends_at.unwrap_or(end).min(end));
        }
    }
}
