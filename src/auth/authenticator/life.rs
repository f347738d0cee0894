//! The life of tokens that are in use: which still stand after a change of keys or a revocation, and when the rights of something
//! open end.

use std::collections::HashSet;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::{Authenticator, Issuer, KeySource, Unauthorized, Verifier, whole_seconds};
use crate::auth::certificates::{SUBJECTS, revoked_by};
use crate::auth::crypto::fingerprint;
use crate::auth::grants::{CredentialRecord, Grants};
use crate::auth::jids;
use crate::auth::keys::Key;
use crate::auth::revocation::{InvalidRevocation, REVOCATIONS_MAX, Revocation, Target, seconds};
use crate::auth::scram::ScramOutcome;
use crate::auth::settings::AuthError;
use crate::auth::standing::{CoarseStanding, Standing};
use crate::auth::users::Users;
use crate::clock::Clock;
use crate::stream::Principal;

/// Why the rights of a connection that is open end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RightsEnd {
    /// The token has expired.
    Expired,
    /// The token was revoked, or the key that signed it is no longer in use.
    Revoked,
}

/// Completes when the rights of a client end.
pub type EndOfRights = Pin<Box<dyn Future<Output = RightsEnd> + Send>>;

impl RightsEnd {
    /// The word for clients.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl Authenticator {
    /// Reads the files with keys again that have changed. Tokens of a key that is gone are refused from then on, and what is open
    /// with them ends. A file that cannot be used leaves the keys of its issuer as they are.
    pub fn reload(&self) -> Result<(), AuthError> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let mut outcome = Ok(());
        for (name, issuer) in &verifier.issuers {
            let KeySource::File(file) = &issuer.keys else { continue };
            match file.read_again() {
                Ok(None) => {}
                Ok(Some(keys)) => {
                    tracing::info!(issuer = name, "read changed keys");
                    verifier.change(|standing| file.replace(keys, standing));
                }
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    /// Waits until the rights of a client end. Those of a client without credentials never do.
    pub async fn rights_end(self: Arc<Self>, grants: Arc<Grants>, clock: Clock) -> RightsEnd {
        let Some(verifier) = self.verifier.as_ref().filter(|_| grants.may_end()) else {
            return pending().await;
        };
        let mut standing = verifier.standing.subscribe();
        loop {
            let stands = |standing: &Standing| grants.token().is_none_or(|token| standing.allows(token));
            if !stands(&standing.borrow_and_update()) {
                return RightsEnd::Revoked;
            }
            let left = grants.expires_at().map(|end| end.duration_since(clock.wall()).unwrap_or_default());
            if left.is_some_and(|left| left.is_zero()) {
                return RightsEnd::Expired;
            }
            let expiry = async {
                match left {
                    Some(left) => sleep(left).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = expiry => {}
                changed = standing.changed() => if changed.is_err() { return pending().await },
            }
        }
    }

    /// Users with passwords. `None`: the gateway checks no credentials, or there are none.
    pub fn users(&self) -> Option<&Arc<Users>> {
        self.verifier.as_ref().map(|verifier| &verifier.users).filter(|users| !users.is_empty())
    }

    /// The rights of a user whose client has sent a proof. `address` is the principal of the client's address, whose wrong proofs are
    /// limited like invalid tokens.
    pub fn user(&self, outcome: &ScramOutcome, address: Principal) -> Result<Arc<Grants>, Unauthorized> {
        let verifier = self.verifier.as_ref().ok_or(Unauthorized::Missing)?;
        let (failed_logins, now) = (&verifier.failed_logins, Instant::now());
        let admitted = failed_logins.admit(address, outcome.fingerprint, now);
        admitted.map_err(|delay| Unauthorized::TooManyFailures { retry_after: whole_seconds(delay) })?;
        let grants = verifier.users.grants_of(&outcome.name).filter(|_| outcome.answer.is_some());
        let verified = grants.cloned().ok_or(Unauthorized::Invalid);
        let verified = verified.and_then(|grants| verifier.check_standing(&grants).map(|()| grants));
        verified.inspect_err(|_| failed_logins.failed(address, outcome.fingerprint, now))
    }

    /// Checks that the token of a client still counts, whose rights were verified some time ago.
    pub fn check(&self, grants: &Grants, now: SystemTime) -> Result<(), Unauthorized> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        verifier.check_standing(grants)?;
        match grants.expires_at() {
            Some(end) if end <= now => Err(Unauthorized::Expired),
            _ => Ok(()),
        }
    }

    /// Whether neither a token nor its key was revoked since its rights were verified. It may have expired.
    pub fn stands(&self, grants: &Grants) -> bool {
        self.verifier.as_ref().is_none_or(|verifier| verifier.check_standing(grants).is_ok())
    }

    /// Whether credentials still count that were verified before a restart. `None`: their key may be one that was not fetched since.
    /// Without authorization they all count.
    pub fn recall(&self, credentials: &CredentialRecord, now: SystemTime) -> Option<bool> {
        let Some(verifier) = &self.verifier else { return Some(true) };
        let standing = verifier.standing.borrow();
        let awaits_keys =
            |issuer: &Issuer| matches!(&issuer.keys, KeySource::Url(url) if url.awaits_first_keys());
        let CredentialRecord { facts, expires_at } = credentials;
        let may_count = *expires_at > now && !standing.has_key(facts);
        if may_count && verifier.issuers.values().any(awaits_keys) {
            return None;
        }
        Some(*expires_at > now && standing.allows(facts))
    }

    /// The rights of a client that has logged in at another gateway or before a restart, see [`Grants::to_bytes`]. `Ok(None)`: their key may
    /// be one that this gateway has not fetched yet, and fetches now.
    pub fn restore(
        &self,
        stored: Option<&[u8]>,
        now: SystemTime,
    ) -> Result<Option<Arc<Grants>>, Unauthorized> {
        let Some(stored) = stored else {
            let grants = self.anonymous();
            return if grants.is_empty() { Err(Unauthorized::Missing) } else { Ok(Some(grants)) };
        };
        let grants = Grants::from_bytes(stored).ok_or(Unauthorized::Invalid)?;
        if let Some(record) = grants.record()
            && (self.recall(&record, now).is_none() || self.awaits_key(&record, now))
        {
            return Ok(None);
        }
        self.check(&grants, now).map(|()| Some(Arc::new(grants)))
    }

    /// Whether the next fetch of an issuer's keys may bring the key of credentials that another gateway has verified.
    fn awaits_key(&self, record: &CredentialRecord, now: SystemTime) -> bool {
        let Some(verifier) = &self.verifier else { return false };
        let CredentialRecord { facts, expires_at } = record;
        let is_unknown = {
            let standing = verifier.standing.borrow();
            !standing.has_key(facts) && !standing.has_revoked(facts)
        };
        // The record has no id of the key. This one stands for it, and no key has it.
        let id = format!("{:016x}", facts.key);
        let wanting = verifier.issuers.values().map(|issuer| issuer.keys.want(Some(&id)));
        is_unknown && *expires_at > now && wanting.fold(false, |awaits, one| awaits | one)
    }

    /// Whether a revocation names these credentials, see [`CredentialRecord::to_bytes`]. They may have expired, and their key may be
    /// out of use because it was replaced, which is no revocation.
    pub fn has_revoked(&self, credentials: &[u8]) -> bool {
        let Some(verifier) = &self.verifier else { return false };
        let record = postcard::from_bytes::<CredentialRecord>(credentials);
        record.is_ok_and(|record| verifier.standing.borrow().has_revoked(&record.facts))
    }

    /// Replaces the client certificates that their authorities have revoked, by the lists in DER. What is open with them ends within
    /// a second.
    pub fn revoke_certificates<'a>(&self, lists: impl Iterator<Item = &'a [u8]>) -> Result<(), AuthError> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let mut revoked = HashSet::new();
        for list in lists {
            revoked
                .extend(revoked_by(list).map_err(|error| AuthError::RevokedCertificates(error.to_string()))?);
        }
        verifier.change(|standing| standing.set_revoked_certificates(revoked));
        Ok(())
    }

    /// Makes what is open compare the expiry of its token with the time of day again, because that was set.
    pub fn time_was_set(&self) {
        if let Some(verifier) = &self.verifier {
            verifier.change(|_| {});
        }
    }

    /// Keeps keys from URLs fresh. Calls `failed` after each failure. Never returns.
    pub async fn fetch_keys(&self, failed: impl Fn()) {
        let Some(verifier) = &self.verifier else { return pending().await };
        let urls = verifier.issuers.iter().filter_map(|(name, issuer)| match &issuer.keys {
            KeySource::Url(url) => Some((name, url)),
            KeySource::File(_) => None,
        });
        let count = &failed;
        let fetches = urls.map(|(name, url)| {
            let changed = move |keys| {
                tracing::info!(issuer = name, "fetched keys");
                verifier.change(|standing| url.replace(keys, standing));
            };
            let failed = move |why: &str| {
                count();
                tracing::warn!(
                    issuer = name,
                    "cannot fetch keys; those from before stay in use for a day: {why}"
                );
            };
            url.keep_fresh(changed, failed)
        });
        join_all(fetches).await;
        pending().await
    }

    /// Calls `changed` after each change of keys and revocations. Never returns; without authorization there are no changes.
    pub async fn watch(&self, mut changed: impl FnMut(CoarseStanding)) {
        if let Some(verifier) = &self.verifier {
            let mut standing = verifier.standing.subscribe();
            while standing.changed().await.is_ok() {
                let coarse = standing.borrow_and_update().coarse();
                changed(coarse);
            }
        }
        pending().await
    }

    /// Checks a revocation that an operator has sent, and sets its times. It has no effect until [`revoke`](Self::revoke).
    pub fn checked_revocation(
        &self,
        revocation: Revocation,
        now: SystemTime,
    ) -> Result<Revocation, InvalidRevocation> {
        let verifier = self.verifier.as_ref().ok_or(InvalidRevocation::Open)?;
        let revocation = revocation.checked(now)?;
        let is_of_certificates = revocation.is_of_certificates() && !verifier.certificate_rules.is_empty();
        let is_of_jids = revocation.is_of_jids() && !verifier.jid_rules.is_empty();
        let is_of_users = revocation.is_of_users() && !verifier.users.is_empty();
        let is_of_names = is_of_certificates || is_of_jids || is_of_users;
        if !is_of_names && !verifier.issuers.contains_key(&revocation.iss) {
            return Err(InvalidRevocation::Issuer);
        }
        if verifier.standing.borrow().revocations(seconds(now)).count() >= REVOCATIONS_MAX {
            return Err(InvalidRevocation::TooMany);
        }
        Ok(revocation)
    }

    /// Applies revocations that are stored. What is open ends within a second.
    pub fn revoke(&self, revocations: Vec<Revocation>, now: SystemTime) {
        let Some(verifier) = &self.verifier else { return };
        verifier.change(|standing| {
            standing.forget_expired(seconds(now));
            for revocation in
                revocations.into_iter().filter(|revocation| !revocation.has_expired(seconds(now)))
            {
                if let Some(digest) = verifier.digest_of(&revocation) {
                    standing.revoke(digest, revocation);
                }
            }
        });
    }

    /// The revocations that count.
    pub fn revocations(&self, now: SystemTime) -> Vec<Revocation> {
        let Some(verifier) = &self.verifier else { return Vec::new() };
        verifier.standing.borrow().revocations(seconds(now)).cloned().collect()
    }
}

impl Verifier {
    /// Changes which tokens stand, and takes over the keys in use. Keys are replaced by `change`, while the standing is locked: a token
    /// that a new key has verified is not compared with a standing that does not have this key yet.
    pub(super) fn change(&self, change: impl FnOnce(&mut Standing)) {
        self.standing.send_modify(|standing| {
            change(standing);
            let (mut keys, mut revoked) = (HashSet::new(), HashSet::new());
            for (name, issuer) in &self.issuers {
                issuer.keys.with_keys(|of_issuer| {
                    for key in of_issuer.iter() {
                        let is_revoked = key.id().is_some_and(|id| self.has_revoked_key(standing, name, id));
                        let of_kind = if is_revoked { &mut revoked } else { &mut keys };
                        of_kind.insert(self.digest_of_key(name, key));
                    }
                });
            }
            if !self.certificate_rules.is_empty() {
                keys.insert(self.digest_of_certificates());
            }
            keys.extend(self.users.keys());
            keys.insert(jids::key());
            standing.set_keys(keys, revoked);
        });
        self.changes.fetch_add(1, Ordering::Release);
    }

    fn has_revoked_key(&self, standing: &Standing, issuer: &str, id: &str) -> bool {
        standing.has_revoked_key(self.digest(issuer, Target::Key(id)))
    }

    pub(super) fn digest(&self, issuer: &str, target: Target<'_>) -> u64 {
        let (kind, name) = target.parts();
        fingerprint(&[issuer.as_bytes(), kind, name.as_bytes()])
    }

    fn digest_of(&self, revocation: &Revocation) -> Option<u64> {
        revocation.target().map(|target| self.digest(&revocation.iss, target))
    }

    pub(super) fn digest_of_key(&self, issuer: &str, key: &Key) -> u64 {
        let (first, second) = key.material();
        fingerprint(&[issuer.as_bytes(), first, second])
    }

    /// Stands for the key that has verified a client certificate: TLS checks which authorities are trusted.
    pub(super) fn digest_of_certificates(&self) -> u64 {
        fingerprint(&[SUBJECTS.as_bytes()])
    }

    pub(super) fn check_standing(&self, grants: &Grants) -> Result<(), Unauthorized> {
        let Some(token) = grants.token() else { return Ok(()) };
        let standing = self.standing.borrow();
        match (standing.has_key(token), standing.allows(token)) {
            (_, true) => Ok(()),
            (true, false) => Err(Unauthorized::Revoked),
            (false, false) => Err(Unauthorized::Invalid),
        }
    }
}
