//! Makes keys and tokens for gateways that have no issuer of their own: the commands `pollgate keygen` and `pollgate token`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};

use super::claims::{Claims, LIFE_MAX};
use super::crypto;
use super::settings::{AuthError, TenantRule};
use crate::clock::Clock;

/// The claim `iss` of the tokens that [`sign`] makes.
pub const OWN_ISSUER: &str = "pollgate";

/// The claim `aud` of the tokens that [`sign`] makes.
pub const OWN_AUDIENCE: &str = "pollgate";

/// Permissions of a file with a private key: only its owner may read it.
const KEY_FILE_MODE: u32 = 0o600;

/// What a token allows. Patterns are filters of streams.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Patterns {
    /// Streams that may be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<String>,
    /// Streams that may be appended to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub append: Vec<String>,
    /// Streams that may be created.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create: Vec<String>,
    /// Streams that may be deleted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manage: Vec<String>,
}

/// An Ed25519 key pair as a JSON Web Key (RFC 8037, section 2).
#[derive(Serialize, Deserialize)]
struct PrivateKey {
    kty: String,
    crv: String,
    alg: String,
    kid: String,
    x: String,
    d: String,
}

#[derive(Serialize)]
struct IssuedClaims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    iat: u64,
    exp: u64,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    streams: &'a Patterns,
}

/// Creates a file with a new Ed25519 key pair, readable by its owner alone, and syncs it. Fails if the file exists.
pub fn generate_key(path: &Path) -> Result<(), AuthError> {
    let no_random = |_| AuthError::Issue("the system gives no random numbers".to_owned());
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(no_random)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed);
    let pair = pair.map_err(|_| AuthError::Issue("cannot make a key".to_owned()))?;
    let public = pair.public_key().as_ref();
    let key = PrivateKey {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        alg: "EdDSA".to_owned(),
        kid: URL_SAFE_NO_PAD.encode(public.get(..8).unwrap_or_default()),
        x: URL_SAFE_NO_PAD.encode(public),
        d: URL_SAFE_NO_PAD.encode(seed),
    };
    let json = serde_json::to_string(&key).map_err(|error| AuthError::Issue(error.to_string()))?;
    let unwritable = |error| AuthError::Read { path: path.to_owned(), error };
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(KEY_FILE_MODE).open(path).map_err(unwritable)?;
    let written = file.write_all(json.as_bytes()).and_then(|()| file.write_all(b"\n"));
    written.and_then(|()| file.sync_all()).map_err(unwritable)
}

/// Makes a token for a subject of `tenant`, for `life` from now on, signed with the key of a file that [`generate_key`] made.
pub fn sign(
    key_file: &Path,
    subject: &str,
    tenant: Option<&str>,
    patterns: &Patterns,
    life: Duration,
) -> Result<String, AuthError> {
    sign_at(key_file, subject, tenant, patterns, life, Clock::start().wall())
}

pub(super) fn sign_at(
    key_file: &Path,
    subject: &str,
    tenant: Option<&str>,
    patterns: &Patterns,
    life: Duration,
    now: SystemTime,
) -> Result<String, AuthError> {
    crypto::install();
    let json =
        std::fs::read(key_file).map_err(|error| AuthError::Read { path: key_file.to_owned(), error })?;
    let unusable = |why: &str| AuthError::Keys { path: key_file.to_owned(), why: why.to_owned() };
    let key: PrivateKey = serde_json::from_slice(&json)
        .map_err(|_| unusable("this is no private key as `pollgate keygen` makes it"))?;
    let seed = URL_SAFE_NO_PAD.decode(&key.d).map_err(|_| unusable("the private key is malformed"))?;
    let seconds =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut id = [0; 12];
    let no_random = |_| AuthError::Issue("the system gives no random numbers".to_owned());
    SystemRandom::new().fill(&mut id).map_err(no_random)?;
    if life > LIFE_MAX {
        return Err(AuthError::Issue("a token is valid for at most 24 hours".to_owned()));
    }
    let claims = IssuedClaims {
        iss: OWN_ISSUER,
        aud: OWN_AUDIENCE,
        sub: subject,
        iat: seconds(now),
        exp: seconds(now + life),
        jti: URL_SAFE_NO_PAD.encode(id),
        tenant,
        streams: patterns,
    };
    let parsed = serde_json::to_value(&claims).and_then(Claims::deserialize);
    let parsed = parsed.map_err(|error| AuthError::Issue(error.to_string()))?;
    let tenant = parsed.tenant(&TenantRule::Own);
    let granted = tenant.and_then(|tenant| parsed.grants(&[], &tenant));
    granted.map_err(|error| AuthError::Issue(error.to_string()))?;
    let header = Header { kid: Some(key.kid), ..Header::new(Algorithm::EdDSA) };
    encode(&header, &claims, &EncodingKey::from_ed_der(&seed))
        .map_err(|error| AuthError::Issue(format!("cannot sign the token: {error}")))
}
