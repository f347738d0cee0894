//! Following many streams: a subscriber learns which of the streams that its filters match have changed, and reads
//! them at its own pace.
//!
//! The order that loses nothing: a subscriber adds a filter and then reads the store; a publisher appends to the store
//! and then marks. What is told is state: which streams to look at, not what has happened there.

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

use members::Marks;
pub(super) use members::{Member, Members};
pub(super) use registry::Subscribers;
pub use walk::StreamWalk;
pub(super) use wildcards::Wildcards;

/// A place for somebody who follows streams; dropping it leaves.
pub struct Subscriber {
    hub: Arc<Hub>,
    member: Arc<Member>,
}

impl Hub {
    /// A place for somebody who follows many streams; dropping it leaves. `client` is how operators see it.
    pub fn subscriber(self: &Arc<Self>, client: &str) -> Subscriber {
        Subscriber { hub: self.clone(), member: self.subscribers.enter(client) }
    }

    /// The same for one request, which operators see as what it is: a held poll, or a reader in a live form.
    pub(super) fn follower(self: &Arc<Self>) -> Subscriber {
        Subscriber { hub: self.clone(), member: self.subscribers.unlisted() }
    }

    /// Reads messages one by one and does not wait. They count as delivered.
    pub async fn messages(
        &self,
        name: &StreamName,
        start: Start,
        limit: MessageLimit,
    ) -> Result<Messages, ReadError> {
        let messages = self.store.messages(name, start, limit, self.clock.now()).await?;
        self.metrics.messages_out(messages.messages.len() as u64, messages.size());
        Ok(messages)
    }

    /// The retained message of a stream. It counts as delivered.
    pub async fn retained(&self, name: &StreamName) -> Result<Option<Message>, ReadError> {
        let retained = self.store.retained(name, self.clock.now()).await?;
        if let Some(message) = &retained {
            self.metrics.messages_out(1, message.bytes.len());
        }
        Ok(retained)
    }

    /// Forgets the retained message of a stream; its log keeps it.
    pub async fn clear_retained(&self, name: &StreamName) -> Result<(), ChangeError> {
        self.store.clear_retained(name, self.clock.now()).await
    }
}

impl Subscriber {
    /// From now on the streams that `filter` matches are marked when they change: are appended to, created, closed or
    /// deleted. Read the store only afterwards. A stream that a filter names without a wildcard is in use meanwhile,
    /// so its TTL stands still.
    pub fn add(&self, filter: Filter) {
        let mut filters = self.member.filters.lock();
        if filters.insert(&filter) {
            self.hub.waiters.subscribe(&filter, &self.member);
        }
    }

    /// Takes `add` back. What is marked already stays so.
    pub fn remove(&self, filter: &Filter) {
        let mut filters = self.member.filters.lock();
        if filters.remove(filter) {
            self.hub.waiters.unsubscribe(filter, &self.member);
        }
    }

    /// Marks a stream itself, so that `changed` returns it.
    pub fn mark(&self, name: StreamName) {
        self.member.mark(&name);
    }

    /// Whether more streams have changed than could be marked since this was last asked: then any stream may have changed.
    pub fn take_overflow(&self) -> bool {
        self.member.marks.note(Marks::take_overflow)
    }

    /// Waits until streams are marked, and takes the marks: at least one and at most `max`, those that have waited
    /// longest. The rest stay marked. See [`take_overflow`](Self::take_overflow) for what is not marked.
    ///
    /// Cancel safe: a dropped future takes nothing.
    pub async fn changed(&self, max: usize) -> Vec<StreamName> {
        loop {
            self.member.marks.wait_until(|marks| (!marks.is_empty()).then_some(())).await;
            let mut taken = Vec::new();
            self.member.marks.update(|marks| taken = marks.take(max.max(1)));
            if !taken.is_empty() {
                return taken;
            }
        }
    }

    /// Does the same for a state machine that is no future, whose `waiter` goes with the subscriber.
    pub(super) fn poll_changed(
        &self,
        waiter: &mut Waiter,
        context: &mut Context<'_>,
        max: usize,
    ) -> Poll<Vec<StreamName>> {
        let take = |marks: &mut Marks| (!marks.is_empty()).then(|| marks.take(max.max(1)));
        self.member.marks.poll_until(waiter, context, take)
    }

    /// Counts messages that were delivered, for the operators' view.
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
