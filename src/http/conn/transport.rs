//! The socket of a connection, with or without TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::tls::TlsStream;

/// A TCP connection, or the TLS session over it.
pub struct Transport(Kind);

enum Kind {
    /// Bytes as they are.
    Plain(TcpStream),
    /// Encrypted bytes.
    Tls(Box<TlsStream>),
}

impl Transport {
    /// Performs the TLS handshake if there is a `config`, for at most `patience`. Also returns the verified certificate of the client,
    /// if it has one.
    pub async fn accept(
        stream: TcpStream,
        config: Option<Arc<ServerConfig>>,
        patience: Duration,
    ) -> io::Result<(Self, Option<CertificateDer<'static>>)> {
        let Some(config) = config else { return Ok((Self::plain(stream), None)) };
        let (session, certificate) = timeout(patience, TlsStream::accept(stream, config)).await??;
        Ok((Self(Kind::Tls(Box::new(session))), certificate))
    }

    /// A connection without TLS.
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self(Kind::Plain(stream))
    }

    /// Whether the bytes are encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.0, Kind::Tls(_))
    }

    /// The TCP connection.
    pub(super) fn tcp(&self) -> &TcpStream {
        match &self.0 {
            Kind::Plain(stream) => stream,
            Kind::Tls(session) => session.tcp(),
        }
    }

    /// The socket, for writes that bypass the runtime; `None` with TLS, whose records must not be bypassed.
    pub(super) fn raw_writes(&self) -> Option<SockRef<'_>> {
        match &self.0 {
            Kind::Plain(stream) => Some(SockRef::from(stream)),
            Kind::Tls(_) => None,
        }
    }

    /// Tells a client that has ended its TLS session that the gateway ends it too.
    pub(super) fn answer_end(&mut self) {
        if let Kind::Tls(session) = &mut self.0 {
            session.answer_end();
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Kind::Tls(session) => session.poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Kind::Tls(session) => session.poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Kind::Tls(session) => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                session.poll_write(context, first.map_or(&[], |slice| &**slice))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Kind::Plain(stream) => stream.is_write_vectored(),
            Kind::Tls(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(stream) => Pin::new(stream).poll_flush(context),
            Kind::Tls(session) => session.poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Kind::Tls(session) => session.poll_shutdown(context),
        }
    }
}
