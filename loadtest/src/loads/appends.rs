//! Appends in a closed loop: each connection sends the next message once the one before is answered, so that as many
//! appends are under way as there are connections, whatever the server can do.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Load;
use crate::client::addressed;
use crate::streams::stream_name;
use crate::tally::Tally;
use crate::target::Target;
use crate::wire::{Connection, WireError, accepted, open};
use crate::workload::{MessageId, Workload};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Appends {
    /// Connections.
    pub connections: u32,
    /// Streams; connection `c` appends to stream `c % streams`.
    pub streams: u32,
}

/// One connection.
struct Appender {
    /// The stream of its messages, as they say it themselves.
    number: u32,
    stream: String,
    target: Target,
    workload: Arc<Workload>,
    tally: Arc<Tally>,
}

impl Load for Appends {
    const COUNTS: &'static str = "appends";

    fn streams(&self) -> u32 {
        self.streams
    }

    fn put(
        &self,
        target: Target,
        workload: Arc<Workload>,
        tally: Arc<Tally>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let Self { connections, streams } = *self;
        async move {
            let appenders = (0..connections).map(|number| Appender {
                number,
                stream: stream_name(workload.plan.run, number % streams.max(1)),
                target: target.clone(),
                workload: workload.clone(),
                tally: tally.clone(),
            });
            let loops: JoinSet<()> = appenders.map(Appender::run).collect();
            loops.join_all().await;
        }
    }
}

impl Appender {
    async fn run(self) {
        if let Err(error) = self.append_until_the_end().await {
            self.tally.troubles.note(error.to_string());
        }
    }

    /// Goes on after a refusal, as other clients of a server would; not without a connection.
    async fn append_until_the_end(&self) -> Result<(), WireError> {
        let dialect = self.target.dialect.http().ok_or(WireError::Closed)?;
        let mut connection = Connection::over(open(self.target.address).await?).await?;
        for sequence in 0.. {
            let message = self.workload.body(MessageId { stream: self.number, sequence });
            let request = addressed(dialect.publish(&self.stream, message), &self.target)?;
            let sent = Instant::now();
            if sent >= self.tally.window.end {
                break;
            }
            let answer = connection.exchange(request).await?;
            match accepted(&answer) {
                Ok(()) => self.tally.note(Instant::now(), sent.elapsed()),
                Err(refused) => self.tally.troubles.note(refused.to_string()),
            }
        }
        Ok(())
    }
}
