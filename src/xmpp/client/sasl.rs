//! SASL (RFC 6120, section 6): reads what a client sends to say who it is. Without IO and clock.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minidom::Element;

use crate::auth::{ScramError, ScramHash, ScramOutcome, Users};
use crate::xmpp::jid::Jid;
use crate::xmpp::xml::element;

pub(super) const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";

/// The ways to authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// RFC 5802 and 7677: a user of the settings proves the password.
    Scram(ScramHash),
    /// RFC 4616: the password is a token.
    Plain,
    /// RFC 7628.
    OAuthBearer,
    /// RFC 4505: what clients without a token may do.
    Anonymous,
}

/// Who a client says that it is. Debug output has no token.
#[derive(PartialEq, Eq)]
pub(super) struct Credentials {
    /// The address that it wants, without a resource.
    pub(super) user: Jid,
    pub(super) proof: Proof,
}

/// What proves who a client is.
#[derive(PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing.
    Nothing,
    Token(String),
    Password(ScramOutcome),
}

/// Why a client is not authenticated (RFC 6120, section 6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SaslError {
    Aborted,
    IncorrectEncoding,
    InvalidAuthzid,
    InvalidMechanism,
    Malformed,
    NotAuthorized,
    /// Worth another attempt later.
    Temporary,
}

impl Mechanism {
    /// All mechanisms, the best one first.
    const ALL: [Self; 5] = [
        Self::Scram(ScramHash::Sha256),
        Self::Scram(ScramHash::Sha1),
        Self::Plain,
        Self::OAuthBearer,
        Self::Anonymous,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Scram(hash) => hash.name(),
            Self::Plain => "PLAIN",
            Self::OAuthBearer => "OAUTHBEARER",
            Self::Anonymous => "ANONYMOUS",
        }
    }

    fn is_offered(self, users: Option<&Users>) -> bool {
        match self {
            Self::Scram(hash) => users.is_some_and(|users| users.have(hash)),
            _ => true,
        }
    }

    /// `users` are those who have passwords.
    pub(super) fn parse(name: &str, users: Option<&Users>) -> Result<Self, SaslError> {
        let found = Self::ALL.into_iter().find(|known| known.name() == name && known.is_offered(users));
        found.ok_or(SaslError::InvalidMechanism)
    }

    /// The list for the features of a stream.
    pub(super) fn offered(users: Option<&Users>) -> Element {
        let offered = Self::ALL.into_iter().filter(|known| known.is_offered(users));
        let names = offered.map(|known| element("mechanism", SASL).append(known.name()).build());
        element("mechanisms", SASL).append_all(names).build()
    }

    /// Reads the first message of a client. `domain` is that of the gateway. SCRAM begins an exchange instead.
    pub(super) fn credentials(self, message: &str, domain: &Jid) -> Result<Credentials, SaslError> {
        match self {
            Self::Scram(_) => Err(SaslError::Malformed),
            Self::Plain => plain(message, domain),
            Self::OAuthBearer => bearer(message, domain),
            Self::Anonymous => Ok(Credentials { user: random_user(domain)?, proof: Proof::Nothing }),
        }
    }
}

/// Decodes a message of a client, which is in base64. `=` stands for an empty one.
pub(super) fn decoded(message: &str) -> Result<String, SaslError> {
    let message = match message.trim() {
        "=" => Vec::new(),
        encoded => STANDARD.decode(encoded).map_err(|_| SaslError::IncorrectEncoding)?,
    };
    String::from_utf8(message).map_err(|_| SaslError::Malformed)
}

/// An element with a message of the gateway: a challenge, or success.
pub(super) fn saying(name: &'static str, message: &str) -> Element {
    element(name, SASL).append(STANDARD.encode(message)).build()
}

/// `[authzid] NUL authcid NUL passwd`
fn plain(message: &str, domain: &Jid) -> Result<Credentials, SaslError> {
    let parts: Vec<_> = message.split('\0').collect();
    let &[authorized, name, password] = parts.as_slice() else { return Err(SaslError::Malformed) };
    let user = user(name, domain)?;
    if !authorized.is_empty() && Jid::parse(authorized).ok().as_ref() != Some(&user) {
        return Err(SaslError::InvalidAuthzid);
    }
    Ok(Credentials { user, proof: Proof::Token(password.to_owned()) })
}

/// `n,[a=authzid],^A(key=value^A)*^A`
fn bearer(message: &str, domain: &Jid) -> Result<Credentials, SaslError> {
    let (header, pairs) = message.split_once('\u{1}').ok_or(SaslError::Malformed)?;
    let named = header.strip_prefix("n,").or_else(|| header.strip_prefix("y,"));
    let named = named.and_then(|rest| rest.strip_suffix(',')).ok_or(SaslError::Malformed)?;
    let user = match named.strip_prefix("a=") {
        Some(name) => user(name, domain)?,
        None if named.is_empty() => random_user(domain)?,
        None => return Err(SaslError::Malformed),
    };
    let value =
        pairs.split('\u{1}').find_map(|pair| pair.strip_prefix("auth=")).ok_or(SaslError::Malformed)?;
    let (scheme, token) = value.split_once(' ').ok_or(SaslError::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(SaslError::Malformed);
    }
    Ok(Credentials { user, proof: Proof::Token(token.trim().to_owned()) })
}

/// The address of a user, who is named with the domain or without.
pub(super) fn user(name: &str, domain: &Jid) -> Result<Jid, SaslError> {
    let full = if name.contains('@') { name.to_owned() } else { format!("{name}@{domain}") };
    let user = Jid::parse(&full).map_err(|_| SaslError::InvalidAuthzid)?;
    let is_own = user.is_bare() && user.domain() == domain.as_str() && user != *domain;
    if is_own { Ok(user) } else { Err(SaslError::InvalidAuthzid) }
}

fn random_user(domain: &Jid) -> Result<Jid, SaslError> {
    user(&format!("{:016x}", fastrand::u64(..)), domain)
}

impl SaslError {
    pub(super) fn to_element(self) -> Element {
        let condition = match self {
            Self::Aborted => "aborted",
            Self::IncorrectEncoding => "incorrect-encoding",
            Self::InvalidAuthzid => "invalid-authzid",
            Self::InvalidMechanism => "invalid-mechanism",
            Self::Malformed => "malformed-request",
            Self::NotAuthorized => "not-authorized",
            Self::Temporary => "temporary-auth-failure",
        };
        element("failure", SASL).append(element(condition, SASL).build()).build()
    }
}

impl From<ScramError> for SaslError {
    fn from(error: ScramError) -> Self {
        match error {
            ScramError::Malformed => Self::Malformed,
            ScramError::NoRandom => Self::Temporary,
        }
    }
}

/// What OAUTHBEARER answers to a token that does not count (RFC 7628, section 3.2.2).
pub(super) fn invalid_token() -> Element {
    saying("challenge", r#"{"status":"invalid_token"}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mechanism: Mechanism, message: &str) -> Result<(String, String), SaslError> {
        let domain = Jid::parse("b.example").unwrap();
        mechanism.credentials(message, &domain).map(|found| match found.proof {
            Proof::Token(token) => (found.user.to_string(), token),
            _ => panic!("no token"),
        })
    }

    #[test]
    fn plain_has_a_name_and_a_password() {
        let plain = |message| read(Mechanism::Plain, message);
        let token = |user: &str| Ok((user.to_owned(), "token".to_owned()));
        assert_eq!(plain("\0anna\0token"), token("anna@b.example"));
        assert_eq!(plain("\0anna@b.example\0token"), token("anna@b.example"));
        assert_eq!(plain("anna@b.example\0anna\0token"), token("anna@b.example"));
        for (message, expected) in [
            ("eve@b.example\0anna\0token", SaslError::InvalidAuthzid),
            ("\0anna@c.example\0token", SaslError::InvalidAuthzid),
            ("\0anna@b.example/x\0token", SaslError::InvalidAuthzid),
            ("\0\0token", SaslError::InvalidAuthzid),
            ("anna\0token", SaslError::Malformed),
            ("\0anna\0token\0", SaslError::Malformed),
        ] {
            assert_eq!(plain(message), Err(expected), "{message:?}");
        }
        assert_eq!(plain(""), Err(SaslError::Malformed));
        assert_eq!(decoded("!"), Err(SaslError::IncorrectEncoding));
        assert_eq!(decoded("/w=="), Err(SaslError::Malformed));
        assert_eq!((decoded("="), decoded(" YQ== ")), (Ok(String::new()), Ok("a".to_owned())));
    }

    #[test]
    fn a_bearer_token_comes_with_a_name_or_without() {
        let bearer = |message| read(Mechanism::OAuthBearer, message);
        let (user, token) = bearer("n,a=anna@b.example,\u{1}host=x\u{1}auth=Bearer token\u{1}\u{1}").unwrap();
        assert_eq!((&*user, &*token), ("anna@b.example", "token"));
        let (user, token) = bearer("n,,\u{1}auth=bearer token\u{1}\u{1}").unwrap();
        assert!(user.ends_with("@b.example") && token == "token");
        for malformed in [
            "",
            "n,,",
            "n,,\u{1}\u{1}",
            "p=x,,\u{1}auth=Bearer t\u{1}\u{1}",
            "n,,\u{1}auth=Basic t\u{1}\u{1}",
            "n,x,\u{1}auth=Bearer t\u{1}\u{1}",
        ] {
            assert_eq!(bearer(malformed), Err(SaslError::Malformed), "{malformed:?}");
        }
    }
}
