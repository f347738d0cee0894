//! Subscriptions of XMPP addresses to streams (XEP-0060, section 6): kept in the store, each with the offset from which its address has
//! still to be sent messages.
//!
//! A notification counts as sent once it is in the buffer of the link, and as confirmed once the server has answered something that
//! came behind it. What is not confirmed is sent again over the next link, with the same ids.

mod stored;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::jid::Jid;
use super::stanza::{StanzaError, failed};
use crate::auth::{Authenticator, Grants};
use crate::hub::{Hub, Subscriber, Waiter};
use crate::limits::Limits;
use crate::metrics::XmppMetrics;
use crate::stream::{Failure, Filter, Offset, Principal, SessionChange, StreamName};

pub(super) use stored::{parse as parse_subscription, session_name};
use stored::{parse_all, restored, stored_change};
use table::JidTable;
pub(super) use table::{DueSubscription, NoSubscriptionRoom, SubscriptionKey, bytes_of};

/// Subscriptions whose offsets are stored at once.
const STORED_AT_ONCE: usize = 1000;

/// Delay before streams are read again that could not be read.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// All subscriptions.
pub(super) struct JidSubscriptions {
    hub: Arc<Hub>,
    table: Mutex<JidTable>,
    /// Marks streams that have subscriptions when they change. Many clients never subscribe, so theirs is made for the first subscription.
    subscriber: OnceLock<Subscriber>,
    metrics: XmppMetrics,
    place: StoredPlace,
}

/// Where subscriptions are stored.
enum StoredPlace {
    /// In a session for each address.
    OfAddresses,
    /// All in one session: of the stream of their client, or of a component that moves between gateways. Until that has a name, nowhere.
    InOne(OnceLock<Arc<str>>),
}

impl JidSubscriptions {
    /// Loads the subscriptions that the store has kept, unless several gateways use it. Those that the rules no longer allow end when they
    /// are next due.
    pub(super) async fn load(
        hub: &Arc<Hub>,
        limits: &Arc<Limits>,
        auth: &Authenticator,
        metrics: XmppMetrics,
    ) -> Result<Self, Failure> {
        let subscriber = hub.subscriber("xmpp");
        let table = JidTable::new(hub.budget().clone(), limits.clone(), Principal::GATEWAY);
        let is_shared = hub.shares_sessions();
        let place = if is_shared { StoredPlace::InOne(OnceLock::new()) } else { StoredPlace::OfAddresses };
        let loaded = Self {
            hub: hub.clone(),
            table: Mutex::new(table),
            subscriber: OnceLock::from(subscriber),
            metrics,
            place,
        };
        if !is_shared {
            loaded.add_stored(restored(hub).await?, auth);
        }
        Ok(loaded)
    }

    /// Replaces all subscriptions with those that are stored as these entries of one session.
    pub(super) fn replace(&self, entries: &[(Bytes, Bytes)], auth: &Authenticator) {
        let former = self.with(JidTable::take_all);
        self.metrics.subscriptions.dec_by(i64::try_from(former.len()).unwrap_or(i64::MAX));
        let streams: BTreeSet<StreamName> = former.into_iter().map(|key| key.stream).collect();
        streams.into_iter().for_each(|stream| self.subscriber().remove(&Filter::literal(stream)));
        self.add_stored(parse_all(entries), auth);
    }

    fn add_stored(&self, stored: Vec<(SubscriptionKey, Offset, bool)>, auth: &Authenticator) {
        for (key, offset, suspended) in stored {
            let grants = auth.jid(key.jid.bare().as_str());
            if self.with(|table| table.restore(&key, &grants, offset, suspended)) {
                self.subscriber().add(Filter::literal(key.stream));
            }
            self.metrics.subscriptions.inc();
        }
    }

    /// Those of one client, which end with it. They are charged to `client` if its grants have no subject.
    pub(super) fn of_client(
        hub: &Arc<Hub>,
        limits: &Arc<Limits>,
        metrics: XmppMetrics,
        client: Principal,
    ) -> Self {
        let table = Mutex::new(JidTable::new(hub.budget().clone(), limits.clone(), client));
        let place = StoredPlace::InOne(OnceLock::new());
        Self { hub: hub.clone(), table, subscriber: OnceLock::new(), metrics, place }
    }

    /// Adds the subscriptions of a client that has resumed its stream, which go on at their offsets.
    pub(super) fn adopt(
        &self,
        subscriptions: impl Iterator<Item = (SubscriptionKey, Offset, bool)>,
        grants: &Arc<Grants>,
    ) {
        for (key, offset, suspended) in subscriptions {
            self.with(|table| table.restore(&key, grants, offset, suspended));
            self.subscriber().add(Filter::literal(key.stream));
            self.metrics.subscriptions.inc();
        }
        self.with(JidTable::begin_link);
    }

    /// From now on, the subscriptions are stored in the session `name`.
    pub(super) fn store_in(&self, name: Arc<str>) {
        if let StoredPlace::InOne(place) = &self.place {
            let _stored_before = place.set(name);
        }
    }

    /// Stores the offsets of the client that have changed, together with other entries of its stream.
    pub(super) async fn save_with(&self, entries: Vec<(Bytes, Option<Bytes>)>) -> Result<(), Failure> {
        let unsaved = self.with(|table| table.take_unsaved(usize::MAX));
        let keys = unsaved.iter().flat_map(|(_, keys)| keys);
        // The name is that of the stream in any case.
        let mut change = self.stored_states(&Jid::least(), keys.clone());
        change.entries.extend(entries);
        let stored = self.store(change).await;
        if stored.is_err() {
            self.with(|table| keys.for_each(|key| table.note_unsaved(key)));
        }
        stored
    }

    /// Waits until streams with subscriptions have changed, or are to be read again, and makes their subscriptions due. A client that has
    /// never subscribed waits without end. Cancel safe.
    pub(super) async fn changed(&self, max: usize) {
        let Some(subscriber) = self.subscriber.get() else { return pending().await };
        let retry_at = self.retry_at();
        let retry = async {
            match retry_at {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            names = subscriber.changed(max) => self.make_due(subscriber, &names),
            () = retry => self.with(|table| table.retry_failed()),
        }
    }

    /// Poll form of [`changed`](Self::changed), for state machines that are not futures; they poll again at [`retry_at`](Self::retry_at).
    /// `waiter` must be dropped together with the subscriptions.
    pub(super) fn poll_changed(&self, waiter: &mut Waiter, cx: &mut Context<'_>, max: usize) -> Poll<()> {
        let Some(subscriber) = self.subscriber.get() else { return Poll::Pending };
        if self.retry_at().is_some_and(|at| at <= Instant::now()) {
            self.with(|table| table.retry_failed());
            return Poll::Ready(());
        }
        let names = ready!(subscriber.poll_changed(waiter, cx, max));
        self.make_due(subscriber, &names);
        Poll::Ready(())
    }

    /// When streams that could not be read are read again. `None`: there are none.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.with(|table| table.retry_at())
    }

    fn make_due(&self, subscriber: &Subscriber, names: &[StreamName]) {
        let mut table = self.table.lock();
        if subscriber.take_overflow() {
            table.all_are_due();
        } else {
            names.iter().for_each(|name| table.stream_changed(name));
        }
    }

    /// Makes a subscription due again after a while, because its stream could not be read.
    pub(super) fn retry(&self, key: SubscriptionKey) {
        self.with(|table| table.failed(key, Instant::now() + RETRY_DELAY));
    }

    /// Runs `operate` on the table. It must not wait.
    pub(super) fn with<T>(&self, operate: impl FnOnce(&mut JidTable) -> T) -> T {
        operate(&mut self.table.lock())
    }

    /// Adds a subscription that begins at `offset`, once it is stored. An existing one goes on where it is.
    pub(super) async fn add(
        &self,
        key: SubscriptionKey,
        grants: &Arc<Grants>,
        offset: Offset,
    ) -> Result<(), StanzaError> {
        if self.with(|table| table.resume(&key)) {
            return Ok(());
        }
        self.with(|table| table.insert(&key, grants, offset)).map_err(|error| match error {
            NoSubscriptionRoom::Limit => StanzaError::resource_constraint().because("too-many-subscriptions"),
            NoSubscriptionRoom::Memory => StanzaError::resource_constraint(),
        })?;
        let change = stored_change(&key.jid.bare(), [(&key, Some((offset, false)))]);
        if let Err(failure) = self.store(change).await {
            self.with(|table| table.remove(&key));
            return Err(failed(failure));
        }
        // Marked behind the filter, so that what came meanwhile is not missed.
        self.subscriber().add(Filter::literal(key.stream.clone()));
        self.subscriber().mark(key.stream);
        self.metrics.subscriptions.inc();
        Ok(())
    }

    fn subscriber(&self) -> &Subscriber {
        self.subscriber.get_or_init(|| self.hub.subscriber("xmpp"))
    }

    /// Removes a subscription. Returns whether it existed.
    pub(super) async fn remove(&self, key: &SubscriptionKey) -> Result<bool, Failure> {
        let (existed, is_last) = self.with(|table| (table.remove(key), !table.has_stream(&key.stream)));
        if is_last && let Some(subscriber) = self.subscriber.get() {
            subscriber.remove(&Filter::literal(key.stream.clone()));
        }
        if existed {
            self.metrics.subscriptions.dec();
            self.store(stored_change(&key.jid.bare(), [(key, None)])).await?;
        }
        Ok(existed)
    }

    /// Stores offsets that have changed. Returns whether there may be more.
    pub(super) async fn save(&self) -> Result<bool, Failure> {
        let unsaved = self.with(|table| table.take_unsaved(STORED_AT_ONCE));
        for (index, (jid, keys)) in unsaved.iter().enumerate() {
            // As they are now: a subscription may have been removed while the others were stored.
            if let Err(failure) = self.store(self.stored_states(jid, keys)).await {
                let rest = unsaved.iter().skip(index).flat_map(|(_, keys)| keys);
                self.with(|table| rest.for_each(|key| table.note_unsaved(key)));
                return Err(failure);
            }
        }
        Ok(self.with(|table| table.has_unsaved()))
    }

    /// The change that stores some subscriptions of an address.
    fn stored_states<'a>(
        &self,
        jid: &Jid,
        keys: impl IntoIterator<Item = &'a SubscriptionKey>,
    ) -> SessionChange {
        self.with(|table| stored_change(jid, keys.into_iter().map(|key| (key, table.stored_state(key)))))
    }

    async fn store(&self, change: SessionChange) -> Result<(), Failure> {
        let client = match &self.place {
            StoredPlace::OfAddresses => Some(change.client.clone()),
            StoredPlace::InOne(name) => name.get().cloned(),
        };
        match client.filter(|_| self.hub.keeps_sessions()) {
            Some(client) => self.hub.change_session(SessionChange { client, ..change }).await,
            None => Ok(()),
        }
    }
}

impl Drop for JidSubscriptions {
    fn drop(&mut self) {
        self.metrics.subscriptions.dec_by(count_of(self.table.get_mut()));
    }
}

fn count_of(table: &JidTable) -> i64 {
    i64::try_from(table.len()).unwrap_or(i64::MAX)
}
