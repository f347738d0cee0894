//! The Durable Streams protocol with the gateway's extensions.

use std::time::Duration;

use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Method};
use serde::Deserialize;

use super::{BuiltRequest, HttpDialect, LiveForm};
use crate::strategies::Heartbeat;
use crate::wire::Event;

/// Dialect of the gateway and the upstream server.
#[derive(Debug)]
pub(super) struct DurableStreams;

/// The offset in a control event or an envelope.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Control {
    stream_next_offset: String,
}

/// Offset of the beginning of every stream.
const BEGINNING: &str = "-1";

impl HttpDialect for DurableStreams {
    fn create(&self, stream: &str, messages_max: Option<u32>) -> Option<BuiltRequest> {
        let mut request = hyper::Request::builder().method(Method::PUT).uri(path(stream));
        if let Some(max) = messages_max {
            // An extension of the gateway; the upstream server ignores it.
            request = request.header("stream-max-messages", max);
        }
        Some(request.header(CONTENT_TYPE, "application/json").body(Default::default()))
    }

    fn publish(&self, stream: &str, message: String) -> BuiltRequest {
        let request = hyper::Request::builder().method(Method::POST).uri(path(stream));
        request.header(CONTENT_TYPE, "application/json").body(message.into())
    }

    fn poll(&self, stream: &str, offset: Option<&str>, hold: Option<Duration>) -> BuiltRequest {
        let mut target = format!("{}?offset={}", path(stream), offset.unwrap_or(BEGINNING));
        if let Some(hold) = hold {
            target.push_str(&format!("&live=long-poll&timeout={}", hold.as_secs()));
        }
        hyper::Request::builder().uri(target).body(Default::default())
    }

    fn live(&self, stream: &str, offset: Option<&str>, form: LiveForm, heartbeat: Heartbeat) -> String {
        let form = match form {
            LiveForm::Sse => "sse",
            LiveForm::Ndjson => "ndjson",
            LiveForm::WebSocket => "websocket",
        };
        let mut target = format!("{}?offset={}&live={form}", path(stream), offset.unwrap_or(BEGINNING));
        if let Some(heartbeat) = heartbeat {
            target.push_str(&format!("&heartbeat={}", heartbeat.as_secs()));
        }
        target
    }

    fn offset(&self, fields: &HeaderMap) -> Option<String> {
        Some(fields.get("stream-next-offset")?.to_str().ok()?.to_owned())
    }

    fn offset_of_event(&self, event: &Event) -> Option<String> {
        offset_of_envelope(event.data.as_bytes()).filter(|_| event.name == "control")
    }

    fn one_at_a_time(&self) -> bool {
        false
    }
}

/// Returns the offset of an NDJSON line or a WebSocket frame.
pub(crate) fn offset_of_envelope(envelope: &[u8]) -> Option<String> {
    serde_json::from_slice::<Control>(envelope).ok().map(|control| control.stream_next_offset)
}

fn path(stream: &str) -> String {
    format!("/v1/stream/{stream}")
}
