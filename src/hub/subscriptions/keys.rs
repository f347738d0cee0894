//! [`WebhookKeys`]: sign the requests to webhooks (Ed25519, RFC 8032), and the tokens with which workers call back.
//!
//! The first key signs. The others were the first ones earlier: receivers that have cached an older `jwks.json` still find theirs, and
//! tokens that they have signed are still valid.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};

use crate::hub::Hub;
use crate::hub::changes::repeat_superseded;
use crate::stream::{Failure, SessionChange, Tenant};

/// How long a token is valid after its wake has begun, whatever the lease.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The record of the key that gateways share, and the key of its only entry.
const SHARED_KEY: &str = "\0webhook-key";
const KEY: &[u8] = b"key";

/// Most keys.
const KEYS_MAX: usize = 8;

/// Bytes of the authentication code of a token.
const CODE_BYTES: usize = 24;

/// The keys of the gateway's subscriptions.
pub struct WebhookKeys {
    keys: Vec<WebhookKey>,
    jwks: String,
}

struct WebhookKey {
    /// `ds_` and the thumbprint (RFC 7638).
    id: String,
    pair: Ed25519KeyPair,
    /// Authenticates tokens.
    tokens: hmac::Key,
}

/// Why keys cannot be used. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum InvalidWebhookKey {
    /// The text is no key.
    #[error("this is no private key as `pollgate keygen` makes it")]
    Malformed,
    /// There are too many keys, or none.
    #[error("there must be 1 to 8 keys")]
    Number,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandom,
}

/// A private key (RFC 8037, section 2).
#[derive(Serialize, Deserialize)]
struct PrivateJwk {
    kty: String,
    crv: String,
    d: String,
}

/// A public key (RFC 8037, section 2).
#[derive(Serialize)]
struct PublicJwk<'a> {
    kty: &'a str,
    crv: &'a str,
    x: String,
    alg: &'a str,
    #[serde(rename = "use")]
    usage: &'a str,
    kid: &'a str,
}

#[derive(Serialize)]
struct PublicJwks<'a> {
    keys: Vec<PublicJwk<'a>>,
}

/// What a token is for.
pub(super) struct TokenScope<'a> {
    pub(super) tenant: &'a Tenant,
    pub(super) subscription: &'a str,
    pub(super) incarnation: u64,
}

/// The parts of a token that the client sends back. They count only once the token is verified.
pub(super) struct TokenParts {
    pub(super) generation: u64,
    issued: u64,
    code: Vec<u8>,
}

/// Makes a private key, a JSON Web Key.
fn new_key() -> Result<Bytes, Failure> {
    let seed = random_seed().map_err(|_| Failure::Unreadable)?;
    let (kty, crv, d) = ("OKP".to_owned(), "Ed25519".to_owned(), URL_SAFE_NO_PAD.encode(seed));
    serde_json::to_vec(&PrivateJwk { kty, crv, d }).map(Bytes::from).map_err(|_| Failure::Unreadable)
}

fn random_seed() -> Result<[u8; 32], InvalidWebhookKey> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| InvalidWebhookKey::NoRandom)?;
    Ok(seed)
}

impl WebhookKeys {
    /// Makes a key that ends with the process.
    pub fn random() -> Result<Self, InvalidWebhookKey> {
        Self::of(vec![WebhookKey::of_seed(&random_seed()?)?])
    }

    /// The key that all gateways of a store share. The first one makes it.
    pub async fn shared(hub: &Hub) -> Result<Self, Failure> {
        let attempt = || async {
            let client: Arc<str> = SHARED_KEY.into();
            let stored = hub.stored_session(&client).await?;
            if !stored.is_empty() {
                return Ok(stored);
            }
            let (mut entries, _) = hub.claim(&client).await?;
            if entries.is_empty() {
                entries = vec![(Bytes::from_static(KEY), new_key()?)];
                let stored = entries.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
                let change = SessionChange { client: client.clone(), anew: true, entries: stored };
                hub.change_session(change).await?;
            }
            hub.release(&client, None).await;
            Ok(entries)
        };
        let stored = repeat_superseded::<_, Failure, _>(attempt).await?;
        Self::parse(stored.iter().map(|(_, value)| &**value)).map_err(|_| Failure::Unreadable)
    }

    /// Parses private keys, each a JSON Web Key.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, InvalidWebhookKey> {
        let key = |text: &[u8]| {
            let jwk: PrivateJwk = serde_json::from_slice(text).map_err(|_| InvalidWebhookKey::Malformed)?;
            let seed = URL_SAFE_NO_PAD.decode(&jwk.d).map_err(|_| InvalidWebhookKey::Malformed)?;
            if jwk.kty != "OKP" || jwk.crv != "Ed25519" {
                return Err(InvalidWebhookKey::Malformed);
            }
            WebhookKey::of_seed(&seed)
        };
        Self::of(texts.into_iter().map(key).collect::<Result<_, _>>()?)
    }

    fn of(keys: Vec<WebhookKey>) -> Result<Self, InvalidWebhookKey> {
        if keys.is_empty() || keys.len() > KEYS_MAX {
            return Err(InvalidWebhookKey::Number);
        }
        let jwks = PublicJwks {
            keys: keys
                .iter()
                .map(|key| PublicJwk {
                    kty: "OKP",
                    crv: "Ed25519",
                    x: URL_SAFE_NO_PAD.encode(key.pair.public_key()),
                    alg: "EdDSA",
                    usage: "sig",
                    kid: &key.id,
                })
                .collect(),
        };
        let jwks = serde_json::to_string(&jwks).map_err(|_| InvalidWebhookKey::Malformed)?;
        Ok(Self { keys, jwks })
    }

    /// The public keys as a JSON Web Key Set (RFC 7517).
    pub fn jwks(&self) -> &str {
        &self.jwks
    }

    /// The id of the key that signs.
    pub fn id(&self) -> &str {
        self.keys.first().map_or("", |key| &key.id)
    }

    /// The value of `Webhook-Signature` for a body that is sent at `now` by the time of day.
    pub fn signature(&self, body: &[u8], now: SystemTime) -> String {
        let Some(key) = self.keys.first() else { return String::new() };
        let time = millis(now) / 1000;
        let signed = [format!("{time}.").as_bytes(), body].concat();
        let signature = URL_SAFE_NO_PAD.encode(key.pair.sign(&signed));
        format!("t={time},kid={},ed25519={signature}", key.id)
    }

    /// The token of a wake that has begun at `begun`: tenant, generation, time and an authentication code.
    pub(super) fn token(&self, scope: &TokenScope<'_>, generation: u64, begun: SystemTime) -> String {
        let (tenant, issued) = (URL_SAFE_NO_PAD.encode(scope.tenant.as_str()), millis(begun));
        let code = self.keys.first().map(|key| key.code(scope, generation, issued)).unwrap_or_default();
        format!("{tenant}.{generation}.{issued}.{}", URL_SAFE_NO_PAD.encode(code))
    }

    /// Whether a token is one of the subscription.
    pub(super) fn is_token(&self, scope: &TokenScope<'_>, token: &TokenParts) -> bool {
        let is_code = |key: &WebhookKey| {
            let code = key.code(scope, token.generation, token.issued);
            // Takes the same time whatever the difference.
            code.len() == token.code.len()
                && code.iter().zip(&token.code).fold(0, |all, (one, other)| all | (one ^ other)) == 0
        };
        self.keys.iter().any(is_code)
    }
}

impl WebhookKey {
    fn of_seed(seed: &[u8]) -> Result<Self, InvalidWebhookKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| InvalidWebhookKey::Malformed)?;
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let thumbprint = digest(&SHA256, format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#).as_bytes());
        let id = format!("ds_{}", URL_SAFE_NO_PAD.encode(thumbprint));
        let secret = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, seed), b"pollgate subscription tokens");
        Ok(Self { id, pair, tokens: hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref()) })
    }

    fn code(&self, scope: &TokenScope<'_>, generation: u64, issued: u64) -> Vec<u8> {
        let TokenScope { tenant, subscription, incarnation } = scope;
        // No part but the name can contain the separator, and the name comes last.
        let signed = format!("{tenant}\0{incarnation}\0{generation}\0{issued}\0{subscription}");
        let code = hmac::sign(&self.tokens, signed.as_bytes());
        code.as_ref().get(..CODE_BYTES).unwrap_or_default().to_vec()
    }
}

impl TokenParts {
    /// Parses a token. Also returns its tenant.
    pub(super) fn parse(token: &str) -> Option<(Tenant, Self)> {
        let mut parts = token.split('.');
        let tenant = String::from_utf8(URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok()?;
        let (generation, issued) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let code = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        let is_whole = parts.next().is_none();
        is_whole.then_some(())?;
        Some((Tenant::parse(&tenant).ok()?, Self { generation, issued, code }))
    }

    pub(super) fn has_expired(&self, now: SystemTime) -> bool {
        let life = u64::try_from(TOKEN_LIFE.as_millis()).unwrap_or(u64::MAX);
        millis(now) > self.issued.saturating_add(life)
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Debug for WebhookKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebhookKeys").field(&self.id()).finish()
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    fn key(seed: u8) -> Vec<u8> {
        let d = URL_SAFE_NO_PAD.encode([seed; 32]);
        format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"-","d":"{d}"}}"#).into_bytes()
    }

    /// RFC 8037, appendix A: the key and its thumbprint.
    #[test]
    fn ids_are_thumbprints() {
        let jwk = br#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let keys = WebhookKeys::parse([jwk.as_slice()]).unwrap();
        assert_eq!(keys.id(), "ds_kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert!(keys.jwks().contains("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"));
        assert!(!keys.jwks().contains("nWGxne"));
    }

    #[test]
    fn a_signature_covers_time_and_body() {
        let (new, old) = (key(2), key(1));
        let keys = WebhookKeys::parse([new.as_slice(), old.as_slice()]).unwrap();
        let value = keys.signature(b"{}", SystemTime::UNIX_EPOCH + Duration::from_secs(17));
        let signature = value.strip_prefix(&format!("t=17,kid={},ed25519=", keys.id())).unwrap();
        let public = Ed25519KeyPair::from_seed_unchecked(&[2; 32]).unwrap();
        let public = UnparsedPublicKey::new(&ED25519, public.public_key());
        assert!(public.verify(b"17.{}", &URL_SAFE_NO_PAD.decode(signature).unwrap()).is_ok());
        assert_eq!(keys.jwks().matches("\"kid\"").count(), 2, "receivers still find the earlier key");
    }

    #[test]
    fn a_token_is_valid_for_its_subscription_alone_and_with_each_key() {
        let (tenant, other) = (Tenant::default(), Tenant::parse("acme").unwrap());
        let (first, second) = (key(1), key(2));
        let old = WebhookKeys::parse([first.as_slice()]).unwrap();
        let keys = WebhookKeys::parse([second.as_slice(), first.as_slice()]).unwrap();
        let scope = |tenant, subscription, incarnation| TokenScope { tenant, subscription, incarnation };
        let own = scope(&tenant, "s", 7);
        let token = old.token(&own, 3, SystemTime::UNIX_EPOCH);
        let (of, parts) = TokenParts::parse(&token).unwrap();
        assert_eq!((of, parts.generation), (tenant.clone(), 3));
        assert!(keys.is_token(&own, &parts));
        for (scope, generation) in
            [(scope(&tenant, "t", 7), 3), (scope(&tenant, "s", 8), 3), (scope(&other, "s", 7), 3), (own, 4)]
        {
            assert!(!keys.is_token(&scope, &TokenParts { generation, code: parts.code.clone(), ..parts }));
        }
        assert!(!parts.has_expired(SystemTime::UNIX_EPOCH + TOKEN_LIFE));
        assert!(parts.has_expired(SystemTime::UNIX_EPOCH + TOKEN_LIFE + Duration::from_millis(1)));
        for text in ["", "a.b.c.d", "ZGVmYXVsdA.1.2", "ZGVmYXVsdA.1.2.AA.x", "ZGVmYXVsdA.-1.2.AA"] {
            assert!(TokenParts::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn logs_do_not_show_keys() {
        assert!(!format!("{:?}", WebhookKeys::parse([key(1).as_slice()]).unwrap()).contains("AQEB"));
        assert!(WebhookKeys::parse([b"{}".as_slice()]).is_err() && WebhookKeys::parse([]).is_err());
    }
}
