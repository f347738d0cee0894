//! How long a live form goes on: for its life, or until the gateway drains.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Hub;

/// The life of one live form.
pub(super) struct Life {
    hub: Arc<Hub>,
    ends_at: Option<Instant>,
    draining: watch::Receiver<bool>,
    leaving: bool,
}

impl Life {
    /// Begins one of so long; `None`: without an end of its own.
    pub(super) fn begin(hub: &Arc<Hub>, life: Option<Duration>) -> Self {
        let ends_at = life.map(|life| Instant::now() + life);
        Self { hub: hub.clone(), ends_at, draining: hub.draining(), leaving: false }
    }

    /// Whether it is over.
    pub(super) fn is_over(&mut self) -> bool {
        self.note_drain();
        self.ends_at.is_some_and(|end| Instant::now() >= end)
    }

    /// Sleeps until `heartbeat_at`, or until it is over before that.
    ///
    /// Cancel safe.
    pub(super) async fn sleep_until(&mut self, heartbeat_at: Instant) {
        loop {
            self.note_drain();
            tokio::select! {
                () = sleep_until(self.ends_at.unwrap_or(heartbeat_at).min(heartbeat_at)) => return,
                Ok(_) = self.draining.wait_for(|draining| *draining), if !self.leaving => {}
            }
        }
    }

    /// The gateway drains: it ends at a moment of its own, so that not all clients come again at once.
    fn note_drain(&mut self) {
        if !self.leaving && *self.draining.borrow() {
            self.leaving = true;
            let end = Instant::now() + self.hub.drain_moment();
            self.ends_at = Some(self.ends_at.unwrap_or(end).min(end));
        }
    }
}
