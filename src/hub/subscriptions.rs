//! Subscriptions: wake workers when streams have messages that they have not acknowledged (Durable Streams protocol, section 6).
//!
//! [`SubscriptionTable`] has all of them, by tenant and name. `state` says what a subscription does, without IO; `live` is one in a running
//! gateway, with a task that waits for its streams; `record` is how it is stored. Requests to webhooks are sent by `outbound`, which
//! takes each [`WebhookDelivery`] and returns its outcome.
//!
//! No wake is lost, because what is pending follows from stored offsets: a subscription that the store has kept looks at all its
//! streams when the gateway starts. There are never two valid holders of one subscription, because each wake has a new generation,
//! which is stored before anyone learns of it, and one holder. If several gateways use the store, one of them at a time has a
//! subscription (`moving`).

mod glob;
mod keys;
mod live;
mod moving;
mod record;
mod state;
#[cfg(test)]
mod tests;
mod usage;
mod views;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc};

use super::changes::{repeat_superseded, run_to_completion};
use super::{Hub, Moves, SessionWalk};
use crate::stream::{Failure, Principal, SessionNames, StreamName, Tenant};
use crate::traces::RequestSpan;

pub use glob::{Glob, InvalidGlob};
pub use keys::{InvalidWebhookKey, WebhookKeys};
pub use live::WebhookDelivery;
pub use record::SUBSCRIPTION_SESSIONS;
pub use state::{DeliveryOutcome, Settlement, SubscriptionConfig, SubscriptionError, WakeBy};
pub use views::{ClaimView, PendingView, SubscriptionView};

use keys::TokenParts;
use live::{LiveSubscription, SubscriptionContext, WatchEnd};
use usage::SubscriptionUsage;

/// Subscriptions that visit all streams at a time, new ones and others.
const WALKS_MAX: usize = 2;

/// The subscriptions of a gateway.
pub struct SubscriptionTable {
    shared: Arc<SubscriptionContext>,
    table: Mutex<SubscriptionPlaces>,
    /// Locks for claims on subscriptions, by the names of their sessions.
    moves: Moves,
    /// See [`changing`](Self::changing); a tenant has one of them.
    changing: (AsyncMutex<()>, [AsyncMutex<()>; 63]),
    hasher: RandomState,
}

#[derive(Default)]
struct SubscriptionPlaces {
    /// Those that this gateway has, by tenant and name.
    here: HashMap<(Tenant, String), Arc<LiveSubscription>>,
    /// Session names of the subscriptions of other gateways. The limits count them, too.
    elsewhere: HashSet<Arc<str>>,
}

impl SubscriptionTable {
    /// Loads the stored subscriptions and starts to watch their streams, unless several gateways use the store. `public_url` begins the
    /// URLs that workers get. Also returns the requests to webhooks that are due.
    pub async fn open(
        hub: &Arc<Hub>,
        keys: WebhookKeys,
        public_url: &str,
    ) -> Result<(Arc<Self>, mpsc::UnboundedReceiver<WebhookDelivery>), Failure> {
        // Each subscription has at most one delivery in it.
        let (deliveries, due) = mpsc::unbounded_channel();
        let usage = SubscriptionUsage::new(&hub.limits);
        let public_url = public_url.trim_end_matches('/').to_owned();
        let context = SubscriptionContext {
            hub: hub.clone(),
            keys,
            public_url,
            deliveries,
            usage,
            walks: Semaphore::new(WALKS_MAX),
            later_walks: Arc::new(Semaphore::new(WALKS_MAX)),
        };
        let shared = Arc::new(context);
        let changing = (AsyncMutex::default(), std::array::from_fn(|_| AsyncMutex::default()));
        let (table, moves, hasher) = Default::default();
        let subscriptions = Arc::new(Self { shared, table, moves, changing, hasher });
        if hub.shares_sessions() {
            return Ok((subscriptions, due));
        }
        let mut walk = SessionWalk::over(SessionNames::Own(SUBSCRIPTION_SESSIONS));
        while let Some(sessions) = hub.next_sessions(&mut walk).await? {
            for stored in sessions {
                let Some((tenant, id, state)) = record::restore(&stored) else { continue };
                let Some(state) = state else {
                    tracing::error!(%tenant, id, "a stored subscription is damaged; create it again");
                    continue;
                };
                // They count even if the limits are lower now.
                subscriptions.shared.usage.count(&tenant);
                // Who has created it is not stored.
                let live = subscriptions.add(&tenant, &id, Principal::GATEWAY);
                live.adopt(state).await;
                subscriptions.watch(live);
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
        self.table.lock().here.insert((tenant.clone(), id.to_owned()), live.clone());
        live
    }

    /// Watches the streams of a subscription until it ends or another gateway has it.
    fn watch(self: &Arc<Self>, live: Arc<LiveSubscription>) {
        let table = Arc::downgrade(self);
        tokio::spawn(async move {
            if live.clone().watch().await == WatchEnd::Superseded
                && let Some(table) = table.upgrade()
            {
                table.lose(&live).await;
            }
        });
    }

    fn find(&self, tenant: &Tenant, id: &str) -> Option<Arc<LiveSubscription>> {
        self.table.lock().here.get(&(tenant.clone(), id.to_owned())).cloned()
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
            let create = || async {
                let (live, is_new) = own.fetch_or_begin(&tenant, &id, creator).await?;
                let created = live.create(config.clone()).await;
                if is_new {
                    match &created {
                        Ok(_) => own.watch(live.clone()),
                        Err(_) => own.abandon(&live).await,
                    }
                }
                own.noting_loss(&live, created).await
            };
            repeat_superseded(create).await
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

    /// Changes or reads a subscription, whichever gateway has it. `change` is repeated if another gateway takes it meanwhile, and runs to
    /// its end even if the future is dropped.
    async fn at<T, F>(
        self: &Arc<Self>,
        tenant: Tenant,
        id: String,
        change: impl Fn(Arc<LiveSubscription>) -> F + Send + Sync + 'static,
    ) -> Result<T, SubscriptionError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, SubscriptionError>> + Send,
    {
        let own = self.clone();
        run_to_completion(async move {
            let attempt = || async {
                let live = own.fetch(&tenant, &id).await?;
                let changed = change(live.clone()).await;
                own.noting_loss(&live, changed).await
            };
            repeat_superseded(attempt).await
        })
        .await
    }

    /// Returns a subscription as clients see it, and its configuration.
    pub async fn describe(
        self: &Arc<Self>,
        tenant: &Tenant,
        id: &str,
    ) -> Result<(SubscriptionView, SubscriptionConfig), SubscriptionError> {
        self.at(tenant.clone(), id.to_owned(), |live| async move { live.describe().await }).await
    }

    /// Deletes a subscription. It is not an error if there is none.
    pub async fn delete(self: &Arc<Self>, tenant: &Tenant, id: &str) -> Result<(), SubscriptionError> {
        let (own, tenant, id) = (self.clone(), tenant.clone(), id.to_owned());
        run_to_completion(async move {
            let _alone = own.changing(&tenant).lock().await;
            let delete = || async {
                let live = own.fetch(&tenant, &id).await?;
                let deleted = live.delete().await;
                if deleted.is_ok() {
                    own.abandon(&live).await;
                }
                own.noting_loss(&live, deleted).await
            };
            match repeat_superseded(delete).await {
                Err(SubscriptionError::NotFound) => Ok(()),
                deleted => deleted,
            }
        })
        .await
    }

    /// Links streams by their names, and removes the link of one. Names are those in the hub.
    pub async fn relink(
        self: &Arc<Self>,
        tenant: &Tenant,
        id: &str,
        add: Vec<StreamName>,
        remove: Option<StreamName>,
    ) -> Result<(), SubscriptionError> {
        let links = Arc::new((add, remove));
        let relink = move |live: Arc<LiveSubscription>| {
            let links = links.clone();
            async move { live.relink(&links.0, links.1.as_ref()).await }
        };
        self.at(tenant.clone(), id.to_owned(), relink).await
    }

    /// Gives the wake of a pull-wake subscription to a worker.
    pub async fn claim(
        self: &Arc<Self>,
        tenant: &Tenant,
        id: &str,
        worker: String,
    ) -> Result<ClaimView, SubscriptionError> {
        let claim = move |live: Arc<LiveSubscription>| {
            let worker = worker.clone();
            async move { live.claim(&worker).await }
        };
        self.at(tenant.clone(), id.to_owned(), claim).await
    }

    /// The tenant that a token belongs to, which is not verified.
    pub fn tenant_of(token: &str) -> Result<Tenant, SubscriptionError> {
        TokenParts::parse(token).map(|(tenant, _)| tenant).ok_or(SubscriptionError::TokenInvalid)
    }

    /// Takes what the worker with `token` says. Returns whether another wake has begun.
    pub async fn settle(
        self: &Arc<Self>,
        id: &str,
        token: &str,
        settlement: Settlement,
        is_pull: bool,
    ) -> Result<bool, SubscriptionError> {
        let (tenant, token) = TokenParts::parse(token).ok_or(SubscriptionError::TokenInvalid)?;
        let said = Arc::new((token, settlement));
        let settle = move |live: Arc<LiveSubscription>| {
            let said = said.clone();
            async move { live.settle(&said.0, &said.1, is_pull).await }
        };
        self.at(tenant, id.to_owned(), settle).await
    }

    /// Called right before a request to a webhook is sent: the lease of the worker begins. Returns whether the request is to be sent;
    /// otherwise the wake is over, because the delivery has waited for longer than the lease, and another one follows.
    pub async fn begin_delivery(self: &Arc<Self>, delivery: &WebhookDelivery) -> bool {
        let wake = delivery.wake;
        let begin = move |live: Arc<LiveSubscription>| async move { live.restart_lease(wake).await };
        self.at(delivery.tenant.clone(), delivery.id.clone(), begin).await.unwrap_or_default()
    }

    /// Begins the delivery of the messages of a webhook in their traces. `None`: none of them is traced.
    pub fn hand_on(&self, delivery: &WebhookDelivery) -> Option<RequestSpan> {
        let tails = delivery.shown.iter().map(|(name, tail)| (name.as_str(), tail.position.0));
        self.shared.hub.traces()?.hand_on("webhook", tails)
    }

    /// Takes the outcome of a request to a webhook.
    pub async fn complete_delivery(self: &Arc<Self>, delivery: &WebhookDelivery, outcome: DeliveryOutcome) {
        let (wake, shown) = (delivery.wake, delivery.shown.clone());
        let complete = move |live: Arc<LiveSubscription>| {
            let shown = shown.clone();
            async move { live.delivered(wake, outcome, &shown).await }
        };
        match self.at(delivery.tenant.clone(), delivery.id.clone(), complete).await {
            Ok(()) | Err(SubscriptionError::NotFound) => {}
            // The lease ends without the outcome, and the next wake follows.
            Err(error) => {
                tracing::warn!(subscription = delivery.id, %error, "the outcome of a delivery is lost");
            }
        }
    }
}
