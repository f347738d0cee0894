//! [`Subscriber`]: collects the names of the streams that match its filters and have changed. Its owner reads
//! these streams at its own pace.
//!
//! No change is lost, because a subscriber adds a filter before it reads the store, while a publisher appends
//! to the store before it marks the stream. A mark is a state, not an event: it says which stream to read,
//! not what happened there.

mod members;
mod registry;
#[cfg(test)]
mod tests;
mod walk;
mod wildcards;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use super::Hub;
use super::signal::Waiter;
use crate::stream::{ChangeError, Filter, Message, MessageLimit, Messages, ReadError, Start, StreamName};

pub(super) use members::{Marks, Member, Members};
pub(super) use registry::Subscribers;
pub use walk::StreamWalk;
pub(super) use wildcards::Wildcards;

/// Marks streams for a subscriber on behalf of others.
#[derive(Debug, Clone)]
pub struct Marker(Arc<Member>);

impl Marker {
    /// Marks a stream, so that [`Subscriber::changed`] returns it.
    pub fn mark(&self, name: &StreamName) {
        self.0.mark(name);
    }

    /// Notes that any stream may have changed.
    pub fn mark_all(&self) {
        self.0.marks.update(Marks::overflow);
    }
}

/// A subscription to many streams. Dropping it removes its filters.
pub struct Subscriber {
    hub: Arc<Hub>,
    member: Arc<Member>,
}

impl Hub {
    /// Creates a subscriber without filters. `client` is the name shown to operators.
    pub fn subscriber(self: &Arc<Self>, client: impl Into<Arc<str>>) -> Subscriber {
        Subscriber { hub: self.clone(), member: self.subscribers.enter(client.into()) }
    }

    /// Creates a subscriber for one request that reads many streams. It is not listed as a subscriber, since
    /// operators already see the request as a held poll or a reader in a live delivery form.
    pub(super) fn unlisted_subscriber(self: &Arc<Self>) -> Subscriber {
        Subscriber { hub: self.clone(), member: self.subscribers.unlisted() }
    }

    /// The same filter, for one that is kept: that of an existing stream shares the text of the stream's name.
    pub fn shared_filter(&self, filter: &Filter) -> Filter {
        filter.exact().map_or_else(|| filter.clone(), |name| Filter::literal(self.store.shared_name(name)))
    }

    /// Reads messages one by one, without waiting. They count as delivered.
    pub async fn messages(
        &self,
        name: &StreamName,
        start: Start,
        limit: MessageLimit,
    ) -> Result<Messages, ReadError> {
        let messages = self.store.messages(name, start, limit, self.clock.now()).await?;
        self.metrics.messages_out(name.tenant_prefix(), messages.messages.len() as u64, messages.size());
        Ok(messages)
    }

    /// Reads the retained message of a stream. It counts as delivered.
    pub async fn retained(&self, name: &StreamName) -> Result<Option<Message>, ReadError> {
        let retained = self.store.retained(name, self.clock.now()).await?;
        if let Some(message) = &retained {
            self.metrics.messages_out(name.tenant_prefix(), 1, message.bytes.len());
        }
        Ok(retained)
    }

    /// Clears the retained message of a stream. The message stays in the log.
    pub async fn clear_retained(&self, name: &StreamName) -> Result<(), ChangeError> {
        self.store.clear_retained(name, self.clock.now()).await
    }
}

impl Subscriber {
    /// Adds a filter. From now on, the streams that it matches are marked when they are appended to, created,
    /// closed or deleted. The caller must read the store only afterwards. A filter without a wildcard counts
    /// as use of its stream, so the TTL of the stream stops.
    pub fn add(&self, filter: Filter) {
        let mut filters = self.member.filters.lock();
        if filters.insert(&filter) {
            self.hub.waiters.subscribe(&filter, &self.member);
        }
    }

    /// Removes a filter. Streams that are already marked stay marked.
    pub fn remove(&self, filter: &Filter) {
        let mut filters = self.member.filters.lock();
        if filters.remove(filter) {
            self.hub.waiters.unsubscribe(filter, &self.member);
        }
    }

    /// Returns a handle that marks streams for this subscriber.
    pub fn marker(&self) -> Marker {
        Marker(self.member.clone())
    }

    /// Marks a stream on behalf of the caller, so that [`changed`](Self::changed) returns it.
    pub fn mark(&self, name: StreamName) {
        self.member.mark(&name);
    }

    /// Returns whether more streams have changed than could be marked since the last call. If so, any stream
    /// that the filters match may have changed.
    pub fn take_overflow(&self) -> bool {
        self.member.marks.note(Marks::take_overflow)
    }

    /// Waits until streams have changed, and takes at most `max` marks (at least one even if `max` is 0), those
    /// that have waited longest first. The rest stay marked. [`take_overflow`](Self::take_overflow), which has
    /// to be called then, tells about changes without a mark.
    ///
    /// Cancel safe: a dropped future takes no marks.
    pub async fn changed(&self, max: usize) -> Vec<StreamName> {
        loop {
            self.member.marks.wait_until(|marks| marks.has_changes().then_some(())).await;
            let (mut taken, mut has_overflown) = (Vec::new(), false);
            self.member
                .marks
                .update(|marks| (taken, has_overflown) = (marks.take(max.max(1)), marks.has_changes()));
            if has_overflown || !taken.is_empty() {
                return taken;
            }
        }
    }

    /// Poll form of [`changed`](Self::changed), for state machines that are not futures. `waiter` must be dropped together with the
    /// subscriber.
    pub fn poll_changed(
        &self,
        waiter: &mut Waiter,
        context: &mut Context<'_>,
        max: usize,
    ) -> Poll<Vec<StreamName>> {
        let take = |marks: &mut Marks| marks.has_changes().then(|| marks.take(max.max(1)));
        self.member.marks.poll_until(waiter, context, take)
    }

    /// Whether streams are marked, or more have changed than could be marked.
    pub fn has_changes(&self) -> bool {
        self.member.marks.note(|marks| marks.has_changes())
    }

    /// Takes marks like [`changed`](Self::changed), without waiting. None are taken if there are no marks.
    pub fn take_changed(&self, max: usize) -> Vec<StreamName> {
        self.member.marks.note(|marks| marks.take(max))
    }

    /// Counts delivered messages, for the view of operators.
    pub fn delivered(&self, messages: u64) {
        self.member.delivered.fetch_add(messages, Ordering::Relaxed);
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        for filter in std::mem::take(&mut *self.member.filters.lock()).iter() {
            self.hub.waiters.unsubscribe(filter, &self.member);
        }
        self.hub.subscribers.leave(&self.member);
    }
}
