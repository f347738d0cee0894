//! Holds a poll on a stream, time and again.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hyper::Response;
use tokio::time::Instant;

use super::Stage;
use crate::loads::HOLD;
use crate::loads::poller::Poller;
use crate::wire::{Connection, WireError};

/// See the module.
pub(super) struct Holder {
    stage: Arc<Stage>,
    stream: u32,
    poller: Poller,
}

/// The connection of its polls, and another one that shows that a poll is held.
struct Connections {
    poll: Connection,
    look: Connection,
}

impl Holder {
    /// One at the beginning of the stream.
    pub(super) fn new(stage: Arc<Stage>, stream: u32) -> Self {
        Self { poller: Poller::new(stage.scene.clone(), stream), stage, stream }
    }

    /// Holds polls until something breaks.
    pub(super) async fn run(mut self) {
        let Err(error) = self.hold_polls().await else { return };
        self.stage.scene.tally.troubles.note(format!("polling: {error}"));
    }

    async fn hold_polls(&mut self) -> Result<(), WireError> {
        let scene = self.stage.scene.clone();
        let mut connections = Connections { poll: scene.connect().await?, look: scene.connect().await? };
        loop {
            let answer = self.held(&mut connections).await?;
            let now = Instant::now();
            for message in self.poller.read(&answer)? {
                if let Some(due) = self.stage.due.get(message.sequence as usize) {
                    scene.tally.note(*due, now - *due);
                    self.stage.arrived.fetch_add(1, Ordering::Release);
                }
            }
        }
    }

    /// The answer to a poll. It counts as held once the server has answered a request that went out after it.
    async fn held(&self, connections: &mut Connections) -> Result<Response<Bytes>, WireError> {
        let mut answer = pin!(connections.poll.exchange(self.poller.poll(Some(HOLD))?));
        let mut look = pin!(connections.look.exchange(self.poller.poll(None)?));
        // In this order, so that the poll is handed over first.
        tokio::select! {
            biased;
            early = &mut answer => {
                look.await?;
                return early;
            }
            looked = &mut look => looked?,
        };
        self.stage.hold(self.stream);
        answer.await
    }
}
