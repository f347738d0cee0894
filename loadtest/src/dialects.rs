//! Differences between the servers' HTTP interfaces: the requests of each delivery form, and the place of the offset in a
//! response.

pub(crate) mod durable_streams;
mod nchan;
mod pushpin;
mod socket_io;

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::ACCEPT;
use serde::{Deserialize, Serialize};

use crate::strategies::Heartbeat;
use crate::wire::{Event, Request, XmppService};

/// Names a dialect; it is serialized for generator processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// The Durable Streams protocol, which the gateway and the upstream server speak.
    DurableStreams,
    /// nginx with nchan, as `servers::nchan` configures it.
    Nchan,
    /// Socket.IO, and a request for each message, as `servers::npm` starts it.
    SocketIo,
    /// Pushpin in front of the origin that `servers::pushpin` starts.
    Pushpin,
    /// The commands of Redis.
    Redis,
    /// The protocol of NATS, over WebSocket.
    Nats,
    /// MQTT only; a broker has no HTTP interface.
    Mqtt,
    /// XMPP only, as `servers::prosody` and `servers::ejabberd` configure it.
    Xmpp,
}

/// How the XMPP servers are configured.
pub(crate) const XMPP_SERVER: XmppService = XmppService {
    domain: "localhost",
    publishers: Some("publishers.localhost"),
    pubsub: "pubsub.localhost",
    websocket: "/xmpp-websocket",
    bosh: "/http-bind",
};

/// A request without its `Host`, which [`addressed`](crate::client::addressed) adds.
pub type BuiltRequest = hyper::http::Result<Request>;

/// An HTTP delivery form whose response does not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveForm {
    /// Server-sent events.
    Sse,
    /// One envelope a line.
    Ndjson,
    /// One envelope a frame.
    WebSocket,
}

/// Builds the requests of one dialect. An offset is a value from an earlier response; `None` is the beginning of the stream.
pub trait HttpDialect: Send + Sync {
    /// Creates a stream that keeps the last `messages_max` messages, or all, if the server takes this setting from its clients.
    /// `None` if the server needs no request to create a stream.
    fn create(&self, stream: &str, messages_max: Option<u32>) -> Option<BuiltRequest>;
    /// Appends a message, a JSON text.
    fn publish(&self, stream: &str, message: String) -> BuiltRequest;
    /// Reads the messages that exist, or waits up to `hold` for one.
    fn poll(&self, stream: &str, offset: Option<&str>, hold: Option<Duration>) -> BuiltRequest;
    /// Returns the path and query of a live form, with the heartbeat that the server is to send.
    fn live(&self, stream: &str, offset: Option<&str>, form: LiveForm, heartbeat: Heartbeat) -> String;
    /// Reads a live form whose response does not end (SSE or NDJSON).
    fn follow(
        &self,
        stream: &str,
        offset: Option<&str>,
        form: LiveForm,
        heartbeat: Heartbeat,
    ) -> BuiltRequest {
        let accept = if form == LiveForm::Sse { "text/event-stream" } else { "application/x-ndjson" };
        let request = hyper::Request::builder().uri(self.live(stream, offset, form, heartbeat));
        request.header(ACCEPT, accept).body(Default::default())
    }
    /// Returns the offset in a response to a poll.
    fn offset(&self, fields: &HeaderMap) -> Option<String>;
    /// Returns the offset after an event.
    fn offset_of_event(&self, event: &Event) -> Option<String>;
    /// Whether a short poll returns one message at a time, so that the next poll must follow at once.
    fn one_at_a_time(&self) -> bool;
}

impl Dialect {
    /// Returns the builder of HTTP requests; `None` for a dialect without HTTP.
    pub fn http(self) -> Option<&'static dyn HttpDialect> {
        match self {
            Self::DurableStreams => Some(&durable_streams::DurableStreams),
            Self::Nchan => Some(&nchan::Nchan),
            Self::SocketIo => Some(&socket_io::SocketIo),
            Self::Pushpin => Some(&pushpin::Pushpin),
            Self::Redis | Self::Nats | Self::Mqtt | Self::Xmpp => None,
        }
    }

    /// Returns where the server speaks XMPP; `None` if it does not.
    pub fn xmpp(self) -> Option<&'static XmppService> {
        match self {
            Self::DurableStreams => Some(&XmppService {
                domain: "localhost",
                publishers: None,
                pubsub: "localhost",
                websocket: "/v1/xmpp",
                bosh: "/v1/bosh",
            }),
            Self::Xmpp => Some(&XMPP_SERVER),
            Self::Nchan | Self::SocketIo | Self::Pushpin | Self::Redis | Self::Nats | Self::Mqtt => None,
        }
    }
}
