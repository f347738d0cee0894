//! Signs the tokens (RFC 7519) with which the gateway introduces itself to push services, with ring as everywhere.

use std::fmt;

use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
};
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::answers::base64url;
use crate::hub::Verdict;

/// A private key in PKCS #8.
pub enum ProviderKey {
    /// ES256.
    P256(EcdsaKeyPair),
    /// RS256, or PS256.
    Rsa(rsa::KeyPair),
}

/// The text has no private key of a kind that signs tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no PEM file with a private key of P-256 or RSA in PKCS #8 (BEGIN PRIVATE KEY)")]
pub struct InvalidKey;

/// Shows no key.
impl fmt::Debug for ProviderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256(_) => "ProviderKey(P-256)",
            Self::Rsa(_) => "ProviderKey(RSA)",
        })
    }
}

impl ProviderKey {
    /// Parses a key in PEM.
    pub fn parse(pem: &[u8]) -> Result<Self, InvalidKey> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| InvalidKey)?;
        let der = der.secret_pkcs8_der();
        if let Ok(pair) =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new())
        {
            return Ok(Self::P256(pair));
        }
        rsa::KeyPair::from_pkcs8(der).map(Self::Rsa).map_err(|_| InvalidKey)
    }

    /// The public key: for P-256 the uncompressed point.
    pub fn public(&self) -> &[u8] {
        match self {
            Self::P256(pair) => pair.public_key().as_ref(),
            Self::Rsa(pair) => pair.public_key().as_ref(),
        }
    }

    /// Whether it is a key of P-256.
    pub fn is_p256(&self) -> bool {
        matches!(self, Self::P256(_))
    }

    /// Makes a token with `claims`. `fields` are fields of its header besides `alg`. An RSA key signs PS256 if `pss`.
    pub(super) fn token(&self, fields: Value, claims: &Value, pss: bool) -> Result<String, Verdict> {
        let algorithm = match self {
            Self::P256(_) => "ES256",
            Self::Rsa(_) if pss => "PS256",
            Self::Rsa(_) => "RS256",
        };
        let mut header = fields;
        if let Some(fields) = header.as_object_mut() {
            fields.insert("alg".to_owned(), json!(algorithm));
        }
        let message =
            [base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes())].join(".");
        let signature =
            self.sign(message.as_bytes(), pss).ok_or_else(|| Verdict::config("the key cannot sign"))?;
        Ok(format!("{message}.{}", base64url(&signature)))
    }

    fn sign(&self, message: &[u8], pss: bool) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::P256(pair) => pair.sign(&random, message).ok().map(|signature| signature.as_ref().to_vec()),
            Self::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding =
                    if pss { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(encoding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
        VerificationAlgorithm,
    };

    use super::*;

    /// A key for tests alone, from `openssl genpkey`: ring makes no RSA keys.
    pub(in crate::outbound::wake) const RSA: &str = include_str!("test-keys/rsa.pem");

    pub(in crate::outbound::wake) fn key(pem: &str) -> ProviderKey {
        ProviderKey::parse(pem.as_bytes()).unwrap()
    }

    /// A new key of P-256 as a PEM file.
    pub(in crate::outbound::wake) fn p256() -> String {
        let der =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let text = STANDARD.encode(der.as_ref());
        format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
    }

    /// Verifies a token, and returns its header and claims.
    pub(in crate::outbound::wake) fn opened(
        token: &str,
        key: &ProviderKey,
        algorithm: &'static dyn VerificationAlgorithm,
    ) -> (Value, Value) {
        let (message, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        UnparsedPublicKey::new(algorithm, key.public()).verify(message.as_bytes(), &signature).unwrap();
        let (header, claims) = message.split_once('.').unwrap();
        let decode = |part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        (decode(header), decode(claims))
    }

    #[test]
    fn tokens_are_signed_with_each_algorithm() {
        let claims = json!({"iss": "a", "exp": 1});
        for (pem, pss, name, algorithm) in [
            (p256().as_str(), false, "ES256", &ECDSA_P256_SHA256_FIXED as &dyn VerificationAlgorithm),
            (RSA, false, "RS256", &RSA_PKCS1_2048_8192_SHA256),
            (RSA, true, "PS256", &RSA_PSS_2048_8192_SHA256),
        ] {
            let key = key(pem);
            let token = key.token(json!({"kid": "k"}), &claims, pss).unwrap();
            let (header, found) = opened(&token, &key, algorithm);
            assert_eq!((header, found), (json!({"alg": name, "kid": "k"}), claims.clone()));
        }
    }

    #[test]
    fn other_texts_are_no_keys() {
        let swapped = p256().replace("PRIVATE", "PUBLIC");
        for text in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", &swapped] {
            assert!(ProviderKey::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(!format!("{:?}{:?}", key(&p256()), key(RSA)).contains("M"));
    }
}
