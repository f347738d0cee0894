//! Which verified tokens are still valid: the key is in use, and no revocation names the token, its subject or its key. A request
//! checks this again only if the number of changes has grown; open connections check it after each change.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;

use super::grants::{TokenFacts, coarse};
use super::revocation::{Revocation, Target};

/// The keys in use and the revocations.
#[derive(Debug, Default)]
pub(super) struct Standing {
    keys: HashSet<u64>,
    /// Keys that their issuers still have, and that were revoked.
    revoked_keys: HashSet<u64>,
    ids: HashMap<u64, Revocation>,
    subjects: HashMap<u64, Revocation>,
    key_ids: HashMap<u64, Revocation>,
    /// Client certificates that their authorities have revoked.
    certificates: HashSet<u64>,
}

impl Standing {
    /// Whether the key that verified a token is in use.
    pub(super) fn has_key(&self, token: &TokenFacts) -> bool {
        self.keys.contains(&token.key)
    }

    /// Whether a token stands. Its expiry is another matter.
    pub(super) fn allows(&self, token: &TokenFacts) -> bool {
        self.has_key(token) && !self.has_revoked(token)
    }

    /// Whether a revocation names a token, its subject or its key.
    pub(super) fn has_revoked(&self, token: &TokenFacts) -> bool {
        let is_before = |revoked: &Revocation| token.issued_at < revoked.issued_before();
        self.revoked_keys.contains(&token.key)
            || token.id.is_some_and(|id| self.ids.contains_key(&id) || self.certificates.contains(&id))
            || self.subjects.get(&token.subject).is_some_and(is_before)
    }

    /// Whether a key with an id was revoked. `digest` is that of its issuer and its id.
    pub(super) fn has_revoked_key(&self, digest: u64) -> bool {
        self.key_ids.contains_key(&digest)
    }

    /// Replaces the keys in use, and those that are not because they were revoked.
    pub(super) fn set_keys(&mut self, keys: HashSet<u64>, revoked: HashSet<u64>) {
        (self.keys, self.revoked_keys) = (keys, revoked);
    }

    /// Replaces the client certificates that their authorities have revoked.
    pub(super) fn set_revoked_certificates(&mut self, certificates: HashSet<u64>) {
        self.certificates = certificates;
    }

    /// Forgets the revocations that have expired by `now`, in seconds since 1970.
    pub(super) fn forget_expired(&mut self, now: u64) {
        for of_kind in [&mut self.ids, &mut self.subjects, &mut self.key_ids] {
            of_kind.retain(|_, revocation| !revocation.has_expired(now));
        }
    }

    /// Adds a revocation.
    pub(super) fn revoke(&mut self, digest: u64, revocation: Revocation) {
        let of_kind = match revocation.target() {
            Some(Target::Id(_)) => &mut self.ids,
            Some(Target::Subject(_)) => &mut self.subjects,
            Some(Target::Key(_)) => &mut self.key_ids,
            None => return,
        };
        let earlier = of_kind.insert(digest, revocation);
        // What was revoked stays so if a later revocation names an earlier time.
        if let Some(earlier) = earlier
            && let Some(current) = of_kind.get_mut(&digest)
            && earlier.issued_before() > current.issued_before()
        {
            *current = earlier;
        }
    }

    /// The revocations that have not expired by `now`, in seconds since 1970.
    pub(super) fn revocations(&self, now: u64) -> impl Iterator<Item = &Revocation> {
        let all = self.ids.values().chain(self.subjects.values()).chain(self.key_ids.values());
        all.filter(move |revocation| !revocation.has_expired(now))
    }

    /// The same for marks.
    pub(super) fn coarse(&self) -> CoarseStanding {
        let time = |(digest, revocation): (&u64, &Revocation)| (coarse(*digest), revocation.issued_before());
        CoarseStanding {
            keys: self.keys.iter().copied().map(coarse).collect(),
            ids: self.ids.keys().chain(&self.certificates).copied().map(coarse).collect(),
            subjects: self.subjects.iter().map(time).collect(),
        }
    }
}

/// The same for marks, which are shorter than tokens, so that two tokens may share one. About one valid token in some millions is
/// therefore rejected; its client polls again, and the gateway then checks the token itself.
#[derive(Debug)]
pub struct CoarseStanding {
    keys: HashSet<u32>,
    ids: HashSet<u32>,
    subjects: HashMap<u32, u64>,
}

impl CoarseStanding {
    /// Whether a token with this mark stands.
    #[allow(clippy::cast_possible_truncation, reason = "each half is a part of the mark")]
    pub fn allows(&self, (key_and_id, subject_and_time): (NonZeroU64, u64)) -> bool {
        let (key, id) = ((key_and_id.get() >> 32) as u32, key_and_id.get() as u32);
        let (subject, issued_at) = ((subject_and_time >> 32) as u32, subject_and_time & u64::from(u32::MAX));
        let is_before = |before: &u64| issued_at < *before;
        self.keys.contains(&key)
            && !self.ids.contains(&id)
            && !self.subjects.get(&subject).is_some_and(is_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: TokenFacts =
        TokenFacts { key: 0x1111_2222_3333_4444, id: Some(0x55), subject: 0x77, issued_at: 1000 };

    fn standing() -> Standing {
        let mut standing = Standing::default();
        standing.set_keys(HashSet::from([TOKEN.key]), HashSet::new());
        standing
    }

    fn both(standing: &Standing, token: TokenFacts) -> bool {
        let (exact, coarse) = (standing.allows(&token), standing.coarse().allows(token.mark()));
        assert_eq!(exact, coarse, "{token:?}");
        exact
    }

    fn of_subject(before: u64) -> Revocation {
        let text = format!("{{\"iss\":\"i\",\"sub\":\"s\",\"issued_before\":{before}}}");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_token_stands_while_its_key_is_in_use() {
        let mut standing = standing();
        assert!(both(&standing, TOKEN));
        assert!(!both(&standing, TokenFacts { key: 5, ..TOKEN }));
        standing.set_keys(HashSet::new(), HashSet::new());
        assert!(!both(&standing, TOKEN) && !standing.has_revoked(&TOKEN), "the key was replaced");
        standing.set_keys(HashSet::new(), HashSet::from([TOKEN.key]));
        assert!(!both(&standing, TOKEN) && standing.has_revoked(&TOKEN), "the key was revoked");
    }

    #[test]
    fn a_revocation_ends_the_tokens_that_it_names_and_no_others() {
        let mut standing = standing();
        let id: Revocation = serde_json::from_str("{\"iss\":\"i\",\"jti\":\"t\",\"expires\":2000}").unwrap();
        standing.revoke(0x55, id);
        assert!(!both(&standing, TOKEN));
        assert!(both(&standing, TokenFacts { id: Some(0x66_0000), ..TOKEN }));
        assert!(both(&standing, TokenFacts { id: None, ..TOKEN }));

        standing.revoke(0x77, of_subject(1001));
        let other = TokenFacts { id: None, ..TOKEN };
        assert!(!both(&standing, other));
        assert!(both(&standing, TokenFacts { issued_at: 1001, ..other }));
        assert!(both(&standing, TokenFacts { subject: 0x88, ..other }));
        // A time that the token does not tell is taken for an early one.
        assert!(!both(&standing, TokenFacts { issued_at: 0, ..other }));

        // An earlier time takes nothing back.
        standing.revoke(0x77, of_subject(500));
        assert!(!both(&standing, other));
    }

    #[test]
    fn revocations_are_forgotten_when_the_last_token_that_they_concern_has_expired() {
        let mut standing = standing();
        let id: Revocation = serde_json::from_str("{\"iss\":\"i\",\"jti\":\"t\",\"expires\":2000}").unwrap();
        standing.revoke(0x55, id);
        assert_eq!(standing.revocations(1999).count(), 1);
        assert_eq!(standing.revocations(2000).count(), 0);
        assert!(!both(&standing, TOKEN));
        standing.forget_expired(2000);
        assert!(both(&standing, TOKEN));
    }
}
