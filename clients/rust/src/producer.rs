//! Publishing as its user sees it: each message is acknowledged once it is in its stream, and is there once.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::publishing::{ProducerSettings, PublishError, Publishing, Waiting};
use crate::settings::Shared;

/// Publishes into one stream, in the order of the calls. Clones share one queue and one task, which ends with the last
/// of them: what was not acknowledged then may or may not be published.
#[derive(Debug, Clone)]
pub struct Producer {
    queue: mpsc::UnboundedSender<Waiting>,
    json: bool,
    _task: Arc<Task>,
}

#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Producer {
    pub(crate) fn start(shared: Arc<Shared>, stream: &str, settings: ProducerSettings) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let publishing = Publishing::new(shared, stream, settings);
        let json = publishing.takes_json();
        Self { queue, json, _task: Arc::new(Task(tokio::spawn(publishing.run(waiting)))) }
    }

    /// Publishes one message; the future is ready when it is acknowledged, or refused for good. Until then it is tried
    /// again. What is published meanwhile goes out together, so publish many at once for throughput: messages wait in
    /// memory, in the order of the calls. Dropping the future does not take the message back.
    ///
    /// # Errors
    /// The message is not in the stream, unless it says [`PublishError::Ended`]: then nobody knows.
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
        self.queue.send(Waiting { message, done }).map_err(|_| PublishError::Ended)?;
        Ok(outcome)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
