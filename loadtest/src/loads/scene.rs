//! [`Scene`]: a server in a round, with the workload and the measurements of the load.

use std::net::SocketAddr;
use std::sync::Arc;

use super::EngineCalls;
use crate::client::addressed;
use crate::cost::Family;
use crate::dialects::{BuiltRequest, HttpDialect};
use crate::servers::Running;
use crate::strategies::Strategy;
use crate::streams::stream_name;
use crate::tally::Tally;
use crate::target::Target;
use crate::wire::{Connection, Request, WireError, open};
use crate::workload::{MessageId, Workload};

/// A server in a round; see the module.
pub struct Scene {
    /// How the server is reached.
    pub target: Target,
    /// Where each instance of the server listens for readers; the first one is that of the target.
    pub instances: Vec<SocketAddr>,
    /// The processes of each instance; none of a server that this program did not start.
    pub servers: Vec<Family>,
    /// How the engine is called in place of the server, if it is.
    pub engine: Option<Arc<EngineCalls>>,
    /// The messages.
    pub workload: Arc<Workload>,
    /// The measured window and the recorded durations.
    pub tally: Tally,
}

impl Scene {
    /// Creates the scene of readers of `strategy`. The server already has the streams of `workload`.
    pub fn new(running: &Running, strategy: Strategy, workload: Arc<Workload>, tally: Tally) -> Self {
        let all = || std::iter::once(running).chain(&running.others);
        let servers = all().filter_map(|one| Some(one.process.as_ref()?.family())).collect();
        let instances = all().map(|one| one.target.address_for(strategy)).collect();
        Self { target: running.target.clone(), instances, servers, engine: None, workload, tally }
    }

    /// Returns how requests of this server are built.
    pub(super) fn dialect(&self) -> Result<&'static dyn HttpDialect, WireError> {
        self.target.dialect.http().ok_or(WireError::Closed)
    }

    /// Opens a connection to the server.
    pub(super) async fn connect(&self) -> Result<Connection, WireError> {
        self.connect_to(0).await
    }

    /// Opens a connection to an instance of the server, which are taken in turn by number.
    pub(super) async fn connect_to(&self, number: u32) -> Result<Connection, WireError> {
        Connection::over(open(self.instance(number as usize)).await?).await
    }

    /// Returns the address of an instance of the server, which are taken in turn by number.
    pub(super) fn instance(&self, number: usize) -> SocketAddr {
        *self.instances.get(number % self.instances.len()).unwrap_or(&self.target.address)
    }

    /// Returns the name of stream number `number`.
    pub(super) fn stream(&self, number: u32) -> String {
        stream_name(self.workload.plan.run, number)
    }

    /// Adds the `Host` of the server to a request.
    pub(super) fn addressed(&self, request: BuiltRequest) -> Result<Request, WireError> {
        addressed(request, &self.target)
    }

    /// Returns the append of `message` to the stream named `stream`.
    pub(super) fn publish(&self, stream: &str, message: MessageId) -> Result<Request, WireError> {
        self.addressed(self.dialect()?.publish(stream, self.workload.body(message)))
    }

    /// Returns the processor time of all instances until now, in seconds.
    pub(super) fn server_processor(&self) -> Option<f64> {
        let times = self.servers.iter().map(|server| server.processor_time().as_secs_f64());
        (!self.servers.is_empty()).then(|| times.sum())
    }

    /// Returns the present memory of all instances, in bytes.
    pub(super) fn server_memory(&self) -> Option<u64> {
        let bytes = self.servers.iter().map(|server| server.memory_bytes());
        (!self.servers.is_empty()).then(|| bytes.sum())
    }
}
