//! [`Engine`]: calls of the function library, each on the server that has its keys.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::{Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value, pipe};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::address::{EngineAddress, EngineError, NodeAddress, Topology};
use super::attached::NewsRoom;
use super::functions::{Dialect, EngineCall};
use super::nodes::{ANSWER_TIMEOUT, AfterError, Nodes};
use crate::metrics::EngineMetrics;
use crate::stream::Failure;

/// How long a call waits for keys that are being moved to another server: as long as for an answer of a server.
const MOVE_TIMEOUT: Duration = ANSWER_TIMEOUT;
const MOVE_INTERVAL: Duration = Duration::from_millis(20);

/// Settings of the store.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// The URL of one server, of sentinels, or of a cluster, as docs/scaling.md lists them.
    pub url: String,
    /// Certificate authorities (PEM) of an engine with TLS. `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// File with the password, which replaces that of the URL.
    pub password_file: Option<PathBuf>,
    /// Name of this gateway among those that share the engine.
    pub gateway: String,
    /// Whether times are those of the engine, whatever the clock of this machine says. Off, they are those that the caller gives.
    pub follows_engine_clock: bool,
    /// Memory for the messages that news bring to readers.
    pub news_room: NewsRoom,
    /// Where calls and news are counted.
    pub metrics: EngineMetrics,
}

/// Calls the engine. All calls to one server share a connection, which sends them without waiting for each other.
pub(super) struct Engine {
    pub(super) nodes: Nodes,
    pub(super) metrics: EngineMetrics,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("topology", self.nodes.topology()).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine that is connected to when it is first called.
    pub(super) fn new(options: &RedisOptions, runtime: Handle) -> Result<Self, EngineError> {
        let RedisOptions { url, ca_file, password_file, metrics, .. } = options;
        let address = EngineAddress::read(url, ca_file.as_deref(), password_file.as_deref())?;
        Ok(Self { nodes: Nodes::new(address, runtime), metrics: metrics.clone() })
    }

    /// Whether one call may use the keys of several partitions.
    pub(super) fn spans_partitions(&self) -> bool {
        !matches!(self.nodes.topology(), Topology::Cluster)
    }

    /// The runtime for the tasks of the store.
    pub(super) fn runtime(&self) -> &Handle {
        self.nodes.runtime()
    }

    /// Calls a function and returns its answer.
    ///
    /// Cancel safe: the engine runs the function or not, as a whole.
    pub(super) async fn call(&self, call: &EngineCall) -> Result<Value, Failure> {
        let started = Instant::now();
        let answer = self.follow(&call.partition, |dialect| call.command(dialect)).await;
        self.finished(call.function, started, answer)
    }

    /// Calls several functions at once, and returns their answers in the same order.
    pub(super) async fn call_all(&self, calls: &[EngineCall]) -> Result<Vec<Value>, Failure> {
        self.call_each(calls).await.into_iter().collect()
    }

    /// Calls several functions at once, and returns the answer or failure of each in the same order.
    pub(super) async fn call_each(&self, calls: &[EngineCall]) -> Vec<Result<Value, Failure>> {
        let started = Instant::now();
        let mut by_node: BTreeMap<NodeAddress, Vec<(usize, &EngineCall)>> = BTreeMap::new();
        let mut answers: Vec<(usize, Result<Value, RedisError>)> = Vec::with_capacity(calls.len());
        for (index, call) in calls.iter().enumerate() {
            match self.nodes.node_of(&call.partition).await {
                Ok(node) => by_node.entry(node).or_default().push((index, call)),
                Err(error) => answers.push((index, Err(error))),
            }
        }
        let parts = by_node.iter().map(|(node, part)| self.pipeline(node, part));
        answers.extend(futures_util::future::join_all(parts).await.into_iter().flatten());
        answers.sort_by_key(|(index, _)| *index);
        let finish = |(call, (_, answer)): (&EngineCall, _)| self.finished(call.function, started, answer);
        calls.iter().zip(answers).map(finish).collect()
    }

    /// Makes the calls of one server. Those that it did not do because their keys have moved are made one by one.
    async fn pipeline(
        &self,
        node: &NodeAddress,
        part: &[(usize, &EngineCall)],
    ) -> Vec<(usize, Result<Value, RedisError>)> {
        let fail = |error: RedisError| part.iter().map(|(index, _)| (*index, Err(error.clone()))).collect();
        let mut connected = match self.nodes.connected(node).await {
            Ok(connected) => connected,
            Err(error) => return fail(error),
        };
        let mut pipeline: Pipeline = pipe();
        for (_, call) in part {
            pipeline.add_command(call.command(connected.dialect).into_owned());
        }
        let values = match connected.connection.send_packed_commands(&pipeline, 0, part.len()).await {
            Ok(values) => values,
            Err(error) => {
                self.nodes.learn(node, &connected, &error).await;
                return fail(error);
            }
        };
        let mut answers = Vec::with_capacity(part.len());
        for ((index, call), value) in part.iter().zip(values) {
            let mut answer = value.extract_error();
            if let Err(error) = &answer
                && self.nodes.learn(node, &connected, error).await == AfterError::Again
            {
                answer = self.follow(&call.partition, |dialect| call.command(dialect)).await;
            }
            answers.push((*index, answer));
        }
        answers
    }

    /// Sends a command that is not a function of the library to the server that has `key`.
    pub(super) async fn command(&self, key: &str, command: &Cmd) -> Result<Value, Failure> {
        let started = Instant::now();
        let answer = self.follow(key, |_| Cow::Borrowed(command)).await;
        self.finished("other", started, answer)
    }

    /// Sends a command to the server that has `key`, wherever that moves to.
    async fn follow<'a>(
        &self,
        key: &str,
        command: impl Fn(Dialect) -> Cow<'a, Cmd>,
    ) -> Result<Value, RedisError> {
        let until = Instant::now() + MOVE_TIMEOUT;
        let mut is_first = true;
        loop {
            let node = self.nodes.node_of(key).await?;
            let mut connected = self.nodes.connected(&node).await?;
            let command = command(connected.dialect);
            let answer = connected.connection.send_packed_command(&command).await;
            let error = match answer.and_then(Value::extract_error) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match self.nodes.learn(&node, &connected, &error).await {
                AfterError::Again if is_first => self.metrics.redirected(),
                AfterError::Again | AfterError::Later if Instant::now() < until => {
                    self.metrics.redirected();
                    sleep(MOVE_INTERVAL).await;
                }
                AfterError::Again | AfterError::Later | AfterError::Fail => return Err(error),
            }
            is_first = false;
        }
    }

    fn finished(
        &self,
        function: &'static str,
        started: Instant,
        answer: Result<Value, RedisError>,
    ) -> Result<Value, Failure> {
        let kind = answer.as_ref().err().map(kind_of);
        self.metrics.called(function, started.elapsed(), kind);
        answer.map_err(|error| match kind {
            Some("full") => Failure::Full,
            _ => {
                tracing::debug!(%error, "the engine failed");
                Failure::Unreachable
            }
        })
    }
}

/// The kind of a failed call in the metrics.
fn kind_of(error: &RedisError) -> &'static str {
    match error.kind() {
        // The engine is at its maxmemory.
        _ if error.code() == Some("OOM") => "full",
        _ if error.is_timeout() => "timeout",
        ErrorKind::Server(
            ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::MasterDown,
        ) => "moving",
        ErrorKind::Server(ServerErrorKind::BusyLoading) => "loading",
        ErrorKind::Server(_) | ErrorKind::Extension => "refused",
        _ => "connection",
    }
}
