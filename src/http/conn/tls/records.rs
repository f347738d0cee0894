//! Seals and opens TLS records with the ciphers of the cryptography provider.
//!
//! [`Sealer`] and [`Opener`] keep a key, its IV and a sequence number for one direction. A cipher is larger than its key (a
//! schedule of round keys), so it is made for each record and dropped; this costs less than a microsecond. The caller keeps the cipher
//! suite, which is that of both directions.

use tokio_rustls::rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, NONCE_LEN,
    OutboundPlainMessage,
};
use tokio_rustls::rustls::{
    ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion, SupportedCipherSuite,
};

/// Size of a record header: type, version and length of the body.
pub(super) const HEADER_BYTES: usize = 5;

/// How many records one key may seal at most, whatever the cipher suite allows, so that sequence numbers never repeat.
const RECORDS_MAX: u64 = 1 << 48;

/// Seals the records of one direction.
pub(super) struct Sealer {
    cipher: Cipher<dyn MessageEncrypter>,
    /// The number of the next record.
    pub(super) sequence: u64,
}

/// Opens the records of one direction.
pub(super) struct Opener {
    cipher: Cipher<dyn MessageDecrypter>,
    /// The number of the next record.
    pub(super) sequence: u64,
}

/// What a direction keeps between two records.
enum Cipher<C: ?Sized> {
    /// The key of a cipher that is made when a record comes.
    Key(AeadKey, [u8; NONCE_LEN]),
    /// A cipher whose key cannot be copied: rustls copies keys of 32 bytes only.
    Made(Box<C>),
}

impl<C: ?Sized> Cipher<C> {
    /// Keeps the key, or what `make` makes of it if the key cannot be copied.
    fn new(
        secrets: ConnectionTrafficSecrets,
        make: impl FnOnce(AeadKey, [u8; NONCE_LEN]) -> Box<C>,
    ) -> Result<Self, Error> {
        let (key, iv) = key_of(secrets)?;
        Ok(match copied(&key) {
            Some(_) => Self::Key(key, iv),
            None => Self::Made(make(key, iv)),
        })
    }
}

impl Sealer {
    /// `secrets`: the sequence number of the first record, and the key.
    pub(super) fn new(
        suite: SupportedCipherSuite,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, Error> {
        let cipher = Cipher::new(secrets, |key, iv| encrypter(suite, key, iv))?;
        Ok(Self { cipher, sequence })
    }

    /// Whether the key has sealed as many records as it may.
    pub(super) fn is_exhausted(&self, suite: SupportedCipherSuite) -> bool {
        let common = match &suite {
            SupportedCipherSuite::Tls12(suite) => &suite.common,
            SupportedCipherSuite::Tls13(suite) => &suite.common,
        };
        self.sequence >= common.confidentiality_limit.min(RECORDS_MAX)
    }

    /// Returns the record, with its header.
    pub(super) fn seal(
        &mut self,
        suite: SupportedCipherSuite,
        typ: ContentType,
        payload: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let version = ProtocolVersion::TLSv1_2;
        let message = OutboundPlainMessage { typ, version, payload: payload.into() };
        let sealed = match &mut self.cipher {
            Cipher::Key(key, iv) => {
                let key = copied(key).ok_or(Error::EncryptError)?;
                encrypter(suite, key, *iv).encrypt(message, self.sequence)?
            }
            Cipher::Made(cipher) => cipher.encrypt(message, self.sequence)?,
        };
        self.sequence += 1;
        Ok(sealed.encode())
    }
}

impl Opener {
    /// `secrets`: the sequence number of the first record, and the key.
    pub(super) fn new(
        suite: SupportedCipherSuite,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, Error> {
        let cipher = Cipher::new(secrets, |key, iv| decrypter(suite, key, iv))?;
        Ok(Self { cipher, sequence })
    }

    /// Opens a whole record in place. The payload begins where the body of the record begins.
    pub(super) fn open<'a>(
        &mut self,
        suite: SupportedCipherSuite,
        record: &'a mut [u8],
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let Some((&mut [typ, major, minor, _, _], body)) = record.split_first_chunk_mut() else {
            return Err(Error::DecryptError);
        };
        let version = ProtocolVersion::from(u16::from_be_bytes([major, minor]));
        let message = InboundOpaqueMessage::new(ContentType::from(typ), version, body);
        let opened = match &mut self.cipher {
            Cipher::Key(key, iv) => {
                let key = copied(key).ok_or(Error::DecryptError)?;
                decrypter(suite, key, *iv).decrypt(message, self.sequence)?
            }
            Cipher::Made(cipher) => cipher.decrypt(message, self.sequence)?,
        };
        self.sequence = self.sequence.checked_add(1).ok_or(Error::DecryptError)?;
        Ok(opened)
    }
}

fn key_of(secrets: ConnectionTrafficSecrets) -> Result<(AeadKey, [u8; NONCE_LEN]), Error> {
    use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
    match secrets {
        Aes128Gcm { key, iv } | Aes256Gcm { key, iv } | Chacha20Poly1305 { key, iv } => {
            let iv = iv.as_ref().try_into().map_err(|_| Error::General("an IV of unknown length".into()))?;
            Ok((key, iv))
        }
        _ => Err(Error::General("an unknown cipher".into())),
    }
}

/// Copies a key of 32 bytes.
fn copied(key: &AeadKey) -> Option<AeadKey> {
    <[u8; 32]>::try_from(key.as_ref()).ok().map(AeadKey::from)
}

fn encrypter(suite: SupportedCipherSuite, key: AeadKey, iv: [u8; NONCE_LEN]) -> Box<dyn MessageEncrypter> {
    match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, Iv::from(iv)),
        SupportedCipherSuite::Tls12(suite) => {
            let (fixed, explicit) = iv.split_at(suite.aead_alg.key_block_shape().fixed_iv_len);
            suite.aead_alg.encrypter(key, fixed, explicit)
        }
    }
}

fn decrypter(suite: SupportedCipherSuite, key: AeadKey, iv: [u8; NONCE_LEN]) -> Box<dyn MessageDecrypter> {
    match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.decrypter(key, Iv::from(iv)),
        SupportedCipherSuite::Tls12(suite) => {
            let (fixed, _) = iv.split_at(suite.aead_alg.key_block_shape().fixed_iv_len);
            suite.aead_alg.decrypter(key, fixed)
        }
    }
}
