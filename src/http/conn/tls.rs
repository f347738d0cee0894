//! A TLS session over a TCP connection, which keeps nothing but keys while it is idle.
//!
//! rustls performs the handshake (`handshake`). After it, rustls' connection with its buffers is given up for two keys and their
//! sequence numbers (`session`), and the provider's ciphers seal and open one record at a time (`records`). See
//! docs/design/tls.md.

mod handshake;
mod records;
mod session;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::CertificateDer;

use session::{Received, Session, SessionError};

/// The largest write that becomes one TLS record. A client that reads slowly gets whole records only.
const RECORD_BYTES_MAX: usize = 4 * 1024;

/// How many bytes are read at first. The rest of a longer record is read at once.
const READ_BYTES: usize = 4 * 1024;

/// A TLS session that keeps nothing back: a write completes once the kernel has all records with its bytes.
pub(super) struct TlsStream {
    tcp: TcpStream,
    session: Session,
    /// Received bytes. Boxed, because there are none most of the time.
    incoming: Option<Box<ReceivedRecords>>,
    /// How many bytes of the current write are in records that the kernel has not accepted yet. Such a write is pending, and has to
    /// be continued with the same bytes.
    sealed: u16,
    state: State,
}

/// The rest of an opened record, and records that are not opened yet.
#[derive(Default)]
struct ReceivedRecords {
    bytes: BytesMut,
    /// How many bytes at the beginning are opened data.
    opened: usize,
    /// How many bytes follow `opened` that belong to the same record and are no data.
    padding: usize,
}

/// What the client may still send.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing. It has ended the session, or the TCP connection.
    Ended,
    /// Nothing may be sent to it either.
    Failed,
}

impl TlsStream {
    /// Performs the handshake. Also returns the verified certificate of the client, if it has one.
    pub(super) async fn accept(
        mut tcp: TcpStream,
        config: Arc<ServerConfig>,
    ) -> io::Result<(Self, Option<CertificateDer<'static>>)> {
        // Boxed, so that rustls' connection takes no room in the future of the connection.
        let (session, incoming, certificate) = Box::pin(handshake::accept(&mut tcp, config)).await?;
        let incoming = (!incoming.is_empty())
            .then(|| Box::new(ReceivedRecords { bytes: incoming, ..ReceivedRecords::default() }));
        Ok((Self { tcp, session, incoming, sealed: 0, state: State::Open }, certificate))
    }

    /// The TCP connection.
    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Reads data. No data: the client has ended the session, or the TCP connection. HTTP and MQTT tell by themselves whether a
    /// message is complete.
    #[inline(never)]
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(incoming) = self.incoming.as_mut().filter(|incoming| incoming.opened > 0) {
                incoming.take_opened(buffer);
                if incoming.bytes.is_empty() {
                    self.incoming = None;
                }
                return Poll::Ready(Ok(()));
            }
            match self.state {
                State::Open => {}
                State::Ended => return Poll::Ready(Ok(())),
                State::Failed => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            }
            let opened = self.open_next();
            if !self.session.unsent().is_empty() {
                // An alert or a key update. If the kernel does not take it now, it is sent before or with the next write.
                let _ = self.poll_flush(context);
            }
            match opened {
                Ok(true) => {}
                Ok(false) => ready!(self.poll_receive(context))?,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Opens the next record. False: it is not complete.
    fn open_next(&mut self) -> Result<bool, SessionError> {
        let outcome = self.try_open_next();
        if let Err(error) = &outcome {
            self.state = State::Failed;
            self.session.abort(error);
        }
        outcome
    }

    fn try_open_next(&mut self) -> Result<bool, SessionError> {
        let Some(incoming) = &mut self.incoming else { return Ok(false) };
        let Some(size) = self.session.record_bytes(&incoming.bytes)? else { return Ok(false) };
        let Some(record) = incoming.bytes.get_mut(..size) else { return Ok(false) };
        match self.session.open(record)? {
            Received::Data(bytes) => {
                incoming.bytes.advance(records::HEADER_BYTES);
                incoming.opened = bytes;
                incoming.padding = size - records::HEADER_BYTES - bytes;
            }
            Received::Control => incoming.bytes.advance(size),
            Received::Close => {
                // What follows is ignored (RFC 8446, section 6.1).
                self.incoming = None;
                self.state = State::Ended;
            }
        }
        Ok(true)
    }

    /// Receives more bytes of a record, or notes the end of the TCP connection.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A connection that has nothing to read gets no buffer.
        if self.tcp.poll_read_ready(context).is_pending() {
            self.release_spare();
            return Poll::Pending;
        }
        let bytes = &mut self.incoming.get_or_insert_default().bytes;
        let received = bytes.len();
        let size = self.session.record_bytes(bytes).ok().flatten().unwrap_or_default();
        // The length of a record is a mere claim of the client until it has sent the first part of the record.
        bytes.reserve(if received < READ_BYTES { READ_BYTES } else { size.saturating_sub(received) });
        let read = pin!(self.tcp.read_buf(bytes)).poll(context);
        if read.is_pending() {
            self.release_spare();
        }
        if ready!(read)? == 0 {
            (self.state, self.incoming) = (State::Ended, None);
        }
        Poll::Ready(Ok(()))
    }

    /// Frees the buffer, except for the bytes of a client that waits after the first part of a record.
    fn release_spare(&mut self) {
        let Some(ReceivedRecords { bytes, .. }) = self.incoming.as_deref_mut() else { return };
        if bytes.is_empty() {
            self.incoming = None;
        } else if bytes.len() < READ_BYTES && bytes.capacity() > bytes.len() {
            *bytes = BytesMut::from(&**bytes);
        }
    }

    /// Writes data. Completes once the kernel has all of it.
    #[inline(never)]
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.state == State::Failed {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.sealed == 0 {
            let record = bytes.get(..RECORD_BYTES_MAX).unwrap_or(bytes);
            self.session.send(record)?;
            // A record has at most RECORD_BYTES_MAX.
            self.sealed = u16::try_from(record.len()).unwrap_or(u16::MAX);
        }
        ready!(self.poll_flush(context))?;
        let written = usize::from(std::mem::take(&mut self.sealed));
        if written > bytes.len() {
            return Poll::Ready(Err(io::Error::other("a write was continued with other bytes")));
        }
        Poll::Ready(Ok(written))
    }

    /// Gives all sealed records to the kernel.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.session.unsent().is_empty() {
            let written = ready!(Pin::new(&mut self.tcp).poll_write(context, self.session.unsent()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.session.sent(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Ends our side of the session, and then of the TCP connection.
    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state != State::Failed {
            self.session.close()?;
        }
        ready!(self.poll_flush(context))?;
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }

    /// Ends our side of the session as the client has ended its side, if the kernel takes the alert at once.
    pub(super) fn answer_end(&mut self) {
        if self.state == State::Ended && self.session.unsent().is_empty() && self.session.close().is_ok() {
            let _ = self.tcp.try_write(self.session.unsent());
        }
    }
}

impl ReceivedRecords {
    /// Moves opened data into `buffer`.
    fn take_opened(&mut self, buffer: &mut ReadBuf<'_>) {
        let taken = self.opened.min(buffer.remaining());
        buffer.put_slice(self.bytes.get(..taken).unwrap_or_default());
        self.bytes.advance(taken);
        self.opened -= taken;
        if self.opened == 0 {
            self.bytes.advance(std::mem::take(&mut self.padding));
        }
    }
}
