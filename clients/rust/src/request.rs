//! Requests of a reader: parameters in the query, or in a JSON body if the query would be too long.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::{Method, Request};
use serde::Serialize;

use crate::attempt::Attempt;
use crate::attempt::Form;
use crate::endpoint::Endpoint;
use crate::origin::{Origin, in_query};
use crate::refusal::Refusal;
use crate::resume_token::ResumeToken;
use crate::start::Begin;

/// Longest request target. Some proxies accept no longer ones.
const TARGET_BYTES_MAX: usize = 2048;

/// Streams to read, and where to start.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) streams: Vec<String>,
    pub(crate) token: Option<ResumeToken>,
    pub(crate) unknown: Begin,
    /// Whether the gateway sends the times of messages.
    pub(crate) times: bool,
    /// Id of the device that reads.
    pub(crate) device: Option<String>,
}

/// Parameters of one request.
#[derive(Debug, Serialize)]
struct Query<'a> {
    stream: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    resume: Option<&'a ResumeToken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat: Option<u64>,
}

/// Most streams of one request.
const STREAMS_MAX: usize = 1000;

impl Selection {
    /// The refusal of a number of streams that no request can have, so that it is told without a gateway too.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        let count = self.streams.len();
        (!(1..=STREAMS_MAX).contains(&count)).then(|| Refusal {
            status: 400,
            kind: "malformed".to_owned(),
            detail: format!("a subscription reads 1 to {STREAMS_MAX} streams, not {count}"),
        })
    }

    /// The request of a poll or of an event or line stream.
    pub(crate) fn request(
        &self,
        attempt: &Attempt,
        endpoint: &Endpoint,
    ) -> hyper::http::Result<Request<Full<Bytes>>> {
        let query = self.query(attempt);
        let target = query.target(&endpoint.origin);
        if target.len() <= TARGET_BYTES_MAX {
            return endpoint.request(Method::GET, target).body(Full::default());
        }
        endpoint
            .request(Method::POST, endpoint.origin.streams())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(query.body()))
    }

    /// The handshake of a WebSocket, and its first frame if the query would be too long.
    pub(crate) fn handshake(
        &self,
        attempt: &Attempt,
        key: &str,
        endpoint: &Endpoint,
    ) -> (hyper::http::Result<Request<Full<Bytes>>>, Option<Bytes>) {
        let query = self.query(attempt);
        let target = query.target(&endpoint.origin);
        let (target, first) = if target.len() <= TARGET_BYTES_MAX {
            (target, None)
        } else {
            let rest = Query { live: None, ..query };
            (format!("{}?live={}", endpoint.origin.streams(), attempt.form), Some(rest.body()))
        };
        let request = endpoint
            .request(Method::GET, target)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, key);
        (request.body(Full::default()), first)
    }

    fn query(&self, attempt: &Attempt) -> Query<'_> {
        let form = attempt.form;
        Query {
            stream: &self.streams,
            resume: self.token.as_ref(),
            from: match self.unknown {
                Begin::Now => None,
                Begin::Earliest => Some("earliest".to_owned()),
                Begin::Last(messages) => Some(format!("last:{messages}")),
                Begin::At(offset) => Some(offset.to_string()),
            },
            times: self.times.then_some(1),
            live: (form != Form::ShortPoll).then(|| form.name()),
            client: self.device.as_deref(),
            timeout: (form == Form::LongPoll).then_some(attempt.hold.as_secs()),
            heartbeat: form.is_live().then_some(attempt.heartbeat.as_secs()),
        }
    }
}

impl Query<'_> {
    fn target(&self, origin: &Origin) -> String {
        let mut target = origin.streams();
        let mut add = |name: &str, value: &str| {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&format!("{name}={}", in_query(value)));
        };
        for stream in self.stream {
            add("stream", stream);
        }
        for (name, value) in [
            ("resume", self.resume.map(ResumeToken::as_str)),
            ("from", self.from.as_deref()),
            ("live", self.live),
            ("client", self.client),
        ] {
            if let Some(value) = value {
                add(name, value);
            }
        }
        for (name, number) in
            [("timeout", self.timeout), ("heartbeat", self.heartbeat), ("times", self.times)]
        {
            if let Some(number) = number {
                add(name, &number.to_string());
            }
        }
        target
    }

    fn body(&self) -> Bytes {
        // Strings and numbers always serialize.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}
