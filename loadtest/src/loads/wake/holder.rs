//! Holds a poll on a stream, time and again.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use tokio::time::Instant;

use super::Stage;
use crate::client::addressed;
use crate::dialects::HttpDialect;
use crate::loads::HOLD;
use crate::streams::stream_name;
use crate::wire::{Connection, WireError, accepted, open};

/// See the module.
pub(super) struct Holder {
    stage: Arc<Stage>,
    stream: u32,
    name: String,
    cursor: Option<String>,
}

/// The connection of its polls, and another one that shows that a poll is held.
struct Connections {
    poll: Connection,
    look: Connection,
}

impl Holder {
    /// One at the beginning of the stream.
    pub(super) fn new(stage: Arc<Stage>, stream: u32) -> Self {
        let name = stream_name(stage.workload.plan.run, stream);
        Self { stage, stream, name, cursor: None }
    }

    /// Holds polls until something breaks.
    pub(super) async fn run(mut self) {
        let Err(error) = self.hold_polls().await else { return };
        self.stage.tally.troubles.note(format!("polling: {error}"));
    }

    async fn hold_polls(&mut self) -> Result<(), WireError> {
        let address = self.stage.target.address;
        let dialect = self.stage.target.dialect.http().ok_or(WireError::Closed)?;
        let mut connections = Connections {
            poll: Connection::over(open(address).await?).await?,
            look: Connection::over(open(address).await?).await?,
        };
        loop {
            let answer = self.held(dialect, &mut connections).await?;
            let now = Instant::now();
            accepted(&answer)?;
            for message in self.stage.workload.find_in(answer.body()) {
                if let Some(due) = self.stage.due.get(message.sequence as usize) {
                    self.stage.tally.note(*due, now - *due);
                    self.stage.arrived.fetch_add(1, Ordering::Release);
                }
            }
            self.cursor = Some(dialect.cursor(answer.headers()).ok_or(WireError::NoCursor)?);
        }
    }

    /// The answer to a poll. It counts as held once the server has answered a request that went out after it.
    async fn held(
        &self,
        dialect: &dyn HttpDialect,
        connections: &mut Connections,
    ) -> Result<Response<Bytes>, WireError> {
        let asking = |hold: Option<Duration>| {
            addressed(dialect.poll(&self.name, self.cursor.as_deref(), hold), &self.stage.target)
        };
        let mut answer = pin!(connections.poll.exchange(asking(Some(HOLD))?));
        let mut look = pin!(connections.look.exchange(asking(None)?));
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
