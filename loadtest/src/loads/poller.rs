//! [`Poller`]: polls a stream and tracks its offset.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Response, StatusCode};

use super::Scene;
use crate::client::brings_messages;
use crate::wire::{Request, WireError, accepted};
use crate::workload::MessageId;

/// A reader of one stream by polls.
#[derive(Clone)]
pub(super) struct Poller {
    pub(super) scene: Arc<Scene>,
    /// Name of its stream.
    pub(super) stream: String,
    /// Offset after the last message read; `None` at the beginning of the stream.
    pub(super) offset: Option<String>,
}

impl Poller {
    /// Starts at the beginning of stream number `stream`.
    pub(super) fn new(scene: Arc<Scene>, stream: u32) -> Self {
        Self { stream: scene.stream(stream), offset: None, scene }
    }

    /// Returns the next poll; without `hold` it is a short poll.
    pub(super) fn poll(&self, hold: Option<Duration>) -> Result<Request, WireError> {
        self.scene.addressed(self.scene.dialect()?.poll(&self.stream, self.offset.as_deref(), hold))
    }

    /// Returns the messages in an answer.
    pub(super) fn messages(&self, status: StatusCode, body: &[u8]) -> Result<Vec<MessageId>, WireError> {
        let any = brings_messages(status)?;
        Ok(if any { self.scene.workload.find_in(body).collect() } else { Vec::new() })
    }

    /// Advances the offset to that of the answer, and returns the answer's messages.
    pub(super) fn read(&mut self, answer: &Response<Bytes>) -> Result<Vec<MessageId>, WireError> {
        let messages = self.messages(answer.status(), answer.body())?;
        match self.scene.dialect()?.offset(answer.headers()) {
            Some(offset) => self.offset = Some(offset),
            None if !messages.is_empty() => return Err(WireError::NoOffset),
            None => {}
        }
        Ok(messages)
    }
}

/// Returns a poller at the tail of each stream. Publishes one message to each first, since servers that create streams
/// implicitly have no offset before the first message.
pub(super) async fn at_the_tails(scene: &Arc<Scene>, streams: u32) -> Result<Vec<Poller>, WireError> {
    let mut connection = scene.connect().await?;
    let mut pollers = Vec::with_capacity(streams as usize);
    for stream in 0..streams {
        let mut poller = Poller::new(scene.clone(), stream);
        let message = MessageId { stream, sequence: 0 };
        accepted(&connection.exchange(scene.publish(&poller.stream, message)?).await?)?;
        let mut messages = Vec::new();
        // nchan answers a poll without an offset with an offset and no message.
        while messages.is_empty() {
            messages = poller.read(&connection.exchange(poller.poll(None)?).await?)?;
        }
        pollers.push(poller);
    }
    Ok(pollers)
}
