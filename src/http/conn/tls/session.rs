//! A TLS session after its handshake: the record protocol, alerts and key updates (RFC 8446, sections 4.6.3, 5 and 6; RFC 5246,
//! sections 6.2 and 7.2, for TLS 1.2). Without IO, and without buffers while nothing is to be sent.

use std::io;

use tokio_rustls::rustls::kernel::KernelConnection;
use tokio_rustls::rustls::server::ServerConnectionData;
use tokio_rustls::rustls::{
    AlertDescription, ContentType, Error, ExtractedSecrets, PeerMisbehaved, ProtocolVersion,
    SupportedCipherSuite,
};

use super::records::{HEADER_BYTES, Opener, Sealer};

/// Maximum size of the content of a record.
const CONTENT_BYTES_MAX: usize = 1 << 14;

/// How many records without data a peer may send one after the other: empty ones, key updates, warnings.
const WITHOUT_DATA_MAX: u8 = 32;

/// The beginning of a KeyUpdate message: its type and length (RFC 8446, section 4.6.3). One byte follows.
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];

const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// The keys of a session, and the records that wait to be sent.
pub(super) struct Session<Data = ServerConnectionData> {
    /// Derives the next keys.
    schedule: KernelConnection<Data>,
    sealer: Sealer,
    opener: Opener,
    /// Sealed records. Boxed, because there are none most of the time.
    outgoing: Option<Box<SealedRecords>>,
    /// Our last KeyUpdate is in `outgoing`. It answers further requests, too.
    has_unsent_update: bool,
    /// How many bytes of a KeyUpdate message the last record ended with.
    begun_update: u8,
    without_data: u8,
    has_said_close: bool,
}

/// Sealed records that wait to be sent.
struct SealedRecords {
    bytes: Vec<u8>,
    /// How many of the bytes have been sent.
    sent: usize,
}

/// The content of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// The number of bytes of data at the beginning of the body of the record.
    Data(usize),
    /// A message that the session has handled. It may have queued an answer.
    Control,
    /// The peer sends no more.
    Close,
}

/// Why a session has failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// The peer has broken a rule. An alert tells it.
    #[error("the client has sent an invalid TLS record: {0:?}")]
    Breach(AlertDescription),
    /// The peer has ended the session with an alert.
    #[error("the client has ended the TLS session: alert {0:?}")]
    Alert(AlertDescription),
    /// The keys are used up, or the library failed.
    #[error(transparent)]
    Library(#[from] Error),
}

impl SessionError {
    const UNEXPECTED: Self = Self::Breach(AlertDescription::UnexpectedMessage);

    /// The error for a record that could not be opened.
    fn of(error: &Error) -> Self {
        Self::Breach(match error {
            Error::DecryptError => AlertDescription::BadRecordMac,
            Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
            Error::PeerMisbehaved(
                PeerMisbehaved::IllegalTlsInnerPlaintext | PeerMisbehaved::IllegalMiddleboxChangeCipherSpec,
            ) => AlertDescription::UnexpectedMessage,
            _ => AlertDescription::InternalError,
        })
    }
}

impl From<SessionError> for io::Error {
    fn from(error: SessionError) -> Self {
        let kind = match &error {
            SessionError::Breach(_) => io::ErrorKind::InvalidData,
            SessionError::Alert(_) => io::ErrorKind::ConnectionAborted,
            SessionError::Library(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl<Data> Session<Data> {
    pub(super) fn new(secrets: ExtractedSecrets, schedule: KernelConnection<Data>) -> Result<Self, Error> {
        let suite = schedule.negotiated_cipher_suite();
        Ok(Self {
            sealer: Sealer::new(suite, secrets.tx)?,
            opener: Opener::new(suite, secrets.rx)?,
            schedule,
            outgoing: None,
            has_unsent_update: false,
            begun_update: 0,
            without_data: 0,
            has_said_close: false,
        })
    }

    fn suite(&self) -> SupportedCipherSuite {
        self.schedule.negotiated_cipher_suite()
    }

    fn has_key_updates(&self) -> bool {
        self.schedule.protocol_version() == ProtocolVersion::TLSv1_3
    }

    /// Returns the size of a record, whose first bytes are `received`. `None`: its header is not complete yet.
    pub(super) fn record_bytes(&self, received: &[u8]) -> Result<Option<usize>, SessionError> {
        let Some(&[typ, major, _, high, low]) = received.first_chunk() else { return Ok(None) };
        // TLS 1.3 encrypts the type, and only the handshake may have other records. The minor version has no meaning.
        let expansion_max = match ContentType::from(typ) {
            ContentType::ApplicationData if self.has_key_updates() => 256,
            ContentType::ApplicationData | ContentType::Handshake | ContentType::Alert
                if !self.has_key_updates() =>
            {
                2048
            }
            _ => return Err(SessionError::UNEXPECTED),
        };
        if major != 3 {
            return Err(SessionError::Breach(AlertDescription::ProtocolVersion));
        }
        let body = usize::from(u16::from_be_bytes([high, low]));
        if body > CONTENT_BYTES_MAX + expansion_max {
            return Err(SessionError::Breach(AlertDescription::RecordOverflow));
        }
        Ok(Some(HEADER_BYTES + body))
    }

    /// Opens a whole record in place.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<Received, SessionError> {
        let opened = self.opener.open(self.suite(), record).map_err(|error| SessionError::of(&error))?;
        let (typ, content) = (opened.typ, opened.payload);
        if typ != ContentType::Handshake && self.begun_update > 0 {
            return Err(SessionError::UNEXPECTED);
        }
        if typ == ContentType::ApplicationData && !content.is_empty() {
            self.without_data = 0;
            return Ok(Received::Data(content.len()));
        }
        self.without_data += 1;
        if self.without_data > WITHOUT_DATA_MAX {
            return Err(SessionError::UNEXPECTED);
        }
        match typ {
            ContentType::ApplicationData => Ok(Received::Control),
            ContentType::Alert => self.alerted(content),
            ContentType::Handshake if self.has_key_updates() => self.keys_updated(content),
            // A client that asks for a renegotiation.
            ContentType::Handshake => Err(SessionError::Breach(AlertDescription::HandshakeFailure)),
            _ => Err(SessionError::UNEXPECTED),
        }
    }

    fn alerted(&self, content: &[u8]) -> Result<Received, SessionError> {
        let &[level, description] = content else {
            return Err(SessionError::Breach(AlertDescription::DecodeError));
        };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => Ok(Received::Close),
            // In TLS 1.3 any other alert is fatal, whatever its level (RFC 8446, section 6).
            AlertDescription::UserCanceled => Ok(Received::Control),
            _ if level == WARNING && !self.has_key_updates() => Ok(Received::Control),
            other => Err(SessionError::Alert(other)),
        }
    }

    /// Handles a part of a KeyUpdate, the only handshake message that a client may send. Its end is the end of a record.
    fn keys_updated(&mut self, content: &[u8]) -> Result<Received, SessionError> {
        if content.is_empty() {
            return Err(SessionError::UNEXPECTED);
        }
        for (at, byte) in content.iter().enumerate() {
            match KEY_UPDATE.get(usize::from(self.begun_update)) {
                Some(expected) if expected == byte => self.begun_update += 1,
                Some(_) => return Err(SessionError::UNEXPECTED),
                None if at + 1 < content.len() => return Err(SessionError::UNEXPECTED),
                None => {
                    self.begun_update = 0;
                    return self.key_updated(*byte);
                }
            }
        }
        Ok(Received::Control)
    }

    fn key_updated(&mut self, request: u8) -> Result<Received, SessionError> {
        let is_requested = match request {
            0 => false,
            1 => true,
            _ => return Err(SessionError::Breach(AlertDescription::IllegalParameter)),
        };
        self.opener = Opener::new(self.suite(), self.schedule.update_rx_secret()?)?;
        if is_requested && !self.has_unsent_update {
            self.update_sealer()?;
        }
        Ok(Received::Control)
    }

    /// Queues a KeyUpdate, and seals with the next key from then on.
    fn update_sealer(&mut self) -> Result<(), Error> {
        let [typ, high, middle, low] = KEY_UPDATE;
        self.queue(ContentType::Handshake, &[typ, high, middle, low, 0])?;
        self.has_unsent_update = true;
        self.sealer = Sealer::new(self.suite(), self.schedule.update_tx_secret()?)?;
        Ok(())
    }

    /// Seals `data`, which has to fit into a record, and queues it.
    pub(super) fn send(&mut self, data: &[u8]) -> Result<(), SessionError> {
        if self.sealer.is_exhausted(self.suite()) {
            if !self.has_key_updates() {
                return Err(Error::EncryptError.into());
            }
            self.update_sealer()?;
        }
        Ok(self.queue(ContentType::ApplicationData, data)?)
    }

    /// Queues the alert that nothing more is sent, once.
    pub(super) fn close(&mut self) -> Result<(), SessionError> {
        if !std::mem::replace(&mut self.has_said_close, true) {
            self.queue(ContentType::Alert, &[WARNING, AlertDescription::CloseNotify.into()])?;
        }
        Ok(())
    }

    /// Queues the alert that tells the peer of `error`. Nothing more may be sent.
    pub(super) fn abort(&mut self, error: &SessionError) {
        let description = match error {
            SessionError::Breach(description) => *description,
            SessionError::Alert(_) => return,
            SessionError::Library(_) => AlertDescription::InternalError,
        };
        // Without the alert, the end of the connection tells the peer.
        let _ = self.queue(ContentType::Alert, &[FATAL, description.into()]);
    }

    fn queue(&mut self, typ: ContentType, content: &[u8]) -> Result<(), Error> {
        let record = self.sealer.seal(self.suite(), typ, content)?;
        match &mut self.outgoing {
            Some(outgoing) => outgoing.bytes.extend_from_slice(&record),
            None => self.outgoing = Some(Box::new(SealedRecords { bytes: record, sent: 0 })),
        }
        Ok(())
    }

    /// The queued records that have not been sent.
    pub(super) fn unsent(&self) -> &[u8] {
        let unsent = self.outgoing.as_ref().and_then(|outgoing| outgoing.bytes.get(outgoing.sent..));
        unsent.unwrap_or_default()
    }

    /// Notes that `bytes` more of the queued records have been sent. Frees them with the last one.
    pub(super) fn sent(&mut self, bytes: usize) {
        let Some(outgoing) = &mut self.outgoing else { return };
        outgoing.sent += bytes;
        if outgoing.sent >= outgoing.bytes.len() {
            (self.outgoing, self.has_unsent_update) = (None, false);
        }
    }
}

#[cfg(test)]
#[path = "../../../../fuzz/tls_record.rs"]
mod fuzz;
#[cfg(test)]
mod tests;
