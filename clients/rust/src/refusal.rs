//! Refusals of the gateway, as problem documents (RFC 9457).

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde::Deserialize;

/// Prefix of the problem types of the gateway.
const OURS: &str = "urn:pollgate:";

/// Kinds of problems that a proxy on the path can cause.
const BY_PROXIES: [&str; 2] = ["upgrade-required", "origin"];

/// The gateway, or a proxy before it, has refused a request and would refuse it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused with {status} ({kind}): {detail}")]
pub struct Refusal {
    /// Status of the response.
    pub status: u16,
    /// Kind of the problem, such as `stream-name` or `unauthorized`; `unknown` if the response was not the gateway's.
    pub kind: String,
    /// What is wrong with the request, and what would be accepted.
    pub detail: String,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    status: u16,
    #[serde(default)]
    detail: String,
}

impl Refusal {
    /// The function of the user has no token.
    pub(crate) fn without_token(why: String) -> Self {
        Self { status: 401, kind: "no-token".to_owned(), detail: format!("no token could be fetched: {why}") }
    }

    /// The refusal of credentials by an answer that is not a problem document of the gateway, but perhaps of a proxy.
    pub(crate) fn of_credentials(status: u16) -> Self {
        let (kind, detail) = match status {
            401 => ("unauthorized", "the request has no credentials, or they are not accepted"),
            _ => ("forbidden", "the credentials of the request do not allow it"),
        };
        Self { status, kind: kind.to_owned(), detail: detail.to_owned() }
    }

    /// The refusal by an answer that is not a problem document of the gateway, but that of a proxy.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        if is_about_credentials(status.as_u16()) {
            return Self::of_credentials(status.as_u16());
        }
        let detail = format!(
            "the response was {status}, without a reason of the gateway, perhaps by a proxy before it"
        );
        Self { status: status.as_u16(), kind: "unknown".to_owned(), detail }
    }

    /// Parses a problem document. `None` if it is not one of the gateway.
    pub(crate) fn parse(document: &[u8]) -> Option<Self> {
        let problem: Problem = serde_json::from_slice(document).ok()?;
        let kind = problem.kind.strip_prefix(OURS)?.to_owned();
        Some(Self { status: problem.status, kind, detail: problem.detail })
    }

    /// Whether a retry would be refused too.
    pub(crate) fn is_for_good(&self) -> bool {
        let status = StatusCode::from_u16(self.status).unwrap_or_default();
        let passing = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        status.is_client_error() && !passing && !BY_PROXIES.contains(&&*self.kind)
    }
}

/// Whether repeating an append cannot succeed after a response with this status, from the gateway or from a proxy in between. 408, 425 and 429 say "not yet".
pub(crate) fn is_final_for_append(status: StatusCode) -> bool {
    let is_later = matches!(status.as_u16(), 408 | 425 | 429);
    (status.is_client_error() && !is_later) || matches!(status.as_u16(), 501 | 505)
}

/// Whether a status says that credentials are missing, not accepted or not sufficient (RFC 9110, sections 15.5.2 and
/// 15.5.4).
pub(crate) fn is_about_credentials(status: u16) -> bool {
    matches!(status, 401 | 403)
}

/// Delay of a `Retry-After` field. `None` for a date, which would need a synchronized clock.
pub(crate) fn retry_after(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_gateways_own_and_lasting_is_for_good() {
        for (kind, status, expected) in [
            ("urn:pollgate:stream-name", 400, Some(true)),
            ("urn:pollgate:no-such-path", 404, Some(true)),
            ("urn:pollgate:upgrade-required", 426, Some(false)),
            ("urn:pollgate:too-many-polls", 429, Some(false)),
            ("urn:pollgate:draining", 503, Some(false)),
            ("about:blank", 400, None),
        ] {
            let document = format!(r#"{{"type":"{kind}","title":"","status":{status},"detail":"d"}}"#);
            let refusal = Refusal::parse(document.as_bytes());
            assert_eq!(refusal.map(|refusal| refusal.is_for_good()), expected, "{document}");
        }
        assert_eq!(Refusal::parse(b"<html>"), None);
    }
}
