//! Makes keys, tokens and users for gateways that have no issuer of their own: the commands `pollgate keygen`, `pollgate token` and
//! `pollgate user`.

use std::fs::OpenOptions;
use std::io::Write;
use std::num::NonZeroU32;
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
use super::grants::GrantList;
use super::scram::{ITERATIONS_MIN, ScramHash, ScramKeys};
use super::settings::{AuthError, OWN_ISSUER, TenantRule, UserSettings};
use super::users::Users;
use crate::clock::Clock;

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

/// The same for a token that is issued at `now`.
pub(crate) fn sign_at(
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

/// A user whose settings are to be made.
#[derive(Debug)]
pub struct NewUser<'a> {
    /// The part of the address before `@`.
    pub name: &'a str,
    /// The password, in ASCII: other characters have several forms, of which clients choose one (RFC 4013).
    pub password: &'a str,
    /// The tenant. `None`: the default one.
    pub tenant: Option<&'a str>,
    /// What the user may do.
    pub patterns: Patterns,
    /// How often clients hash the password.
    pub iterations: NonZeroU32,
    /// Whether there are keys for SCRAM-SHA-1, too.
    pub has_sha_1: bool,
}

/// The lines of TOML that make a user known to the gateway. The password cannot be read from them.
pub fn user_settings(user: &NewUser<'_>) -> Result<String, AuthError> {
    let NewUser { name, password, tenant, patterns, iterations, has_sha_1 } = user;
    let refuse = |why: &str| Err(AuthError::Issue(why.to_owned()));
    if password.is_empty() || !password.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return refuse(
            "the password, the first line of standard input, must have printable ASCII characters",
        );
    }
    if iterations.get() < ITERATIONS_MIN {
        return refuse("a password is hashed at least 4096 times");
    }
    let hashes = ScramHash::ALL.into_iter().filter(|hash| *has_sha_1 || *hash == ScramHash::Sha256);
    let keys: Option<Vec<_>> = hashes.map(|hash| ScramKeys::generate(hash, password, *iterations)).collect();
    let Some(keys) = keys else { return refuse("the system gives no random numbers") };
    let settings = UserSettings {
        name: (*name).to_owned(),
        scram: keys.iter().map(ToString::to_string).collect(),
        tenant: tenant.map(str::to_owned),
        read: patterns.read.clone(),
        append: patterns.append.clone(),
        create: patterns.create.clone(),
        manage: patterns.manage.clone(),
    };
    Users::new(std::slice::from_ref(&settings), &GrantList::default())?;
    // A text of JSON is one of TOML, and so is a list of texts.
    let text = |value: &[String]| serde_json::to_string(value).unwrap_or_default();
    let mut lines = format!("[[user]]\nname = \"{name}\"\nscram = {}\n", text(&settings.scram));
    if let Some(tenant) = tenant {
        lines += &format!("tenant = \"{tenant}\"\n");
    }
    let of_action = [
        ("read", &settings.read),
        ("append", &settings.append),
        ("create", &settings.create),
        ("manage", &settings.manage),
    ];
    for (action, patterns) in of_action.into_iter().filter(|(_, patterns)| !patterns.is_empty()) {
        lines += &format!("{action} = {}\n", text(patterns));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AuthSettings;

    fn user(password: &str) -> NewUser<'_> {
        let patterns = Patterns { read: vec!["a/{sub}".to_owned(), "b/#".to_owned()], ..Patterns::default() };
        let iterations = NonZeroU32::new(ITERATIONS_MIN).unwrap();
        NewUser { name: "anna", password, tenant: Some("acme"), patterns, iterations, has_sha_1: true }
    }

    #[test]
    fn the_settings_of_a_user_are_read_as_they_are_printed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.toml");
        let printed = user_settings(&user("pencil")).unwrap();
        assert!(!printed.contains("pencil"));
        std::fs::write(&path, printed).unwrap();
        let read = AuthSettings::read(&path).unwrap().user.pop().unwrap();
        assert_eq!((&*read.name, read.tenant.as_deref(), read.scram.len()), ("anna", Some("acme"), 2));
        assert_eq!(read.read, ["a/{sub}", "b/#"]);
    }

    #[test]
    fn passwords_that_clients_may_send_in_another_form_are_refused() {
        for password in ["", "pässword", "a\tb"] {
            assert!(user_settings(&user(password)).is_err(), "{password:?}");
        }
        let few = NewUser { iterations: NonZeroU32::MIN, ..user("pencil") };
        assert!(user_settings(&few).is_err());
    }
}
