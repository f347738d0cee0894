//! The keys of an issuer, from a file with one JSON Web Key or a set of them (RFC 7517).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use parking_lot::RwLock;

use super::settings::AuthError;
use super::standing::Standing;

/// The most keys of an issuer.
const KEYS_MAX: usize = 32;

/// The largest file with keys, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The shortest secret of HS256, in bytes (RFC 7518, section 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// A file with the keys of one issuer, which may change while the gateway runs.
#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
    state: RwLock<(Stamp, KeySet)>,
}

/// Tells whether a file has changed: modification time, size, and inode, which a replaced file does not keep.
pub(super) type Stamp = (Option<SystemTime>, u64, u64);

impl KeyFile {
    pub(super) fn open(path: &Path) -> Result<Self, AuthError> {
        let state = RwLock::new((stamp(path)?, KeySet::read(path)?));
        Ok(Self { path: path.to_owned(), state })
    }

    /// Reads the file again if it has changed. What it returns is used once it is passed to [`replace`](Self::replace).
    pub(super) fn read_again(&self) -> Result<Option<(Stamp, KeySet)>, AuthError> {
        let stamp = stamp(&self.path)?;
        if self.state.read().0 == stamp {
            return Ok(None);
        }
        Ok(Some((stamp, KeySet::read(&self.path)?)))
    }

    /// Uses other keys from now on. The standing that will have them is locked meanwhile.
    pub(super) fn replace(&self, state: (Stamp, KeySet), _standing: &mut Standing) {
        *self.state.write() = state;
    }

    /// Calls `use_keys` with the keys.
    pub(super) fn with_keys<T>(&self, use_keys: impl FnOnce(&KeySet) -> T) -> T {
        use_keys(&self.state.read().1)
    }
}

fn stamp(path: &Path) -> Result<Stamp, AuthError> {
    let metadata =
        std::fs::metadata(path).map_err(|error| AuthError::Read { path: path.to_owned(), error })?;
    Ok((metadata.modified().ok(), metadata.len(), metadata.ino()))
}

/// The keys of one issuer.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

/// One key, for exactly one algorithm or for both kinds of RSA signatures.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl KeySet {
    /// Reads the keys of a file.
    pub(super) fn read(path: &Path) -> Result<Self, AuthError> {
        let unreadable = |error| AuthError::Read { path: path.to_owned(), error };
        let unusable = |why: String| AuthError::Keys { path: path.to_owned(), why };
        if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
            return Err(unusable(format!("a file with keys has at most {FILE_BYTES_MAX} bytes")));
        }
        Self::parse(&std::fs::read(path).map_err(unreadable)?).map_err(unusable)
    }

    /// Parses a key or a set of keys. Keys for encryption, and of kinds that sign no tokens here, are left out.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let keys = match serde_json::from_slice::<JwkSet>(json) {
            Ok(set) => set.keys,
            Err(_) => vec![serde_json::from_slice::<Jwk>(json).map_err(|_| {
                "this is neither a JSON Web Key nor a set of them (`pollgate keygen` makes one)".to_owned()
            })?],
        };
        if keys.len() > KEYS_MAX {
            return Err(format!("an issuer has at most {KEYS_MAX} keys"));
        }
        let keys: Vec<_> =
            keys.iter().map(Key::of).filter_map(Result::transpose).collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err("none of these keys verifies EdDSA, ES256, RS256, PS256 or HS256".to_owned());
        }
        // A public key must never be taken for a secret, so one issuer has either kind.
        let secrets = keys.iter().filter(|key| key.algorithms.contains(&Algorithm::HS256)).count();
        if secrets != 0 && secrets != keys.len() {
            return Err("an issuer has either a secret or public keys, not both".to_owned());
        }
        Ok(Self { keys })
    }

    /// The keys that may have signed a token of this algorithm: those with its key id, or all if the token names none.
    pub(super) fn candidates(&self, algorithm: Algorithm, id: Option<&str>) -> impl Iterator<Item = &Key> {
        let fits = move |key: &&Key| {
            key.algorithms.contains(&algorithm)
                && (id.is_none() || key.id.is_none() || key.id.as_deref() == id)
        };
        self.keys.iter().filter(fits)
    }

    /// All keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }
}

impl Key {
    /// The key id of the issuer.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The key as jsonwebtoken takes it.
    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.key
    }

    /// What makes the key this one: the secret or the public key, in parts.
    pub(super) fn material(&self) -> (&[u8], &[u8]) {
        match self.key.kind() {
            DecodingKeyKind::SecretOrDer(key) => (key, &[]),
            DecodingKeyKind::RsaModulusExponent { n, e } => (n, e),
        }
    }

    /// `None`: the key is not for signatures of an accepted algorithm.
    fn of(jwk: &Jwk) -> Result<Option<Self>, String> {
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return Ok(None);
        }
        let fitting: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                &[Algorithm::EdDSA]
            }
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                &[Algorithm::ES256]
            }
            AlgorithmParameters::RSA(_) => &[Algorithm::RS256, Algorithm::PS256],
            AlgorithmParameters::OctetKey(_) => &[Algorithm::HS256],
            _ => return Ok(None),
        };
        let is_named = |algorithm: &Algorithm| match jwk.common.key_algorithm {
            None => true,
            Some(KeyAlgorithm::EdDSA) => *algorithm == Algorithm::EdDSA,
            Some(KeyAlgorithm::ES256) => *algorithm == Algorithm::ES256,
            Some(KeyAlgorithm::RS256) => *algorithm == Algorithm::RS256,
            Some(KeyAlgorithm::PS256) => *algorithm == Algorithm::PS256,
            Some(KeyAlgorithm::HS256) => *algorithm == Algorithm::HS256,
            Some(_) => false,
        };
        let algorithms: Vec<_> = fitting.iter().copied().filter(is_named).collect();
        if algorithms.is_empty() {
            return Ok(None);
        }
        let key = DecodingKey::from_jwk(jwk).map_err(|error| format!("a key is invalid: {error}"))?;
        let is_short = |secret: &[u8]| secret.len() < SECRET_BYTES_MIN;
        if algorithms == [Algorithm::HS256] && key.try_get_as_bytes().is_ok_and(is_short) {
            return Err(format!("the secret of HS256 must have at least {SECRET_BYTES_MIN} bytes"));
        }
        Ok(Some(Self { id: jwk.common.key_id.clone(), algorithms, key }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(keys: &Value) -> Result<KeySet, String> {
        KeySet::parse(keys.to_string().as_bytes())
    }

    fn public(id: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    }

    fn secret(text: &str) -> Value {
        json!({"kty": "oct", "k": text})
    }

    #[test]
    fn a_key_alone_is_a_set_of_one() {
        for keys in [public("a"), json!({"keys": [public("a")]})] {
            assert_eq!(parse(&keys).unwrap().candidates(Algorithm::EdDSA, Some("a")).count(), 1);
        }
    }

    #[test]
    fn a_key_verifies_its_own_algorithm_and_id_alone() {
        let set = parse(&json!({"keys": [public("a"), public("b")]})).unwrap();
        let count = |algorithm, id| set.candidates(algorithm, id).count();
        assert_eq!(count(Algorithm::EdDSA, Some("a")), 1);
        assert_eq!(count(Algorithm::EdDSA, None), 2);
        assert_eq!(count(Algorithm::EdDSA, Some("c")), 0);
        assert_eq!(count(Algorithm::HS256, Some("a")), 0);
        assert_eq!(count(Algorithm::RS256, None), 0);
    }

    #[test]
    fn keys_for_encryption_and_of_unknown_kinds_are_left_out() {
        let mut encrypts = public("e");
        encrypts["use"] = json!("enc");
        let unknown = json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"});
        let set = parse(&json!({"keys": [encrypts, unknown, public("a")]})).unwrap();
        assert_eq!(set.candidates(Algorithm::EdDSA, None).count(), 1);
        assert!(parse(&json!({"keys": [encrypts]})).is_err());
    }

    #[test]
    fn short_secrets_and_secrets_beside_public_keys_are_refused() {
        let long = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
        assert_eq!(parse(&secret(long)).unwrap().candidates(Algorithm::HS256, None).count(), 1);
        assert!(parse(&secret(&long[..40])).unwrap_err().contains("at least 32 bytes"));
        assert!(parse(&json!({"keys": [secret(long), public("a")]})).unwrap_err().contains("not both"));
        let many: Vec<_> = (0..33).map(|id| public(&id.to_string())).collect();
        assert!(parse(&json!({"keys": many})).unwrap_err().contains("at most 32"));
        assert!(parse(&json!([1])).is_err());
    }
}
