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

use crate::connector::Connector;
use crate::endpoint::Endpoint;
use crate::error::ConnectError;
use crate::origin::Origin;

/// Opens the socket.
async fn connect(origin: &Origin, connector: Option<&Connector>) -> std::io::Result<TcpStream> {
    if let Some(connector) = connector {
        return connector.connect(&origin.host, origin.port).await;
    }
    let socket = TcpStream::connect((&*origin.host, origin.port)).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Future that reads and writes the socket.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection for one request after the other. Dropping it closes the connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once the connection has ended: the sender learns of the end when the driver is dropped.
    driver: Option<Driver>,
}

impl Connection {
    async fn open(endpoint: &Endpoint) -> Result<Self, ConnectError> {
        let socket = connect(&endpoint.origin, endpoint.connector.as_ref()).await?;
        match &endpoint.tls {
            None => Self::over(socket).await,
            Some(tls) => Self::over(tls.connect(socket).await?).await,
        }
    }

    async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self, ConnectError> {
        let (sender, driver) = handshake(TokioIo::new(io)).await.map_err(|_| ConnectError::Unreachable)?;
        Ok(Self { sender, driver: Some(Box::pin(driver.with_upgrades())) })
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
        let Self { sender, driver } = self;
        drive(driver, sender.ready()).await.is_ok()
    }

    /// Sends a request and waits for the head of the response.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        let Self { sender, driver } = self;
        drive(driver, sender.send_request(request)).await
    }

    /// Waits for the next bytes of the response body. `None` at its end.
    pub(crate) async fn more(&mut self, body: &mut Incoming) -> Option<hyper::Result<Bytes>> {
        let Self { driver, .. } = self;
        loop {
            match drive(driver, body.frame()).await?.map(hyper::body::Frame::into_data) {
                Ok(Ok(bytes)) => return Some(Ok(bytes)),
                // Trailers, which are not used.
                Ok(Err(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Drives the connection during `work`, such as waiting for an upgrade.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        drive(&mut self.driver, work).await
    }
}

/// Polls `work`, and before it the connection that it waits for.
async fn drive<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(context).is_ready()) {
            // `work` gets the error too.
            *driver = None;
        }
        work.as_mut().poll(context)
    })
    .await
}

/// Most bytes of the gateway's responses, listings aside.
pub(crate) const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Sends a request on the idle connection or a new one, and reads the response: status, header fields and document. A document of more than `bytes_max`
/// bytes is not the gateway's, and is left unread. Afterwards `idle` is the connection, if it can be used again.
pub(crate) async fn exchange(
    request: Request<Full<Bytes>>,
    idle: &mut Option<Connection>,
    endpoint: &Endpoint,
    bytes_max: usize,
) -> Result<(StatusCode, HeaderMap, Bytes), ConnectError> {
    let (mut connection, _) = Connection::reused_or_new(idle.take(), endpoint).await?;
    let (head, body) =
        connection.send(request).await.map(Response::into_parts).map_err(|_| ConnectError::Unreachable)?;
    let collecting = Limited::<Incoming>::new(body, bytes_max).collect();
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;
    use crate::credentials::Credentials;

    /// After this time, a wait hangs.
    const HANGS: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn an_idle_connection_that_the_server_has_closed_is_replaced_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let endpoint = Endpoint {
            origin: Origin::parse(&url).unwrap(),
            tls: None,
            credentials: Credentials::default(),
            connector: None,
        };
        let server = tokio::spawn(async move {
            for _ in 0..2 {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                assert!(connection.read(&mut head).await.unwrap() > 0);
                connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            }
        });
        let mut idle = None;
        for _ in 0..2 {
            let request = endpoint.request(hyper::Method::GET, "/".to_owned()).body(Full::default()).unwrap();
            let answered = timeout(HANGS, exchange(request, &mut idle, &endpoint, ANSWER_BYTES_MAX))
                .await
                .expect("hangs");
            assert_eq!(answered.unwrap().0, StatusCode::NO_CONTENT);
            // Until the server has closed the connection.
            let connection = idle.as_mut().unwrap();
            let closes = async {
                while connection.is_usable().await {
                    tokio::task::yield_now().await;
                }
            };
            timeout(HANGS, closes).await.expect("hangs");
        }
        server.await.unwrap();
    }
}
