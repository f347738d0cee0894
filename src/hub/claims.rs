//! Claims on sessions: in a store that several gateways use, a session belongs to the gateway that serves its client (see
//! [`SessionClaims`](crate::stream::SessionClaims)).
//!
//! A client that comes to another gateway takes its session along. The gateway that has it so far is asked for it, so that it stores
//! what it knows; if it does not answer, the session is taken from it, and its later changes are refused.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::Hub;
use super::changes::run_to_completion;
use super::news::ClaimNews;
use crate::stream::{ClaimFrom, Failure, SessionClaim, SessionNames};

/// How long a gateway has to release a session that it is asked for, and delays between two questions.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(600);
const FIRST_DELAY: Duration = Duration::from_millis(2);
const LAST_DELAY: Duration = Duration::from_millis(50);

/// A gateway that asked for a session and then ended leaves it to others after this time.
pub const UNCLAIMED_MAX: Duration = Duration::from_secs(5);

impl Hub {
    /// Whether other gateways use the store, too, so that sessions have to be claimed.
    pub fn shares_sessions(&self) -> bool {
        self.store.claims().is_some()
    }

    /// Receives news of the sessions that `names` selects.
    pub fn follow_claims(&self, names: SessionNames<'static>) -> mpsc::Receiver<ClaimNews> {
        self.claim_listeners.add(names)
    }

    /// Takes a session from the gateway that has it, and returns its entries (none if it does not exist), and whether another gateway
    /// had to release it. Within this gateway, only one task at a time may claim a session.
    pub async fn claim(&self, session: &Arc<str>) -> Result<(Vec<(Bytes, Bytes)>, bool), Failure> {
        let (until, mut delay) = (Instant::now() + RELEASE_TIMEOUT, FIRST_DELAY);
        let mut was_elsewhere = false;
        loop {
            let is_last = Instant::now() >= until;
            let from = if is_last { ClaimFrom::Anyone } else { ClaimFrom::AskedOwner };
            match self.claim_from(session, from).await? {
                Some(entries) => return Ok((entries, was_elsewhere)),
                None if is_last => return Err(Failure::Superseded),
                None => sleep(delay).await,
            }
            was_elsewhere = true;
            delay = (2 * delay).min(LAST_DELAY);
        }
    }

    /// Claims a session that no gateway has. `None`: one has it.
    pub async fn claim_orphan(&self, session: &Arc<str>) -> Result<Option<Vec<(Bytes, Bytes)>>, Failure> {
        self.claim_from(session, ClaimFrom::Nobody).await
    }

    async fn claim_from(
        &self,
        session: &Arc<str>,
        from: ClaimFrom,
    ) -> Result<Option<Vec<(Bytes, Bytes)>>, Failure> {
        let Some(claims) = self.store.claims() else { return Ok(None) };
        Ok(match claims.claim(session, from, self.clock.now()).await? {
            SessionClaim::Granted(entries) => Some(entries),
            SessionClaim::Held => None,
        })
    }

    /// Returns the stored entries of a session, whichever gateway owns it.
    pub async fn stored_session(&self, session: &str) -> Result<Vec<(Bytes, Bytes)>, Failure> {
        match self.store.claims() {
            Some(claims) => claims.entries(session).await,
            None => Ok(Vec::new()),
        }
    }

    /// Releases a claimed session. At `due`, some gateway looks at it.
    pub async fn release(&self, session: &Arc<str>, due: Option<SystemTime>) {
        let (store, session) = (self.store.clone(), session.clone());
        run_to_completion(async move {
            if let Some(claims) = store.claims() {
                claims.release(&session, due).await;
            }
        })
        .await;
    }
}
