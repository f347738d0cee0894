//! The task of a producer: sends one request at a time, numbered so that the gateway recognizes a repetition.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use fastrand::Rng;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::connection::Connection;
use crate::error::{CertificateError, ConnectError};
use crate::refusal::{Refusal, is_about_credentials, retry_after};
use crate::settings::Backoff;
use crate::settings::Shared;

/// Most bytes of one request, unless a single message is longer.
const BATCH_BYTES_MAX: usize = 256 << 10;

/// Most messages of one request.
const BATCH_MESSAGES_MAX: usize = 1000;

/// Most bytes of a response that are read.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Slowest network for which the time limit of a request is sufficient.
const BYTES_PER_SECOND_MIN: usize = 16 << 10;

/// Settings of a [`Producer`](crate::Producer).
#[derive(Debug, Clone)]
pub struct ProducerSettings {
    /// Content type of the stream.
    pub content_type: String,
    /// Whether the stream is created if it does not exist.
    pub create: bool,
    /// Id of the producer; random by default. Two producers that run at the same time must not share one.
    pub id: Option<String>,
    /// Number of this start of the producer, greater than that of the start before. The gateway refuses messages of a
    /// producer with the same id and a smaller epoch.
    pub epoch: u64,
}

/// Why a message was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The stream takes JSON, and the message is not one JSON value.
    #[error("not a JSON value: {0}")]
    NotJson(String),
    /// The gateway refuses the message, or does not accept the credentials (401, 403).
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The certificate of the gateway is not trusted.
    #[error(transparent)]
    Untrusted(#[from] CertificateError),
    /// Another producer has the same id and a greater epoch.
    #[error("a producer with the same id has started later")]
    Fenced,
    /// The task of the producer has ended, because its runtime has shut down.
    #[error("publishing has ended")]
    Ended,
}

/// A message in the queue, and where its outcome is sent.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) message: Bytes,
    pub(crate) done: oneshot::Sender<Result<(), PublishError>>,
}

/// State of the task.
pub(crate) struct PublishTask {
    shared: Arc<Shared>,
    target: String,
    content_type: String,
    id: String,
    epoch: u64,
    sequence: u64,
    idle: Option<Connection>,
    backoff: Backoff,
    rng: Rng,
    /// Attempts in a row without a response.
    unanswered: u32,
}

/// What came of one request.
enum Outcome {
    Acknowledged,
    /// The request has to be repeated, after this delay if the gateway says one.
    Again(Option<Duration>),
    /// The gateway has no record of this producer: its numbers begin again in a new epoch.
    Forgotten,
    Refused(PublishError),
}

impl PublishTask {
    pub(crate) fn new(shared: Arc<Shared>, stream: &str, settings: ProducerSettings) -> Self {
        let create = if settings.create { "?create=1" } else { "" };
        Self {
            target: shared.endpoint.origin.stream(stream) + create,
            content_type: settings.content_type,
            id: settings.id.unwrap_or_else(|| format!("{:032x}", fastrand::u128(..))),
            epoch: settings.epoch,
            sequence: 0,
            idle: None,
            backoff: Backoff::new(&shared.settings),
            rng: Rng::new(),
            unanswered: 0,
            shared,
        }
    }

    pub(crate) fn takes_json(&self) -> bool {
        let essence = self.content_type.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case("application/json")
    }

    /// Publishes until the last producer is dropped.
    pub(crate) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Pending>) {
        let mut waiting = Vec::new();
        while queue.recv_many(&mut waiting, BATCH_MESSAGES_MAX).await > 0 {
            while !waiting.is_empty() {
                let rest = waiting.split_off(self.batch_length(&waiting));
                self.publish(std::mem::replace(&mut waiting, rest)).await;
            }
        }
    }

    /// How many of the waiting messages go out in one request. Only JSON streams keep messages apart.
    fn batch_length(&self, waiting: &[Pending]) -> usize {
        if !self.takes_json() {
            return 1;
        }
        let mut bytes = 0;
        let fit = waiting.iter().take_while(|waiting| {
            bytes += waiting.message.len() + 1;
            bytes <= BATCH_BYTES_MAX
        });
        fit.count().max(1)
    }

    async fn publish(&mut self, batch: Vec<Pending>) {
        let outcome = self.append(self.body(&batch)).await;
        // A bad message must not fail the others.
        if outcome.is_err() && batch.len() > 1 {
            for waiting in batch {
                let outcome = self.append(self.body(std::slice::from_ref(&waiting))).await;
                let _nobody_waits = waiting.done.send(outcome);
            }
            return;
        }
        for waiting in batch {
            let _nobody_waits = waiting.done.send(outcome.clone());
        }
    }

    fn body(&self, batch: &[Pending]) -> Bytes {
        if !self.takes_json() {
            return batch.iter().map(|waiting| waiting.message.clone()).next().unwrap_or_default();
        }
        let mut body = BytesMut::new();
        for (index, waiting) in batch.iter().enumerate() {
            body.put_u8(if index == 0 { b'[' } else { b',' });
            body.put_slice(&waiting.message);
        }
        body.put_u8(b']');
        body.freeze()
    }

    async fn append(&mut self, body: Bytes) -> Result<(), PublishError> {
        loop {
            match self.attempt(body.clone()).await {
                Outcome::Acknowledged => {
                    self.sequence += 1;
                    self.backoff.reset();
                    return Ok(());
                }
                Outcome::Refused(error) => return Err(error),
                Outcome::Forgotten => (self.epoch, self.sequence) = (self.epoch + 1, 0),
                Outcome::Again(Some(wait)) => sleep(wait.min(self.shared.settings.reprobe_max)).await,
                Outcome::Again(None) => sleep(self.backoff.wait(&mut self.rng)).await,
            }
        }
    }

    async fn attempt(&mut self, body: Bytes) -> Outcome {
        let settings = &self.shared.settings;
        let seconds = (body.len() / BYTES_PER_SECOND_MIN) as u64;
        let patience = settings.answer_timeout * (1 << self.unanswered.min(6));
        let patience =
            patience.min(settings.backoff_max.max(settings.answer_timeout)) + Duration::from_secs(seconds);
        let reused = self.idle.is_some();
        let version = self.shared.endpoint.credentials.version();
        match timeout(patience, self.exchange(body)).await {
            Ok(Ok((status, headers, document))) => {
                self.unanswered = 0;
                let is_outdated = version != self.shared.endpoint.credentials.version();
                if is_outdated && is_about_credentials(status.as_u16()) {
                    return Outcome::Again(Some(Duration::ZERO));
                }
                outcome_of(status, &headers, &document)
            }
            Ok(Err(ConnectError::Untrusted(error))) => Outcome::Refused(error.into()),
            // The server has probably closed the idle connection.
            Ok(Err(_)) if reused => Outcome::Again(Some(Duration::ZERO)),
            _ => {
                self.unanswered += 1;
                Outcome::Again(None)
            }
        }
    }

    /// Sends the request and reads the whole response.
    async fn exchange(&mut self, body: Bytes) -> Result<(StatusCode, HeaderMap, Bytes), ConnectError> {
        let request = self.request(body).map_err(|_| ConnectError::Unreachable)?;
        let (mut connection, _) = Connection::reused_or_new(self.idle.take(), &self.shared.endpoint).await?;
        let (head, body) = connection
            .send(request)
            .await
            .map(Response::into_parts)
            .map_err(|_| ConnectError::Unreachable)?;
        let collecting = Limited::<Incoming>::new(body, ANSWER_BYTES_MAX).collect();
        let document = connection.during(collecting).await.map_err(|_| ConnectError::Unreachable)?.to_bytes();
        self.idle = Some(connection);
        Ok((head.status, head.headers, document))
    }

    fn request(&self, body: Bytes) -> hyper::http::Result<Request<Full<Bytes>>> {
        let request = self.shared.endpoint.request(Method::POST, self.target.clone());
        request
            .header(CONTENT_TYPE, &self.content_type)
            .header("producer-id", &self.id)
            .header("producer-epoch", self.epoch)
            .header("producer-seq", self.sequence)
            .body(Full::new(body))
    }
}

/// What a response means. A success without the offset that each response to an append carries is not the gateway's.
fn outcome_of(status: StatusCode, headers: &HeaderMap, document: &[u8]) -> Outcome {
    if status.is_success() && headers.contains_key("stream-next-offset") {
        return Outcome::Acknowledged;
    }
    match Refusal::parse(document) {
        Some(refusal) if refusal.kind == "producer-sequence-gap" => Outcome::Forgotten,
        Some(refusal) if refusal.kind == "producer-stale-epoch" => Outcome::Refused(PublishError::Fenced),
        Some(refusal) if refusal.is_for_good() => Outcome::Refused(refusal.into()),
        _ if is_about_credentials(status.as_u16()) => {
            Outcome::Refused(Refusal::of_credentials(status.as_u16()).into())
        }
        _ => Outcome::Again(headers.get(RETRY_AFTER).and_then(retry_after)),
    }
}
