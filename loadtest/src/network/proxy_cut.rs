//! A proxy that waits only so long for the next byte of the server.

use std::future::pending;
use std::sync::Arc;

use futures_util::stream::try_unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::hop::Clock;
use super::relay::{Direction, Seen, relay};
use super::server::{Answered, Body, BodyError, NoAnswer, Server, page};
use super::stage::Stage;

/// See the module.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProxyCut {
    /// From the request to the head of its answer.
    #[serde(default)]
    pub first_byte: Option<Clock>,
    /// Between two parts of the answer; the same for what comes over a WebSocket. Its connection is closed then.
    #[serde(default)]
    pub next_byte: Option<Clock>,
    /// What the client gets if no head has come.
    #[serde(default)]
    pub ending: Ending,
}

/// In place of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// 504 with a page.
    #[default]
    GatewayTimeout,
    /// Nothing: the connection is closed.
    Close,
}

impl ProxyCut {
    /// Asks, and waits as long as it does.
    pub(super) async fn answer(
        &self,
        request: Request<Body>,
        server: Server,
        stage: &Arc<Stage>,
    ) -> Answered {
        let asked = server.ask(request);
        let answered = match self.first_byte {
            Some(first_byte) => timeout(first_byte.0, asked).await,
            None => Ok(asked.await),
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

    /// The answer, broken off where it pauses for too long.
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

    /// Carries a WebSocket until the server has been quiet for too long; `fault` is told of that.
    pub(super) async fn carry(
        &self,
        mut near: impl AsyncRead + AsyncWrite + Unpin,
        mut far: impl AsyncRead + AsyncWrite + Unpin,
        fault: impl Fn(),
    ) {
        let byte = Seen::now();
        let seen = |direction| {
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
            // Either end has gone; so does the other with this.
            _gone = relay(&mut near, &mut far, seen) => {}
            () = too_long => fault(),
        }
    }
}
