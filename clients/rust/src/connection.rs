//! One HTTP/1.1 connection, over TLS if the URL says so, driven by the task that waits
//! for something on it, so that it needs no task of its own.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::endpoint::Endpoint;
use crate::error::ConnectError;
use crate::origin::Origin;

/// Opens the socket.
async fn connect(origin: &Origin) -> std::io::Result<TcpStream> {
    let socket = TcpStream::connect((&*origin.host, origin.port)).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Future that reads and writes the socket.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection for one request after the other. Dropping it closes the connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
    ended: bool,
}

impl Connection {
    async fn open(endpoint: &Endpoint) -> Result<Self, ConnectError> {
        let socket = connect(&endpoint.origin).await?;
        match &endpoint.tls {
            None => Self::over(socket).await,
            Some(tls) => Self::over(tls.connect(socket).await?).await,
        }
    }

    async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self, ConnectError> {
        let (sender, driver) = handshake(TokioIo::new(io)).await.map_err(|_| ConnectError::Unreachable)?;
        Ok(Self { sender, driver: Box::pin(driver.with_upgrades()), ended: false })
    }

    /// Returns the idle connection if the server has not closed it, else a new one; and whether it was idle.
    pub(crate) async fn reused_or_new(
        idle: Option<Self>,
        endpoint: &Endpoint,
    ) -> Result<(Self, bool), ConnectError> {
        if let Some(mut idle) = idle
            && idle.is_usable().await
        {
            return Ok((idle, true));
        }
        Ok((Self::open(endpoint).await?, false))
    }

    async fn is_usable(&mut self) -> bool {
        let Self { sender, driver, ended } = self;
        drive(driver, ended, sender.ready()).await.is_ok()
    }

    /// Sends a request and waits for the head of the response.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        let Self { sender, driver, ended } = self;
        drive(driver, ended, sender.send_request(request)).await
    }

    /// Waits for the next bytes of the response body. `None` at its end.
    pub(crate) async fn more(&mut self, body: &mut Incoming) -> Option<hyper::Result<Bytes>> {
        let Self { driver, ended, .. } = self;
        loop {
            match drive(driver, ended, body.frame()).await?.map(hyper::body::Frame::into_data) {
                Ok(Ok(bytes)) => return Some(Ok(bytes)),
                // Trailers, which are not used.
                Ok(Err(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Drives the connection during `work`, such as waiting for an upgrade.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        drive(&mut self.driver, &mut self.ended, work).await
    }
}

/// Polls `work`, and before it the connection that it waits for.
async fn drive<T>(driver: &mut Driver, ended: &mut bool, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        if !*ended && driver.as_mut().poll(context).is_ready() {
            // `work` gets the error too.
            *ended = true;
        }
        work.as_mut().poll(context)
    })
    .await
}

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
