//! The requests of Socket.IO's two transports, and of the script in `rivals` that takes its messages.

use std::time::Duration;

use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Method};

use super::{BuiltRequest, HttpDialect, LiveForm};
use crate::strategies::Heartbeat;
use crate::wire::Event;

/// Dialect of Socket.IO. Instead of an offset, a poll names its session.
#[derive(Debug)]
pub(super) struct SocketIo;

impl HttpDialect for SocketIo {
    fn create(&self, _stream: &str, _messages_max: Option<u32>) -> Option<BuiltRequest> {
        None
    }

    fn publish(&self, stream: &str, message: String) -> BuiltRequest {
        let request = hyper::Request::builder().method(Method::POST).uri(format!("/publish/{stream}"));
        request.header(CONTENT_TYPE, "application/json").body(message.into())
    }

    fn poll(&self, stream: &str, session: Option<&str>, _by_its_settings: Option<Duration>) -> BuiltRequest {
        hyper::Request::builder().uri(target("polling", stream, session)).body(Default::default())
    }

    fn live(&self, stream: &str, session: Option<&str>, _form: LiveForm, _heartbeat: Heartbeat) -> String {
        target("websocket", stream, session)
    }

    fn offset(&self, _fields: &HeaderMap) -> Option<String> {
        None
    }

    fn offset_of_event(&self, _event: &Event) -> Option<String> {
        None
    }

    fn one_at_a_time(&self) -> bool {
        false
    }
}

fn target(transport: &str, stream: &str, session: Option<&str>) -> String {
    let session = session.map(|session| format!("&sid={session}")).unwrap_or_default();
    format!("/socket.io/?EIO=4&transport={transport}&stream={stream}{session}")
}
