//! A proxy that buffers responses.

use std::num::NonZeroUsize;

use bytes::{Bytes, BytesMut};
use futures_util::stream::try_unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::HeaderMap;
use hyper::body::Frame;
use hyper::{Request, StatusCode};
use serde::Deserialize;

use super::server::{Answered, Body, BodyError, NoAnswer, Server};

/// Buffers responses.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProxyBuffer {
    /// Size of the buffer for a response's body; the head is forwarded with the first full buffer. `None` buffers the whole
    /// response.
    #[serde(default)]
    pub bytes: Option<NonZeroUsize>,
}

impl ProxyBuffer {
    /// Forwards a request, and returns its response when the buffer is full for the first time or the response is complete.
    pub(super) async fn answer(&self, request: Request<Body>, server: Server) -> Answered {
        let (head, body) = server.send(request).await?.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(hyper::Response::from_parts(head, body));
        }
        let mut buffer = Buffer { body, bytes: self.bytes, trailers: None };
        // The client has received nothing yet, so a response that breaks off closes the connection.
        let first = buffer.fill().await.map_err(|_| NoAnswer::Cut)?;
        let frames = try_unfold((Some(first), buffer), async |(first, mut buffer)| {
            let next = match first {
                Some(first) => first,
                None => buffer.fill().await?,
            };
            Ok::<_, BodyError>(next.map(|frame| (frame, (None, buffer))))
        });
        Ok(hyper::Response::from_parts(head, StreamBody::new(frames).boxed_unsync()))
    }
}

/// The rest of a response.
struct Buffer {
    body: Body,
    bytes: Option<NonZeroUsize>,
    trailers: Option<HeaderMap>,
}

impl Buffer {
    /// Returns the next full buffer; `None` after the last.
    async fn fill(&mut self) -> Result<Option<Frame<Bytes>>, BodyError> {
        let mut held = BytesMut::new();
        while self.bytes.is_none_or(|bytes| held.len() < bytes.get()) {
            let Some(frame) = self.body.frame().await.transpose()? else { break };
            match frame.into_data() {
                Ok(data) => held.extend_from_slice(&data),
                Err(other) => self.trailers = other.into_trailers().ok(),
            }
        }
        if held.is_empty() {
            return Ok(self.trailers.take().map(Frame::trailers));
        }
        Ok(Some(Frame::data(held.freeze())))
    }
}
