//! Subscriptions of a store that several gateways use: a subscription belongs to the gateway at which it was last asked for, which alone
//! wakes its workers. A request at another gateway takes it there with its stored state. If its gateway ends, another one goes on with it.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::live::LiveSubscription;
use super::record::{self, SUBSCRIPTION_SESSIONS};
use super::{SubscriptionError, SubscriptionTable};
use crate::hub::changes::run_to_completion;
use crate::hub::{ClaimNews, Hub, SessionWalk, UNCLAIMED_MAX, until_answered};
use crate::stream::{Failure, Principal, SessionNames, StoredSession, Tenant};

/// Subscriptions that are given to other gateways or looked at concurrently.
const MOVES_AT_ONCE: usize = 64;

impl SubscriptionTable {
    fn hub(&self) -> &Arc<Hub> {
        &self.shared.hub
    }

    /// The subscription, which is taken over if another gateway has it.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        tenant: &Tenant,
        id: &str,
    ) -> Result<Arc<LiveSubscription>, SubscriptionError> {
        if let Some(found) = self.find(tenant, id) {
            return Ok(found);
        }
        let session = record::session_name(tenant, id);
        // Nothing is claimed that does not exist.
        if self.hub().stored_session(&session).await?.is_empty() {
            return Err(SubscriptionError::NotFound);
        }
        let _alone = self.moves.of(&session).await;
        if let Some(found) = self.find(tenant, id) {
            return Ok(found);
        }
        let (entries, _) = self.hub().claim(&session).await?;
        self.adopt(&session, entries).await.ok_or(SubscriptionError::NotFound)
    }

    /// The subscription, and whether it is to be created.
    pub(super) async fn fetch_or_begin(
        self: &Arc<Self>,
        tenant: &Tenant,
        id: &str,
        creator: Principal,
    ) -> Result<(Arc<LiveSubscription>, bool), SubscriptionError> {
        match self.fetch(tenant, id).await {
            Err(SubscriptionError::NotFound) => {}
            fetched => return Ok((fetched?, false)),
        }
        let session = record::session_name(tenant, id);
        let _alone = self.moves.of(&session).await;
        if self.hub().shares_sessions() {
            let (entries, _) = self.hub().claim(&session).await?;
            if !entries.is_empty() {
                let live = self.adopt(&session, entries).await;
                return live.map(|live| (live, false)).ok_or(SubscriptionError::NotFound);
            }
        }
        if let Err(too_many) = self.shared.usage.enter(tenant) {
            self.hub().release(&session, None).await;
            return Err(too_many);
        }
        Ok((self.add(tenant, id, creator), true))
    }

    /// Removes a subscription that does not exist any more, or was not created.
    pub(super) async fn abandon(&self, live: &Arc<LiveSubscription>) {
        let _alone = self.moves.of(&live.client).await;
        if self.take(live) {
            self.shared.usage.leave(&live.tenant);
            self.hub().release(&live.client, None).await;
        }
    }

    /// Removes a subscription from the table. Returns whether it was there.
    fn take(&self, live: &Arc<LiveSubscription>) -> bool {
        let key = (live.tenant.clone(), live.id.clone());
        let mut table = self.table.lock();
        let is_there = table.here.get(&key).is_some_and(|found| Arc::ptr_eq(found, live));
        is_there && table.here.remove(&key).is_some()
    }

    /// Passes the outcome of a change on, after noting that another gateway has the subscription if this is why it has failed.
    pub(super) async fn noting_loss<T>(
        &self,
        live: &Arc<LiveSubscription>,
        outcome: Result<T, SubscriptionError>,
    ) -> Result<T, SubscriptionError> {
        if let Err(SubscriptionError::Store(Failure::Superseded)) = &outcome {
            self.lose(live).await;
        }
        outcome
    }

    /// Another gateway has taken a subscription.
    pub(super) async fn lose(&self, live: &Arc<LiveSubscription>) {
        let is_there = self.take(live);
        let exists = live.leave().await;
        if is_there {
            self.has_left(live, exists);
        }
    }

    fn has_left(&self, live: &LiveSubscription, exists: bool) {
        if !(exists && self.table.lock().elsewhere.insert(live.client.clone())) {
            self.shared.usage.leave(&live.tenant);
        }
    }

    /// Adds a subscription that this gateway has claimed.
    async fn adopt(
        self: &Arc<Self>,
        session: &Arc<str>,
        entries: Vec<(Bytes, Bytes)>,
    ) -> Option<Arc<LiveSubscription>> {
        let exists = !entries.is_empty();
        let stored = StoredSession { client: session.clone(), entries };
        let Some((tenant, id, Some(state))) = record::restore(&stored).filter(|_| exists) else {
            if exists {
                tracing::error!(session = &**session, "a stored subscription is damaged; create it again");
            }
            self.hub().release(session, None).await;
            return None;
        };
        if !self.table.lock().elsewhere.remove(session) {
            self.shared.usage.count(&tenant);
        }
        let live = self.add(&tenant, &id, Principal::GATEWAY);
        live.adopt(state).await;
        self.watch(live.clone());
        Some(live)
    }

    /// Gives a subscription to another gateway that asks for it.
    async fn give(&self, session: &Arc<str>) {
        let _alone = self.moves.of(session).await;
        let here = record::tenant_and_name(session).and_then(|(tenant, id)| self.find(&tenant, &id));
        if let Some(live) = here {
            self.lose(&live).await;
        }
        self.hub().release(session, Some(self.hub().clock.now() + UNCLAIMED_MAX)).await;
    }

    /// Goes on with a subscription whose gateway has ended.
    async fn take_orphan(self: &Arc<Self>, session: &Arc<str>) {
        let _alone = self.moves.of(session).await;
        let here = record::tenant_and_name(session).and_then(|(tenant, id)| self.find(&tenant, &id));
        // If another gateway has it, or the store does not answer, there is nothing to do for now.
        if here.is_none()
            && let Ok(Some(entries)) = self.hub().claim_orphan(session).await
        {
            self.adopt(session, entries).await;
        }
    }

    /// Goes on with subscriptions whose gateway has ended, and gives subscriptions to gateways that ask for them. Never returns.
    pub async fn follow_claims(self: Arc<Self>) {
        let mut news = self.hub().follow_claims(SessionNames::Own(SUBSCRIPTION_SESSIONS));
        if !self.hub().shares_sessions() {
            return std::future::pending().await;
        }
        self.find_elsewhere().await;
        let mut moves = FuturesUnordered::new();
        loop {
            tokio::select! {
                heard = news.recv(), if moves.len() < MOVES_AT_ONCE => match heard {
                    Some(ClaimNews::Known(session)) => self.note_known(session),
                    Some(ClaimNews::Gone(session)) => self.note_gone(&session),
                    Some(ClaimNews::Missed) => self.find_elsewhere().await,
                    Some(ClaimNews::Wanted(session)) => moves.push(self.clone().change_place(session, true)),
                    Some(ClaimNews::Orphaned(session)) => moves.push(self.clone().change_place(session, false)),
                    Some(ClaimNews::Told(..)) => {}
                    // The hub, which has the sender, has ended.
                    None => std::future::pending().await,
                },
                Some(()) = moves.next() => {}
            }
        }
    }

    async fn change_place(self: Arc<Self>, session: Arc<str>, is_wanted: bool) {
        run_to_completion(async move {
            if is_wanted { self.give(&session).await } else { self.take_orphan(&session).await }
        })
        .await;
    }

    /// Notes that another gateway may have a subscription.
    fn note_known(&self, session: Arc<str>) {
        let Some(key) = record::tenant_and_name(&session) else { return };
        let mut table = self.table.lock();
        if !table.here.contains_key(&key) && table.elsewhere.insert(session) {
            self.shared.usage.count(&key.0);
        }
    }

    /// Notes that a subscription has ended, unless this gateway has it.
    fn note_gone(&self, session: &str) {
        let Some((tenant, _)) = record::tenant_and_name(session) else { return };
        if self.table.lock().elsewhere.remove(session) {
            self.shared.usage.leave(&tenant);
        }
    }

    /// Brings the list of the subscriptions of other gateways up to date.
    async fn find_elsewhere(&self) {
        let mut gone: HashSet<Arc<str>> = self.table.lock().elsewhere.clone();
        let walked = || async {
            let (mut walk, mut found) =
                (SessionWalk::over(SessionNames::Own(SUBSCRIPTION_SESSIONS)), Vec::new());
            while let Some(sessions) = self.hub().next_sessions(&mut walk).await? {
                found.extend(sessions.into_iter().map(|stored| stored.client));
            }
            Ok(found)
        };
        for session in until_answered(walked).await {
            gone.remove(&session);
            self.note_known(session);
        }
        gone.iter().for_each(|session| self.note_gone(session));
    }
}
