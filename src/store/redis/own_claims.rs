//! [`OwnClaims`]: the sessions that this run of the gateway owns.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

/// Bound of the claims without an answer that are remembered. Others end with this run of the gateway.
const UNANSWERED_MAX: usize = 10_000;

/// The sessions that this run of the gateway owns, each with its owner as the engine knows it. A claim that was lost stays here until
/// the session is released, so that it is not mistaken for none.
#[derive(Debug, Default)]
pub(super) struct OwnClaims {
    owners: Mutex<HashMap<Arc<str>, OwnClaim>>,
    /// Sessions whose last claim got no answer. The engine may have made this run their owner.
    unanswered: Mutex<HashSet<Arc<str>>>,
}

/// One claim.
#[derive(Debug, Clone)]
pub(super) struct OwnClaim {
    /// The owner as the engine knows it.
    pub(super) owner: Arc<str>,
    /// The session was released at this time to be due, and the engine has not been told.
    pub(super) released: Option<Option<SystemTime>>,
}

impl OwnClaims {
    /// The owner by which a session is changed; empty if it is not claimed here.
    pub(super) fn owner(&self, name: &str) -> Arc<str> {
        self.owners.lock().get(name).map_or_else(|| "".into(), |claim| claim.owner.clone())
    }

    pub(super) fn add(&self, name: &Arc<str>, owner: String) {
        self.owners.lock().insert(name.clone(), OwnClaim { owner: owner.into(), released: None });
    }

    /// Notes that a claim got no answer.
    pub(super) fn note_unanswered(&self, name: &Arc<str>) {
        let mut unanswered = self.unanswered.lock();
        if unanswered.len() < UNANSWERED_MAX {
            unanswered.insert(name.clone());
        }
    }

    /// Notes that the last claim of a session got an answer.
    pub(super) fn note_answered(&self, name: &str) {
        self.unanswered.lock().remove(name);
    }

    pub(super) fn unanswered(&self) -> Vec<Arc<str>> {
        self.unanswered.lock().iter().cloned().collect()
    }

    /// Forgets a claim unless it was replaced by a later one.
    pub(super) fn forget(&self, name: &str, owner: &str) {
        let mut owners = self.owners.lock();
        if owners.get(name).is_some_and(|claim| *claim.owner == *owner) {
            owners.remove(name);
        }
    }

    pub(super) fn note_release(&self, name: &str, due: Option<SystemTime>) -> Option<Arc<str>> {
        let mut owners = self.owners.lock();
        let claim = owners.get_mut(name)?;
        claim.released = Some(due);
        Some(claim.owner.clone())
    }

    pub(super) fn all(&self, select: impl Fn(&OwnClaim) -> bool) -> Vec<(Arc<str>, OwnClaim)> {
        let owners = self.owners.lock();
        owners
            .iter()
            .filter(|(_, claim)| select(claim))
            .map(|(name, claim)| (name.clone(), claim.clone()))
            .collect()
    }
}

/// The gateway of a run.
pub(super) fn gateway_of(run: &str) -> &str {
    run.rsplit_once('~').map_or(run, |(gateway, _)| gateway)
}

/// Names a new run of a gateway.
pub(super) fn new_run(gateway: &str) -> Arc<str> {
    format!("{gateway}~{:016x}", fastrand::u64(..)).into()
}
