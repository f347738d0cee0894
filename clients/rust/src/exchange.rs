//! One request and its whole response, for requests that are answered at once.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response, StatusCode};

use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::ConnectError;

/// Most bytes of a response that are read.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Sends a request on the idle connection or a new one, and reads the response: status, header fields and document. A document that is longer than any of the
/// gateway's is left unread. Afterwards `idle` is the connection, if it can be used again.
pub(crate) async fn exchange(
    request: Request<Full<Bytes>>,
    idle: &mut Option<Connection>,
    endpoint: &Endpoint,
) -> Result<(StatusCode, HeaderMap, Bytes), ConnectError> {
    let (mut connection, _) = Connection::reused_or_new(idle.take(), endpoint).await?;
    let (head, body) =
        connection.send(request).await.map(Response::into_parts).map_err(|_| ConnectError::Unreachable)?;
    let collecting = Limited::<Incoming>::new(body, ANSWER_BYTES_MAX).collect();
    let document = match connection.during(collecting).await {
        Ok(document) => {
            *idle = Some(connection);
            document.to_bytes()
        }
        Err(error) if error.is::<LengthLimitError>() => Bytes::new(),
        Err(_) => return Err(ConnectError::Unreachable),
    };
    Ok((head.status, head.headers, document))
}
