//! The requests of the origin behind Pushpin (`rivals/pushpin.js`).

use std::time::Duration;

use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Method};

use super::{BuiltRequest, HttpDialect, LiveForm};
use crate::strategies::Heartbeat;
use crate::wire::Event;

/// Dialect of the origin. Its offset is the number of messages before it.
#[derive(Debug)]
pub(super) struct Pushpin;

/// Offset of the beginning of every stream.
const BEGINNING: &str = "0";

impl HttpDialect for Pushpin {
    fn create(&self, _stream: &str, _messages_max: Option<u32>) -> Option<BuiltRequest> {
        None
    }

    fn publish(&self, stream: &str, message: String) -> BuiltRequest {
        let request = hyper::Request::builder().method(Method::POST).uri(format!("/publish/{stream}"));
        request.header(CONTENT_TYPE, "application/json").body(message.into())
    }

    fn poll(&self, stream: &str, offset: Option<&str>, hold: Option<Duration>) -> BuiltRequest {
        let (offset, hold) = (offset.unwrap_or(BEGINNING), hold.unwrap_or_default().as_secs());
        let target = format!("/long-poll/{stream}?after={offset}&timeout={hold}");
        hyper::Request::builder().uri(target).body(Default::default())
    }

    fn live(
        &self,
        stream: &str,
        offset: Option<&str>,
        form: LiveForm,
        _by_its_settings: Heartbeat,
    ) -> String {
        let form = if form == LiveForm::WebSocket { "websocket" } else { "sse" };
        format!("/{form}/{stream}?after={}", offset.unwrap_or(BEGINNING))
    }

    fn offset(&self, fields: &HeaderMap) -> Option<String> {
        Some(fields.get("stream-offset")?.to_str().ok()?.to_owned())
    }

    fn offset_of_event(&self, event: &Event) -> Option<String> {
        (!event.id.is_empty()).then(|| event.id.clone())
    }

    fn one_at_a_time(&self) -> bool {
        false
    }
}
