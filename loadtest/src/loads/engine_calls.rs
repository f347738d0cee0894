//! Calls of the engine's append function without a gateway in between, for the rate that gateways reach at best with one append a
//! call. The arguments are those of a gateway, as the engine's `MONITOR` tells them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, RedisError, Value};
use tokio::time::{Instant, timeout};

use super::Scene;
use crate::tally::PATIENCE;
use crate::wire::{WireError, accepted};
use crate::workload::MessageId;

/// Indexes of the arguments of a call that differ between two appends: the number of the call, and the message.
const NUMBER: usize = 8;
const MESSAGE: usize = 11;

/// The append function of an engine, for the streams of a load.
pub struct EngineCalls {
    /// One connection in place of each gateway.
    connections: Vec<MultiplexedConnection>,
    /// The arguments of a gateway's append to each stream.
    calls: Vec<Vec<Vec<u8>>>,
    next_number: AtomicU64,
}

/// Why the function cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum EngineCallError {
    /// From the engine.
    #[error("the engine: {0}")]
    Engine(#[from] RedisError),
    /// From the gateway.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// No call of a function was seen.
    #[error("the engine saw no append of the gateway")]
    Unseen,
    /// The function did not append the message.
    #[error("the engine did not append")]
    NotAppended,
}

impl EngineCalls {
    /// Appends a message to each stream through the gateway of `scene`, and takes the arguments from the engine at `url`.
    pub async fn learn(
        url: &str,
        instances: usize,
        scene: &Scene,
        streams: u32,
    ) -> Result<Self, EngineCallError> {
        let client = Client::open(url)?;
        let mut seen = Box::pin(client.get_async_monitor().await?.into_on_message::<String>());
        let (mut gateway, mut calls) = (scene.connect().await?, Vec::new());
        for stream in 0..streams {
            let name = scene.stream(stream);
            let message = MessageId { stream, sequence: 0 };
            accepted(&gateway.exchange(scene.publish(&name, message)?).await?)?;
            let call = async {
                loop {
                    let arguments = arguments_of(&seen.next().await?);
                    let is_append = arguments.get(1).is_some_and(|function| function.ends_with(b"_append"));
                    if is_append && arguments.get(MESSAGE) == Some(&scene.workload.body(message).into_bytes())
                    {
                        return Some(arguments);
                    }
                }
            };
            calls.push(timeout(PATIENCE, call).await.ok().flatten().ok_or(EngineCallError::Unseen)?);
        }
        let mut connections = Vec::new();
        for _ in 0..instances {
            connections.push(client.get_multiplexed_async_connection().await?);
        }
        Ok(Self { connections, calls, next_number: AtomicU64::new(1 << 32) })
    }

    /// Appends to a stream until the end of the measured time, one message after the other. `number` is that of the appender.
    pub(super) async fn append(
        &self,
        scene: &Scene,
        number: u32,
        stream: u32,
    ) -> Result<(), EngineCallError> {
        let connection = self.connections.get(number as usize % self.connections.len());
        let (Some(connection), Some(call)) = (connection, self.calls.get(stream as usize)) else {
            return Err(EngineCallError::Unseen);
        };
        let (mut connection, mut tail) = (connection.clone(), 0);
        for sequence in 1.. {
            let message = scene.workload.body(MessageId { stream: number, sequence });
            let sent = Instant::now();
            if sent >= scene.tally.window.end {
                break;
            }
            let call = self.call(call, &message);
            let answer = connection.send_packed_command(&call).await?;
            scene.tally.note(Instant::now(), sent.elapsed());
            let appended = tail_of(answer).ok_or(EngineCallError::NotAppended)?;
            // A call with the number of an earlier one does nothing.
            if appended <= tail {
                return Err(EngineCallError::NotAppended);
            }
            tail = appended;
        }
        Ok(())
    }

    fn call(&self, learned: &[Vec<u8>], message: &str) -> Cmd {
        let mut call = Cmd::new();
        for (index, argument) in learned.iter().enumerate() {
            match index {
                NUMBER => call.arg(self.next_number.fetch_add(1, Ordering::Relaxed)),
                MESSAGE => call.arg(message),
                _ => call.arg(argument),
            };
        }
        call
    }
}

/// Appends on behalf of one connection of the load.
pub(super) async fn run(calls: Arc<EngineCalls>, scene: Arc<Scene>, number: u32, stream: u32) {
    if let Err(error) = calls.append(&scene, number, stream).await {
        scene.tally.troubles.note(error.to_string());
    }
}

/// The tail that the function tells after an append; `None` if there was none.
fn tail_of(answer: Value) -> Option<u64> {
    // Of each append in the call: its verdict, and the metadata of the stream, of which the third line is the tail.
    let verdicts: Vec<(String, String)> = first_two(answer)?;
    let (verdict, metadata) = verdicts.first()?;
    (verdict == "new").then(|| metadata.split('\n').nth(2)?.parse().ok())?
}

fn first_two(answer: Value) -> Option<Vec<(String, String)>> {
    let verdicts: Vec<Vec<Value>> = redis::from_redis_value(answer.extract_error().ok()?).ok()?;
    let pair = |verdict: Vec<Value>| {
        let mut parts = verdict.into_iter();
        let kind = redis::from_redis_value(parts.next()?).ok()?;
        Some((kind, redis::from_redis_value(parts.next()?).ok()?))
    };
    verdicts.into_iter().map(pair).collect()
}

/// The arguments in a line of `MONITOR`, in which they are quoted as in C.
fn arguments_of(line: &str) -> Vec<Vec<u8>> {
    let mut bytes = line.split_once("] ").map_or("", |(_, quoted)| quoted).bytes();
    let mut arguments = Vec::new();
    while bytes.any(|byte| byte == b'"') {
        let mut argument = Vec::new();
        while let Some(byte) = bytes.next().filter(|byte| *byte != b'"') {
            argument.push(if byte == b'\\' { escaped(&mut bytes) } else { byte });
        }
        arguments.push(argument);
    }
    arguments
}

fn escaped(bytes: &mut impl Iterator<Item = u8>) -> u8 {
    let mut next = || bytes.next().unwrap_or_default();
    match next() {
        b'x' => {
            let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default();
            let (high, low) = (next(), next());
            u8::try_from(16 * digit(high) + digit(low)).unwrap_or_default()
        }
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'a' => 0x07,
        b'b' => 0x08,
        itself => itself,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_monitor_has_the_arguments() {
        let line = r#"1764.5 [0 [::1]:50] "FCALL" "a\"b" "" "\x00\xff\n\\x""#;
        let expected: [&[u8]; 4] = [b"FCALL", b"a\"b", b"", b"\x00\xff\n\\x"];
        assert_eq!(arguments_of(line), expected);
    }
}
