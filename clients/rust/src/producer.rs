//! The producer as its user sees it: each message is acknowledged when it is in the stream, and is there once.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::publishing::{Pending, ProducerSettings, PublishError, PublishTask};
use crate::room::{Permit, Room};
use crate::settings::Shared;

/// Publishes to one stream, in the order of the calls. Clones share one queue and one task, which ends when the last of
/// them is dropped; messages that were not acknowledged by then may or may not be published.
#[derive(Debug, Clone)]
pub struct Producer {
    queue: mpsc::UnboundedSender<Pending>,
    room: Arc<Room>,
    json: bool,
    /// Whether the settings of the producer can be sent.
    well_formed: bool,
    _task: Arc<Task>,
}

#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Producer {
    pub(crate) fn start(shared: Arc<Shared>, stream: &str, settings: ProducerSettings) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let room = shared.room.clone();
        let publishing = PublishTask::new(shared, stream, settings);
        let (json, well_formed) = (publishing.takes_json(), publishing.is_well_formed());
        Self { queue, room, json, well_formed, _task: Arc::new(Task(tokio::spawn(publishing.run(waiting)))) }
    }

    /// Publishes one message. The future completes when the message is acknowledged or refused for good; until then it is
    /// retried. Messages that are published meanwhile wait in memory and go out in one request, so publish several without
    /// waiting for higher throughput.
    ///
    /// The message is enqueued by the call itself, and dropping the future does not cancel it. If
    /// [`Settings::publish_messages_max`](crate::Settings::publish_messages_max) messages or
    /// [`Settings::publish_bytes_max`](crate::Settings::publish_bytes_max) bytes of the client already wait, the future first
    /// waits for room, in the order in which such futures are polled first, and dropping it before there is room drops the
    /// message.
    ///
    /// # Errors
    /// The message is not in the stream. After [`PublishError::Ended`] it may be there.
    pub fn publish<M: Into<Bytes>>(
        &self,
        message: M,
    ) -> impl Future<Output = Result<(), PublishError>> + Send + use<M> {
        let message = message.into();
        let outcome = self.check(&message).map(|()| match self.room.try_acquire(message.len()) {
            Some(permit) => Ok(self.enqueue(message, permit)),
            None => Err((self.clone(), message)),
        });
        async {
            let outcome = match outcome? {
                Ok(outcome) => outcome,
                Err((producer, message)) => {
                    let permit = producer.room.acquire(message.len()).await.ok_or(PublishError::Ended)?;
                    producer.enqueue(message, permit)
                }
            };
            outcome.await.unwrap_or(Err(PublishError::Ended))
        }
    }

    /// Whether the messages have to be JSON values, by the content type of the stream.
    pub fn takes_json(&self) -> bool {
        self.json
    }

    fn check(&self, message: &Bytes) -> Result<(), PublishError> {
        if !self.well_formed {
            return Err(PublishError::Malformed);
        }
        if self.json {
            serde_json::from_slice::<&RawValue>(message)
                .map_err(|error| PublishError::NotJson(error.to_string()))?;
        }
        Ok(())
    }

    /// Enqueues a message. Without a task, the receiver that is returned fails at once.
    fn enqueue(&self, message: Bytes, permit: Permit) -> oneshot::Receiver<Result<(), PublishError>> {
        let (done, outcome) = oneshot::channel();
        let _ended = self.queue.send(Pending { message, done, permit });
        outcome
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
