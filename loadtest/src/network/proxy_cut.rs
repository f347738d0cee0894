//! A proxy with a timeout for the next byte of the server.

use std::future::pending;
use std::sync::Arc;

use futures_util::stream::try_unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::hop::Clock;
use super::relay::{Direction, LastActivity, relay};
use super::server::{Answered, Body, BodyError, NoAnswer, Server, page};
use super::stage::Stage;

/// Times out slow responses.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProxyCut {
    /// Time from the request to the head of its response.
    #[serde(default)]
    pub first_byte: Option<Clock>,
    /// Time between two parts of a response or of a WebSocket's data. The connection is closed after it.
    #[serde(default)]
    pub next_byte: Option<Clock>,
    /// What the client gets if no head arrived in time.
    #[serde(default)]
    pub ending: Ending,
}

/// What the client gets instead of a response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// A 504 response with a page.
    #[default]
    GatewayTimeout,
    /// No response: the connection is closed.
    Close,
}

impl ProxyCut {
    /// Forwards a request with the timeouts.
    pub(super) async fn answer(
        &self,
        request: Request<Body>,
        server: Server,
        stage: &Arc<Stage>,
    ) -> Answered {
        let sent = server.send(request);
        let answered = match self.first_byte {
            Some(first_byte) => timeout(first_byte.0, sent).await,
            None => Ok(sent.await),
        };
        match (answered, self.ending) {
            (Ok(answer), _) => Ok(self.watched(answer?, stage)),
            (Err(_), ending) => {
                stage.counts.fault();
                match ending {
                    Ending::GatewayTimeout => Ok(page(StatusCode::GATEWAY_TIMEOUT, "Gateway Timeout")),
                    Ending::Close => Err(NoAnswer::Cut),
                }
            }
        }
    }

    /// Breaks off the response at a pause longer than `next_byte`.
    fn watched(&self, answer: Response<Body>, stage: &Arc<Stage>) -> Response<Body> {
        let Some(Clock(next_byte)) = self.next_byte else { return answer };
        let stage = stage.clone();
        answer.map(|body| {
            let frames = try_unfold((body, stage), move |(mut body, stage)| async move {
                let Ok(frame) = timeout(next_byte, body.frame()).await else {
                    stage.counts.fault();
                    return Err(BodyError::from(NoAnswer::Cut));
                };
                Ok(frame.transpose()?.map(|frame| (frame, (body, stage))))
            });
            StreamBody::new(frames).boxed_unsync()
        })
    }

    /// Relays a WebSocket until the server is silent for too long; then calls `fault`.
    pub(super) async fn carry(
        &self,
        mut near: impl AsyncRead + AsyncWrite + Unpin,
        mut far: impl AsyncRead + AsyncWrite + Unpin,
        fault: impl Fn(),
    ) {
        let byte = LastActivity::now();
        let seen = |direction, _: &[u8]| {
            if direction == Direction::Down {
                byte.again();
            }
        };
        let too_long = async {
            match self.next_byte {
                Some(next_byte) => byte.not_for(next_byte.0).await,
                None => pending().await,
            }
        };
        tokio::select! {
            // If one end is gone, the other is closed too.
            _gone = relay(&mut near, &mut far, seen) => {}
            () = too_long => fault(),
        }
    }
}
