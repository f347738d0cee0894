//! The settings of authorization: issuers with their keys, rules for tokens that know nothing of streams, and what is public.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use config::{Config, File, FileFormat};
use serde::{Deserialize, Serialize};

use crate::stream::{InvalidTenant, Tenant};

/// The claim `iss` of the tokens that `pollgate token` makes.
pub(super) const OWN_ISSUER: &str = "pollgate";

/// The beginning of the subjects of users, in place of the issuer of a token. No issuer has such a name.
pub(super) const USER_SUBJECTS: &str = "user:";

/// Which clients may do what. Without issuers and public streams, the gateway checks no credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// File with keys, as `pollgate keygen` makes it. Tokens that are signed with them are accepted.
    pub key_file: Option<PathBuf>,
    /// Filters of streams that everybody may read.
    pub public: Vec<String>,
    /// Issuers whose tokens are accepted.
    pub issuer: Vec<IssuerSettings>,
    /// What tenants may hold and do.
    pub tenant: Vec<TenantSettings>,
    /// What client certificates grant.
    pub certificate: Vec<CertificateRule>,
    /// What addresses of XMPP grant.
    pub jid: Vec<JidRule>,
    /// Users with passwords, for XMPP clients that connect to the gateway itself.
    pub user: Vec<UserSettings>,
}

/// What all clients of a tenant may hold and do together. `None`: the limits of the gateway and of each client alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantSettings {
    /// The tenant. `None`: each tenant that is not named, except `default`.
    pub name: Option<String>,
    /// Memory of streams, messages and sessions, in bytes.
    pub bytes_max: Option<u64>,
    /// Number of streams.
    pub streams_max: Option<u64>,
    /// Number of held polls, live responses and connections of MQTT clients.
    pub open_max: Option<u64>,
    /// Appends per second.
    pub appends_per_second_max: Option<u64>,
    /// Bytes of appends per second.
    pub append_bytes_per_second_max: Option<u64>,
}

/// An issuer whose tokens are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerSettings {
    /// The claim `iss` of its tokens, compared byte by byte.
    pub name: String,
    /// The claim `aud` that its tokens must contain: the name of this gateway at the issuer.
    pub audience: String,
    /// JSON file with a key or a set of keys (RFC 7517), read again when it changes.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// URL of a set of keys, instead of a file: `https://`, or `http://` to a loopback address.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// PEM file with the root certificates to trust for `jwks_url`. `None`: those of the operating system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The tenant of its tokens. `None`: that of `tenant_claim`, or else the tenant `default`.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The claim that names the tenant of a token. Tokens without it are refused.
    #[serde(default)]
    pub tenant_claim: Option<String>,
    /// What its tokens grant besides their own claims.
    #[serde(default)]
    pub rule: Vec<Rule>,
}

/// Where the tenant of a token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TenantRule {
    /// All tokens of the issuer belong to this tenant.
    Fixed(Tenant),
    /// From this claim, which every token must have.
    Claim(String),
    /// From the claim that `pollgate token --tenant` writes, if the token has it.
    Own,
}

impl IssuerSettings {
    /// Checks where the tenants of its tokens come from.
    pub(super) fn tenant_rule(&self) -> Result<TenantRule, AuthError> {
        match (&self.tenant, &self.tenant_claim) {
            (None, None) => Ok(TenantRule::Fixed(Tenant::default())),
            (None, Some(claim)) => Ok(TenantRule::Claim(claim.clone())),
            (Some(name), None) => tenant_named(name).map(TenantRule::Fixed),
            (Some(_), Some(_)) => Err(AuthError::TenantPlace(self.name.clone())),
        }
    }
}

fn tenant_named(name: &str) -> Result<Tenant, AuthError> {
    Tenant::parse(name).map_err(|InvalidTenant| AuthError::Tenant(name.to_owned()))
}

impl CertificateRule {
    /// The tenant that the certificate's holder belongs to.
    pub(super) fn tenant(&self) -> Result<Tenant, AuthError> {
        self.tenant.as_deref().map_or_else(|| Ok(Tenant::default()), tenant_named)
    }
}

/// Grants for tokens with a claim. Patterns may contain `{sub}`, `{tenant}` and `{claim:NAME}` as whole levels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// The name of the claim.
    pub claim: String,
    /// A word that the claim must contain. `None`: the claim only has to exist.
    pub contains: Option<String>,
    /// Streams that may be read.
    pub read: Vec<String>,
    /// Streams that may be appended to.
    pub append: Vec<String>,
    /// Streams that may be created.
    pub create: Vec<String>,
    /// Streams that may be deleted.
    pub manage: Vec<String>,
}

impl TenantSettings {
    /// The tenant. `None`: each tenant that is not named.
    pub fn tenant(&self) -> Result<Option<Tenant>, AuthError> {
        let parse = |name: &String| match Tenant::parse(name) {
            Ok(tenant) if !tenant.is_default() => Ok(tenant),
            Ok(_) | Err(InvalidTenant) => Err(AuthError::Tenant(name.clone())),
        };
        self.name.as_ref().map(parse).transpose()
    }
}

/// A user with a password, as `pollgate user` prints it. Patterns of streams may contain `{sub}`, which is the name, as whole levels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserSettings {
    /// The name: the local part of the user's address.
    pub name: String,
    /// Salted keys of the password, one for each mechanism (RFC 5803).
    pub scram: Vec<String>,
    /// The tenant that the user belongs to. `None`: the default tenant.
    pub tenant: Option<String>,
    /// Streams that may be read.
    pub read: Vec<String>,
    /// Streams that may be appended to.
    pub append: Vec<String>,
    /// Streams that may be created.
    pub create: Vec<String>,
    /// Streams that may be deleted.
    pub manage: Vec<String>,
}

impl UserSettings {
    /// The tenant that the user belongs to.
    pub(super) fn tenant(&self) -> Result<Tenant, AuthError> {
        self.tenant.as_deref().map_or_else(|| Ok(Tenant::default()), tenant_named)
    }

    pub(super) fn as_rule(&self) -> Rule {
        Rule::of_subject([&self.read, &self.append, &self.create, &self.manage])
    }
}

/// Which name of a certificate a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateName {
    /// A URI in the subject alternative names, such as a SPIFFE id.
    Uri,
    /// A DNS name in the subject alternative names.
    Dns,
    /// A mail address in the subject alternative names.
    Email,
    /// The common name of the subject.
    Cn,
}

/// Grants for client certificates with a name. Patterns of streams may contain `{sub}` as whole levels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateRule {
    /// Which name.
    pub name: CertificateName,
    /// The text of the name. One `*` stands for any text, which `{sub}` stands for in turn; without it, `{sub}` is the whole name.
    pub matches: String,
    /// The tenant that the certificate's holder belongs to. `None`: the default tenant.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Streams that may be read.
    #[serde(default)]
    pub read: Vec<String>,
    /// Streams that may be appended to.
    #[serde(default)]
    pub append: Vec<String>,
    /// Streams that may be created.
    #[serde(default)]
    pub create: Vec<String>,
    /// Streams that may be deleted.
    #[serde(default)]
    pub manage: Vec<String>,
}

/// Grants for XMPP addresses. The XMPP server whose component the gateway is vouches for them. Patterns of streams may contain
/// `{sub}` as whole levels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JidRule {
    /// The address without its resource. One `*` stands for any text, which `{sub}` stands for in turn; without it, `{sub}` is the
    /// whole address.
    pub matches: String,
    /// The tenant that the owner of the address belongs to. `None`: the default tenant.
    pub tenant: Option<String>,
    /// Streams that may be read.
    pub read: Vec<String>,
    /// Streams that may be appended to.
    pub append: Vec<String>,
    /// Streams that may be created.
    pub create: Vec<String>,
    /// Streams that may be deleted.
    pub manage: Vec<String>,
}

impl JidRule {
    /// The tenant that the owner of the address belongs to, if the pattern is valid.
    pub(super) fn tenant(&self) -> Result<Tenant, AuthError> {
        if self.matches.is_empty() || self.matches.contains('/') || self.matches.matches('*').count() > 1 {
            return Err(AuthError::JidRule(self.matches.clone()));
        }
        self.tenant.as_deref().map_or_else(|| Ok(Tenant::default()), tenant_named)
    }

    pub(super) fn as_rule(&self) -> Rule {
        Rule::of_subject([&self.read, &self.append, &self.create, &self.manage])
    }
}

impl Rule {
    /// A rule for every subject, with the patterns of streams to read, append to, create and manage.
    pub(super) fn of_subject([read, append, create, manage]: [&Vec<String>; 4]) -> Self {
        let [read, append, create, manage] = [read, append, create, manage].map(Clone::clone);
        Self { claim: "sub".to_owned(), contains: None, read, append, create, manage }
    }
}

impl CertificateName {
    /// Each kind.
    pub(super) const ALL: [Self; 4] = [Self::Uri, Self::Dns, Self::Email, Self::Cn];

    /// The name in settings, subjects and revocations.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Uri => "uri",
            Self::Dns => "dns",
            Self::Email => "email",
            Self::Cn => "cn",
        }
    }
}

impl AuthSettings {
    /// The tenants that the settings name, without the default one, in the order of their names.
    pub fn tenants(&self) -> BTreeSet<Tenant> {
        let quotas = self.tenant.iter().filter_map(|quota| quota.name.as_ref());
        let issuers = self.issuer.iter().filter_map(|issuer| issuer.tenant.as_ref());
        let certificates = self.certificate.iter().filter_map(|rule| rule.tenant.as_ref());
        let jids = self.jid.iter().filter_map(|rule| rule.tenant.as_ref());
        let users = self.user.iter().filter_map(|user| user.tenant.as_ref());
        let names = quotas.chain(issuers).chain(certificates).chain(jids).chain(users);
        // Invalid ones are refused elsewhere.
        names.filter_map(|name| Tenant::parse(name).ok()).filter(|tenant| !tenant.is_default()).collect()
    }

    /// Reads the file of `--auth`: keys as `pollgate keygen` makes them, or settings as TOML. Paths in it are relative to it.
    pub fn read(path: &Path) -> Result<Self, AuthError> {
        let unreadable = |error| AuthError::Read { path: path.to_owned(), error };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        if text.trim_start().starts_with('{') {
            return Ok(Self { key_file: Some(path.to_owned()), ..Self::default() });
        }
        let file = File::from_str(&text, FileFormat::Toml);
        let parsed = Config::builder().add_source(file).build().and_then(Config::try_deserialize::<Self>);
        let mut settings =
            parsed.map_err(|error| AuthError::Keys { path: path.to_owned(), why: error.to_string() })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let of_issuers = settings
            .issuer
            .iter_mut()
            .flat_map(|issuer| issuer.key_file.iter_mut().chain(&mut issuer.ca_file));
        for file in settings.key_file.iter_mut().chain(of_issuers) {
            *file = folder.join(&*file);
        }
        Ok(settings)
    }
}

/// Why the settings or keys of authorization cannot be used. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A file with keys cannot be read.
    #[error("cannot read the keys in {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        error: std::io::Error,
    },
    /// A file contains no usable key.
    #[error("{path}: {why}")]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A public filter is invalid.
    #[error("auth.public: {0:?} is no filter of streams")]
    Public(String),
    /// The name of an issuer contains a space, or begins like a tenant or like the subjects of certificates, XMPP addresses and users.
    #[error(
        "auth.issuer: the name {0:?} must not contain a space, nor begin with $, certificate:, jid: or user:"
    )]
    IssuerName(String),
    /// The name of a tenant is invalid.
    #[error(
        "auth: {0:?} cannot be the name of a tenant: {InvalidTenant}; `default` has the limits of the gateway"
    )]
    Tenant(String),
    /// A tenant has two quotas.
    #[error("auth.tenant: two entries have the same name, or none")]
    SameTenant,
    /// An issuer has both a tenant and a claim that names it.
    #[error("auth.issuer: {0:?} needs either tenant or tenant_claim")]
    TenantPlace(String),
    /// An issuer has no keys, or keys from two places.
    #[error("auth.issuer: {0:?} needs either key_file or jwks_url")]
    KeyPlace(String),
    /// Keys cannot be fetched from a URL.
    #[error("auth.issuer: jwks_url {url:?}: {why}")]
    KeyUrl {
        /// The URL.
        url: String,
        /// Why not.
        why: String,
    },
    /// Two issuers have one name.
    #[error("auth.issuer: {0:?} is given twice")]
    SameIssuer(String),
    /// The pattern of a rule for certificates is ambiguous.
    #[error("auth.certificate: {0:?} has more than one *")]
    CertificateRule(String),
    /// The pattern of a rule for XMPP addresses is empty, ambiguous, or has a resource.
    #[error("auth.jid: {0:?} must be an address without a resource, with at most one *")]
    JidRule(String),
    /// A user has no name, the name of another one, or one that no address can have.
    #[error("auth.user: the name {0:?} must be there once, and without spaces and any of \"&'/:<>@")]
    UserName(String),
    /// The keys of a user are malformed, or two are for the same mechanism.
    #[error("auth.user: {0:?} needs scram = [...] with different keys as `pollgate user` prints them")]
    UserKeys(String),
    /// The patterns of a user are invalid.
    #[error("auth.user: {name:?}: {why}")]
    UserPatterns {
        /// The user.
        name: String,
        /// What is wrong with them.
        why: String,
    },
    /// A list of revoked certificates cannot be read.
    #[error("a list of revoked certificates is malformed: {0}")]
    RevokedCertificates(String),
    /// A key or a token cannot be made.
    #[error("{0}")]
    Issue(String),
}
