//! Requests for many streams, and the envelopes of their responses.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::world::{Answer, Connection, Request, post};

/// A request, as the body of a POST and as the first frame of a WebSocket.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Ask {
    pub(crate) stream: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resume: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) live: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) heartbeat: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<&'static str>,
}

/// Response of every form.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Envelope {
    pub(crate) batches: Vec<News>,
    pub(crate) resume: Option<String>,
    pub(crate) resume_delta: Option<String>,
    pub(crate) up_to_date: bool,
    #[serde(default)]
    pub(crate) superseded: bool,
}

/// The part of an envelope about one stream.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct News {
    pub(crate) stream: String,
    pub(crate) content_type: Option<String>,
    pub(crate) data: Vec<Value>,
    pub(crate) stream_next_offset: Option<String>,
    #[serde(default)]
    pub(crate) up_to_date: bool,
    #[serde(default)]
    pub(crate) stream_closed: bool,
    pub(crate) gap: Option<String>,
    #[serde(default)]
    pub(crate) missing: bool,
}

impl Ask {
    pub(crate) fn of<S: Into<String>>(streams: impl IntoIterator<Item = S>) -> Self {
        Self { stream: streams.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    pub(crate) fn earliest(self) -> Self {
        Self { from: Some("earliest".to_owned()), ..self }
    }

    pub(crate) fn behind(self, resume: &str) -> Self {
        Self { resume: Some(resume.to_owned()), ..self }
    }

    pub(crate) fn long_poll(self) -> Self {
        Self { live: Some("long-poll"), ..self }
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).unwrap()
    }

    pub(crate) fn request(&self) -> Request {
        post("/v1/streams").json(self.json())
    }

    /// Sends the request as a poll.
    pub(crate) async fn poll(&self, connection: &mut Connection) -> Envelope {
        Envelope::of(&connection.send(self.request()).await)
    }
}

impl Envelope {
    /// Parses the response to a poll, and checks its header fields.
    #[track_caller]
    pub(crate) fn of(answer: &Answer) -> Self {
        assert_eq!(answer.status, 200, "{answer:?}");
        let head = ["content-type", "cache-control", "content-security-policy"];
        assert_eq!(head.map(|name| answer.header(name)), ["application/json", "no-store", "sandbox"]);
        let envelope = Self::parse(&answer.text());
        assert!(envelope.resume.is_some(), "a poll without a resume token: {envelope:?}");
        envelope
    }

    #[track_caller]
    pub(crate) fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Returns the resume token after this envelope for a reader that had `before`.
    pub(crate) fn resume_after(&self, before: &str) -> String {
        match (&self.resume, &self.resume_delta) {
            (Some(full), None) => full.clone(),
            (None, Some(then)) => format!("{before}.{then}"),
            (None, None) => before.to_owned(),
            (Some(_), Some(_)) => panic!("two resume tokens: {self:?}"),
        }
    }

    /// Returns the names of the streams in the envelope.
    pub(crate) fn streams(&self) -> Vec<&str> {
        self.batches.iter().map(|news| news.stream.as_str()).collect()
    }
}
