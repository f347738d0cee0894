//! Subscriptions: wake workers when streams have messages that they have not acknowledged (Durable Streams protocol, section 6).
//!
//! [`SubscriptionTable`] has all of them, by tenant and name. `state` says what a subscription does, without IO; `live` is one in a running
//! gateway, with a task that waits for its streams; `record` is how it is stored. Requests to webhooks are sent by `outbound`, which
//! takes each [`WebhookDelivery`] and returns its outcome.
//!
//! No wake is lost, because what is pending follows from stored offsets: a subscription that the store has kept looks at all its
//! streams when the gateway starts. There are never two valid holders of one subscription, because each wake has a new generation,
//! which is stored before anyone learns of it, and one holder.

mod glob;
mod keys;
mod live;
mod record;
mod state;
#[cfg(test)]
mod tests;
mod usage;
mod views;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc};

use super::changes::run_to_completion;
use super::{Hub, SessionWalk};
use crate::stream::{Failure, Principal, SessionNames, StreamName, Tenant};

pub use glob::{Glob, InvalidGlob};
pub use keys::{InvalidWebhookKey, WebhookKeys};
pub use live::WebhookDelivery;
pub use record::SUBSCRIPTION_SESSIONS;
pub use state::{DeliveryOutcome, Settlement, SubscriptionConfig, SubscriptionError, WakeBy};
pub use views::{ClaimView, PendingView, SubscriptionView};

use keys::TokenParts;
use live::{LiveSubscription, SubscriptionContext};
use usage::SubscriptionUsage;

/// Subscriptions that visit all streams at a time.
const WALKS_MAX: usize = 2;

/// The subscriptions of a gateway.
pub struct SubscriptionTable {
    shared: Arc<SubscriptionContext>,
    /// By tenant and name.
    table: Mutex<HashMap<(Tenant, String), Arc<LiveSubscription>>>,
    /// See [`changing`](Self::changing); a tenant has one of them.
    changing: (AsyncMutex<()>, [AsyncMutex<()>; 63]),
    hasher: RandomState,
}

impl SubscriptionTable {
    /// Loads the stored subscriptions and starts to watch their streams. `public_url` begins the URLs that workers get. Also returns
    /// the requests to webhooks that are due.
    pub async fn open(
        hub: &Arc<Hub>,
        keys: WebhookKeys,
        public_url: &str,
    ) -> Result<(Arc<Self>, mpsc::UnboundedReceiver<WebhookDelivery>), Failure> {
        // Each subscription has at most one delivery in it.
        let (deliveries, due) = mpsc::unbounded_channel();
        let usage = SubscriptionUsage::new(&hub.limits);
        let public_url = public_url.trim_end_matches('/').to_owned();
        let walks = Semaphore::new(WALKS_MAX);
        let context = SubscriptionContext { hub: hub.clone(), keys, public_url, deliveries, usage, walks };
        let shared = Arc::new(context);
        let changing = (AsyncMutex::default(), std::array::from_fn(|_| AsyncMutex::default()));
        let (table, hasher) = Default::default();
        let subscriptions = Arc::new(Self { shared, table, changing, hasher });
        let mut walk = SessionWalk::over(SessionNames::Own(SUBSCRIPTION_SESSIONS));
        while let Some(sessions) = hub.next_sessions(&mut walk).await? {
            for stored in sessions {
                let Some((tenant, id, state)) = record::restore(&stored) else { continue };
                let Some(state) = state else {
                    tracing::error!(%tenant, id, "a stored subscription is damaged; create it again");
                    continue;
                };
                // They count even if the limits are lower now.
                let _too_many = subscriptions.shared.usage.enter(&tenant);
                // Who has created it is not stored.
                let live = subscriptions.add(&tenant, &id, Principal::GATEWAY);
                live.adopt(state).await;
                tokio::spawn(live.watch());
            }
        }
        Ok((subscriptions, due))
    }

    /// The keys that sign requests to webhooks.
    pub fn keys(&self) -> &WebhookKeys {
        &self.shared.keys
    }

    fn add(&self, tenant: &Tenant, id: &str, creator: Principal) -> Arc<LiveSubscription> {
        let client = record::session_name(tenant, id);
        let owner = self.shared.hub.budget().owner_in(tenant.clone(), creator);
        let live = LiveSubscription::new(self.shared.clone(), tenant.clone(), id.to_owned(), client, &owner);
        let live = Arc::new(live);
        self.table.lock().insert((tenant.clone(), id.to_owned()), live.clone());
        live
    }

    fn find(&self, tenant: &Tenant, id: &str) -> Result<Arc<LiveSubscription>, SubscriptionError> {
        let found = self.table.lock().get(&(tenant.clone(), id.to_owned())).cloned();
        found.ok_or(SubscriptionError::NotFound)
    }

    /// Creates a subscription, or confirms that it exists with the same configuration. Returns whether it is new. Its memory is charged
    /// to `creator`.
    ///
    /// Like all changes, this runs to its end even if the future is dropped.
    pub async fn create(
        self: &Arc<Self>,
        tenant: Tenant,
        id: String,
        config: SubscriptionConfig,
        creator: Principal,
    ) -> Result<(SubscriptionView, bool), SubscriptionError> {
        let own = self.clone();
        run_to_completion(async move {
            let _alone = own.changing(&tenant).lock().await;
            if let Ok(found) = own.find(&tenant, &id) {
                return found.create(config).await;
            }
            own.shared.usage.enter(&tenant)?;
            let live = own.add(&tenant, &id, creator);
            let created = live.create(config).await;
            match &created {
                Ok(_) => drop(tokio::spawn(live.watch())),
                Err(_) => own.remove(&live),
            }
            created
        })
        .await
    }

    /// The lock for creating and deleting subscriptions of a tenant. Creating one may visit all streams, which other tenants do not
    /// wait for.
    fn changing(&self, tenant: &Tenant) -> &AsyncMutex<()> {
        let (first, others) = &self.changing;
        let index = self.hasher.hash_one(tenant) as usize % (others.len() + 1);
        others.get(index).unwrap_or(first)
    }

    fn remove(&self, live: &LiveSubscription) {
        self.table.lock().remove(&(live.tenant.clone(), live.id.clone()));
        self.shared.usage.leave(&live.tenant);
    }

    /// Checks that a stream of wakes exists.
    pub async fn check_wake_stream(&self, stream: &StreamName) -> Result<(), SubscriptionError> {
        match self.shared.hub.tail_of(stream).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                Err(SubscriptionError::Invalid("wake_stream does not exist; create it first".to_owned()))
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Returns a subscription as clients see it, and its configuration.
    pub async fn describe(
        &self,
        tenant: &Tenant,
        id: &str,
    ) -> Result<(SubscriptionView, SubscriptionConfig), SubscriptionError> {
        self.find(tenant, id)?.describe().await
    }

    /// Deletes a subscription. It is not an error if there is none.
    pub async fn delete(self: &Arc<Self>, tenant: &Tenant, id: &str) -> Result<(), SubscriptionError> {
        let (own, tenant, id) = (self.clone(), tenant.clone(), id.to_owned());
        run_to_completion(async move {
            let _alone = own.changing(&tenant).lock().await;
            let Ok(live) = own.find(&tenant, &id) else { return Ok(()) };
            live.delete().await?;
            own.remove(&live);
            Ok(())
        })
        .await
    }

    /// Links streams by their names, and removes the link of one. Names are those in the hub.
    pub async fn relink(
        &self,
        tenant: &Tenant,
        id: &str,
        add: Vec<StreamName>,
        remove: Option<StreamName>,
    ) -> Result<(), SubscriptionError> {
        let live = self.find(tenant, id)?;
        run_to_completion(async move { live.relink(add, remove).await }).await
    }

    /// Gives the wake of a pull-wake subscription to a worker.
    pub async fn claim(
        &self,
        tenant: &Tenant,
        id: &str,
        worker: String,
    ) -> Result<ClaimView, SubscriptionError> {
        let live = self.find(tenant, id)?;
        run_to_completion(async move { live.claim(&worker).await }).await
    }

    /// The tenant that a token belongs to, which is not verified.
    pub fn tenant_of(token: &str) -> Result<Tenant, SubscriptionError> {
        TokenParts::parse(token).map(|(tenant, _)| tenant).ok_or(SubscriptionError::TokenInvalid)
    }

    /// Takes what the worker with `token` says. Returns whether another wake has begun.
    pub async fn settle(
        &self,
        id: &str,
        token: &str,
        settlement: Settlement,
        is_pull: bool,
    ) -> Result<bool, SubscriptionError> {
        let (tenant, token) = TokenParts::parse(token).ok_or(SubscriptionError::TokenInvalid)?;
        let live = self.find(&tenant, id)?;
        run_to_completion(async move { live.settle(&token, &settlement, is_pull).await }).await
    }
}
