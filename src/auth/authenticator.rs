//! Verifies credentials: finds the issuer and the key of a token, checks signature and claims, and returns the grants.

pub(super) mod life;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, TokenData, Validation, dangerous, decode, decode_header};
use tokio::sync::watch;
use tokio::time::Instant;

use super::certificates;
use super::claims::{Claims, InvalidClaims, LEEWAY, LIFE_MAX};
use super::crypto::{self, ALGORITHMS};
use super::failed_logins::FailedLogins;
use super::fetch::KeyLocation;
use super::grants::{GrantList, Grants, TokenFacts};
use super::issue::OWN_AUDIENCE;
use super::jids::{self, JidRules};
use super::key_url::KeyUrl;
use super::keys::{Key, KeyFile, KeySet};
use super::revocation::{Target, seconds};
use super::settings::{
    AuthError, AuthSettings, CertificateRule, IssuerSettings, OWN_ISSUER, Rule, TenantRule, USER_SUBJECTS,
};
use super::standing::Standing;
use super::strict_json::is_unambiguous;
use super::users::Users;
use super::verified::{TokenDigest, VerifiedToken, VerifiedTokens};
use crate::limits::Limits;
use crate::stream::{Filter, Principal, Tenant};

/// The longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The types of tokens that give access (RFC 9068, section 2.1; RFC 7519, section 5.1). Others, such as `id_token` or `dpop+jwt`, were
/// signed by the same keys for other purposes.
const TYPES: [&str; 3] = ["JWT", "at+jwt", "application/at+jwt"];

/// Why credentials give no grants. Each text is for the client; none tells more than the client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unauthorized {
    /// The request has no credentials, and what it asks for needs some.
    #[error("this request needs a token")]
    Missing,
    /// The credentials are of another kind than a bearer token.
    #[error("credentials must be a bearer token: `Authorization: Bearer TOKEN`")]
    Scheme,
    /// The token is malformed, has an unknown issuer or key, or its signature is wrong.
    #[error("the token is invalid: it is malformed, or was not signed by an issuer that this gateway knows")]
    Invalid,
    /// The token is for another audience.
    #[error("the token is for another audience")]
    Audience,
    /// The token is expired.
    #[error("the token has expired")]
    Expired,
    /// The token is not valid yet.
    #[error("the token is not valid yet")]
    Early,
    /// The token has no end, or one that is too far away.
    #[error("the token must have an `exp` at most 24 hours after its issue")]
    Life,
    /// The token is that of another subject than the one before.
    #[error("the token belongs to another subject than the one that it is to replace")]
    Subject,
    /// The ticket cannot be used.
    #[error(
        "the ticket is unknown, has ended, was used too often, or was issued for other streams or another form"
    )]
    Ticket,
    /// The claims about streams are invalid.
    #[error("the claims of the token about streams are invalid")]
    Claims,
    /// The keys of the issuer are being fetched, since the token names an unknown one.
    #[error("the keys of the issuer of this token are being fetched; try again")]
    KeysPending,
    /// The token, or the holder of the certificate, was revoked.
    #[error("the token or the certificate has been revoked")]
    Revoked,
    /// The client certificate is expired.
    #[error("the client certificate has expired")]
    Certificate,
    /// Too many invalid tokens came from the address of the client.
    #[error("too many invalid tokens came from the address of this client; try again after {retry_after} s")]
    TooManyFailures {
        /// Whole seconds until an unknown token is checked again.
        retry_after: u32,
    },
}

/// Verifies the credentials of clients. A gateway without authorization has one too, which allows everything.
#[derive(Debug)]
pub struct Authenticator {
    /// `None`: the gateway checks no credentials.
    verifier: Option<Verifier>,
    anonymous: Arc<Grants>,
}

#[derive(Debug)]
struct Verifier {
    issuers: HashMap<String, Issuer>,
    public: GrantList,
    /// Which tokens stand. It changes first, and then `changes`.
    standing: watch::Sender<Standing>,
    /// How often `standing` has changed.
    changes: AtomicU64,
    verified: VerifiedTokens,
    /// Invalid tokens of each address.
    failed_logins: FailedLogins,
    certificate_rules: Vec<(Tenant, CertificateRule)>,
    jid_rules: JidRules,
    users: Arc<Users>,
}

#[derive(Debug)]
struct Issuer {
    audience: String,
    tenant: TenantRule,
    rules: Vec<Rule>,
    keys: KeySource,
}

/// Where the keys of an issuer come from.
#[derive(Debug)]
enum KeySource {
    File(KeyFile),
    Url(Box<KeyUrl>),
}

impl Authenticator {
    /// An authenticator that allows everything to everybody.
    pub fn open() -> Self {
        Self { verifier: None, anonymous: Arc::new(Grants::everything()) }
    }

    /// Reads the keys of all issuers. Without issuers, public streams, users and rules for XMPP addresses, everything is allowed.
    pub fn new(settings: &AuthSettings) -> Result<Self, AuthError> {
        let has_tokens = !settings.issuer.is_empty() || settings.key_file.is_some();
        let has_names = !settings.jid.is_empty() || !settings.user.is_empty();
        if !has_tokens && !has_names && settings.public.is_empty() {
            return Ok(Self::open());
        }
        crypto::install();
        let own = settings.key_file.iter().map(|key_file| IssuerSettings {
            name: OWN_ISSUER.to_owned(),
            audience: OWN_AUDIENCE.to_owned(),
            key_file: Some(key_file.clone()),
            jwks_url: None,
            ca_file: None,
            tenant: None,
            tenant_claim: None,
            rule: Vec::new(),
        });
        let own = own.map(|issuer| (issuer, Some(TenantRule::Own)));
        let mut issuers = HashMap::new();
        for (issuer, tenant) in own.chain(settings.issuer.iter().map(|issuer| (issuer.clone(), None))) {
            let keys = KeySource::open(&issuer)?;
            let tenant = tenant.map_or_else(|| issuer.tenant_rule(), Ok)?;
            let IssuerSettings { name, audience, rule: rules, .. } = issuer;
            // A tenant before it begins with `$`, and a space separates it from the subject behind it in `Grants::subject`.
            if name.starts_with('$')
                || name.contains(' ')
                || [certificates::SUBJECTS, jids::SUBJECTS, USER_SUBJECTS]
                    .iter()
                    .any(|own| name.starts_with(own))
            {
                return Err(AuthError::IssuerName(name));
            }
            if issuers.insert(name.clone(), Issuer { audience, tenant, rules, keys }).is_some() {
                return Err(AuthError::SameIssuer(name));
            }
        }
        let parse = |text: &String| Filter::parse(text).map_err(|_| AuthError::Public(text.clone()));
        let read = settings.public.iter().map(parse).collect::<Result<_, _>>()?;
        let public = GrantList { read, ..GrantList::default() };
        let anonymous = Arc::new(Grants::anonymous(public.clone()));
        let users = Arc::new(Users::new(&settings.user, &public)?);
        let jid_rules = settings.jid.iter().map(|rule| Ok((rule.tenant()?, rule.clone())));
        let jid_rules = jid_rules.collect::<Result<_, AuthError>>()?;
        let verifier = Verifier {
            issuers,
            public: public.clone(),
            standing: watch::Sender::default(),
            changes: AtomicU64::default(),
            verified: VerifiedTokens::default(),
            failed_logins: FailedLogins::new(&Limits::default()),
            certificate_rules: checked(&settings.certificate)?,
            jid_rules: JidRules::new(jid_rules, public),
            users,
        };
        verifier.change(|_| {});
        Ok(Self { verifier: Some(verifier), anonymous })
    }

    /// Limits the invalid tokens of each address.
    pub fn with_limits(mut self, limits: &Limits) -> Self {
        if let Some(verifier) = &mut self.verifier {
            verifier.failed_logins = FailedLogins::new(limits);
        }
        self
    }

    /// Whether the gateway checks credentials.
    pub fn is_enabled(&self) -> bool {
        self.verifier.is_some()
    }

    /// The rights of a client without credentials.
    pub fn anonymous(&self) -> Arc<Grants> {
        self.anonymous.clone()
    }

    /// The rights that the value of an `Authorization` field gives (RFC 6750, section 2.1). `address` is the principal of the
    /// client's address; `now` is the time of day.
    pub fn authorization(
        &self,
        value: Option<&[u8]>,
        address: Principal,
        now: SystemTime,
    ) -> Result<Arc<Grants>, Unauthorized> {
        // Without authorization, a field that is meant for a proxy in front of the gateway is nothing to check.
        let (Some(value), true) = (value, self.is_enabled()) else { return Ok(self.anonymous()) };
        let (scheme, token) = value.split_at_checked(7).ok_or(Unauthorized::Scheme)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return Err(Unauthorized::Scheme);
        }
        self.token(token.trim_ascii(), address, now)
    }

    /// The rights that a token gives. `address` is the principal of the client's address, whose invalid tokens are limited; `now` is
    /// the time of day.
    pub fn token(
        &self,
        token: &[u8],
        address: Principal,
        now: SystemTime,
    ) -> Result<Arc<Grants>, Unauthorized> {
        let Some(verifier) = &self.verifier else { return Ok(self.anonymous()) };
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Unauthorized::Invalid);
        }
        let digest = TokenDigest::of(token);
        // Read before the keys are used: what is verified while they change counts as verified with the old ones.
        let changes = self.changes();
        let grants = match verifier.verified.get(&digest) {
            Some(token) if token.changes == changes => token.grants,
            remembered => {
                let grants = match remembered {
                    Some(token) => {
                        verifier.check_standing(&token.grants)?;
                        token.grants
                    }
                    None => Arc::new(verifier.verify_unknown(token, &digest, address, now)?),
                };
                verifier.verified.insert(digest, VerifiedToken { changes, grants: grants.clone() });
                grants
            }
        };
        if grants.expires_at().is_some_and(|end| end <= now) {
            return Err(Unauthorized::Expired);
        }
        Ok(grants)
    }

    /// The rights that a client certificate gives, which TLS has verified. `None`: none of its own.
    pub fn certificate(&self, certificate: &[u8]) -> Option<Arc<Grants>> {
        let verifier = self.verifier.as_ref()?;
        let (rules, public) = (&verifier.certificate_rules, &verifier.public);
        let grants = certificates::grants(certificate, rules, public, |id, kind, name, begin| TokenFacts {
            key: verifier.digest_of_certificates(),
            id: Some(id),
            subject: verifier.digest(kind, Target::Subject(name)),
            issued_at: seconds(begin),
        });
        let refused = |error: &InvalidClaims| tracing::debug!("refused a client certificate: {error}");
        grants.inspect_err(refused).ok().flatten().map(Arc::new)
    }

    /// The rights of the owner of an XMPP address, which has no resource. Its server vouches for the address.
    pub fn jid(&self, jid: &str) -> Arc<Grants> {
        let Some(verifier) = &self.verifier else {
            return Arc::new(Grants::everything().of_subject(&jids::subject(jid)));
        };
        let subject = || verifier.digest(jids::SUBJECTS, Target::Subject(jid));
        let stands = |grants: &Grants| verifier.check_standing(grants).is_ok();
        verifier.jid_rules.standing(jid, subject, stands).unwrap_or_else(|_| self.anonymous())
    }

    /// How often keys and revocations have changed. A client whose rights were checked after this number of changes may have lost
    /// them after a higher one.
    pub fn changes(&self) -> u64 {
        self.verifier.as_ref().map_or(0, |verifier| verifier.changes.load(Ordering::Acquire))
    }
}

impl Verifier {
    /// Verifies a token that is not in the cache, unless its address has sent too many invalid ones.
    fn verify_unknown(
        &self,
        token: &[u8],
        digest: &TokenDigest,
        address: Principal,
        now: SystemTime,
    ) -> Result<Grants, Unauthorized> {
        let beginning = digest.beginning();
        let admitted = self.failed_logins.admit(address, beginning, Instant::now());
        admitted.map_err(|delay| Unauthorized::TooManyFailures { retry_after: whole_seconds(delay) })?;
        let verified = self.verify(token, now).and_then(|grants| {
            self.check_standing(&grants)?;
            Ok(grants)
        });
        match &verified {
            // It costs no check of a signature.
            Ok(_) | Err(Unauthorized::KeysPending) => {}
            Err(_) => self.failed_logins.failed(address, beginning, Instant::now()),
        }
        verified
    }

    fn verify(&self, token: &[u8], now: SystemTime) -> Result<Grants, Unauthorized> {
        let header = decode_header(token).map_err(|_| Unauthorized::Invalid)?;
        if !is_accepted(&header) || !is_unambiguous(token) {
            return Err(Unauthorized::Invalid);
        }
        // The claimed issuer selects the keys, and the signature then confirms the issuer. A key id alone selects nothing, because
        // two issuers may use the same one.
        let claimed: ClaimedIssuer =
            dangerous::insecure_decode_claims(token).map_err(|_| Unauthorized::Invalid)?;
        let issuer = self.issuers.get(&claimed.iss).ok_or(Unauthorized::Invalid)?;
        let (claims, key) =
            issuer.decode(token, &header, &claimed.iss, |key| self.digest_of_key(&claimed.iss, key))?;
        let expires_at = check_times(&claims, now)?;
        let tenant = claims.tenant(&issuer.tenant);
        let granted = tenant.and_then(|tenant| Ok((claims.grants(&issuer.rules, &tenant)?, tenant)));
        let (mut list, tenant) = granted.map_err(|error| {
            tracing::debug!(issuer = claimed.iss, "refused a token: {error}");
            Unauthorized::Claims
        })?;
        // Public streams are those of the default tenant.
        if tenant.is_default() {
            list.extend(&self.public);
        }
        let subject = claims.sub.as_deref().unwrap_or_default();
        let facts = TokenFacts {
            key,
            id: claims.jti.as_deref().map(|id| self.digest(&claimed.iss, Target::Id(id))),
            subject: self.digest(&claimed.iss, Target::Subject(subject)),
            issued_at: claims
                .iat
                .map_or(0, |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs()),
        };
        Ok(Grants::of(tenant, &format!("{} {subject}", claimed.iss), list, expires_at, Some(facts)))
    }
}

impl KeySource {
    fn open(issuer: &IssuerSettings) -> Result<Self, AuthError> {
        match (&issuer.key_file, &issuer.jwks_url) {
            (Some(path), None) => Ok(Self::File(KeyFile::open(path)?)),
            (None, Some(url)) => match KeyLocation::new(url, issuer.ca_file.as_deref()) {
                Ok(location) => Ok(Self::Url(Box::new(KeyUrl::new(location)))),
                Err(error) => Err(AuthError::KeyUrl { url: url.clone(), why: error.to_string() }),
            },
            _ => Err(AuthError::KeyPlace(issuer.name.clone())),
        }
    }

    fn with_keys<T>(&self, use_keys: impl FnOnce(&KeySet) -> T) -> T {
        match self {
            Self::File(file) => file.with_keys(use_keys),
            Self::Url(url) => url.with_keys(use_keys),
        }
    }

    /// Called for a token that names an unknown key. Returns whether its client should come again soon.
    fn want(&self, id: Option<&str>) -> bool {
        match self {
            Self::File(_) => false,
            Self::Url(url) => url.want(id),
        }
    }
}

/// Rules for certificates with their tenants, each with at most one `*`.
fn checked(rules: &[CertificateRule]) -> Result<Vec<(Tenant, CertificateRule)>, AuthError> {
    let check = |rule: &CertificateRule| match rule.matches.matches('*').count() {
        0 | 1 => Ok((rule.tenant()?, rule.clone())),
        _ => Err(AuthError::CertificateRule(rule.matches.clone())),
    };
    rules.iter().map(check).collect()
}

/// A delay in whole seconds, rounded up.
fn whole_seconds(delay: Duration) -> u32 {
    u32::try_from(delay.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

/// The issuer that an unverified token claims to have.
#[derive(serde::Deserialize)]
struct ClaimedIssuer {
    iss: String,
}

impl Issuer {
    /// Returns the claims, and the `digest` of the key that verified them.
    fn decode(
        &self,
        token: &[u8],
        header: &Header,
        name: &str,
        digest: impl Fn(&Key) -> u64,
    ) -> Result<(Claims, u64), Unauthorized> {
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[name]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // The times are compared with the clock of the gateway, in `check_times`.
        validation.validate_exp = false;
        self.keys.with_keys(|keys| {
            let mut outcome = Err(Unauthorized::Invalid);
            // That the key with this id is for another algorithm will not change.
            let id = header.kid.as_deref();
            let mut is_known = id.is_some() && keys.iter().any(|key| key.id() == id);
            for key in keys.candidates(header.alg, id) {
                is_known = true;
                match decode(token, key.decoding(), &validation) {
                    Ok(TokenData { claims, .. }) => return Ok((claims, digest(key))),
                    Err(error) if *error.kind() == ErrorKind::InvalidAudience => {
                        outcome = Err(Unauthorized::Audience);
                    }
                    Err(_) => {}
                }
            }
            if !is_known && self.keys.want(id) {
                return Err(Unauthorized::KeysPending);
            }
            outcome
        })
    }
}

/// Whether the header names an accepted algorithm and type, and carries no keys of its own (RFC 8725, sections 3.1, 3.10 and 3.11).
fn is_accepted(header: &Header) -> bool {
    let is_type = |typ: &String| TYPES.iter().any(|accepted| typ.eq_ignore_ascii_case(accepted));
    let has_keys =
        header.jwk.is_some() || header.jku.is_some() || header.x5u.is_some() || header.x5c.is_some();
    ALGORITHMS.contains(&header.alg)
        && header.typ.as_ref().is_none_or(is_type)
        && !has_keys
        && header.crit.is_none()
}

/// Checks `exp`, `nbf` and `iat`, and returns the end of the token, without leeway.
fn check_times(claims: &Claims, now: SystemTime) -> Result<SystemTime, Unauthorized> {
    let time = |seconds: f64| {
        let since = Duration::try_from_secs_f64(seconds).map_err(|_| Unauthorized::Invalid)?;
        SystemTime::UNIX_EPOCH.checked_add(since).ok_or(Unauthorized::Invalid)
    };
    let end = time(claims.exp.ok_or(Unauthorized::Life)?)?;
    let begin = claims.nbf.map(time).transpose()?;
    let issued = claims.iat.map(time).transpose()?.unwrap_or(now);
    if end <= now {
        return Err(Unauthorized::Expired);
    }
    if begin.is_some_and(|begin| begin > now + LEEWAY) || issued > now + LEEWAY {
        return Err(Unauthorized::Early);
    }
    if end > issued + LIFE_MAX + LEEWAY {
        return Err(Unauthorized::Life);
    }
    Ok(end)
}
