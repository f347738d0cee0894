//! What is kept of a request until it is answered: for its metrics, its log entry, and the framing of its response.

use tokio::time::Instant;
use tracing::Span;

use super::conn::Framing;
use crate::http::form::Form;

/// See the module.
pub(super) struct RequestLog {
    pub(super) form: Form,
    pub(super) framing: Framing,
    /// `None`: nobody records spans at this level, so that one is not worth its time and memory.
    pub(super) trace: Option<Box<Trace>>,
}

/// The span of a request, and when the request was complete.
pub(super) struct Trace {
    pub(super) span: Span,
    pub(super) since: Instant,
}

impl RequestLog {
    /// Begins the log of a request for `stream`, if it is for one, by `client`, if it named itself.
    pub(super) fn new(form: Form, framing: Framing, stream: &str, client: Option<&str>) -> Self {
        let span = tracing::debug_span!("request", form = form.as_str(), stream, client);
        let trace = (!span.is_disabled()).then(|| Box::new(Trace { span, since: Instant::now() }));
        Self { form, framing, trace }
    }

    /// Whether a span records the request.
    pub(super) fn is_traced(&self) -> bool {
        self.trace.is_some()
    }
}
