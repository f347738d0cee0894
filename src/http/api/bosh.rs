//! `/v1/bosh`: XMPP over HTTP requests (BOSH, XEP-0124). The bodies are of the XMPP front, which the server brings as a
//! [`BoshService`]; a request that waits for its response is a [`BoshExchange`], which the connection polls like a held poll.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;

use super::answer;
use crate::budget::principal_of;
use crate::clock::ReusableSleep;
use crate::http::conn::{Answer, Body, ConnectionState};
use crate::stream::Principal;

/// The path of BOSH requests.
pub(super) const BOSH_PATH: &str = "/v1/bosh";

/// The methods of [`BOSH_PATH`].
pub(super) const BOSH_METHODS: &str = "POST, OPTIONS";

/// Answers BOSH requests.
pub trait BoshService: Send + Sync {
    /// Begins to answer a request with this body, without waiting. `address` is the principal of the client's network address.
    fn begin(&self, body: &[u8], address: Principal) -> Box<dyn BoshExchange>;
}

/// A request that waits for its response. Dropping it tells the session that the connection is lost. It is not a future, which would take
/// more memory.
pub trait BoshExchange: Send {
    /// Polls for the body of the response, which is returned once. `timer` is the timer of the connection.
    fn poll_response(&mut self, timer: &mut ReusableSleep, cx: &mut Context<'_>) -> Poll<Bytes>;

    /// Ends the wait early: the client will send no more over this connection, and might be gone. The caller polls afterwards.
    fn end(&mut self);

    /// Whether [`end`](Self::end) was called.
    fn has_ended(&self) -> bool;
}

/// A request with its body.
pub(in crate::http) struct BoshRequest {
    pub(in crate::http) service: Arc<dyn BoshService>,
    pub(in crate::http) body: Bytes,
    /// The address of the client that a proxy tells.
    pub(in crate::http) forwarded: Option<IpAddr>,
}

impl BoshRequest {
    /// Begins to answer the request, without waiting.
    pub(in crate::http) fn begin(&self, state: &ConnectionState) -> Box<dyn BoshExchange> {
        let address = self.forwarded.map_or(state.principal(), principal_of);
        self.service.begin(&self.body, address)
    }

    /// Answers the request in a future, which takes more memory while it waits than a [`BoshExchange`].
    pub(super) async fn answer<A: Answer>(&self, state: &ConnectionState) -> A {
        let mut exchange = self.begin(state);
        let mut timer = ReusableSleep::default();
        answer_of(poll_fn(|cx| exchange.poll_response(&mut timer, cx)).await)
    }
}

/// The response with a body of the XMPP front (XEP-0124, section 5).
pub(in crate::http) fn answer_of<A: Answer>(body: Bytes) -> A {
    let mut answer: A = answer::uncached(StatusCode::OK);
    answer.put_static(CONTENT_TYPE, "text/xml; charset=utf-8");
    answer.set_body(Body::full(body));
    answer
}
