//! The answer that ends HTTP on a connection and begins WebSocket.

use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::{Response, StatusCode};

use super::body::Body;
use super::error::Error;
use super::request::Handshake;
use super::{Gateway, answer, bare, fields};

impl Gateway {
    /// 101 with the proof that we mean it, or for HTTP/2, which switches nothing, 200. Pages of origins that are not
    /// allowed are refused.
    pub(super) fn switch(
        &self,
        handshake: &Handshake,
        subprotocol: Option<&'static str>,
    ) -> Result<Response<Body>, Error> {
        if !self.origins.allow(handshake.origin.as_deref(), handshake.host.as_deref()) {
            return Err(Error::Origin);
        }
        let mut answer = match &handshake.accept {
            None => {
                let mut answer = bare(StatusCode::OK, Body::empty());
                answer::secure(answer.headers_mut());
                answer
            }
            Some(accept) => {
                let mut answer = bare(StatusCode::SWITCHING_PROTOCOLS, Body::empty());
                let headers = answer.headers_mut();
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(SEC_WEBSOCKET_ACCEPT, fields::value(accept));
                answer
            }
        };
        if let Some(subprotocol) = subprotocol {
            answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        }
        Ok(answer)
    }
}
