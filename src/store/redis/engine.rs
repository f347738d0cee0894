//! The connection to the engine: calls of the function library, with a deadline and one attempt to connect again.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, PushInfo, RedisError, Value, cmd, pipe};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc};

use super::promise::EnginePromise;
use crate::stream::Failure;

/// The functions that the engine runs.
const FUNCTIONS: &str = include_str!("library.lua");

/// Stands in [`FUNCTIONS`] for the name of the library, with which the names of the functions begin.
const PLACEHOLDER: &str = "LIBRARY";

/// The name of the library. It differs for each content, so that gateways of two versions may use one engine.
static LIBRARY: LazyLock<String> = LazyLock::new(|| {
    let digest = ring::digest::digest(&ring::digest::SHA256, FUNCTIONS.as_bytes());
    let hex = digest.as_ref().iter().take(6).map(|byte| format!("{byte:02x}"));
    format!("pollgate_{}", hex.collect::<String>())
});

/// After this time without an answer, a call counts as failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The engine cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The URL is malformed or asks for something that is not supported.
    #[error("the URL of the engine is invalid: {0}")]
    Url(RedisError),
    /// The engine cannot be reached, or refuses the functions.
    #[error("the engine cannot be used: {0}")]
    Unusable(RedisError),
    /// The engine may delete keys on its own.
    #[error(
        "the engine may delete streams when its memory is full (maxmemory-policy {0}); set it to noeviction"
    )]
    Evicts(String),
}

/// Calls the engine. All calls share one connection, which sends them without waiting for each other.
pub(super) struct Engine {
    client: Client,
    /// The runtime of the connection's task, which must live as long as the store.
    runtime: Handle,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may contain a password.
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// One call of a function on the keys of one partition.
pub(super) struct EngineCall {
    cmd: Cmd,
}

impl EngineCall {
    /// Calls `function` on the keys that begin with `partition`.
    pub(super) fn of(function: &str, partition: &str) -> Self {
        Self::over(function, &[partition])
    }

    /// Calls `function` on the keys that begin with any of `partitions`.
    pub(super) fn over(function: &str, partitions: &[&str]) -> Self {
        let mut cmd = cmd("FCALL");
        cmd.arg(format!("{}_{function}", *LIBRARY)).arg(partitions.len()).arg(partitions);
        Self { cmd }
    }

    /// Adds an argument.
    pub(super) fn with(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.cmd.arg(argument.as_ref());
        self
    }

    /// Adds a number as an argument.
    pub(super) fn number(self, number: impl Into<u64>) -> Self {
        self.with(number.into().to_string())
    }
}

impl Engine {
    /// An engine that is connected to when it is first called.
    pub(super) fn new(url: &str, runtime: Handle) -> Result<Self, EngineError> {
        let client = Client::open(url).map_err(EngineError::Url)?;
        Ok(Self { client, runtime, connection: Mutex::new(None) })
    }

    /// Whether one call may use the keys of several partitions.
    pub(super) fn spans_partitions(&self) -> bool {
        true
    }

    /// The runtime for the tasks of the store.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Connects, loads the functions, and reads the settings of the engine. Fails if it may delete streams by itself.
    pub(super) async fn check(&self) -> Result<EnginePromise, EngineError> {
        let mut connection = self.connected().await.map_err(EngineError::Unusable)?;
        let promise = EnginePromise::read(&mut connection).await.map_err(EngineError::Unusable)?;
        match promise.eviction() {
            Some(policy) => Err(EngineError::Evicts(policy.to_owned())),
            None => Ok(promise),
        }
    }

    /// Calls a function and returns its answer.
    ///
    /// Cancel safe: the engine runs the function or not, as a whole.
    pub(super) async fn call(&self, call: &EngineCall) -> Result<Value, Failure> {
        let mut connection = self.connected().await.map_err(|error| failure(&error))?;
        let answer = connection.send_packed_command(&call.cmd).await;
        self.checked(answer.and_then(Value::extract_error)).await
    }

    /// Calls several functions at once, and returns their answers in the same order.
    pub(super) async fn call_all(&self, calls: &[EngineCall]) -> Result<Vec<Value>, Failure> {
        let mut pipeline: Pipeline = pipe();
        for call in calls {
            pipeline.add_command(call.cmd.clone());
        }
        let mut connection = self.connected().await.map_err(|error| failure(&error))?;
        let answers = connection.send_packed_commands(&pipeline, 0, calls.len()).await;
        let answers = answers.and_then(|answers| answers.into_iter().map(Value::extract_error).collect());
        self.checked(answers).await
    }

    /// Sends a command that is not a function of the library.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, Failure> {
        let mut connection = self.connected().await.map_err(|error| failure(&error))?;
        let answer = connection.send_packed_command(command).await;
        self.checked(answer.and_then(Value::extract_error)).await
    }

    async fn checked<T>(&self, answer: Result<T, RedisError>) -> Result<T, Failure> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => {
                let failure = failure(&error);
                if failure != Failure::Full {
                    // The next call connects again: the engine may have moved, or have lost the functions.
                    *self.connection.lock().await = None;
                }
                Err(failure)
            }
        }
    }

    async fn connected(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = connection.as_ref() {
            return Ok(connection.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let client = self.client.clone();
        let connecting = async move { client.get_multiplexed_async_connection_with_config(&config).await };
        // The connection's task belongs to the runtime of the store, whichever runtime calls.
        let mut connected = self.runtime.spawn(connecting).await.map_err(aborted)??;
        let mut load = cmd("FUNCTION");
        load.arg("LOAD").arg(FUNCTIONS.replace(PLACEHOLDER, &LIBRARY));
        match load.query_async::<String>(&mut connected).await {
            Ok(_) => {}
            // Another gateway has loaded it.
            Err(error) if error.to_string().contains("already exists") => {}
            Err(error) => return Err(error),
        }
        *connection = Some(connected.clone());
        Ok(connected)
    }

    /// Opens a connection for news, which are sent to `pushes` until the connection ends.
    pub(super) async fn subscribe(
        &self,
        channels: impl Iterator<Item = String>,
        pushes: mpsc::UnboundedSender<PushInfo>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT))
            .set_push_sender(pushes);
        let mut info = self.client.get_connection_info().clone();
        let settings = info.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP3);
        info = info.set_redis_settings(settings);
        let client = Client::open(info)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        for channel in channels {
            let mut subscribe = cmd("SSUBSCRIBE");
            subscribe.arg(channel);
            connection.send_packed_command(&subscribe).await.and_then(Value::extract_error)?;
        }
        Ok(connection)
    }
}

fn aborted(_: tokio::task::JoinError) -> RedisError {
    RedisError::from(std::io::Error::other("the runtime of the store has ended"))
}

fn failure(error: &RedisError) -> Failure {
    match error.code() {
        // The engine is at its maxmemory.
        Some("OOM") => Failure::Full,
        _ => {
            tracing::debug!(%error, "the engine failed");
            Failure::Unreachable
        }
    }
}
