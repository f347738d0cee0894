//! One who polls a stream and knows how far it has read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Response, StatusCode};

use super::Scene;
use crate::client::brings_messages;
use crate::wire::{Request, WireError, accepted};
use crate::workload::MessageId;

/// See the module.
#[derive(Clone)]
pub(super) struct Poller {
    pub(super) scene: Arc<Scene>,
    /// The name of its stream.
    pub(super) stream: String,
    /// Behind what it has read; `None`: at the beginning.
    pub(super) offset: Option<String>,
}

impl Poller {
    /// One at the beginning of the stream of that number.
    pub(super) fn new(scene: Arc<Scene>, stream: u32) -> Self {
        Self { stream: scene.stream(stream), offset: None, scene }
    }

    /// Its next poll; one that is not held is a short poll.
    pub(super) fn poll(&self, hold: Option<Duration>) -> Result<Request, WireError> {
        self.scene.addressed(self.scene.dialect()?.poll(&self.stream, self.offset.as_deref(), hold))
    }

    /// Which messages an answer has.
    pub(super) fn messages(&self, status: StatusCode, body: &[u8]) -> Result<Vec<MessageId>, WireError> {
        let any = brings_messages(status)?;
        Ok(if any { self.scene.workload.find_in(body).collect() } else { Vec::new() })
    }

    /// Moves on behind an answer, and says which messages it has.
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

/// One behind the end of each stream. There is a message in each of them then, since servers that do not know streams have no
/// offset before it.
pub(super) async fn at_the_tails(scene: &Arc<Scene>, streams: u32) -> Result<Vec<Poller>, WireError> {
    let mut connection = scene.connect().await?;
    let mut pollers = Vec::with_capacity(streams as usize);
    for stream in 0..streams {
        let mut poller = Poller::new(scene.clone(), stream);
        let message = MessageId { stream, sequence: 0 };
        accepted(&connection.exchange(scene.publish(&poller.stream, message)?).await?)?;
        let mut messages = Vec::new();
        // nchan has no message for a poll without an offset, but an offset.
        while messages.is_empty() {
            messages = poller.read(&connection.exchange(poller.poll(None)?).await?)?;
        }
        pollers.push(poller);
    }
    Ok(pollers)
}
