//! The handshake of a TLS session, by rustls. Then the session goes on without rustls' connection and its buffers.
//!
//! rustls gets the records of the client one by one, and none after the one that completes the handshake: what it has opened, it
//! would keep to itself, and an answer to a key update would be lost.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use tokio_rustls::rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
};
use tokio_rustls::rustls::{Error, ServerConfig};

use super::records::HEADER_BYTES;
use super::session::Session;

/// Maximum size of what a client sends during the handshake, and of a record.
const RECEIVED_BYTES_MAX: usize = 128 * 1024;
const RECORD_BYTES_MAX: usize = (1 << 14) + 2048;

/// How many bytes are read at once.
const READ_BYTES: usize = 2 * 1024;

/// Performs the handshake of the server. Returns the session, the bytes that the client has sent after its handshake, and its
/// certificate.
pub(super) async fn accept(
    tcp: &mut TcpStream,
    config: Arc<ServerConfig>,
) -> io::Result<(Session, BytesMut, Option<CertificateDer<'static>>)> {
    let mut handshake = Handshake::new(config).map_err(io::Error::other)?;
    loop {
        let outcome = handshake.advance();
        let written = tcp.write_all(&handshake.outgoing).await;
        handshake.outgoing.clear();
        if outcome.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
            written?;
            let certificate = handshake.certificate();
            let (session, behind) = handshake.into_session().map_err(io::Error::other)?;
            return Ok((session, behind, certificate));
        }
        written?;
        handshake.incoming.reserve(READ_BYTES);
        if tcp.read_buf(&mut handshake.incoming).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A handshake without IO.
pub(super) struct Handshake {
    connection: UnbufferedServerConnection,
    /// What the client has sent, for the caller to append to.
    pub(super) incoming: BytesMut,
    /// How many bytes of `incoming` rustls may see.
    shown: usize,
    /// What is to be sent, for the caller to take.
    pub(super) outgoing: Vec<u8>,
}

enum Step {
    Again,
    Wait,
    Fail(Error),
}

impl Handshake {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self { connection, incoming: BytesMut::new(), shown: 0, outgoing: Vec::new() })
    }

    /// Handles what has been received. True: the handshake is complete. There may be bytes to be sent, also after an error.
    pub(super) fn advance(&mut self) -> Result<bool, Error> {
        loop {
            let step = self.step();
            match step {
                Step::Again => {}
                Step::Wait if !self.connection.is_handshaking() => return Ok(true),
                Step::Wait => {
                    if !self.show_record() {
                        return Ok(false);
                    }
                }
                Step::Fail(error) => {
                    // The alert. rustls must not see the bytes again that it has refused.
                    while self.connection.wants_write() {
                        self.step();
                    }
                    return Err(error);
                }
            }
        }
    }

    fn step(&mut self) -> Step {
        let shown = self.incoming.get_mut(..self.shown).unwrap_or_default();
        let UnbufferedStatus { discard, state } = self.connection.process_tls_records(shown);
        let step = match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => match encode(&mut data, &mut self.outgoing) {
                Ok(()) => Step::Again,
                Err(error) => Step::Fail(error),
            },
            Ok(ConnectionState::TransmitTlsData(data)) => {
                // The caller sends `outgoing` before it receives more.
                data.done();
                Step::Again
            }
            // rustls lets a server write before the client has finished.
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Step::Wait,
            Ok(_) => Step::Fail(Error::HandshakeNotComplete),
            Err(error) => Step::Fail(error),
        };
        let discard = discard.min(self.shown);
        self.incoming.advance(discard);
        self.shown -= discard;
        step
    }

    /// Lets rustls see the next record. False: it has not arrived.
    fn show_record(&mut self) -> bool {
        let hidden = self.incoming.get(self.shown..).unwrap_or_default();
        let Some(&[typ, major, _, high, low]) = hidden.first_chunk() else { return false };
        let body = usize::from(u16::from_be_bytes([high, low]));
        let is_record = (20..=23).contains(&typ) && major == 3 && body <= RECORD_BYTES_MAX;
        if !is_record || self.incoming.len() > RECEIVED_BYTES_MAX {
            // rustls refuses it.
            let is_new = self.shown < self.incoming.len();
            self.shown = self.incoming.len();
            return is_new;
        }
        let is_whole = hidden.len() >= HEADER_BYTES + body;
        if is_whole {
            self.shown += HEADER_BYTES + body;
        }
        is_whole
    }

    /// The certificate of the client, which rustls has verified. `None`: it has none.
    fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.connection.peer_certificates()?.first().map(|certificate| certificate.clone().into_owned())
    }

    /// Returns the session of a complete handshake, and the bytes that follow the handshake.
    pub(super) fn into_session(self) -> Result<(Session<ServerConnectionData>, BytesMut), Error> {
        if self.shown > 0 {
            return Err(Error::HandshakeNotComplete);
        }
        let (secrets, schedule) = self.connection.dangerous_into_kernel_connection()?;
        let behind = if self.incoming.is_empty() { BytesMut::new() } else { self.incoming };
        Ok((Session::new(secrets, schedule)?, behind))
    }
}

/// Appends a record of the handshake to `outgoing`.
pub(super) fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, outgoing: &mut Vec<u8>) -> Result<(), Error> {
    let begin = outgoing.len();
    loop {
        let room = outgoing.get_mut(begin..).unwrap_or_default();
        match data.encode(room) {
            Ok(written) => {
                outgoing.truncate(begin + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                outgoing.resize(begin + required_size, 0);
            }
            Err(error) => return Err(Error::General(error.to_string())),
        }
    }
}
