//! What a reader asks for, as a query, or as a JSON body where it would not fit into one.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::{Method, Request};
use serde::Serialize;

use crate::attempt::Attempt;
use crate::attempt::Form;
use crate::endpoint::Endpoint;
use crate::origin::{Origin, in_query};
use crate::resume_token::ResumeToken;

/// Targets above this go as a body: some proxies take no more.
const TARGET_BYTES_MAX: usize = 2048;

/// Which streams, and from where.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) streams: Vec<String>,
    pub(crate) token: Option<ResumeToken>,
    pub(crate) earliest: bool,
}

/// One request, in the words of the wire.
#[derive(Debug, Serialize)]
struct Asked<'a> {
    stream: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    resume: Option<&'a ResumeToken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat: Option<u64>,
}

impl Wanted {
    /// The request of a poll or of an event or line stream.
    pub(crate) fn request(
        &self,
        attempt: &Attempt,
        endpoint: &Endpoint,
    ) -> hyper::http::Result<Request<Full<Bytes>>> {
        let asked = self.asked(attempt);
        let target = asked.target(&endpoint.origin);
        if target.len() <= TARGET_BYTES_MAX {
            return endpoint.request(Method::GET, target).body(Full::default());
        }
        endpoint
            .request(Method::POST, endpoint.origin.streams())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(asked.body()))
    }

    /// The handshake of a WebSocket, and its first frame if the query can not say all.
    pub(crate) fn handshake(
        &self,
        attempt: &Attempt,
        key: &str,
        endpoint: &Endpoint,
    ) -> (hyper::http::Result<Request<Full<Bytes>>>, Option<Bytes>) {
        let asked = self.asked(attempt);
        let target = asked.target(&endpoint.origin);
        let (target, first) = if target.len() <= TARGET_BYTES_MAX {
            (target, None)
        } else {
            let rest = Asked { live: None, ..asked };
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

    fn asked(&self, attempt: &Attempt) -> Asked<'_> {
        let form = attempt.form;
        Asked {
            stream: &self.streams,
            resume: self.token.as_ref(),
            from: self.earliest.then_some("earliest"),
            live: (form != Form::ShortPoll).then(|| form.name()),
            timeout: (form == Form::LongPoll).then_some(attempt.hold.as_secs()),
            heartbeat: form.is_live().then_some(attempt.heartbeat.as_secs()),
        }
    }
}

impl Asked<'_> {
    fn target(&self, origin: &Origin) -> String {
        let mut target = origin.streams();
        let mut add = |name: &str, value: &str| {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&format!("{name}={}", in_query(value)));
        };
        for stream in self.stream {
            add("stream", stream);
        }
        for (name, value) in
            [("resume", self.resume.map(ResumeToken::as_str)), ("from", self.from), ("live", self.live)]
        {
            if let Some(value) = value {
                add(name, value);
            }
        }
        for (name, seconds) in [("timeout", self.timeout), ("heartbeat", self.heartbeat)] {
            if let Some(seconds) = seconds {
                add(name, &seconds.to_string());
            }
        }
        target
    }

    fn body(&self) -> Bytes {
        // Texts and numbers are always JSON.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}
