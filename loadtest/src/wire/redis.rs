//! [`RedisConnection`]: entries of Redis streams, each a message in its one field.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, RedisConnectionInfo, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use super::WireError;

/// Name of the field that holds the message.
const FIELD: &str = "m";

/// Id of an entry, and its message.
type Entry = (String, Vec<u8>);

/// What `XREAD` answers: the entries of each stream, with their fields.
type Answer = Vec<(String, Vec<(String, Vec<(String, Vec<u8>)>)>)>;

/// A connection for commands. A drop closes it.
#[derive(Debug)]
pub struct RedisConnection {
    commands: MultiplexedConnection,
    driver: JoinHandle<()>,
}

impl RedisConnection {
    /// Uses `io` for commands that are answered within `patience`.
    pub async fn over(
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        patience: Duration,
    ) -> Result<Self, WireError> {
        let settings = AsyncConnectionConfig::new().set_response_timeout(Some(patience));
        let opened =
            MultiplexedConnection::new_with_config(&RedisConnectionInfo::default(), io, settings).await?;
        let (commands, driver) = opened;
        Ok(Self { commands, driver: tokio::spawn(driver) })
    }

    /// Waits for up to `hold` for entries of a stream after the id `after`, and returns them.
    pub async fn read(&self, stream: &str, after: &str, hold: Duration) -> Result<Vec<Entry>, WireError> {
        let milliseconds = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
        let mut command = redis::cmd("XREAD");
        command.arg("BLOCK").arg(milliseconds).arg("STREAMS").arg(stream).arg(after);
        let answer: Value = command.query_async(&mut self.commands.clone()).await?;
        if answer == Value::Nil {
            return Ok(Vec::new());
        }
        let streams = Answer::from_redis_value(answer).map_err(redis::RedisError::from)?;
        let entries = streams.into_iter().flat_map(|(_, entries)| entries);
        let messages = entries.map(|(id, fields)| (id, fields.into_iter().flat_map(|(_, message)| message)));
        Ok(messages.map(|(id, message)| (id, message.collect())).collect())
    }

    /// Appends a message to a stream, and waits for the answer.
    pub async fn append(&self, stream: &str, message: &str) -> Result<(), WireError> {
        let mut command = redis::cmd("XADD");
        command.arg(stream).arg("*").arg(FIELD).arg(message);
        Ok(command.query_async(&mut self.commands.clone()).await?)
    }
}

impl Drop for RedisConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
