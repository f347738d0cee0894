//! The producer as its user sees it: each message is acknowledged when it is in the stream, and is there once.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::publishing::{Pending, ProducerSettings, PublishError, PublishTask};
use crate::settings::Shared;

/// Publishes to one stream, in the order of the calls. Clones share one queue and one task, which ends when the last of
/// them is dropped; messages that were not acknowledged by then may or may not be published.
#[derive(Debug, Clone)]
pub struct Producer {
    queue: mpsc::UnboundedSender<Pending>,
    json: bool,
    _task: Arc<Task>,
}

#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Producer {
    pub(crate) fn start(shared: Arc<Shared>, stream: &str, settings: ProducerSettings) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let publishing = PublishTask::new(shared, stream, settings);
        let json = publishing.takes_json();
        Self { queue, json, _task: Arc::new(Task(tokio::spawn(publishing.run(waiting)))) }
    }

    /// Publishes one message. The future completes when the message is acknowledged or refused for good; until then it is
    /// retried. Messages that are published meanwhile wait in memory, without a bound, and go out in one request, so
    /// publish several without waiting for higher throughput. The message is enqueued by the call itself; dropping the
    /// future does not cancel it.
    ///
    /// # Errors
    /// The message is not in the stream. After [`PublishError::Ended`] it may be there.
    pub fn publish<M: Into<Bytes>>(
        &self,
        message: M,
    ) -> impl Future<Output = Result<(), PublishError>> + Send + use<M> {
        let outcome = self.enqueue(message.into());
        async { outcome?.await.unwrap_or(Err(PublishError::Ended)) }
    }

    fn enqueue(&self, message: Bytes) -> Result<oneshot::Receiver<Result<(), PublishError>>, PublishError> {
        if self.json {
            serde_json::from_slice::<&RawValue>(&message)
                .map_err(|error| PublishError::NotJson(error.to_string()))?;
        }
        let (done, outcome) = oneshot::channel();
        self.queue.send(Pending { message, done }).map_err(|_| PublishError::Ended)?;
        Ok(outcome)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
