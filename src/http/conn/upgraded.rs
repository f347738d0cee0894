//! Connections that have switched from HTTP to WebSocket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::io::GuardedStream;
use super::state::ConnectionState;
use crate::access_log::LoggedAddress;
use crate::auth::Grants;
use crate::stream::Principal;

/// The byte stream of a WebSocket, after its handshake.
pub enum UpgradedIo {
    /// A whole HTTP/1.1 connection (RFC 6455).
    Http1(Box<GuardedStream>),
    /// One stream of an HTTP/2 connection (RFC 8441).
    Http2(TokioIo<Upgraded>),
}

/// A WebSocket with a subprotocol, whose front accepts it like a connection of a listener.
pub struct SubprotocolSocket {
    /// The bytes of the connection: WebSocket frames.
    pub io: UpgradedIo,
    /// State of the connection. It is held until the socket ends, because the connection counts as open until then.
    pub state: Arc<ConnectionState>,
    /// The principal of the client's address.
    pub principal: Principal,
    /// The rights of the credentials in the handshake, such as a cookie or a client certificate.
    pub grants: Option<Arc<Grants>>,
    /// Where the client, or its proxy, is, if a log shows it.
    pub address: Option<LoggedAddress>,
}

impl AsyncRead for UpgradedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1(io) => Pin::new(io).poll_read(context, buffer),
            Self::Http2(io) => Pin::new(io).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for UpgradedIo {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Http1(io) => Pin::new(io).poll_write(context, bytes),
            Self::Http2(io) => Pin::new(io).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Http1(io) => Pin::new(io).poll_write_vectored(context, slices),
            Self::Http2(io) => Pin::new(io).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Http1(io) => io.is_write_vectored(),
            Self::Http2(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1(io) => Pin::new(io).poll_flush(context),
            Self::Http2(io) => Pin::new(io).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Http1(io) => Pin::new(io).poll_shutdown(context),
            Self::Http2(io) => Pin::new(io).poll_shutdown(context),
        }
    }
}
