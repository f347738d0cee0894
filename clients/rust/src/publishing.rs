//! The task of a producer: sends one request at a time, numbered so that the gateway recognizes a repetition.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use fastrand::Rng;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Method, Request, StatusCode};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::connection::{ANSWER_BYTES_MAX, Connection, exchange};
use crate::error::{CertificateError, ConnectError};
use crate::refusal::{Refusal, is_about_credentials, is_final_for_append, retry_after};
use crate::room::Permit;
use crate::settings::Backoff;
use crate::settings::Shared;

/// Most bytes of one request, unless a single message is longer.
const BATCH_BYTES_MAX: usize = 256 << 10;

/// Most messages of one request.
const BATCH_MESSAGES_MAX: usize = 1000;

/// Statuses that may be about one message of a batch, so that its parts are tried.
const ABOUT_CONTENT: [u16; 4] = [400, 403, 413, 422];

/// Number that the gateway expects of a producer whose number has a gap.
const PRODUCER_EXPECTED_SEQ: &str = "producer-expected-seq";

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
    /// The content type or the id of the producer cannot be a header field.
    #[error("the content type or the id of the producer has characters that a header field cannot have")]
    Malformed,
    /// The gateway, or a proxy before it, refuses the message with a status that no retry can change: 400 to 499 except 408, 425
    /// and 429, and 501 and 505. If the response to an earlier attempt was lost, the message may be in the stream.
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
    pub(crate) permit: Permit,
}

/// State of the task.
pub(crate) struct PublishTask {
    shared: Arc<Shared>,
    target: String,
    content_type: String,
    id: String,
    epoch: u64,
    sequence: u64,
    /// The request before was refused after an attempt that may have been stored: the gateway expects the number before
    /// `sequence` if it was not.
    doubtful: bool,
    idle: Option<Connection>,
    backoff: Backoff,
    rng: Rng,
    /// Attempts in a row without a response.
    unanswered: u32,
    /// The token was fetched again after a refusal of this request.
    renewed: bool,
}

/// Whether messages of a stream with this content type are JSON values.
pub(crate) fn takes_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

/// What came of one request.
enum Outcome {
    Acknowledged,
    /// The request has to be repeated, after this delay if the response says one.
    Again {
        after: Option<Duration>,
        may_be_stored: bool,
    },
    /// The gateway expects this number.
    Expected(u64),
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
            doubtful: false,
            idle: None,
            backoff: Backoff::new(&shared.settings),
            rng: Rng::new(),
            unanswered: 0,
            renewed: false,
            shared,
        }
    }

    pub(crate) fn takes_json(&self) -> bool {
        takes_json(&self.content_type)
    }

    /// Whether the content type and the id can be header fields.
    pub(crate) fn is_well_formed(&self) -> bool {
        [&self.content_type, &self.id].into_iter().all(|text| HeaderValue::from_str(text).is_ok())
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

    /// Publishes messages together, or in halves if they are refused together, so that only those fail that are at fault.
    async fn publish(&mut self, batch: Vec<Pending>) {
        let mut parts = vec![batch];
        while let Some(mut batch) = parts.pop() {
            let (outcome, may_be_stored) = self.append(self.body(&batch)).await;
            let is_about_content = matches!(&outcome, Err(PublishError::Refused(refusal))
                if ABOUT_CONTENT.contains(&refusal.status));
            // Parts of what may be stored would be stored twice.
            if batch.len() > 1 && is_about_content && !may_be_stored {
                let second = batch.split_off(batch.len() / 2);
                parts.extend([second, batch]);
                continue;
            }
            for Pending { message: _, done, permit } in batch {
                drop(permit);
                let _nobody_waits = done.send(outcome.clone());
            }
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

    /// Sends one request until it is acknowledged or refused for good. Also returns whether it may be stored though it was
    /// refused.
    async fn append(&mut self, body: Bytes) -> (Result<(), PublishError>, bool) {
        let mut in_doubt = false;
        self.renewed = false;
        loop {
            match self.attempt(body.clone()).await {
                Outcome::Acknowledged => {
                    self.sequence += 1;
                    self.doubtful = false;
                    self.backoff.reset();
                    return (Ok(()), false);
                }
                Outcome::Refused(error) => {
                    self.doubtful |= in_doubt;
                    self.sequence += u64::from(in_doubt);
                    return (Err(error), in_doubt);
                }
                Outcome::Expected(expected) => self.renumber(expected),
                Outcome::Again { after, may_be_stored } => {
                    in_doubt |= may_be_stored;
                    let wait = match after {
                        Some(after) => after.min(self.shared.settings.reprobe_max),
                        None => self.backoff.wait(&mut self.rng),
                    };
                    sleep(wait).await;
                }
            }
        }
    }

    /// The gateway expects another number. Either it has not stored the request in doubt, or it has forgotten this producer, whose
    /// numbers begin again in a new epoch then.
    fn renumber(&mut self, expected: u64) {
        if self.doubtful && expected.checked_add(1) == Some(self.sequence) {
            self.sequence = expected;
        } else {
            (self.epoch, self.sequence) = (self.epoch + 1, 0);
        }
        self.doubtful = false;
    }

    async fn attempt(&mut self, body: Bytes) -> Outcome {
        if let Err(refusal) = self.shared.endpoint.credentials.ready().await {
            return Outcome::Refused(refusal.into());
        }
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
                let credentials = &self.shared.endpoint.credentials;
                let is_outdated = version != credentials.version() && is_about_credentials(status.as_u16());
                let may_renew =
                    status == StatusCode::UNAUTHORIZED && !self.renewed && credentials.refused(version);
                self.renewed |= may_renew;
                if is_outdated || may_renew {
                    return Outcome::Again { after: Some(Duration::ZERO), may_be_stored: false };
                }
                outcome_of(status, &headers, &document)
            }
            Ok(Err(ConnectError::Untrusted(error))) => Outcome::Refused(error.into()),
            // The server has probably closed the idle connection.
            Ok(Err(_)) if reused => Outcome::Again { after: Some(Duration::ZERO), may_be_stored: true },
            _ => {
                self.unanswered += 1;
                Outcome::Again { after: None, may_be_stored: true }
            }
        }
    }

    /// Sends the request and reads the response.
    async fn exchange(&mut self, body: Bytes) -> Result<(StatusCode, HeaderMap, Bytes), ConnectError> {
        let request = self.request(body).map_err(|_| ConnectError::Unreachable)?;
        exchange(request, &mut self.idle, &self.shared.endpoint, ANSWER_BYTES_MAX).await
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
    let refusal = Refusal::parse(document);
    match refusal {
        Some(refusal) if refusal.kind == "producer-stale-epoch" => Outcome::Refused(PublishError::Fenced),
        Some(refusal) if refusal.kind == "producer-sequence-gap" => {
            let expected =
                headers.get(PRODUCER_EXPECTED_SEQ).and_then(|expected| expected.to_str().ok()?.parse().ok());
            Outcome::Expected(expected.unwrap_or_default())
        }
        refusal if is_final_for_append(status) => {
            Outcome::Refused(refusal.unwrap_or_else(|| Refusal::of_status(status)).into())
        }
        refusal => Outcome::Again {
            after: headers.get(RETRY_AFTER).and_then(retry_after),
            may_be_stored: refusal.is_none(),
        },
    }
}
