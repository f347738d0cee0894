//! The server's side of SCRAM (RFC 5802, and RFC 7677 for SHA-256): salted keys, from which no password can be read, and the exchange
//! that proves a password without sending it. Without IO and clock.
//!
//! There is no channel binding: it would need what TLS exports, which a proxy in front of the gateway hides.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{hmac, pbkdf2};

/// The hash function of a mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScramHash {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-1, for clients that have no other one.
    Sha1,
}

/// Fewest iterations that RFC 7677 allows (section 4).
pub(super) const ITERATIONS_MIN: u32 = 4096;

/// Most iterations that clients are made to do.
const ITERATIONS_MAX: u32 = 10_000_000;

/// Length of a new salt, in bytes.
const SALT_BYTES: usize = 16;

/// Length of the gateway's part of a nonce, before its encoding.
const NONCE_BYTES: usize = 18;

/// Why a SCRAM message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScramError {
    /// It is malformed, or asks for what is not offered.
    Malformed,
    /// The system has no random numbers.
    NoRandom,
}

/// The salted keys of one password. Their text is that of RFC 5803: `SCRAM-SHA-256$4096:SALT$STORED_KEY:SERVER_KEY`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ScramKeys {
    pub(super) hash: ScramHash,
    pub(super) iterations: NonZeroU32,
    pub(super) salt: Vec<u8>,
    /// The hash of the key by which a client proves that it knows the password.
    pub(super) stored_key: Vec<u8>,
    /// The key by which the gateway proves that it knows the user.
    pub(super) server_key: Vec<u8>,
}

/// An exchange whose client has to prove that it knows the password.
#[derive(PartialEq)]
pub struct ScramExchange {
    name: String,
    keys: ScramKeys,
    header: String,
    nonce: String,
    /// The first messages of both sides, without the header.
    messages: String,
}

/// What a client has proven.
#[derive(Debug, PartialEq, Eq)]
pub struct ScramOutcome {
    /// The user that it says it is.
    pub name: String,
    /// The answer by which it knows that the gateway has the keys of the user. `None`: the proof is wrong.
    pub answer: Option<String>,
    /// Tells this proof from others.
    pub(super) fingerprint: u64,
}

impl ScramHash {
    /// Both, the better one first.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha1];

    /// The name of the mechanism.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha1 => "SCRAM-SHA-1",
        }
    }

    fn hash(self, bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &SHA256,
            Self::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
        };
        digest(algorithm, bytes).as_ref().to_vec()
    }

    fn hmac(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), message).as_ref().to_vec()
    }

    fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha1 => 20,
        }
    }
}

impl ScramKeys {
    /// Makes the keys of a password, with a random salt. `None`: the system has no random numbers.
    pub(super) fn generate(hash: ScramHash, password: &str, iterations: NonZeroU32) -> Option<Self> {
        let mut salt = vec![0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).ok()?;
        Some(Self::derive(hash, password, salt, iterations))
    }

    /// Makes the keys of a password (RFC 5802, section 3).
    fn derive(hash: ScramHash, password: &str, salt: Vec<u8>, iterations: NonZeroU32) -> Self {
        let algorithm = match hash {
            ScramHash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            ScramHash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
        };
        let mut salted = vec![0; hash.length()];
        pbkdf2::derive(algorithm, iterations, &salt, password.as_bytes(), &mut salted);
        let stored_key = hash.hash(&hash.hmac(&salted, b"Client Key"));
        let server_key = hash.hmac(&salted, b"Server Key");
        Self { hash, iterations, salt, stored_key, server_key }
    }

    /// Keys that no password has, for a user who does not exist.
    pub(super) fn of_nobody(hash: ScramHash, iterations: NonZeroU32, salt: Vec<u8>) -> Self {
        Self { hash, iterations, salt, stored_key: Vec::new(), server_key: Vec::new() }
    }

    /// Parses the text of keys.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('$');
        let (name, salting, keys) = (parts.next()?, parts.next()?, parts.next()?);
        let hash = ScramHash::ALL.into_iter().find(|hash| hash.name() == name)?;
        let (iterations, salt) = salting.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let iterations: NonZeroU32 = iterations.parse().ok()?;
        let [salt, stored_key, server_key] =
            [salt, stored_key, server_key].map(|text| STANDARD.decode(text).unwrap_or_default());
        let is_whole = parts.next().is_none()
            && !salt.is_empty()
            && [&stored_key, &server_key].iter().all(|key| key.len() == hash.length())
            && (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations.get());
        is_whole.then_some(Self { hash, iterations, salt, stored_key, server_key })
    }

    /// Whether a proof is of the password. Takes as long whatever the proof is.
    fn accepts(&self, proof: &[u8], message: &[u8]) -> bool {
        let signature = self.hash.hmac(&self.stored_key, message);
        if proof.len() != signature.len() {
            return false;
        }
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(proof, key)| proof ^ key).collect();
        let blind = hmac::Key::new(hmac::HMAC_SHA256, &signature);
        let expected = hmac::sign(&blind, &self.stored_key);
        hmac::verify(&blind, &self.hash.hash(&client_key), expected.as_ref()).is_ok()
    }
}

impl fmt::Display for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored_key, server_key] =
            [&self.salt, &self.stored_key, &self.server_key].map(|bytes| STANDARD.encode(bytes));
        write!(f, "{}${}:{salt}${stored_key}:{server_key}", self.hash.name(), self.iterations)
    }
}

/// No key is shown.
impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hash.name())
    }
}

impl ScramExchange {
    /// Begins with the first message of a client. `keys_of` returns the keys of a user, also of one who does not exist. Returns the answer
    /// for the client.
    pub(super) fn begin(
        message: &str,
        keys_of: impl FnOnce(&str) -> ScramKeys,
    ) -> Result<(Self, String), ScramError> {
        let mut nonce = [0; NONCE_BYTES];
        SystemRandom::new().fill(&mut nonce).map_err(|_| ScramError::NoRandom)?;
        Self::begin_with(message, keys_of, &STANDARD.encode(nonce))
    }

    fn begin_with(
        message: &str,
        keys_of: impl FnOnce(&str) -> ScramKeys,
        own_nonce: &str,
    ) -> Result<(Self, String), ScramError> {
        let first = FirstMessage::parse(message).ok_or(ScramError::Malformed)?;
        let keys = keys_of(&first.name);
        let nonce = format!("{}{own_nonce}", first.nonce);
        let answer = format!("r={nonce},s={},i={}", STANDARD.encode(&keys.salt), keys.iterations);
        let messages = format!("{},{answer}", first.bare);
        Ok((Self { name: first.name, keys, header: first.header.to_owned(), nonce, messages }, answer))
    }

    /// Takes the last message of the client.
    pub fn finish(self, message: &str) -> Result<ScramOutcome, ScramError> {
        let (bound, proof) = message.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let rest = bound.strip_prefix("c=").ok_or(ScramError::Malformed)?;
        let (header, rest) = rest.split_once(",r=").ok_or(ScramError::Malformed)?;
        // Extensions that the gateway does not know may follow the nonce (section 5.1).
        let nonce = rest.split(',').next().unwrap_or_default();
        let proof = STANDARD.decode(proof).map_err(|_| ScramError::Malformed)?;
        let messages = format!("{},{bound}", self.messages);
        let is_right = header == STANDARD.encode(&self.header)
            && nonce == self.nonce
            && self.keys.accepts(&proof, messages.as_bytes());
        let keys = &self.keys;
        let signature = || STANDARD.encode(keys.hash.hmac(&keys.server_key, messages.as_bytes()));
        let answer = is_right.then(|| format!("v={}", signature()));
        Ok(ScramOutcome { name: self.name, answer, fingerprint: super::crypto::fingerprint(&[&proof]) })
    }
}

/// The first message of a client: `gs2-header n=NAME,r=NONCE`.
struct FirstMessage<'a> {
    header: &'a str,
    /// The message without the header.
    bare: &'a str,
    name: String,
    nonce: &'a str,
}

impl<'a> FirstMessage<'a> {
    fn parse(message: &'a str) -> Option<Self> {
        let mut parts = message.splitn(3, ',');
        let (binding, identity, bare) = (parts.next()?, parts.next()?, parts.next()?);
        // `y`: the client would bind the channel if the gateway offered it.
        if !matches!(binding, "n" | "y") {
            return None;
        }
        let header = message.strip_suffix(bare)?;
        let mut attributes = bare.split(',');
        let name = unescaped(attributes.next()?.strip_prefix("n=")?)?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        // Nobody acts for another user.
        let is_own = match identity.strip_prefix("a=") {
            Some(identity) => unescaped(identity)? == name,
            None => identity.is_empty(),
        };
        (is_own && !nonce.is_empty()).then_some(Self { header, bare, name, nonce })
    }
}

/// A name without its escapes: `=2C` is a comma, `=3D` an equals sign.
fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('=');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (sign, rest) = part
            .strip_prefix("2C")
            .map(|rest| (',', rest))
            .or_else(|| part.strip_prefix("3D").map(|rest| ('=', rest)))?;
        name.push(sign);
        name.push_str(rest);
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITERATIONS: NonZeroU32 = NonZeroU32::new(ITERATIONS_MIN).unwrap();

    fn keys(hash: ScramHash, salt: &str) -> ScramKeys {
        ScramKeys::derive(hash, "pencil", STANDARD.decode(salt).unwrap(), ITERATIONS)
    }

    /// The examples of RFC 5802, section 5, and RFC 7677, section 3.
    #[test]
    fn an_exchange_has_the_messages_of_the_standards() {
        let examples = [
            (
                keys(ScramHash::Sha1, "QSXCR+Q6sek8bf92"),
                "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
                "3rfcNHYJY1ZVvWVs7j",
                "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
                "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
                "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ),
            (
                keys(ScramHash::Sha256, "W22ZaJ0SNY7soEsUEjb6gQ=="),
                "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
                "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
                "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ),
        ];
        for (keys, first, nonce, challenge, last, answer) in examples {
            let (exchange, said) = ScramExchange::begin_with(first, |_| keys.clone(), nonce).unwrap();
            assert_eq!(said, challenge);
            let outcome = exchange.finish(last).unwrap();
            assert_eq!((&*outcome.name, outcome.answer.as_deref()), ("user", Some(answer)));

            // Any other proof, nonce or channel is refused.
            let wrong_nonce = last.replacen(",r=", ",r=x", 1);
            let wrong_proof = last.replacen(",p=", ",p=AAAA", 1);
            for wrong in [wrong_nonce, wrong_proof, last.replacen("biws", "eSws", 1)] {
                let (exchange, _) = ScramExchange::begin_with(first, |_| keys.clone(), nonce).unwrap();
                assert_eq!(exchange.finish(&wrong).unwrap().answer, None, "{wrong}");
            }
            let nobody = ScramKeys::of_nobody(keys.hash, ITERATIONS, keys.salt.clone());
            let (exchange, said) = ScramExchange::begin_with(first, |_| nobody, nonce).unwrap();
            assert_eq!((said, exchange.finish(last).unwrap().answer), (challenge.to_owned(), None));
        }
    }

    #[test]
    fn the_first_message_names_a_user_and_binds_no_channel() {
        let name = |message: &str| FirstMessage::parse(message).map(|first| first.name);
        assert_eq!(name("y,,n=a=2Cb=3Dc,r=x,z=1").as_deref(), Some("a,b=c"));
        assert_eq!(name("n,a=anna,n=anna,r=x").as_deref(), Some("anna"));
        for malformed in [
            "",
            "n,,",
            "n,,n=,r=x",
            "n,,n=anna",
            "n,,n=anna,r=",
            "n,,n=a=2D,r=x",
            "n,,m=x,n=anna,r=x",
            "n,a=eve,n=anna,r=x",
            "p=tls-exporter,,n=anna,r=x",
        ] {
            assert_eq!(name(malformed), None, "{malformed:?}");
        }
    }

    #[test]
    fn the_last_message_has_a_channel_a_nonce_and_a_proof() {
        for malformed in ["", "c=biws,r=x", "c=biws,p=AAAA", "r=x,p=AAAA", "c=biws,r=x,p=!"] {
            let keys = |_: &str| keys(ScramHash::Sha256, "AAAA");
            let (exchange, _) = ScramExchange::begin("n,,n=user,r=x", keys).unwrap();
            assert_eq!(exchange.finish(malformed), Err(ScramError::Malformed), "{malformed:?}");
        }
    }

    #[test]
    fn keys_have_a_text() {
        let keys = ScramKeys::generate(ScramHash::Sha256, "pencil", ITERATIONS).unwrap();
        let text = keys.to_string();
        assert_eq!(ScramKeys::parse(&text), Some(keys.clone()));
        assert!(!format!("{keys:?}").contains(&STANDARD.encode(&keys.stored_key)));
        for damaged in [
            text.replacen("256", "512", 1),
            text.replacen("4096", "4095", 1),
            text.replacen("4096", "10000001", 1),
            text.replacen(':', "", 1),
            format!("{text}$"),
            format!("{text}AAAA"),
        ] {
            assert_eq!(ScramKeys::parse(&damaged), None, "{damaged}");
        }
    }
}
