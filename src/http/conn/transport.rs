//! The socket of a connection, with or without TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The largest write that becomes one TLS record. A client that reads slowly gets whole records only.
const RECORD_BYTES_MAX: usize = 4 * 1024;

/// A TCP connection, or the TLS session over it.
pub enum Transport {
    /// Bytes as they are.
    Plain(TcpStream),
    /// Encrypted bytes.
    Tls(Box<TlsTransport>),
}

/// A TLS session that keeps nothing back: a write completes once the kernel has all records with its bytes.
pub struct TlsTransport {
    stream: TlsStream<TcpStream>,
    /// How many bytes of the current write are in records that the kernel has not accepted yet. Such a write is pending, and has to
    /// be continued with the same bytes.
    sealed: usize,
}

impl Transport {
    /// Performs the TLS handshake if there is an `acceptor`, for at most `patience`.
    pub async fn accept(
        stream: TcpStream,
        acceptor: Option<TlsAcceptor>,
        patience: Duration,
    ) -> io::Result<Self> {
        let Some(acceptor) = acceptor else { return Ok(Self::Plain(stream)) };
        let stream = timeout(patience, acceptor.accept(stream)).await??;
        Ok(Self::Tls(Box::new(TlsTransport { stream, sealed: 0 })))
    }

    /// The TCP connection.
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => tls.stream.get_ref().0,
        }
    }

    /// The socket, for writes that bypass the runtime; `None` with TLS, whose records must not be bypassed.
    pub(super) fn raw_writes(&self) -> Option<SockRef<'_>> {
        match self {
            Self::Plain(stream) => Some(SockRef::from(stream)),
            Self::Tls(_) => None,
        }
    }
}

impl TlsTransport {
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.sealed == 0 {
            let record = bytes.get(..RECORD_BYTES_MAX).unwrap_or(bytes);
            self.sealed = ready!(Pin::new(&mut self.stream).poll_write(context, record))?;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        let written = std::mem::take(&mut self.sealed);
        if written > bytes.len() {
            return Poll::Ready(Err(io::Error::other("a write was continued with other bytes")));
        }
        Poll::Ready(Ok(written))
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(tls) => match ready!(Pin::new(&mut tls.stream).poll_read(context, buffer)) {
                // A client that ends TCP without ending TLS has left, like one that ends TCP without TLS. HTTP and MQTT tell by
                // themselves whether a message is complete.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                outcome => Poll::Ready(outcome),
            },
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(tls) => tls.poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(tls) => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                tls.poll_write(context, first.map_or(&[], |slice| &**slice))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(context),
        }
    }
}
