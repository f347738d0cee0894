//! The response to an HTTP request: whether it is one of the gateway, and its body in pieces. That of a poll is one
//! envelope.

use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{HeaderMap, Request, StatusCode};

use crate::attempt::{End, Ended};
use crate::connection::Connection;
use crate::envelope::{ENVELOPE_BYTES_MAX, Envelope, Received};
use crate::refusal::{Refusal, retry_after};

/// Most bytes of a refusal that are read.
const REFUSAL_BYTES_MAX: usize = 16 << 10;

/// A response of the expected content type, whose body is still to be read.
pub(super) struct Answer {
    connection: Connection,
    body: Incoming,
}

impl Answer {
    /// Sends a request and reads the head of the response.
    pub(super) async fn of(
        mut connection: Connection,
        request: Request<Full<Bytes>>,
        expected: &str,
    ) -> Result<Self, Ended> {
        let (head, body) = connection.send(request).await.map_err(|_| End::Cut)?.into_parts();
        let mut answer = Self { connection, body };
        if head.status != StatusCode::OK {
            return Err(answer.refused(head.status, &head.headers).await);
        }
        if !is_of(&head.headers, expected) {
            return Err(End::NotGateway.into());
        }
        Ok(answer)
    }

    /// What a status other than that of the form means.
    pub(super) async fn refused(&mut self, status: StatusCode, headers: &HeaderMap) -> Ended {
        let end = match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                let after = headers.get(RETRY_AFTER).and_then(retry_after);
                return End::Restart(after).into();
            }
            StatusCode::NETWORK_AUTHENTICATION_REQUIRED => End::NotGateway,
            status if status.is_redirection() || status.is_success() => End::NotGateway,
            status => End::Refused(status.as_u16()),
        };
        if is_of(headers, "application/problem+json")
            && let Ok(document) = self.whole(REFUSAL_BYTES_MAX).await
            && let Some(refusal) = Refusal::parse(&document)
            && refusal.is_for_good()
        {
            return Ended::ForGood(refusal);
        }
        end.into()
    }

    /// Waits for the next bytes of the body. `None` at its end.
    pub(super) async fn more(&mut self) -> Result<Option<Bytes>, End> {
        self.connection.more(&mut self.body).await.transpose().map_err(|_| End::Cut)
    }

    pub(super) fn into_connection(self) -> Connection {
        self.connection
    }

    pub(super) fn new(connection: Connection, body: Incoming) -> Self {
        Self { connection, body }
    }

    async fn whole(&mut self, most: usize) -> Result<BytesMut, End> {
        let mut whole = BytesMut::new();
        while let Some(bytes) = self.more().await? {
            whole.extend_from_slice(&bytes);
            if whole.len() > most {
                return Err(End::NotGateway);
            }
        }
        Ok(whole)
    }
}

/// Whether the content type is this one, with any parameters.
fn is_of(headers: &HeaderMap, expected: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(expected)
}

/// A poll whose response has begun.
pub(crate) struct Poll {
    answer: Answer,
    read: BytesMut,
    /// Whether the whole response was read.
    whole: bool,
}

impl Poll {
    pub(super) fn over(answer: Answer) -> Self {
        Self { answer, read: BytesMut::new(), whole: false }
    }

    pub(super) async fn next(&mut self) -> Result<Received, Ended> {
        if self.whole {
            return Err(End::Clean.into());
        }
        match self.answer.more().await? {
            Some(bytes) if self.read.len() + bytes.len() > ENVELOPE_BYTES_MAX => Err(End::NotGateway.into()),
            Some(bytes) => {
                self.read.extend_from_slice(&bytes);
                Ok(Received::Bytes)
            }
            None => {
                self.whole = true;
                Ok(Received::Envelope(Envelope::parse(&self.read)?))
            }
        }
    }

    pub(super) fn into_connection(self) -> Option<Connection> {
        self.whole.then(|| self.answer.into_connection())
    }
}
