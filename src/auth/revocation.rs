//! A revocation: of one token, of the tokens that a subject got before a time, or of all tokens that a key has signed.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::certificates::SUBJECTS;
use super::claims::{LEEWAY, LIFE_MAX};
use super::jids;
use super::settings::{CertificateName, OWN_ISSUER, USER_SUBJECTS};

/// Revocations that count at a time, about 300 bytes each.
pub const REVOCATIONS_MAX: usize = 10_000;

/// The longest name of an issuer, a token, a subject or a key, in bytes.
const NAME_BYTES_MAX: usize = 512;

/// A revocation, as an operator sends it and as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// The issuer of the tokens. Without it: the keys of `pollgate keygen`.
    #[serde(default = "own_issuer")]
    pub(super) iss: String,
    /// The id of a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    /// The subject whose tokens are revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    /// Tokens of the subject that were issued before this time are revoked, in seconds since 1970. Without it: all until now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued_before: Option<u64>,
    /// The id of a key, which is not accepted again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    /// When the revocation is forgotten, in seconds since 1970: the gateway sets it to when every token that this concerns has
    /// expired. A key is revoked for ever unless the operator sets this, because anyone who has the key can sign more tokens;
    /// certificates, XMPP addresses and users are revoked for ever, because they may be valid for years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

/// What a revocation names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target<'a> {
    Id(&'a str),
    Subject(&'a str),
    Key(&'a str),
}

impl<'a> Target<'a> {
    /// The kind and the name, for a fingerprint.
    pub(super) fn parts(self) -> (&'static [u8], &'a str) {
        match self {
            Self::Id(name) => (b"jti", name),
            Self::Subject(name) => (b"sub", name),
            Self::Key(name) => (b"kid", name),
        }
    }
}

/// Why a revocation is refused. The texts are for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRevocation {
    /// It names nothing, or several things.
    #[error("a revocation names one of jti (a token), sub (a subject) and kid (a key)")]
    Target,
    /// A time without a subject.
    #[error("issued_before belongs to sub")]
    Time,
    /// A key would be revoked until a time that has passed.
    #[error("expires must be in the future")]
    Expires,
    /// A name is too long.
    #[error("the names of a revocation must have 1 to 512 bytes")]
    Length,
    /// The issuer is unknown.
    #[error("iss is not the name of an issuer of this gateway")]
    Issuer,
    /// There are too many.
    #[error("there are already 10000 revocations; they expire with the tokens that they concern")]
    TooMany,
    /// The gateway has no `--auth`.
    #[error("this gateway checks no tokens (--auth)")]
    Open,
}

fn own_issuer() -> String {
    OWN_ISSUER.to_owned()
}

/// A time in seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Revocation {
    /// What the revocation names, if that is one thing.
    pub(super) fn target(&self) -> Option<Target<'_>> {
        match (&self.jti, &self.sub, &self.kid) {
            (Some(id), None, None) => Some(Target::Id(id)),
            (None, Some(subject), None) => Some(Target::Subject(subject)),
            (None, None, Some(key)) => Some(Target::Key(key)),
            _ => None,
        }
    }

    /// Tokens of the subject that were issued before this time are revoked, in seconds since 1970.
    pub(super) fn issued_before(&self) -> u64 {
        self.issued_before.unwrap_or(0)
    }

    pub(super) fn has_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }

    /// Whether it names the holder of client certificates, whose issuer is `certificate:` and the kind of the name.
    pub(super) fn is_of_certificates(&self) -> bool {
        let kind = self.iss.strip_prefix(SUBJECTS);
        self.sub.is_some()
            && kind.is_some_and(|kind| CertificateName::ALL.iter().any(|name| name.as_str() == kind))
    }

    /// Whether it names a user of the settings, whose issuer is `user:`.
    pub(super) fn is_of_users(&self) -> bool {
        self.sub.is_some() && self.iss == USER_SUBJECTS
    }

    /// Whether it names an XMPP address, whose issuer is `jid:`.
    pub(super) fn is_of_jids(&self) -> bool {
        self.sub.is_some() && self.iss == jids::SUBJECTS
    }

    /// Checks what an operator has sent, and sets its times.
    pub(super) fn checked(self, now: SystemTime) -> Result<Self, InvalidRevocation> {
        let target = self.target().ok_or(InvalidRevocation::Target)?;
        let (Target::Id(name) | Target::Subject(name) | Target::Key(name)) = target;
        if [name, &self.iss].into_iter().any(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
            return Err(InvalidRevocation::Length);
        }
        let after = |time: u64| Some(time + (LIFE_MAX + LEEWAY + Duration::from_secs(1)).as_secs());
        let now = seconds(now);
        let (issued_before, expires) = match (target, self.issued_before) {
            (Target::Subject(_), before) => {
                // Tokens have whole seconds: those of this second are revoked too.
                let before = before.unwrap_or(now + 1).min(now + 1);
                // Nothing bounds the life of a certificate, an address or a password.
                let is_bounded = !self.is_of_certificates() && !self.is_of_jids() && !self.is_of_users();
                (Some(before), after(before).filter(|_| is_bounded))
            }
            (_, Some(_)) => return Err(InvalidRevocation::Time),
            // A token may be issued in the future by as much as clocks may differ.
            (Target::Id(_), None) => (None, after(now + LEEWAY.as_secs())),
            (Target::Key(_), None) if self.has_expired(now) => return Err(InvalidRevocation::Expires),
            (Target::Key(_), None) => (None, self.expires),
        };
        Ok(Self { issued_before, expires, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(json: &str) -> Result<String, InvalidRevocation> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_500);
        let revocation: Revocation = serde_json::from_str(json).unwrap();
        revocation.checked(now).map(|revocation| serde_json::to_string(&revocation).unwrap())
    }

    #[test]
    fn times_are_set_so_that_each_token_that_is_concerned_has_expired_before_the_revocation_has() {
        for (sent, stored) in [
            (r#"{"jti":"t"}"#, r#"{"iss":"pollgate","jti":"t","expires":1086461}"#),
            (
                r#"{"iss":"i","sub":"s"}"#,
                r#"{"iss":"i","sub":"s","issued_before":1000001,"expires":1086432}"#,
            ),
            (
                r#"{"sub":"s","issued_before":5}"#,
                r#"{"iss":"pollgate","sub":"s","issued_before":5,"expires":86436}"#,
            ),
            // A subject cannot be locked out for the future.
            (
                r#"{"iss":"i","sub":"s","issued_before":9000000}"#,
                r#"{"iss":"i","sub":"s","issued_before":1000001,"expires":1086432}"#,
            ),
            (r#"{"iss":"i","kid":"k"}"#, r#"{"iss":"i","kid":"k"}"#),
            // An operator who has removed the key at its issuer may let its revocation end.
            (r#"{"iss":"i","kid":"k","expires":1000001}"#, r#"{"iss":"i","kid":"k","expires":1000001}"#),
            (
                r#"{"iss":"certificate:cn","sub":"s"}"#,
                r#"{"iss":"certificate:cn","sub":"s","issued_before":1000001}"#,
            ),
            (r#"{"iss":"user:","sub":"s"}"#, r#"{"iss":"user:","sub":"s","issued_before":1000001}"#),
            (r#"{"iss":"jid:","sub":"a@b"}"#, r#"{"iss":"jid:","sub":"a@b","issued_before":1000001}"#),
        ] {
            assert_eq!(checked(sent).as_deref(), Ok(stored));
        }
    }

    #[test]
    fn a_revocation_names_exactly_one_thing() {
        for (sent, why) in [
            ("{}", InvalidRevocation::Target),
            (r#"{"jti":"t","sub":"s"}"#, InvalidRevocation::Target),
            (r#"{"jti":"t","issued_before":1}"#, InvalidRevocation::Time),
            (r#"{"jti":""}"#, InvalidRevocation::Length),
            (r#"{"kid":"k","expires":1000000}"#, InvalidRevocation::Expires),
        ] {
            assert_eq!(checked(sent), Err(why));
        }
        assert!(serde_json::from_str::<Revocation>(r#"{"subject":"s"}"#).is_err());
    }
}
