//! A server in a round, and what a load is to do there.

use std::sync::Arc;

use crate::client::addressed;
use crate::cost::Family;
use crate::dialects::{Asking, HttpDialect};
use crate::servers::Running;
use crate::streams::stream_name;
use crate::tally::Tally;
use crate::target::Target;
use crate::wire::{Connection, Request, WireError, open};
use crate::workload::{MessageId, Workload};

/// See the module.
pub struct Scene {
    /// How the server is reached.
    pub target: Target,
    /// Its processes; `None` of a server that somebody else has started.
    pub server: Option<Family>,
    /// The messages.
    pub workload: Arc<Workload>,
    /// When is measured, and what.
    pub tally: Tally,
}

impl Scene {
    /// On a server that has the streams of `workload` already.
    pub fn new(running: &Running, workload: Arc<Workload>, tally: Tally) -> Self {
        let server = running.process.as_ref().map(|process| process.family());
        Self { target: running.target.clone(), server, workload, tally }
    }

    /// The server's requests.
    pub(super) fn dialect(&self) -> Result<&'static dyn HttpDialect, WireError> {
        self.target.dialect.http().ok_or(WireError::Closed)
    }

    /// A connection to it.
    pub(super) async fn connect(&self) -> Result<Connection, WireError> {
        Connection::over(open(self.target.address).await?).await
    }

    /// The name of a stream by its number.
    pub(super) fn stream(&self, number: u32) -> String {
        stream_name(self.workload.plan.run, number)
    }

    /// A request as it goes out.
    pub(super) fn addressed(&self, request: Asking) -> Result<Request, WireError> {
        addressed(request, &self.target)
    }

    /// The append of a message to the stream of that name.
    pub(super) fn publish(&self, stream: &str, message: MessageId) -> Result<Request, WireError> {
        self.addressed(self.dialect()?.publish(stream, self.workload.body(message)))
    }

    /// Processor time of the server until now, in seconds.
    pub(super) fn server_processor(&self) -> Option<f64> {
        self.server.map(|server| server.processor_time().as_secs_f64())
    }
}
