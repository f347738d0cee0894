//! [`Users`]: users with passwords, from the settings. Their clients prove the password by SCRAM; the gateway has only salted keys.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::SystemTime;

use ring::hmac;

use super::claims::Claims;
use super::crypto::fingerprint;
use super::grants::{GrantList, Grants, TokenFacts};
use super::revocation::Target;
use super::scram::{ITERATIONS_MIN, ScramError, ScramExchange, ScramHash, ScramKeys};
use super::settings::{AuthError, USER_SUBJECTS, UserSettings};

/// Characters that the local part of an address must not contain (RFC 7622, section 3.3.1).
const NOT_LOCAL: [char; 8] = ['"', '&', '\'', '/', ':', '<', '>', '@'];

/// Length of the salt of a user who does not exist, as `pollgate user` makes them.
const SALT_BYTES: usize = 16;

/// Users with passwords.
#[derive(Debug)]
pub struct Users {
    by_name: HashMap<String, User>,
    /// Makes the salts of users who do not exist, so that each has the same one at any time.
    salts: hmac::Key,
    /// What users who do not exist have.
    iterations: NonZeroU32,
}

#[derive(Debug)]
struct User {
    keys: Vec<ScramKeys>,
    grants: Arc<Grants>,
}

impl Users {
    /// Checks the users of the settings. Everybody has the rights of `public`.
    pub(super) fn new(settings: &[UserSettings], public: &GrantList) -> Result<Self, AuthError> {
        let mut by_name = HashMap::new();
        // From the keys of the first user: nobody knows them, and they stay as they are when others are added.
        let (mut secret, mut iterations) = (Vec::new(), NonZeroU32::new(ITERATIONS_MIN));
        for (index, user) in settings.iter().enumerate() {
            let name = &user.name;
            let is_local =
                !name.is_empty() && !name.contains(char::is_whitespace) && !name.contains(NOT_LOCAL);
            if !is_local || by_name.contains_key(name) {
                return Err(AuthError::UserName(name.clone()));
            }
            let parsed = User::new(user, public)?;
            if let Some(keys) = parsed.keys.first().filter(|_| index == 0) {
                secret = [&*keys.server_key, &*keys.stored_key].concat();
                iterations = Some(keys.iterations);
            }
            by_name.insert(name.clone(), parsed);
        }
        let salts = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Ok(Self { by_name, salts, iterations: iterations.unwrap_or(NonZeroU32::MIN) })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whether a user has keys for a mechanism.
    pub fn have(&self, hash: ScramHash) -> bool {
        self.by_name.values().any(|user| user.keys_of(hash).is_some())
    }

    /// Begins an exchange with the first message of a client. Returns the answer for the client.
    pub fn begin(&self, hash: ScramHash, message: &str) -> Result<(ScramExchange, String), ScramError> {
        ScramExchange::begin(message, |name| self.keys_of(hash, name))
    }

    fn keys_of(&self, hash: ScramHash, name: &str) -> ScramKeys {
        let known = self.by_name.get(name).and_then(|user| user.keys_of(hash));
        known.cloned().unwrap_or_else(|| {
            let mut salt = hmac::sign(&self.salts, [hash.name(), name].concat().as_bytes()).as_ref().to_vec();
            salt.truncate(SALT_BYTES);
            ScramKeys::of_nobody(hash, self.iterations, salt)
        })
    }

    /// The rights of a user who exists.
    pub(super) fn grants_of(&self, name: &str) -> Option<&Arc<Grants>> {
        self.by_name.get(name).map(|user| &user.grants)
    }

    /// What stands for the keys of all users, as a token has the key that signed it.
    pub(super) fn keys(&self) -> impl Iterator<Item = u64> {
        self.by_name.values().filter_map(|user| user.grants.token()).map(|facts| facts.key)
    }
}

impl User {
    fn new(settings: &UserSettings, public: &GrantList) -> Result<Self, AuthError> {
        let UserSettings { name, scram, .. } = settings;
        let keys: Option<Vec<_>> = scram.iter().map(|text| ScramKeys::parse(text)).collect();
        let keys = keys.filter(|keys| !keys.is_empty() && are_different(keys));
        let keys = keys.ok_or_else(|| AuthError::UserKeys(name.clone()))?;
        let tenant = settings.tenant()?;
        let granted = Claims::of_subject(name).grants(&[settings.as_rule()], &tenant);
        let mut list = granted
            .map_err(|error| AuthError::UserPatterns { name: name.clone(), why: error.to_string() })?;
        // Public streams are those of the default tenant.
        if tenant.is_default() {
            list.extend(public);
        }
        let (kind, subject) = Target::Subject(name).parts();
        let texts: Vec<_> =
            [USER_SUBJECTS, name].into_iter().chain(scram.iter().map(String::as_str)).collect();
        let facts = TokenFacts {
            // Another password is another key.
            key: fingerprint(&texts.iter().map(|text| text.as_bytes()).collect::<Vec<_>>()),
            id: None,
            subject: fingerprint(&[USER_SUBJECTS.as_bytes(), kind, subject.as_bytes()]),
            // Nobody knows when the user learned the password, so a revocation locks the user out.
            issued_at: 0,
        };
        let subject = format!("{USER_SUBJECTS} {name}");
        let grants = Grants::of(tenant, &subject, list, SystemTime::UNIX_EPOCH, Some(facts)).without_end();
        Ok(Self { keys, grants: Arc::new(grants) })
    }

    fn keys_of(&self, hash: ScramHash) -> Option<&ScramKeys> {
        self.keys.iter().find(|keys| keys.hash == hash)
    }
}

fn are_different(keys: &[ScramKeys]) -> bool {
    keys.iter()
        .enumerate()
        .all(|(index, one)| keys.iter().skip(index + 1).all(|other| other.hash != one.hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Action, authorize};
    use crate::stream::StreamName;

    fn keys(hash: ScramHash) -> String {
        ScramKeys::generate(hash, "pencil", NonZeroU32::new(ITERATIONS_MIN).unwrap()).unwrap().to_string()
    }

    fn user(name: &str) -> UserSettings {
        let (scram, read) = (vec![keys(ScramHash::Sha256)], vec!["inbox/{sub}".to_owned()]);
        UserSettings { name: name.to_owned(), scram, read, ..UserSettings::default() }
    }

    fn users(settings: &[UserSettings]) -> Result<Users, AuthError> {
        Users::new(settings, &GrantList::default())
    }

    #[test]
    fn a_user_has_the_rights_of_the_settings_and_another_password_is_another_key() {
        let (anna, again) = (users(&[user("anna")]).unwrap(), users(&[user("anna")]).unwrap());
        let grants = &anna.by_name["anna"].grants;
        let may_read = |name| authorize(grants, Action::Read, &StreamName::parse(name).unwrap()).is_ok();
        assert!(may_read("inbox/anna") && !may_read("inbox/eve"));
        assert_eq!((grants.subject(), grants.expires_at()), (Some("user: anna"), None));
        assert_ne!(anna.keys().next(), again.keys().next());
        assert!(anna.have(ScramHash::Sha256) && !anna.have(ScramHash::Sha1));
    }

    #[test]
    fn a_user_who_does_not_exist_looks_like_one_who_does_at_any_time() {
        let first = user("anna");
        let (one, both) =
            (users(std::slice::from_ref(&first)).unwrap(), users(&[first, user("bob")]).unwrap());
        let said = |users: &Users, name: &str| {
            let (_, said) = users.begin(ScramHash::Sha256, &format!("n,,n={name},r=x")).unwrap();
            said.split_once(",s=").unwrap().1.to_owned()
        };
        assert_eq!(said(&one, "eve"), said(&both, "eve"));
        assert_ne!(said(&one, "eve"), said(&one, "mallory"));
        assert_eq!(said(&one, "anna"), said(&both, "anna"));
        assert_eq!(said(&one, "eve").len(), said(&one, "anna").len());
    }

    #[test]
    fn settings_that_cannot_be_meant_are_refused() {
        let with = |change: fn(&mut UserSettings)| {
            let mut settings = user("anna");
            change(&mut settings);
            users(&[settings]).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(with(|user| user.name = "a@b".to_owned()).contains("a@b"));
        assert!(with(|user| user.name.clear()).contains("auth.user"));
        assert!(with(|user| user.scram.clear()).contains("scram"));
        assert!(with(|user| user.scram.push(keys(ScramHash::Sha256))).contains("scram"));
        assert!(with(|user| user.scram = vec!["pencil".to_owned()]).contains("scram"));
        assert!(with(|user| user.read = vec!["a/#/b".to_owned()]).contains("anna"));
        assert_eq!(with(|user| user.scram.push(keys(ScramHash::Sha1))), "");
        assert!(matches!(users(&[user("anna"), user("anna")]), Err(AuthError::UserName(_))));
    }
}
