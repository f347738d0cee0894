//! Reading in any form: open it on a connection, then take what it delivers until it ends.

mod answer;
mod ndjson;
mod renewal;
mod sse;
mod websocket;

use crate::attempt::{Attempt, End, Ended, Form};
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::envelope::Received;
use crate::request::Selection;

/// A form whose response has begun. Dropping it ends the request.
pub(crate) enum Reading {
    Poll(answer::Poll),
    Sse(sse::Sse),
    Ndjson(ndjson::Ndjson),
    WebSocket(Box<websocket::WebSocket>),
}

impl Reading {
    /// Sends the request on a connection and waits for the head of the response.
    pub(crate) async fn open(
        connection: Connection,
        selection: &Selection,
        attempt: &Attempt,
        endpoint: &Endpoint,
    ) -> Result<Self, Ended> {
        if attempt.form == Form::WebSocket {
            return Ok(Self::WebSocket(Box::new(
                websocket::open(connection, selection, attempt, endpoint).await?,
            )));
        }
        let request = selection.request(attempt, endpoint).map_err(|_| End::Unreachable)?;
        let expected = match attempt.form {
            Form::Sse => "text/event-stream",
            Form::Ndjson => "application/x-ndjson",
            _ => "application/json",
        };
        let answer = answer::Answer::of(connection, request, expected).await?;
        Ok(match attempt.form {
            Form::Sse => Self::Sse(sse::Sse::over(answer)),
            Form::Ndjson => Self::Ndjson(ndjson::Ndjson::over(answer)),
            _ => Self::Poll(answer::Poll::over(answer)),
        })
    }

    /// Waits for the next envelope or bytes. Each form ends with an error, normally with [`End::Clean`].
    pub(crate) async fn next(&mut self) -> Result<Received, Ended> {
        match self {
            Self::Poll(poll) => poll.next().await,
            Self::Sse(events) => events.next().await,
            Self::Ndjson(lines) => lines.next().await,
            Self::WebSocket(socket) => socket.next().await,
        }
    }

    /// The connection, if another request may go out on it.
    pub(crate) fn into_connection(self) -> Option<Connection> {
        match self {
            Self::Poll(poll) => poll.into_connection(),
            Self::Sse(_) | Self::Ndjson(_) | Self::WebSocket(_) => None,
        }
    }
}
