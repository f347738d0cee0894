//! How servers are asked, as far as they differ: the requests of each delivery form, and where an answer has
//! its offset.

pub(crate) mod durable_streams;
mod nchan;

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::ACCEPT;
use serde::{Deserialize, Serialize};

use crate::strategies::Heartbeat;
use crate::wire::{Event, Request};

/// A dialect by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// The gateway's and the upstream server's.
    DurableStreams,
    /// nginx with nchan, as `servers::nchan` configures it.
    Nchan,
    /// A broker: nothing goes by HTTP.
    Mqtt,
}

/// A request that still needs its `Host`.
pub type Asking = hyper::http::Result<Request>;

/// An HTTP form whose answer does not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// Server-sent events.
    Sse,
    /// One envelope a line.
    Ndjson,
    /// One envelope a frame.
    WebSocket,
}

/// The requests of a dialect. An offset is whatever an earlier answer gave; `None` is the beginning of the
/// stream.
pub trait HttpDialect: Send + Sync {
    /// Makes a stream that keeps the last `messages_max` messages, or all, if the server lets its maker say that; `None` if
    /// streams need not be made.
    fn create(&self, stream: &str, messages_max: Option<u32>) -> Option<Asking>;
    /// Appends a message, a JSON text.
    fn publish(&self, stream: &str, message: String) -> Asking;
    /// Asks for what is there, or waits for it up to `hold`.
    fn poll(&self, stream: &str, offset: Option<&str>, hold: Option<Duration>) -> Asking;
    /// The path and query of a live form, with the heartbeat that the server is to send.
    fn live(&self, stream: &str, offset: Option<&str>, form: Live, heartbeat: Heartbeat) -> String;
    /// Asks for a live form that is an answer without an end.
    fn follow(&self, stream: &str, offset: Option<&str>, form: Live, heartbeat: Heartbeat) -> Asking {
        let accept = if form == Live::Sse { "text/event-stream" } else { "application/x-ndjson" };
        let request = hyper::Request::builder().uri(self.live(stream, offset, form, heartbeat));
        request.header(ACCEPT, accept).body(Default::default())
    }
    /// The offset of an answer to a poll.
    fn offset(&self, fields: &HeaderMap) -> Option<String>;
    /// The offset behind an event.
    fn offset_of_event(&self, event: &Event) -> Option<String>;
    /// Whether a short poll brings one message at a time, so that the next must follow at once.
    fn one_at_a_time(&self) -> bool;
}

impl Dialect {
    /// Its requests; `None`: it has none.
    pub fn http(self) -> Option<&'static dyn HttpDialect> {
        match self {
            Self::DurableStreams => Some(&durable_streams::DurableStreams),
            Self::Nchan => Some(&nchan::Nchan),
            Self::Mqtt => None,
        }
    }
}
