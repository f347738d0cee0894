//! Request forms, by which requests are counted and logged.

use std::sync::Arc;

use crate::metrics::{Answered, LiveMetrics, Metrics};

/// The operation of a request, and the delivery form of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::http) enum Form {
    /// PUT.
    Create,
    /// POST.
    Append,
    /// GET without `live`.
    ShortPoll,
    /// GET with `live=long-poll`.
    LongPoll,
    /// GET with `live=sse`.
    Sse,
    /// GET with `live=ndjson`.
    Ndjson,
    /// GET with `live=websocket`.
    WebSocket,
    /// A WebSocket for MQTT.
    Mqtt,
    /// A WebSocket for XMPP.
    Xmpp,
    /// XMPP in HTTP requests.
    Bosh,
    /// The page or the JavaScript client.
    File,
    /// HEAD.
    Head,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Preflight,
    /// Anything else.
    Other,
}

impl Form {
    /// The name in logs and metrics; for a read the value of `live` that asks for it.
    pub(in crate::http) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Append => "append",
            Self::ShortPoll => "short-poll",
            Self::LongPoll => "long-poll",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::WebSocket => "websocket",
            Self::Mqtt => "mqtt",
            Self::Xmpp => "xmpp",
            Self::Bosh => "bosh",
            Self::File => "file",
            Self::Head => "head",
            Self::Delete => "delete",
            Self::Preflight => "preflight",
            Self::Other => "other",
        }
    }
}

/// The counters of responses, and those of the live forms.
#[derive(Debug)]
pub(in crate::http) struct FormMetrics {
    metrics: Arc<Metrics>,
    frequent: Frequent,
    sse: Arc<LiveMetrics>,
    ndjson: Arc<LiveMetrics>,
    websocket: Arc<LiveMetrics>,
}

/// Counters of the most frequent responses, which are incremented without a lock.
#[derive(Debug)]
struct Frequent {
    short_poll_200: Answered,
    long_poll_200: Answered,
    long_poll_204: Answered,
    append_200: Answered,
    append_204: Answered,
}

impl FormMetrics {
    pub(in crate::http) fn new(metrics: Arc<Metrics>) -> Self {
        let answered = |form: Form, status| metrics.answered(form.as_str(), status);
        let frequent = Frequent {
            short_poll_200: answered(Form::ShortPoll, 200),
            long_poll_200: answered(Form::LongPoll, 200),
            long_poll_204: answered(Form::LongPoll, 204),
            append_200: answered(Form::Append, 200),
            append_204: answered(Form::Append, 204),
        };
        let live = |form: Form| Arc::new(metrics.live(form.as_str()));
        let (sse, ndjson, websocket) = (live(Form::Sse), live(Form::Ndjson), live(Form::WebSocket));
        Self { frequent, sse, ndjson, websocket, metrics }
    }

    /// Counts a response.
    pub(in crate::http) fn answered(&self, form: Form, status: u16) {
        let frequent = &self.frequent;
        match (form, status) {
            (Form::ShortPoll, 200) => frequent.short_poll_200.count(),
            (Form::LongPoll, 200) => frequent.long_poll_200.count(),
            (Form::LongPoll, 204) => frequent.long_poll_204.count(),
            (Form::Append, 200) => frequent.append_200.count(),
            (Form::Append, 204) => frequent.append_204.count(),
            _ => self.metrics.answered(form.as_str(), status).count(),
        }
    }

    /// Returns the counters of a live form.
    pub(in crate::http) fn live(&self, form: Form) -> Arc<LiveMetrics> {
        match form {
            Form::Sse => self.sse.clone(),
            Form::Ndjson => self.ndjson.clone(),
            Form::WebSocket => self.websocket.clone(),
            other => self.metrics.live(other.as_str()).into(),
        }
    }
}
