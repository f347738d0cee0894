//! Which tokens are accepted, and why others are not.

mod restored;

use jsonwebtoken::{Algorithm, EncodingKey, encode};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::super::issue::{Patterns, generate_key, sign_at};
use super::*;
use crate::auth::{Action, RightsEnd, authorize};
use crate::clock::{SimulatedTime, in_time};
use crate::stream::StreamName;

const HOUR: Duration = Duration::from_secs(3600);

/// 2026-01-01.
const NOW: Duration = Duration::from_secs(1_767_225_600);

/// The principal of the clients' address.
const ADDRESS: Principal = Principal(1);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + NOW
}

/// A gateway with a key of its own, and an issuer `https://id.example` whose secret is [`SECRET`].
struct World {
    folder: TempDir,
    authenticator: Authenticator,
}

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        generate_key(&folder.path().join("own")).unwrap();
        std::fs::write(folder.path().join("secret"), secret_key(SECRET).to_string()).unwrap();
        let settings = "key_file = 'own'\npublic = ['news/#']\n[[issuer]]\nname = 'https://id.example'\n\
                        audience = 'gate'\nkey_file = 'secret'\n\
                        [[issuer.rule]]\nclaim = 'scope'\ncontains = 'chat'\nread = ['chat/{sub}']\n";
        std::fs::write(folder.path().join("auth.toml"), settings).unwrap();
        let settings = AuthSettings::read(&folder.path().join("auth.toml")).unwrap();
        Self { authenticator: Authenticator::new(&settings).unwrap(), folder }
    }

    fn own_token(&self, life: Duration) -> String {
        let patterns = Patterns { read: vec!["a/+".into()], ..Patterns::default() };
        sign_at(&self.folder.path().join("own"), "me", None, &patterns, life, now()).unwrap()
    }

    fn verify(&self, token: &str) -> Result<Arc<Grants>, Unauthorized> {
        self.authenticator.token(token.as_bytes(), ADDRESS, now())
    }
}

fn secret_key(secret: &[u8]) -> Value {
    use base64::Engine;
    json!({"kty": "oct", "k": base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret)})
}

fn claims() -> Value {
    let exp = (NOW + HOUR).as_secs();
    json!({"iss": "https://id.example", "aud": "gate", "sub": "anna", "exp": exp, "scope": "openid chat"})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn signed(claims: &Value) -> String {
    signed_with(&Header::new(Algorithm::HS256), claims, SECRET)
}

fn signed_with(header: &Header, claims: &Value, secret: &[u8]) -> String {
    crypto::install();
    encode(header, claims, &EncodingKey::from_secret(secret).unwrap()).unwrap()
}

fn may_read(grants: &Grants, stream: &str) -> bool {
    authorize(grants, Action::Read, &StreamName::parse(stream).unwrap()).is_ok()
}

#[test]
fn a_token_of_the_own_key_gives_its_patterns_and_what_is_public() {
    let world = World::new();
    let grants = world.verify(&world.own_token(HOUR)).unwrap();
    assert_eq!(["a/1", "news/today", "b"].map(|name| may_read(&grants, name)), [true, true, false]);
    assert_eq!((grants.subject(), grants.expires_at()), (Some("pollgate me"), Some(now() + HOUR)));
}

#[test]
fn an_issuers_token_gives_what_the_rules_say() {
    let world = World::new();
    let grants = world.verify(&signed(&claims())).unwrap();
    assert_eq!(["chat/anna", "chat/bert", "news"].map(|name| may_read(&grants, name)), [true, false, true]);
}

#[test]
fn every_claim_is_checked() {
    let world = World::new();
    let seconds = |offset: i64| json!(NOW.as_secs().saturating_add_signed(offset));
    for (claims, expected) in [
        (without("iss"), Unauthorized::Invalid),
        (with("iss", json!("https://id.example/")), Unauthorized::Invalid),
        (with("iss", json!("pollgate")), Unauthorized::Invalid),
        (with("iss", json!(["https://id.example"])), Unauthorized::Invalid),
        (without("aud"), Unauthorized::Invalid),
        (with("aud", json!("other")), Unauthorized::Audience),
        (with("aud", json!(["other", "gate2"])), Unauthorized::Audience),
        (without("exp"), Unauthorized::Invalid),
        (with("exp", seconds(0)), Unauthorized::Expired),
        (with("exp", seconds(-1)), Unauthorized::Expired),
        (with("exp", json!("soon")), Unauthorized::Invalid),
        (with("exp", seconds(25 * 3600)), Unauthorized::Life),
        (with("exp", json!(1e300)), Unauthorized::Invalid),
        (with("exp", json!(-1)), Unauthorized::Invalid),
        (with("nbf", seconds(31)), Unauthorized::Early),
        (with("iat", seconds(31)), Unauthorized::Early),
        (with("nbf", Value::Null), Unauthorized::Invalid),
        (with("streams", json!({"read": ["a/#/b"]})), Unauthorized::Claims),
        (with("sub", json!("a/#")), Unauthorized::Claims),
    ] {
        assert_eq!(world.verify(&signed(&claims)).err(), Some(expected), "{claims}");
    }
    for claims in [
        with("aud", json!(["other", "gate"])),
        with("nbf", seconds(30)),
        with("iat", seconds(30)),
        with("exp", json!((NOW + HOUR).as_secs_f64() + 0.5)),
    ] {
        assert!(world.verify(&signed(&claims)).is_ok(), "{claims}");
    }
}

#[test]
fn headers_that_bring_keys_or_are_for_other_purposes_are_refused() {
    let world = World::new();
    let header = || Header::new(Algorithm::HS256);
    let typed = |typ: &str| Header { typ: Some(typ.into()), ..header() };
    for refused in [
        typed("dpop+jwt"),
        typed("id_token"),
        Header { jku: Some("https://evil.example".into()), ..header() },
        Header { x5u: Some("https://evil.example".into()), ..header() },
        Header { x5c: Some(vec!["AAAA".into()]), ..header() },
        Header { kid: Some("another".into()), crit: Some(vec!["exp".into()]), ..header() },
    ] {
        let token = signed_with(&refused, &claims(), SECRET);
        assert_eq!(world.verify(&token).err(), Some(Unauthorized::Invalid), "{refused:?}");
    }
    for accepted in
        [typed("at+jwt"), typed("application/at+JWT"), typed("jwt"), Header { typ: None, ..header() }]
    {
        assert!(world.verify(&signed_with(&accepted, &claims(), SECRET)).is_ok(), "{accepted:?}");
    }
}

#[test]
fn other_signatures_and_texts_are_refused() {
    let world = World::new();
    let (good, own) = (signed(&claims()), world.own_token(HOUR));
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
    let (head, _) = good.rsplit_once('.').unwrap();
    let (_, other_signature) = own.rsplit_once('.').unwrap();
    for token in [
        "".to_owned(),
        "a.b.c".to_owned(),
        unsigned,
        format!("{head}."),
        format!("{head}.{other_signature}"),
        format!("{good}A"),
        signed_with(&Header::new(Algorithm::HS256), &claims(), b"another secret of at least 32 by"),
        "x".repeat(TOKEN_BYTES_MAX + 1),
    ] {
        assert_eq!(world.verify(&token).err(), Some(Unauthorized::Invalid), "{token:?}");
    }
}

/// The public key of an issuer is known to everybody, so it must never serve as the secret of HS256.
#[test]
fn a_public_key_is_no_secret() {
    let world = World::new();
    let own: Value =
        serde_json::from_slice(&std::fs::read(world.folder.path().join("own")).unwrap()).unwrap();
    let secret = own["x"].as_str().unwrap().as_bytes().to_vec();
    let claims = json!({"iss": "pollgate", "aud": "pollgate", "exp": (NOW + HOUR).as_secs()});
    let token = signed_with(&Header::new(Algorithm::HS256), &claims, &secret);
    assert_eq!(world.verify(&token).err(), Some(Unauthorized::Invalid));
}

#[test]
fn a_token_of_a_p256_key_is_accepted() {
    use base64::Engine;
    let encode_part = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let key = json!({"kty": "EC", "crv": "P-256", "x": encode_part(x), "y": encode_part(y), "kid": "k"});
    let world = World::new();
    std::fs::write(world.folder.path().join("secret"), json!({"keys": [key]}).to_string()).unwrap();
    world.authenticator.reload().unwrap();
    let header = json!({"alg": "ES256", "kid": "k"});
    let message = format!(
        "{}.{}",
        encode_part(header.to_string().as_bytes()),
        encode_part(claims().to_string().as_bytes())
    );
    let signature = pair.sign(&random, message.as_bytes()).unwrap();
    assert!(world.verify(&format!("{message}.{}", encode_part(signature.as_ref()))).is_ok());
    assert_eq!(world.verify(&signed(&claims())).err(), Some(Unauthorized::Invalid), "the secret is gone");
}

#[test]
fn a_verified_token_is_remembered_until_it_expires_or_its_key_is_gone() {
    let world = World::new();
    let token = world.own_token(HOUR);
    let (first, second) = (world.verify(&token).unwrap(), world.verify(&token).unwrap());
    assert!(Arc::ptr_eq(&first, &second));
    let late = world.authenticator.token(token.as_bytes(), ADDRESS, now() + HOUR);
    assert_eq!(late.err(), Some(Unauthorized::Expired));
    std::fs::remove_file(world.folder.path().join("own")).unwrap();
    assert!(world.authenticator.reload().is_err());
    assert!(world.verify(&token).is_ok(), "a file that cannot be read changes nothing");
    generate_key(&world.folder.path().join("own")).unwrap();
    world.authenticator.reload().unwrap();
    assert_eq!(world.verify(&token).err(), Some(Unauthorized::Invalid));
}

/// A token that is verified while its key is being replaced must not be remembered as one of the new keys.
#[test]
fn a_token_that_the_old_keys_verified_is_verified_again() {
    let world = World::new();
    let token = world.own_token(HOUR);
    world.verify(&token).unwrap();
    std::fs::remove_file(world.folder.path().join("own")).unwrap();
    generate_key(&world.folder.path().join("own")).unwrap();
    let verifier = world.authenticator.verifier.as_ref().unwrap();
    let old = verifier.verified.get(&TokenDigest::of(token.as_bytes())).unwrap();
    world.authenticator.reload().unwrap();
    // The insertion of a verification that began before the change.
    verifier.verified.insert(TokenDigest::of(token.as_bytes()), old);
    assert_eq!(world.verify(&token).err(), Some(Unauthorized::Invalid));
}

/// How long after `happens` the rights of a token end, whose life is an hour, and why.
async fn rights_end_after(
    happens: impl FnOnce(&World, &Arc<Authenticator>, SystemTime),
) -> (Duration, RightsEnd) {
    let mut world = World::new();
    let clock = SimulatedTime::start().clock();
    let auth = Arc::new(std::mem::replace(&mut world.authenticator, Authenticator::open()));
    let token =
        sign_at(&world.folder.path().join("own"), "me", None, &Patterns::default(), HOUR, clock.wall());
    let grants = auth.token(token.unwrap().as_bytes(), Principal::default(), clock.wall()).unwrap();
    let end = tokio::spawn(auth.clone().rights_end(grants, clock));
    tokio::task::yield_now().await;
    happens(&world, &auth, clock.wall());
    let since = Instant::now();
    let why = in_time("the rights end", end).await.unwrap();
    (since.elapsed(), why)
}

/// The clock is paused, so what is measured is what timers wait for.
#[tokio::test(start_paused = true)]
async fn rights_end_within_a_second_of_expiry_revocation_and_removal_of_the_key() {
    let (expired, why) = rights_end_after(|_, _, _| {}).await;
    assert_eq!(why, RightsEnd::Expired);
    assert!(
        (HOUR - Duration::from_secs(1)..=HOUR + Duration::from_secs(1)).contains(&expired),
        "{expired:?}"
    );

    let (revoked, why) = rights_end_after(|_, auth, now| {
        let revocation = serde_json::from_value(json!({"sub": "me"})).unwrap();
        auth.revoke(vec![auth.checked_revocation(revocation, now).unwrap()], now);
    })
    .await;
    assert_eq!(why, RightsEnd::Revoked);
    assert!(revoked < Duration::from_secs(1), "{revoked:?}");

    let (removed, why) = rights_end_after(|world, auth, _| {
        std::fs::remove_file(world.folder.path().join("own")).unwrap();
        generate_key(&world.folder.path().join("own")).unwrap();
        auth.reload().unwrap();
    })
    .await;
    assert_eq!(why, RightsEnd::Revoked);
    assert!(removed < Duration::from_secs(1), "{removed:?}");
}

/// A certificate of the tests, or a list of revoked ones, in DER.
fn of_pem<T: PemObject>(name: &str) -> T {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/certificates");
    T::from_pem_file(folder.join(name)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn rights_of_a_certificate_end_at_once_when_its_authority_revokes_it() {
    let rule = "[[certificate]]\nname = 'uri'\nmatches = 'spiffe://example.org/*'\nread = ['a']\n";
    let world = World::new();
    let path = world.folder.path().join("auth.toml");
    std::fs::write(&path, format!("key_file = 'own'\n{rule}")).unwrap();
    let auth = Arc::new(Authenticator::new(&AuthSettings::read(&path).unwrap()).unwrap());
    let clock = SimulatedTime::start().clock();
    let grants = |name| auth.certificate(&of_pem::<CertificateDer<'_>>(name)).unwrap();
    let (revoked, other) = (grants("revoked.pem"), grants("granted.pem"));
    let end = tokio::spawn(auth.clone().rights_end(revoked.clone(), clock));
    tokio::task::yield_now().await;
    let since = Instant::now();
    let list = of_pem::<CertificateRevocationListDer<'_>>("revoked-list.pem");
    let mut marks = auth.verifier.as_ref().unwrap().standing.subscribe();
    auth.revoke_certificates([list.as_ref()].into_iter()).unwrap();
    assert_eq!(in_time("the rights end", end).await.unwrap(), RightsEnd::Revoked);
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    assert_eq!(auth.check(&revoked, clock.wall()), Err(Unauthorized::Revoked));
    assert_eq!(auth.check(&other, clock.wall()), Ok(()));
    // Held polls keep marks.
    let coarse = marks.borrow_and_update().coarse();
    assert_eq!([&revoked, &other].map(|grants| coarse.allows(grants.mark().unwrap())), [false, true]);
    // A list that has become empty.
    auth.revoke_certificates(std::iter::empty()).unwrap();
    assert_eq!(auth.check(&revoked, clock.wall()), Ok(()));
    assert!(auth.revoke_certificates([&b"x"[..]].into_iter()).is_err());
}

#[test]
fn the_tenant_of_a_token_is_that_of_its_issuers_rule() {
    let world = World::new();
    let settings = |rule: &str| {
        let text = format!(
            "key_file = 'own'\npublic = ['news/#']\n[[issuer]]\nname = 'https://id.example'\naudience = 'gate'\n\
             key_file = 'secret'\n{rule}\n[[issuer.rule]]\nclaim = 'scope'\nread = ['chat/{{tenant}}']\n"
        );
        std::fs::write(world.folder.path().join("auth.toml"), text).unwrap();
        AuthSettings::read(&world.folder.path().join("auth.toml")).unwrap()
    };
    let read = |rule: &str, claims: &Value| {
        let authenticator = Authenticator::new(&settings(rule)).unwrap();
        let grants = authenticator.token(signed(claims).as_bytes(), ADDRESS, now())?;
        let may = |text: &str| {
            let name = StreamName::parse(text).unwrap().of_tenant(grants.tenant());
            authorize(&grants, Action::Read, &name).is_ok()
        };
        Ok((grants.tenant().to_string(), ["news/a", "chat/acme", "chat/default"].map(may)))
    };
    let of_acme = Ok(("acme".to_owned(), [false, true, false]));
    assert_eq!(read("tenant = 'acme'", &with("org", json!("beta"))), of_acme);
    assert_eq!(read("tenant_claim = 'org'", &with("org", json!("acme"))), of_acme);
    assert_eq!(read("tenant_claim = 'org'", &claims()), Err(Unauthorized::Claims));
    assert_eq!(read("tenant_claim = 'org'", &with("org", json!("a/b"))), Err(Unauthorized::Claims));
    // A claim that no rule names says nothing, and what is public is that of the default tenant.
    let of_none = Ok(("default".to_owned(), [true, false, true]));
    assert_eq!(read("", &with("tenant", json!("acme"))), of_none);
    for rule in ["tenant = '#'", "tenant = 'acme'\ntenant_claim = 'org'"] {
        assert!(Authenticator::new(&settings(rule)).is_err(), "{rule}");
    }
}

#[test]
fn an_issuer_name_with_a_space_is_refused() {
    let world = World::new();
    let issuer = IssuerSettings {
        tenant: None,
        tenant_claim: None,
        name: "a b".into(),
        audience: "gate".into(),
        key_file: Some(world.folder.path().join("own")),
        jwks_url: None,
        ca_file: None,
        rule: Vec::new(),
    };
    let settings = AuthSettings { issuer: vec![issuer], ..AuthSettings::default() };
    assert!(matches!(Authenticator::new(&settings), Err(AuthError::IssuerName(_))));
}

#[test]
fn the_authorization_field_is_a_bearer_token() {
    let world = World::new();
    let field = |value: &str| world.authenticator.authorization(Some(value.as_bytes()), ADDRESS, now());
    let token = world.own_token(HOUR);
    for value in [format!("Bearer {token}"), format!("bearer  {token}")] {
        assert!(field(&value).is_ok(), "{value}");
    }
    for value in ["Basic YTpi", "Bearer", "", "Token x"] {
        assert_eq!(field(value).err(), Some(Unauthorized::Scheme), "{value}");
    }
    assert_eq!(world.authenticator.authorization(None, ADDRESS, now()).unwrap().subject(), None);
    let open = Authenticator::open();
    assert!(
        open.authorization(Some(b"Basic YTpi"), ADDRESS, now()).unwrap().is_unrestricted(),
        "a proxy's own credentials"
    );
}

#[test]
fn a_token_is_made_only_with_valid_patterns_and_a_bounded_life() {
    let world = World::new();
    let key = world.folder.path().join("own");
    let sign = |pattern: &str, life| {
        sign_at(
            &key,
            "me",
            None,
            &Patterns { read: vec![pattern.into()], ..Patterns::default() },
            life,
            now(),
        )
    };
    assert!(sign("a/#", HOUR).is_ok());
    assert!(sign("a/#/b", HOUR).is_err());
    assert!(sign("a", 25 * HOUR).is_err());
    assert!(generate_key(&key).is_err(), "an existing key is not overwritten");
}

#[test]
fn an_address_that_sends_invalid_tokens_waits_before_the_next_unknown_one_is_checked() {
    let World { authenticator, folder } = World::new();
    let limits = Limits { failed_logins_max: 2, ..Limits::default() };
    let world = World { authenticator: authenticator.with_limits(&limits), folder };
    let (known, late) = (world.own_token(HOUR), world.own_token(HOUR / 2));
    assert!(world.verify(&known).is_ok());
    for forged in ["a.b.c", "a.b.d"] {
        assert_eq!(world.verify(forged), Err(Unauthorized::Invalid));
    }
    let waits = Err(Unauthorized::TooManyFailures { retry_after: 1 });
    assert_eq!(world.verify("a.b.e"), waits);
    assert_eq!(world.verify(&late), waits, "a valid token that is not known yet");
    assert!(world.verify(&known).is_ok(), "a token in use");
    let elsewhere = world.authenticator.token(late.as_bytes(), Principal(2), now());
    assert!(elsewhere.is_ok(), "the same token from another address");
}
