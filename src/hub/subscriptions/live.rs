//! [`LiveSubscription`]: a subscription of a running gateway. A task of its own waits for its streams and its deadlines; requests and
//! outcomes of deliveries change it in between. Each change is stored before anyone learns of it.

mod wakes;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use parking_lot::Mutex as SyncMutex;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{Mutex, Notify, Semaphore, mpsc};

pub(super) use watch::WatchEnd;

use super::keys::{TokenParts, TokenScope, WebhookKeys};
use super::record::{ChangedPart, change};
use super::state::{
    DeliveryOutcome, LINK_BYTES, Link, Settlement, SubscriptionConfig, SubscriptionError, SubscriptionState,
    WakeBy, WakePhase,
};
use super::usage::SubscriptionUsage;
use super::views::{ClaimView, SubscriptionView, WakeEvent, WebhookBody, held_wake, pending_views};
use crate::budget::{Account, Charge, Owner};
use crate::hub::changes::run_to_completion;
use crate::hub::{Hub, StreamWalk, Subscriber};
use crate::stream::{Append, ContentType, Failure, Filter, Offset, SessionChange, StreamName, Tenant};

/// What all subscriptions of a gateway share.
pub(super) struct SubscriptionContext {
    pub(super) hub: Arc<Hub>,
    pub(super) keys: WebhookKeys,
    /// Begins the URLs that workers get.
    pub(super) public_url: String,
    pub(super) deliveries: mpsc::UnboundedSender<WebhookDelivery>,
    pub(super) usage: SubscriptionUsage,
    /// Permits to visit all streams for a new subscription.
    pub(super) walks: Semaphore,
    /// Permits to visit all streams again, which subscriptions that were loaded or moved need.
    pub(super) later_walks: Arc<Semaphore>,
}

/// Below the public URL: everything about subscriptions.
const RESERVED_PATH: &str = "/v1/stream/__ds";

/// Characters of a subscription's name that are not escaped in a URL (RFC 3986, section 2.3).
const ESCAPED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl SubscriptionContext {
    fn jwks_url(&self) -> String {
        format!("{}{RESERVED_PATH}/jwks.json", self.public_url)
    }

    fn callback_url(&self, id: &str) -> String {
        let id = percent_encoding::utf8_percent_encode(id, ESCAPED);
        format!("{}{RESERVED_PATH}/subscriptions/{id}/callback", self.public_url)
    }
}

/// A request to a webhook that is due. There is at most one for each subscription.
pub struct WebhookDelivery {
    pub(super) tenant: Tenant,
    pub(super) id: String,
    pub(super) wake: WakeNumber,
    /// The tails that the request shows.
    pub(super) shown: Arc<[(StreamName, Offset)]>,
    /// The URL of the webhook.
    pub url: String,
    /// The body, JSON.
    pub body: Bytes,
    /// The lease, which runs already.
    pub lease: Duration,
}

/// Tells a wake from all others of subscriptions with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WakeNumber {
    incarnation: u64,
    pub(super) generation: u64,
}

impl WakeNumber {
    /// The number of the newest wake.
    fn of(state: &SubscriptionState) -> Self {
        Self { incarnation: state.incarnation, generation: state.generation }
    }
}

pub(super) struct LiveSubscription {
    shared: Arc<SubscriptionContext>,
    pub(super) tenant: Tenant,
    pub(super) id: String,
    /// The name of its session in the store.
    pub(super) client: Arc<str>,
    /// `None`: it is not created yet, or deleted, or another gateway has it.
    state: Mutex<Option<KeptState>>,
    /// Another gateway has it. Changed only while `state` is locked.
    has_left: AtomicBool,
    subscriber: Subscriber,
    /// Wakes the task, because a deadline may have changed.
    changed: Notify,
    /// Its memory.
    charge: SyncMutex<Charge>,
    /// A stream could not be linked because there is no room.
    has_overflown: AtomicBool,
}

struct KeptState {
    state: SubscriptionState,
    /// Links that differ from the stored ones.
    unstored: BTreeSet<StreamName>,
}

/// The filter that watches one stream. A filter without a wildcard would count as a use of the stream, which would never expire.
fn watching(name: &StreamName) -> Filter {
    let below = Filter::parse(&format!("{}/#", name.as_str()));
    below.ok().filter(|filter| filter.has_wildcard()).unwrap_or_else(|| Filter::literal(name.clone()))
}

fn random_id() -> String {
    let mut bytes = [0; 16];
    // Fencing relies on the generation; the id only has to differ.
    if SystemRandom::new().fill(&mut bytes).is_err() {
        bytes = fastrand::u128(..).to_ne_bytes();
    }
    format!("w_{}", URL_SAFE_NO_PAD.encode(bytes))
}

impl LiveSubscription {
    pub(super) fn new(
        shared: Arc<SubscriptionContext>,
        tenant: Tenant,
        id: String,
        client: Arc<str>,
        owner: &Arc<Owner>,
    ) -> Self {
        let subscriber = shared.hub.subscriber(format!("subscription {tenant}/{id}"));
        let (state, has_left, changed, has_overflown) = Default::default();
        let charge = SyncMutex::new(Charge::new(owner, Account::Subscriptions, 0));
        Self { shared, tenant, id, client, state, has_left, subscriber, changed, charge, has_overflown }
    }

    /// Leaves the subscription to another gateway. What is under way fails with [`Failure::Superseded`]. Returns whether it exists.
    pub(super) async fn leave(&self) -> bool {
        let mut kept = self.state.lock().await;
        self.has_left.store(true, Ordering::Relaxed);
        self.set_charge(0);
        self.changed.notify_one();
        kept.take().is_some()
    }

    /// Why there is no state.
    fn missing(&self) -> SubscriptionError {
        if self.has_left.load(Ordering::Relaxed) {
            Failure::Superseded.into()
        } else {
            SubscriptionError::NotFound
        }
    }

    fn now(&self) -> SystemTime {
        self.shared.hub.clock.now()
    }

    fn scope<'a>(&'a self, state: &SubscriptionState) -> TokenScope<'a> {
        TokenScope { tenant: &self.tenant, subscription: &self.id, incarnation: state.incarnation }
    }

    /// Watches the streams that a filter matches.
    fn watch_all(&self, filter: &Filter) {
        self.subscriber.add(filter.exact().map_or_else(|| filter.clone(), watching));
    }

    /// Takes over a stored state.
    pub(super) async fn adopt(&self, state: SubscriptionState) {
        for name in state.links.keys() {
            self.subscriber.add(watching(name));
        }
        if let Some(pattern) = &state.config.pattern {
            self.watch_all(&pattern.filter().of_tenant(&self.tenant));
        }
        self.charge(&state);
        *self.state.lock().await = Some(KeptState { state, unstored: BTreeSet::new() });
    }

    /// Creates the subscription: links the streams that exist at their tails, and stores it.
    pub(super) async fn create(
        &self,
        config: SubscriptionConfig,
    ) -> Result<(SubscriptionView, bool), SubscriptionError> {
        let mut kept = self.state.lock().await;
        if let Some(KeptState { state, .. }) = kept.as_ref() {
            let is_same = state.config == config;
            return if is_same { Ok((self.view(state), false)) } else { Err(SubscriptionError::Exists) };
        }
        if self.has_left.load(Ordering::Relaxed) {
            return Err(self.missing());
        }
        let created_at = crate::clock::rfc3339(self.shared.hub.clock.wall());
        let incarnation = fastrand::u64(..);
        let mut state = SubscriptionState::new(config, self.tenant.clone(), incarnation, created_at);
        self.admit(&state)?;
        let names = state.config.streams.clone();
        for name in names {
            let Ok(name) = StreamName::stored(&name) else { continue };
            self.link(&mut state, name.of_tenant(&self.tenant)).await?;
        }
        if let Some(pattern) = &state.config.pattern {
            let filter = pattern.filter().of_tenant(&self.tenant);
            self.watch_all(&filter);
            let _permit = self.shared.walks.acquire().await;
            let mut walk = StreamWalk::over([&filter]);
            while let Some(page) = self.shared.hub.next_streams(&mut walk).await {
                for (name, tail) in page {
                    if state.matches(&name) && !state.links.contains_key(&name) {
                        self.check_room(&state)?;
                        state.links.insert(name, Link::new(false, Some(tail), Some(tail)));
                    }
                }
            }
        }
        let part = change(self.client.clone(), &state, ChangedPart::Everything);
        self.store(part).await?;
        self.charge(&state);
        let view = self.view(&state);
        *kept = Some(KeptState { state, unstored: BTreeSet::new() });
        Ok((view, true))
    }

    /// Links a stream by its name, at its tail. A stream that does not exist is linked before its first message.
    async fn link(&self, state: &mut SubscriptionState, name: StreamName) -> Result<(), SubscriptionError> {
        self.subscriber.add(watching(&name));
        let tail = self.shared.hub.tail_of(&name).await?;
        if let Some(link) = state.links.get_mut(&name) {
            link.is_explicit = true;
        } else {
            self.check_room(state)?;
            state.links.insert(name, Link::new(true, tail, tail));
        }
        Ok(())
    }

    fn check_room(&self, state: &SubscriptionState) -> Result<(), SubscriptionError> {
        let limits = &self.shared.hub.limits;
        if state.links.len() >= limits.subscription_streams_max {
            return Err(SubscriptionError::TooMany(
                "the subscription has too many streams (limit subscription_streams_max)",
            ));
        }
        self.shared.usage.check_bytes(&self.tenant)?;
        self.admit(state)
    }

    /// Checks that the memory budget has room for a state with another link.
    fn admit(&self, state: &SubscriptionState) -> Result<(), SubscriptionError> {
        let charge = self.charge.lock();
        let more = ((state.bytes() + LINK_BYTES) as u64).saturating_sub(charge.bytes());
        charge.owner().admit(more).map_err(|shortage| SubscriptionError::Store(shortage.into()))
    }

    /// Counts the memory of the subscription.
    fn charge(&self, state: &SubscriptionState) {
        self.set_charge(state.bytes());
    }

    fn set_charge(&self, bytes: usize) {
        let mut charge = self.charge.lock();
        self.shared.usage.set_bytes(&self.tenant, charge.bytes() as usize, bytes);
        charge.set(bytes as u64);
    }

    fn view(&self, state: &SubscriptionState) -> SubscriptionView {
        SubscriptionView::new(&self.id, state, self.shared.keys.id(), self.shared.jwks_url())
    }

    /// Returns the subscription as clients see it, and its configuration.
    pub(super) async fn describe(&self) -> Result<(SubscriptionView, SubscriptionConfig), SubscriptionError> {
        let mut kept = self.state.lock().await;
        let kept = kept.as_mut().ok_or_else(|| self.missing())?;
        kept.unstored.extend(self.observe_links(&mut kept.state).await);
        Ok((self.view(&kept.state), kept.state.config.clone()))
    }

    /// Ends the subscription.
    pub(super) async fn delete(&self) -> Result<(), SubscriptionError> {
        let mut kept = self.state.lock().await;
        if kept.is_none() {
            return Err(self.missing());
        }
        self.store(SessionChange::end(self.client.clone())).await?;
        *kept = None;
        self.set_charge(0);
        self.changed.notify_one();
        Ok(())
    }

    /// Links streams, or removes the links of streams that the pattern does not match.
    pub(super) async fn relink(
        self: &Arc<Self>,
        add: &[StreamName],
        remove: Option<&StreamName>,
    ) -> Result<(), SubscriptionError> {
        let mut kept = self.state.lock().await;
        let KeptState { state, unstored } = kept.as_mut().ok_or_else(|| self.missing())?;
        let mut next = state.clone();
        for name in add {
            self.link(&mut next, name.clone()).await?;
        }
        if let Some(name) = remove {
            let is_matched = next.matches(name);
            match next.links.get_mut(name) {
                Some(link) if is_matched => link.is_explicit = false,
                Some(_) => drop(next.links.remove(name)),
                None => {}
            }
        }
        unstored.extend(add.iter().chain(remove).cloned());
        self.advance(state, next, unstored).await
    }

    /// Gives the wake to a worker.
    pub(super) async fn claim(self: &Arc<Self>, worker: &str) -> Result<ClaimView, SubscriptionError> {
        let mut kept = self.state.lock().await;
        let KeptState { state, unstored } = kept.as_mut().ok_or_else(|| self.missing())?;
        unstored.extend(self.observe_links(state).await);
        let mut next = state.clone();
        next.claim(worker, random_id(), self.now())?;
        self.advance(state, next, unstored).await?;
        let wake_id = held_wake(state).unwrap_or_default().to_owned();
        let (generation, lease_ttl_ms) = (state.generation, state.config.lease_ttl_ms);
        Ok(ClaimView {
            wake_id,
            generation,
            token: self.token(state),
            streams: pending_views(state),
            lease_ttl_ms,
        })
    }

    /// Takes what the holder of the wake says. Returns whether another wake has begun.
    pub(super) async fn settle(
        self: &Arc<Self>,
        token: &TokenParts,
        settlement: &Settlement,
        is_pull: bool,
    ) -> Result<bool, SubscriptionError> {
        let mut kept = self.state.lock().await;
        let KeptState { state, unstored } = kept.as_mut().ok_or_else(|| self.missing())?;
        if !self.shared.keys.is_token(&self.scope(state), token) {
            return Err(SubscriptionError::TokenInvalid);
        }
        if token.has_expired(self.now()) {
            return Err(SubscriptionError::TokenExpired);
        }
        if is_pull != matches!(state.config.wake_by, WakeBy::PullWake(_)) {
            let text = "webhook workers use callback; pull-wake workers use claim, ack and release";
            return Err(SubscriptionError::Invalid(text.to_owned()));
        }
        if token.generation != state.generation {
            return Err(SubscriptionError::Fenced);
        }
        unstored.extend(self.observe_links(state).await);
        let mut next = state.clone();
        let acked = next.settle(settlement, self.now())?;
        unstored.extend(acked);
        let generation = state.generation;
        self.advance(state, next, unstored).await?;
        Ok(state.generation != generation)
    }

    fn token(&self, state: &SubscriptionState) -> String {
        let begun = match &state.phase {
            WakePhase::Held { begun, .. } => *begun,
            WakePhase::Idle { .. } | WakePhase::Woken { .. } => self.now(),
        };
        self.shared.keys.token(&self.scope(state), state.generation, begun)
    }

    /// Looks up the tails of all linked streams. Returns the links that have changed.
    async fn observe_links(&self, state: &mut SubscriptionState) -> Vec<StreamName> {
        let names: Vec<_> = state.links.keys().cloned().collect();
        let mut changed = Vec::new();
        for name in names {
            if self.observe(state, &name).await {
                changed.push(name);
            }
        }
        changed
    }

    async fn observe(&self, state: &mut SubscriptionState, name: &StreamName) -> bool {
        let is_linked = state.links.contains_key(name);
        if !is_linked && !state.matches(name) {
            return false;
        }
        let tail = self.shared.hub.settled_tail(name).await;
        if !is_linked && tail.is_some() && self.check_room(state).is_err() {
            if !self.has_overflown.swap(true, Ordering::Relaxed) {
                tracing::warn!(subscription = self.id, "there is no room to link further streams that match");
            }
            return false;
        }
        state.observe(name, tail)
    }

    /// Stores the state `next` and makes it the current one, with a wake if one is due. Without room in the store, the state stays as
    /// it was.
    async fn advance(
        self: &Arc<Self>,
        state: &mut SubscriptionState,
        mut next: SubscriptionState,
        unstored: &mut BTreeSet<StreamName>,
    ) -> Result<(), SubscriptionError> {
        let now = self.now();
        next.lapse(now);
        let due = if next.is_due(now) { next.first_pending().cloned() } else { None };
        let names: Vec<_> = unstored.iter().cloned().collect();
        let mut delivery = None;
        match due {
            Some(pending) => {
                let idle = next.clone();
                next.wake(random_id(), now);
                let part = change(self.client.clone(), &next, ChangedPart::Wake(&names));
                if let WakeBy::PullWake(stream) = &next.config.wake_by {
                    if let Err(error) = self.append_wake(stream, &next, &pending, part).await {
                        tracing::warn!(subscription = self.id, stream, %error, "a wake cannot be appended");
                        next = idle;
                        next.postpone(None, now, fastrand::f64());
                        self.store(change(self.client.clone(), &next, ChangedPart::Wake(&names))).await?;
                    }
                } else {
                    self.store(part).await?;
                    delivery = Some(next.clone());
                }
            }
            None => self.store(change(self.client.clone(), &next, ChangedPart::Wake(&names))).await?,
        }
        unstored.clear();
        *state = next;
        self.charge(state);
        self.changed.notify_one();
        if let Some(woken) = delivery {
            self.begin_delivery(&woken);
        }
        Ok(())
    }
}
