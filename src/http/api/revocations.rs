//! Revocations of tokens: the stream in which the gateway keeps them, and the admin resource `/revocations`.
//!
//! A revocation is appended to the stream before it is acknowledged, and the stream is read before the server accepts connections.
//! It keeps its last [`KEPT_MAX`] entries; the revocations that still count are written again, in one step, before newer entries
//! could displace them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::auth::{Authenticator, InvalidRevocation, REVOCATIONS_MAX, Revocation};
use crate::clock::Clock;
use crate::hub::{Creation, CreationError, Hub};
use crate::stream::{Append, AppendError, ContentType, Payload, ReadError, Retention, Start, StreamName};

/// The stream of revocations. No client may use it, see [`is_own`](crate::auth::is_own).
const STREAM: &str = "$auth/revocations";

/// Entries that the stream keeps: those of an old and of a new summary, and as many newer ones.
const KEPT_MAX: u64 = 3 * REVOCATIONS_MAX as u64;

/// The longest body of a revocation, in bytes, and how long it may take.
const BODY_BYTES_MAX: usize = 4096;
const BODY_TIME: Duration = Duration::from_secs(10);

/// Nesting of the JSON of an entry.
const JSON_DEPTH_MAX: usize = 4;

/// The revocations of a gateway, and the stream that keeps them.
pub struct RevocationLog {
    hub: Arc<Hub>,
    auth: Arc<Authenticator>,
    clock: Clock,
    stream: StreamName,
    /// Entries since the revocations that count were last written together, at most [`REVOCATIONS_MAX`]. One revocation is written
    /// at a time.
    newer: Mutex<usize>,
}

/// Why the stored revocations cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RevocationLogError {
    /// The stream has an impossible name.
    #[error("its name is invalid")]
    Name,
    /// The stream cannot be created.
    #[error(transparent)]
    Create(#[from] CreationError),
    /// The stream cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An entry is malformed.
    #[error("an entry is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Why a revocation has no effect.
#[derive(Debug, thiserror::Error)]
enum RevokeError {
    #[error("the body must be a revocation as JSON of at most 4096 bytes, such as {{\"sub\":\"anna\"}}: {0}")]
    Body(String),
    #[error(transparent)]
    Invalid(#[from] InvalidRevocation),
    #[error("the revocation cannot be stored: {0}")]
    Store(#[from] AppendError),
}

impl RevocationLog {
    /// Reads and applies the stored revocations. `None`: the gateway checks no tokens.
    pub async fn open(
        hub: Arc<Hub>,
        auth: Arc<Authenticator>,
        clock: Clock,
    ) -> Result<Option<Self>, RevocationLogError> {
        if !auth.is_enabled() {
            return Ok(None);
        }
        let stream = StreamName::stored(STREAM).map_err(|_| RevocationLogError::Name)?;
        let json = ContentType::stored("application/json").map_err(|_| RevocationLogError::Name)?;
        let retention = Retention { messages_max: Some(KEPT_MAX), ..Retention::default() };
        let creation =
            Creation { content_type: Some(json), retention: Some(retention), ..Creation::default() };
        hub.create(&stream, creation).await?;
        let (mut start, mut read) = (Start::Earliest, 0);
        loop {
            let batch = match hub.read(&stream, start).await {
                Err(ReadError::Gap(gap)) => {
                    tracing::error!(
                        "revocations were damaged in the store and are lost; revoke again what is missing"
                    );
                    start = Start::At(gap.earliest);
                    continue;
                }
                batch => batch?,
            };
            let array = [b"[", batch.pieces.join(&b","[..]).as_slice(), b"]"].concat();
            let revocations: Vec<Revocation> = serde_json::from_slice(&array)?;
            read += revocations.len();
            auth.revoke(revocations, clock.wall());
            if batch.up_to_date {
                break;
            }
            start = Start::At(batch.next);
        }
        Ok(Some(Self { hub, auth, clock, stream, newer: Mutex::new(read.min(REVOCATIONS_MAX)) }))
    }

    /// The revocations that count.
    pub(super) fn list(&self) -> Vec<Revocation> {
        self.auth.revocations(self.clock.wall())
    }

    /// Answers a POST with a revocation.
    pub(super) async fn answer(&self, body: Incoming) -> (StatusCode, String) {
        match self.revoke(body).await {
            Ok(revocation) => {
                let json = serde_json::to_string(&revocation).unwrap_or_default();
                tracing::info!(revocation = json, "revoked");
                (StatusCode::OK, json + "\n")
            }
            Err(error) => {
                let status = match &error {
                    RevokeError::Body(_) => StatusCode::BAD_REQUEST,
                    RevokeError::Invalid(InvalidRevocation::TooMany) | RevokeError::Store(_) => {
                        StatusCode::INSUFFICIENT_STORAGE
                    }
                    RevokeError::Invalid(_) => StatusCode::BAD_REQUEST,
                };
                (status, format!("{error}\n"))
            }
        }
    }

    async fn revoke(&self, body: Incoming) -> Result<Revocation, RevokeError> {
        let collected = timeout(BODY_TIME, Limited::new(body, BODY_BYTES_MAX).collect()).await;
        let collected = collected.map_err(|_| RevokeError::Body("it did not arrive in time".to_owned()))?;
        let body = collected.map_err(|error| RevokeError::Body(error.to_string()))?.to_bytes();
        let revocation: Revocation =
            serde_json::from_slice(&body).map_err(|error| RevokeError::Body(error.to_string()))?;
        let mut newer = self.newer.lock().await;
        let revocation = self.auth.checked_revocation(revocation, self.clock.wall())?;
        if *newer >= REVOCATIONS_MAX {
            self.append(&self.list()).await?;
            *newer = 0;
        }
        // Has an effect even if the operator does not wait for the response, or if it cannot be stored.
        self.auth.revoke(vec![revocation.clone()], self.clock.wall());
        *newer += 1;
        self.append(std::slice::from_ref(&revocation)).await?;
        Ok(revocation)
    }

    /// Appends entries in one step.
    async fn append(&self, entries: &[Revocation]) -> Result<(), AppendError> {
        let body = Bytes::from(serde_json::to_vec(entries).unwrap_or_default());
        let Ok(json) = ContentType::stored("application/json") else { return Ok(()) };
        let append = Append::of(json, Payload::default()).with_body(body, JSON_DEPTH_MAX)?;
        self.hub.publish(&self.stream, append).await.map(drop)
    }
}
