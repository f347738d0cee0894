//! Requests that have the same effect if they are repeated: each is sent until the gateway has answered it.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{HeaderMap, Method, StatusCode};
use tokio::time::{sleep, timeout};

use crate::connection::exchange;
use crate::error::{CertificateError, ConnectError};
use crate::refusal::{Refusal, is_final_for_append, retry_after};
use crate::settings::{Backoff, Shared};

/// Why the gateway has not done what a request asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The gateway, or a proxy before it, refuses the request with a status that no retry can change.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The certificate of the gateway is not trusted.
    #[error(transparent)]
    Untrusted(#[from] CertificateError),
}

/// A request to send.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) target: String,
    /// JSON, or nothing.
    pub(crate) body: Bytes,
    /// Most bytes of the response.
    pub(crate) bytes_max: usize,
}

/// A response of the gateway.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) document: Bytes,
}

impl Answer {
    pub(crate) fn is_json(&self) -> bool {
        self.headers.get(CONTENT_TYPE).is_some_and(|content_type| content_type == "application/json")
    }

    fn refusal(&self) -> Refusal {
        Refusal::parse(&self.document).unwrap_or_else(|| Refusal::of_status(self.status))
    }
}

impl Call {
    /// Sends the request until it succeeds or is refused for good. `is_ours` tells the gateway's successes from those of a captive portal.
    pub(crate) async fn send(
        self,
        shared: &Shared,
        is_ours: impl Fn(&Answer) -> bool,
    ) -> Result<Answer, RequestError> {
        let Shared { endpoint, settings, .. } = shared;
        let (mut backoff, mut rng, mut renewed) = (Backoff::new(settings), Rng::new(), false);
        loop {
            endpoint.credentials.ready().await?;
            let version = endpoint.credentials.version();
            let request = endpoint.request(self.method.clone(), self.target.clone());
            let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(self.body.clone()));
            let request = request.map_err(|_| Refusal::of_status(StatusCode::BAD_REQUEST))?;
            let mut idle = None;
            let exchange = exchange(request, &mut idle, endpoint, self.bytes_max);
            let wait = match timeout(settings.answer_timeout, exchange).await {
                Ok(Ok((status, headers, document))) => {
                    let answer = Answer { status, headers, document };
                    if status == StatusCode::UNAUTHORIZED && !renewed && endpoint.credentials.refused(version)
                    {
                        renewed = true;
                        Some(Duration::ZERO)
                    } else if status.is_success() && is_ours(&answer) {
                        return Ok(answer);
                    } else if is_final_for_append(status) {
                        return Err(answer.refusal().into());
                    } else {
                        answer.headers.get(RETRY_AFTER).and_then(retry_after)
                    }
                }
                Ok(Err(ConnectError::Untrusted(error))) => return Err(error.into()),
                _ => None,
            };
            let wait = wait.map_or_else(|| backoff.wait(&mut rng), |wait| wait.min(settings.reprobe_max));
            sleep(wait).await;
        }
    }
}
