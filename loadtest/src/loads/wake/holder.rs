//! [`Holder`]: holds a poll on one stream, again and again.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Stage;
use crate::loads::HOLD;
use crate::loads::poller::Poller;
use crate::wire::{LeanConnection, RawAnswer, WireError, open};

/// Holds polls on one stream.
pub(super) struct Holder {
    stage: Arc<Stage>,
    stream: u32,
    poller: Poller,
}

/// The connection of the polls, and a second one whose answer proves that a poll is held. Both are lean, since the client's
/// time to parse an answer is not part of the server's wake latency.
struct Connections {
    poll: LeanConnection,
    look: LeanConnection,
}

impl Holder {
    /// Starts at the beginning of the stream.
    pub(super) fn new(stage: Arc<Stage>, stream: u32) -> Self {
        Self { poller: Poller::new(stage.scene.clone(), stream), stage, stream }
    }

    /// Holds polls until an error, which it records as a trouble.
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

    /// Returns the answer to a poll. The poll counts as held after the server answers a request that was sent after it.
    async fn held(&self, connections: &mut Connections) -> Result<(Instant, RawAnswer), WireError> {
        connections.poll.send(&self.poller.poll(Some(HOLD))?).await?;
        connections.look.send(&self.poller.poll(None)?).await?;
        let mut answer = pin!(connections.poll.answer());
        let mut look = pin!(connections.look.answer());
        // The poll is checked first, so that an early answer is detected.
        tokio::select! {
            biased;
            early = &mut answer => {
                look.await?;
                return early;
            }
            looked = &mut look => drop(looked?),
        };
        self.stage.mark_held(self.stream);
        answer.await
    }
}
