//! Byte streams to a broker: TCP, TLS, or the binary frames of a WebSocket (MQTT 5, section 6).

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::{SinkExt, Stream};
use hyper::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig};
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::address::BrokerUrl;
use super::connection::ConnectError;

/// Bytes that are read at once.
const READ_BYTES: usize = 16 * 1024;

/// An open connection to a broker.
pub(super) enum BrokerStream {
    Plain(Box<dyn Socket>),
    WebSocket(Box<WebSocketStream<Box<dyn Socket>>>),
}

/// A TCP connection, with or without TLS.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// Connects to a broker. `ca` is a file with authorities that are trusted besides those of the operating system.
pub(super) async fn connect(address: &BrokerUrl, ca: Option<&Path>) -> Result<BrokerStream, ConnectError> {
    let tcp = TcpStream::connect((address.host.as_str(), address.port)).await?;
    tcp.set_nodelay(true)?;
    let socket: Box<dyn Socket> = if address.is_secure {
        let unusable = |error: &dyn std::fmt::Display| ConnectError::Tls(error.to_string());
        let config = tls(ca).map_err(|error| unusable(&*error))?;
        let host = ServerName::try_from(address.host.clone()).map_err(|error| unusable(&error))?;
        let connected = TlsConnector::from(Arc::new(config)).connect(host, tcp).await;
        Box::new(connected.map_err(of_handshake)?)
    } else {
        Box::new(tcp)
    };
    match &address.path {
        None => Ok(BrokerStream::Plain(socket)),
        Some(_) => Ok(BrokerStream::WebSocket(Box::new(web_socket(address, socket).await?))),
    }
}

/// Settings of TLS: certificates are verified as the operating system does.
fn tls(ca: Option<&Path>) -> Result<ClientConfig, Box<dyn Error>> {
    let roots = match ca {
        Some(file) => {
            let of_file = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
            let pem = std::fs::read(file).map_err(|error| of_file(&error))?;
            CertificateDer::pem_slice_iter(&pem)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| of_file(&error))?
        }
        None => Vec::new(),
    };
    let provider = Arc::new(default_provider());
    let verifier = Verifier::new_with_extra_roots(roots, provider.clone())?;
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// A certificate that is not trusted will not be trusted at the next attempt either.
fn of_handshake(error: io::Error) -> ConnectError {
    let of_tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match of_tls {
        Some(error @ rustls::Error::InvalidCertificate(_)) => ConnectError::Tls(error.to_string()),
        _ => ConnectError::Lost(error),
    }
}

async fn web_socket(
    address: &BrokerUrl,
    socket: Box<dyn Socket>,
) -> Result<WebSocketStream<Box<dyn Socket>>, ConnectError> {
    let uri = address.to_string().parse().map_err(io::Error::other)?;
    let builder = ClientBuilder::from_uri(uri)
        .add_header(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mqtt"))
        .map_err(of_socket)?;
    let (socket, _response) = builder.connect_on(socket).await.map_err(of_socket)?;
    Ok(socket)
}

fn of_socket(error: tokio_websockets::Error) -> io::Error {
    match error {
        tokio_websockets::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

impl BrokerStream {
    /// Appends what arrives to `into`. An end of the connection is an error.
    ///
    /// Cancel safe.
    pub(super) async fn read(&mut self, into: &mut BytesMut) -> io::Result<()> {
        match self {
            Self::Plain(socket) => {
                into.reserve(READ_BYTES);
                match socket.read_buf(into).await? {
                    0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    _ => Ok(()),
                }
            }
            Self::WebSocket(socket) => {
                let next = poll_fn(|context| Pin::new(&mut **socket).poll_next(context)).await;
                let frame = next.ok_or(io::ErrorKind::UnexpectedEof)?.map_err(of_socket)?;
                // The library answers pings.
                if frame.is_binary() {
                    into.extend_from_slice(frame.as_payload());
                }
                Ok(())
            }
        }
    }

    /// Writes and flushes `out`, and removes from it what is written.
    ///
    /// Cancel safe.
    pub(super) async fn write(&mut self, out: &mut BytesMut) -> io::Result<()> {
        match self {
            Self::Plain(socket) => {
                while !out.is_empty() {
                    socket.write_buf(out).await?;
                }
                socket.flush().await
            }
            Self::WebSocket(socket) => {
                if !out.is_empty() {
                    poll_fn(|context| socket.poll_ready_unpin(context)).await.map_err(of_socket)?;
                    socket.start_send_unpin(Message::binary(out.split().freeze())).map_err(of_socket)?;
                }
                SinkExt::<Message>::flush(&mut **socket).await.map_err(of_socket)
            }
        }
    }
}
