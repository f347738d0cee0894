//! [`JidTable`]: the state of all subscriptions. Without IO and clock.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tokio::time::Instant;

use crate::auth::Grants;
use crate::budget::{Account, Budget, Charge};
use crate::limits::Limits;
use crate::stream::{Offset, Principal, StreamName};
use crate::xmpp::jid::Jid;

/// Estimated memory of a subscription, without its texts.
const SUBSCRIPTION_BYTES: usize = 500;

/// Resources of an address that are known to be available. Further ones are taken for unavailable.
const RESOURCES_MAX: usize = 16;

/// A subscription of an address to a stream. Ordered by the stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::xmpp) struct SubscriptionKey {
    pub(in crate::xmpp) stream: StreamName,
    /// The address that notifications are sent to.
    pub(in crate::xmpp) jid: Jid,
}

/// A subscription that may have messages to send.
#[derive(Debug)]
pub(in crate::xmpp) struct DueSubscription {
    pub(in crate::xmpp) key: SubscriptionKey,
    /// Where to read on.
    pub(in crate::xmpp) offset: Offset,
    /// What its address may do.
    pub(in crate::xmpp) grants: Arc<Grants>,
}

/// Why there is no room for a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::xmpp) enum NoSubscriptionRoom {
    /// There are too many, of this address or of all.
    Limit,
    /// The memory budget, or the share of the address, is used up.
    Memory,
}

/// What a subscription stores of its state: its offset, and whether it is suspended; `None`: it is gone.
pub(in crate::xmpp) type StoredState = Option<(Offset, bool)>;

/// All subscriptions.
pub(in crate::xmpp) struct JidTable {
    /// Boxed, as are the holders: the table of a client has a few, and spare room for more.
    subscriptions: BTreeMap<SubscriptionKey, Box<JidSubscription>>,
    /// By addresses without a resource.
    holders: HashMap<Jid, Box<Holder>>,
    /// Subscriptions that may have messages to send, by [`JidSubscription::due_since`].
    due: BTreeSet<(u64, SubscriptionKey)>,
    /// How often a subscription has become due.
    due_count: u64,
    /// Subscriptions that have sent what is not confirmed.
    unconfirmed: BTreeSet<SubscriptionKey>,
    /// Subscriptions whose stored state is outdated.
    unsaved: BTreeSet<SubscriptionKey>,
    /// `None`: all streams could be read.
    failed: Option<Box<UnreadSubscriptions>>,
    budget: Arc<Budget>,
    limits: Arc<Limits>,
    /// Whom addresses are charged to whose grants have no subject.
    principal: Principal,
}

/// Subscriptions whose streams could not be read.
struct UnreadSubscriptions {
    keys: BTreeSet<SubscriptionKey>,
    /// When to read them again.
    retry_at: Instant,
}

#[derive(Debug)]
struct JidSubscription {
    /// All messages before this offset are in the buffer of the link, or behind it.
    sent: Offset,
    /// All messages before this offset have arrived at the server.
    confirmed: Offset,
    /// Nothing is sent until the address is available again.
    suspended: bool,
    /// What [`JidTable::due_count`] was when it became due. `None`: it is not due.
    due_since: Option<u64>,
}

/// An address with subscriptions.
struct Holder {
    grants: Arc<Grants>,
    /// Sorted.
    subscriptions: Vec<SubscriptionKey>,
    charge: Charge,
    /// Addresses with resources that are known to be available.
    available: HashSet<Jid>,
}

impl JidTable {
    pub(super) fn new(budget: Arc<Budget>, limits: Arc<Limits>, principal: Principal) -> Self {
        Self {
            subscriptions: BTreeMap::new(),
            holders: HashMap::new(),
            due: BTreeSet::new(),
            due_count: 0,
            unconfirmed: BTreeSet::new(),
            unsaved: BTreeSet::new(),
            failed: None,
            budget,
            limits,
            principal,
        }
    }

    /// Removes all subscriptions, and returns them.
    pub(super) fn take_all(&mut self) -> Vec<SubscriptionKey> {
        let keys: Vec<_> = self.subscriptions.keys().cloned().collect();
        let empty = Self::new(self.budget.clone(), self.limits.clone(), self.principal);
        *self = empty;
        keys
    }

    pub(super) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Adds a subscription from the store, whatever the limits are by now. Returns whether it is the first one of its stream.
    pub(super) fn restore(
        &mut self,
        key: &SubscriptionKey,
        grants: &Arc<Grants>,
        offset: Offset,
        suspended: bool,
    ) -> bool {
        let is_first = !self.has_stream(&key.stream);
        self.put(key, grants, offset, suspended);
        is_first
    }

    /// Adds a subscription that does not exist.
    pub(super) fn insert(
        &mut self,
        key: &SubscriptionKey,
        grants: &Arc<Grants>,
        offset: Offset,
    ) -> Result<(), NoSubscriptionRoom> {
        let of_jid = self.holders.get(&key.jid.bare()).map_or(0, |holder| holder.subscriptions.len());
        if of_jid >= self.limits.xmpp_subscriptions_per_jid_max
            || self.len() >= self.limits.xmpp_subscriptions_max
        {
            return Err(NoSubscriptionRoom::Limit);
        }
        let owner =
            self.budget.owner_in(grants.tenant().clone(), grants.principal().unwrap_or(self.principal));
        owner.admit(bytes_of(key)).map_err(|_| NoSubscriptionRoom::Memory)?;
        self.put(key, grants, offset, false);
        Ok(())
    }

    fn put(&mut self, key: &SubscriptionKey, grants: &Arc<Grants>, offset: Offset, suspended: bool) {
        let (budget, principal) = (&self.budget, grants.principal().unwrap_or(self.principal));
        let holder = self.holders.entry(key.jid.bare()).or_insert_with(|| {
            let owner = budget.owner_in(grants.tenant().clone(), principal);
            Box::new(Holder {
                grants: grants.clone(),
                subscriptions: Vec::new(),
                charge: Charge::new(&owner, Account::Sessions, 0),
                available: HashSet::new(),
            })
        });
        // What counts is what the address may do by now.
        holder.grants = grants.clone();
        if let Err(place) = holder.subscriptions.binary_search(key) {
            holder.subscriptions.reserve_exact(1);
            holder.subscriptions.insert(place, key.clone());
            let bytes = holder.charge.bytes() + bytes_of(key);
            holder.charge.set(bytes);
        }
        let subscription = JidSubscription { sent: offset, confirmed: offset, suspended, due_since: None };
        self.subscriptions.insert(key.clone(), Box::new(subscription));
    }

    /// Removes a subscription. Returns whether it existed.
    pub(in crate::xmpp) fn remove(&mut self, key: &SubscriptionKey) -> bool {
        for marked in [&mut self.unconfirmed, &mut self.unsaved] {
            remove(marked, key);
        }
        if let Some(failed) = &mut self.failed {
            failed.keys.remove(key);
        }
        self.make_undue(key);
        let existed = self.subscriptions.remove(key).is_some();
        let jid = key.jid.bare();
        if let Some(holder) = self.holders.get_mut(&jid).filter(|_| existed) {
            holder.subscriptions.retain(|other| other != key);
            let bytes = holder.charge.bytes().saturating_sub(bytes_of(key));
            holder.charge.set(bytes);
            if holder.subscriptions.is_empty() {
                self.holders.remove(&jid);
            }
        }
        existed
    }

    /// The subscriptions of an address without its resource.
    pub(in crate::xmpp) fn of(&self, jid: &Jid) -> Vec<SubscriptionKey> {
        self.holders.get(jid).map(|holder| holder.subscriptions.clone()).unwrap_or_default()
    }

    /// Whether there is a subscription to a stream.
    pub(super) fn has_stream(&self, stream: &StreamName) -> bool {
        self.of_stream(stream).next().is_some()
    }

    fn of_stream(&self, stream: &StreamName) -> impl Iterator<Item = &SubscriptionKey> {
        // Nothing sorts before the shortest domain.
        let subscriptions =
            self.subscriptions.range(SubscriptionKey { stream: stream.clone(), jid: Jid::least() }..);
        subscriptions.map(|(key, _)| key).take_while(move |key| key.stream == *stream)
    }

    /// Makes the subscriptions to a stream due.
    pub(super) fn stream_changed(&mut self, stream: &StreamName) {
        let keys: Vec<_> = self.of_stream(stream).cloned().collect();
        keys.iter().for_each(|key| self.make_due(key));
    }

    /// Makes all subscriptions due.
    pub(in crate::xmpp) fn all_are_due(&mut self) {
        let keys: Vec<_> = self.subscriptions.keys().cloned().collect();
        keys.iter().for_each(|key| self.make_due(key));
    }

    /// All subscriptions with their confirmed offsets, and whether they are suspended.
    pub(in crate::xmpp) fn confirmed(&self) -> Vec<(SubscriptionKey, Offset, bool)> {
        let subscriptions = self.subscriptions.iter();
        subscriptions.map(|(key, found)| (key.clone(), found.confirmed, found.suspended)).collect()
    }

    /// Notes that the stored states of all subscriptions are outdated.
    pub(in crate::xmpp) fn all_are_unsaved(&mut self) {
        self.unsaved = self.subscriptions.keys().cloned().collect();
    }

    /// Begins with a new link: what was not confirmed is sent again.
    pub(in crate::xmpp) fn begin_link(&mut self) {
        for key in std::mem::take(&mut self.unconfirmed) {
            if let Some(subscription) = self.subscriptions.get_mut(&key) {
                subscription.sent = subscription.confirmed;
            }
        }
        self.all_are_due();
    }

    pub(in crate::xmpp) fn make_due(&mut self, key: &SubscriptionKey) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        if !subscription.suspended && subscription.due_since.is_none() {
            self.due_count += 1;
            subscription.due_since = Some(self.due_count);
            self.due.insert((self.due_count, key.clone()));
        }
    }

    fn make_undue(&mut self, key: &SubscriptionKey) {
        let due_since =
            self.subscriptions.get_mut(key).and_then(|subscription| subscription.due_since.take());
        if let Some(since) = due_since {
            remove(&mut self.due, &(since, key.clone()));
        }
    }

    /// The stream of a subscription could not be read. It is due again at `retry_at`, or earlier if another one has failed before.
    pub(super) fn failed(&mut self, key: SubscriptionKey, retry_at: Instant) {
        let failed = || Box::new(UnreadSubscriptions { keys: BTreeSet::new(), retry_at });
        self.failed.get_or_insert_with(failed).keys.insert(key);
    }

    /// When subscriptions are due again whose streams could not be read.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.failed.as_ref().map(|failed| failed.retry_at)
    }

    /// Makes the subscriptions due whose streams could not be read.
    pub(super) fn retry_failed(&mut self) {
        for key in self.failed.take().into_iter().flat_map(|failed| failed.keys) {
            self.make_due(&key);
        }
    }

    /// Whether a subscription may have messages to send.
    pub(in crate::xmpp) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Number of subscriptions that may have messages to send.
    pub(in crate::xmpp) fn due_len(&self) -> usize {
        self.due.len()
    }

    /// Takes the subscription that has been due for the longest time.
    pub(in crate::xmpp) fn take_due(&mut self) -> Option<DueSubscription> {
        let (_, key) = self.due.first().cloned()?;
        self.make_undue(&key);
        let offset = self.subscriptions.get(&key)?.sent;
        let grants = self.holders.get(&key.jid.bare())?.grants.clone();
        Some(DueSubscription { key, offset, grants })
    }

    /// Notes that the messages of a subscription are sent up to `offset`, from where the last call of [`take_due`](Self::take_due)
    /// said.
    pub(in crate::xmpp) fn sent(&mut self, due: &DueSubscription, offset: Offset) {
        let Some(subscription) = self.subscriptions.get_mut(&due.key) else { return };
        // A message may have been returned meanwhile.
        if subscription.sent == due.offset && offset != due.offset && !subscription.suspended {
            subscription.sent = offset;
            // The log has lost what was confirmed.
            if offset < subscription.confirmed {
                subscription.confirmed = offset;
                self.unsaved.insert(due.key.clone());
            }
            self.unconfirmed.insert(due.key.clone());
        }
    }

    /// Number of subscriptions that have sent what is not confirmed.
    pub(in crate::xmpp) fn unconfirmed_len(&self) -> usize {
        self.unconfirmed.len()
    }

    /// What is sent and not confirmed: for each subscription the offset up to which it is.
    pub(in crate::xmpp) fn unconfirmed(&self) -> Vec<(SubscriptionKey, Offset)> {
        let sent = |key: &SubscriptionKey| Some((key.clone(), self.subscriptions.get(key)?.sent));
        self.unconfirmed.iter().filter_map(sent).collect()
    }

    /// Confirms what [`unconfirmed`](Self::unconfirmed) has returned, except messages that were returned meanwhile.
    pub(in crate::xmpp) fn confirm(&mut self, sent: Vec<(SubscriptionKey, Offset)>) {
        for (key, offset) in sent {
            let Some(subscription) = self.subscriptions.get_mut(&key) else { continue };
            let confirmed = offset.min(subscription.sent);
            if subscription.confirmed < confirmed {
                subscription.confirmed = confirmed;
                self.unsaved.insert(key.clone());
            }
            if subscription.confirmed == subscription.sent {
                remove(&mut self.unconfirmed, &key);
            }
        }
    }

    /// A message that began at `start` was returned: it is sent again once the address is available. Returns whether there is such a
    /// subscription.
    pub(in crate::xmpp) fn returned(&mut self, key: &SubscriptionKey, start: Offset) -> bool {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return false };
        // Only what is on its way can be returned.
        if start < subscription.confirmed || start >= subscription.sent {
            return false;
        }
        subscription.sent = start;
        subscription.suspended = true;
        self.make_undue(key);
        self.unsaved.insert(key.clone());
        true
    }

    /// Resumes a subscription. Returns whether it exists.
    pub(super) fn resume(&mut self, key: &SubscriptionKey) -> bool {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return false };
        if std::mem::take(&mut subscription.suspended) {
            self.unsaved.insert(key.clone());
            self.make_due(key);
        }
        true
    }

    /// An address has become available or unavailable. Its subscriptions, and those of the address without the resource, are resumed
    /// or, if no other resource is known to be available, suspended.
    pub(in crate::xmpp) fn presence(&mut self, jid: &Jid, is_available: bool) {
        let Some(holder) = self.holders.get_mut(&jid.bare()) else { return };
        if is_available && (holder.available.len() < RESOURCES_MAX) {
            holder.available.insert(jid.clone());
        } else if !is_available {
            holder.available.remove(jid);
        }
        let is_alone = holder.available.is_empty();
        let keys = holder.subscriptions.clone();
        for key in
            keys.iter().filter(|key| key.jid == *jid || (key.jid.is_bare() && (is_available || is_alone)))
        {
            if is_available {
                self.resume(key);
            } else if let Some(subscription) = self.subscriptions.get_mut(key)
                && !std::mem::replace(&mut subscription.suspended, true)
            {
                self.make_undue(key);
                self.unsaved.insert(key.clone());
            }
        }
    }

    /// Notes that the stored state of a subscription is outdated.
    pub(super) fn note_unsaved(&mut self, key: &SubscriptionKey) {
        self.unsaved.insert(key.clone());
    }

    /// Takes at most `max` subscriptions whose stored states are outdated, by addresses without resources.
    pub(super) fn take_unsaved(&mut self, max: usize) -> Vec<(Jid, Vec<SubscriptionKey>)> {
        let mut taken: BTreeMap<Jid, Vec<_>> = BTreeMap::new();
        for _ in 0..max {
            let Some(key) = self.unsaved.pop_first() else { break };
            taken.entry(key.jid.bare()).or_default().push(key);
        }
        taken.into_iter().collect()
    }

    /// What is stored of a subscription.
    pub(super) fn stored_state(&self, key: &SubscriptionKey) -> StoredState {
        self.subscriptions.get(key).map(|found| (found.confirmed, found.suspended))
    }

    /// Whether a stored state is outdated.
    pub(in crate::xmpp) fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }
}

/// Removes an element. A set that is empty then takes no memory: those of a client are empty most of the time.
fn remove<T: Ord>(set: &mut BTreeSet<T>, element: &T) {
    if set.remove(element) && set.is_empty() {
        *set = BTreeSet::new();
    }
}

/// Estimated memory of a subscription.
pub(in crate::xmpp) fn bytes_of(key: &SubscriptionKey) -> u64 {
    (SUBSCRIPTION_BYTES + key.stream.as_str().len() + key.jid.as_str().len()) as u64
}
