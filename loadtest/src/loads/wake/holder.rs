//! Holds a poll on a stream, time and again.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Stage;
use crate::loads::HOLD;
use crate::loads::poller::Poller;
use crate::wire::{LeanConnection, RawAnswer, WireError, open};

/// See the module.
pub(super) struct Holder {
    stage: Arc<Stage>,
    stream: u32,
    poller: Poller,
}

/// The connection of its polls, and another one that shows that a poll is held. Lean ones, since what a client takes to
/// read an answer is no part of what the server takes to wake it.
struct Connections {
    poll: LeanConnection,
    look: LeanConnection,
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
        let address = scene.target.address;
        let (poll, look) = (open(address).await?, open(address).await?);
        let mut connections =
            Connections { poll: LeanConnection::over(poll), look: LeanConnection::over(look) };
        loop {
            let (at, answer) = self.held(&mut connections).await?;
            for message in self.poller.read(&answer.response()?)? {
                if let Some(due) = self.stage.due.get(message.sequence as usize) {
                    scene.tally.note(*due, at - *due);
                    self.stage.arrived.fetch_add(1, Ordering::Release);
                }
            }
        }
    }

    /// The answer to a poll. It counts as held once the server has answered a request that went out after it.
    async fn held(&self, connections: &mut Connections) -> Result<(Instant, RawAnswer), WireError> {
        connections.poll.send(&self.poller.poll(Some(HOLD))?).await?;
        connections.look.send(&self.poller.poll(None)?).await?;
        let mut answer = pin!(connections.poll.answer());
        let mut look = pin!(connections.look.answer());
        // In this order, so that an answer that is early is seen to be.
        tokio::select! {
            biased;
            early = &mut answer => {
                look.await?;
                return early;
            }
            looked = &mut look => drop(looked?),
        };
        self.stage.hold(self.stream);
        answer.await
    }
}
