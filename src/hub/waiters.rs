//! [`WaiterRegistry`]: for each stream with readers or subscribers by name, its last known tail and the tasks
//! to wake when the tail moves. It also has the subscribers by wildcard filter.
//!
//! An entry exists exactly as long as a reader or subscriber has joined it, so it cannot be evicted under a
//! waiter, and idle streams cost nothing here. No wake-up is lost, because a reader first joins and then reads
//! the store, while a publisher first appends to the store and then looks for the entry.
//!
//! Streams end and are created again, and the reports of both arrive in any order. So a tail is kept with its
//! epoch, and the store is asked each time which epoch is attached.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use dashmap::DashMap;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::SharedBatch;
use super::in_place::{PUBLISHER_DELIVERIES_MAX, deliver};
use super::polled_origins::PolledOrigins;
use super::signal::{Signal, Woken};
use super::subscriber::{Member, Members, Wildcards};
use super::update::Change;
use crate::clock::Clock;
use crate::stream::{Epoch, Filter, Offset, Position, Store, StreamName};

/// Waiters that a task delivers to between two yields, so that other tasks run in between. A turn is within the budget that the
/// runtime gives a task, beyond which connections are woken.
const DELIVERIES_PER_TURN: usize = 32;

/// The waiters of all streams. See the [module](self) documentation.
pub(super) struct WaiterRegistry {
    entries: DashMap<StreamName, StreamEntry>,
    wildcards: Wildcards,
    store: Arc<dyn Store>,
    clock: Clock,
    /// Streams whose origin is polled while there are readers.
    origins: Arc<PolledOrigins>,
}

/// Waiters and subscribers of one stream. Changed only under the lock of the table, except for the inside of
/// `waiters`.
#[derive(Default)]
struct StreamEntry {
    /// `None`: the stream has had subscribers only, of which there may be very many.
    waiters: Option<Arc<StreamWaiters>>,
    subscribers: Members,
    /// Epoch for which the store holds an `attach`, which stops the TTL of the stream.
    attached: Option<Epoch>,
}

/// The live delivery forms of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveForm {
    /// Server-sent events.
    Sse,
    /// NDJSON.
    Ndjson,
    /// WebSocket.
    WebSocket,
}

impl LiveForm {
    /// The name of the form in traces.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::WebSocket => "websocket",
        }
    }
}

/// The readers of one stream by delivery form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadersByForm {
    /// Long polls.
    pub long_poll: usize,
    /// Readers of server-sent events.
    pub sse: usize,
    /// Readers of NDJSON.
    pub ndjson: usize,
    /// WebSockets.
    pub websocket: usize,
    /// Subscriptions to the name of the stream: MQTT, XMPP and reads of many streams.
    pub subscriptions: usize,
}

impl ReadersByForm {
    /// The readers in all forms.
    pub fn sum(self) -> usize {
        let Self { long_poll, sse, ndjson, websocket, subscriptions } = self;
        long_poll + sse + ndjson + websocket + subscriptions
    }
}

impl WaiterRegistry {
    pub(super) fn new(store: Arc<dyn Store>, clock: Clock, origins: Arc<PolledOrigins>) -> Self {
        Self { entries: DashMap::new(), wildcards: Wildcards::default(), store, clock, origins }
    }

    /// Adds a reader of a stream: a long poll, or one in a live form. The caller must read the store only afterwards, and [`leave`](Self::leave)
    /// in the end.
    pub(super) fn join(&self, name: &StreamName, form: Option<LiveForm>) -> Arc<StreamWaiters> {
        self.enter(name, |entry| {
            let waiters = entry.waiters.get_or_insert_with(|| StreamWaiters::new(name));
            waiters.count(form, |live| live.fetch_add(1, Ordering::Relaxed));
            waiters.readers.fetch_add(1, Ordering::Relaxed);
            waiters.clone()
        })
    }

    /// Removes a reader of a stream. The last one removes the entry.
    pub(super) fn leave(&self, waiters: &StreamWaiters, form: Option<LiveForm>) {
        waiters.count(form, |live| live.fetch_sub(1, Ordering::Relaxed));
        if waiters.readers.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.release(&waiters.name, |_| {});
        }
    }

    /// Marks the streams that `filter` matches for `member` from now on. The caller must read the store only
    /// afterwards.
    pub(super) fn subscribe(&self, filter: &Filter, member: &Arc<Member>) {
        if let Some(name) = filter.exact() {
            self.subscribe_to(name, member);
        } else if filter.has_wildcard() {
            self.wildcards.insert(filter, member);
            self.store.attach_all(filter);
            self.origins.note_readers(filter);
        }
    }

    /// Undoes one [`subscribe`](Self::subscribe).
    pub(super) fn unsubscribe(&self, filter: &Filter, member: &Member) {
        if let Some(name) = filter.exact() {
            self.unsubscribe_from(name, member);
        } else if filter.has_wildcard() {
            self.wildcards.remove(filter, member);
            self.store.detach_all(filter);
        }
    }

    /// Marks one stream for `member` from now on, like [`subscribe`](Self::subscribe).
    pub(super) fn subscribe_to(&self, name: &StreamName, member: &Arc<Member>) {
        self.enter(name, |entry| entry.subscribers.insert(member));
    }

    /// Undoes one [`subscribe_to`](Self::subscribe_to).
    pub(super) fn unsubscribe_from(&self, name: &StreamName, member: &Member) {
        self.release(name, |entry| entry.subscribers.remove(member));
    }

    /// Reports that a stream was created. Called after the store has created it.
    pub(super) fn begin(&self, name: &StreamName, epoch: Epoch, tail: Position, closed: bool) {
        if let Some(mut entry) = self.entries.get_mut(name)
            && entry.attached != Some(epoch)
        {
            self.attach(name, &mut entry);
        }
        self.advance(name, epoch, tail, closed);
    }

    /// Moves the tail of a stream. Called after the append is in the store; appends may overtake each other
    /// on the way here. Few waiters have the message when this returns.
    pub(super) fn advance(&self, name: &StreamName, epoch: Epoch, tail: Position, closed: bool) {
        let joined = self.entries.get(name).map(|entry| (entry.waiters.clone(), entry.subscribers.clone()));
        if let Some((waiters, subscribers)) = joined {
            waiters.into_iter().for_each(|waiters| waiters.advance(epoch, tail, closed));
            subscribers.mark(name);
        }
        self.wildcards.mark(name);
    }

    /// Reports that a stream has ended. Readers that join from now on wait for its successor of the same
    /// name; subscribers by name do so already.
    pub(super) fn end(&self, name: &StreamName) {
        let mut joined = None;
        let released = self.entries.remove_if_mut(name, |_, entry| {
            joined = Some((entry.waiters.take(), entry.subscribers.clone()));
            if !entry.is_idle() {
                self.attach(name, entry);
            }
            entry.is_idle()
        });
        self.detach(name, released.and_then(|(_, entry)| entry.attached));
        if let Some((waiters, subscribers)) = joined {
            waiters.into_iter().for_each(|waiters| waiters.end());
            subscribers.mark(name);
        }
        self.wildcards.mark(name);
    }

    /// Returns the number of streams with readers or subscribers by name, and the number of waiting tasks.
    pub(super) fn count(&self) -> (usize, usize) {
        let waiting =
            self.entries.iter().filter_map(|entry| Some(entry.waiters.as_ref()?.signal.waiting())).sum();
        (self.entries.len(), waiting)
    }

    /// Returns the number of readers and of subscribers by name of one stream.
    pub(super) fn readers(&self, name: &StreamName) -> usize {
        self.entries.get(name).map_or(0, |entry| entry.readers() + entry.subscribers.len())
    }

    /// Returns the readers and the subscribers by name of one stream.
    pub(super) fn readers_by_form(&self, name: &StreamName) -> ReadersByForm {
        self.entries.get(name).map_or_else(ReadersByForm::default, |entry| {
            let live = |waiters: &Arc<StreamWaiters>| {
                waiters.live.each_ref().map(|live| live.load(Ordering::Relaxed) as usize)
            };
            let [sse, ndjson, websocket] = entry.waiters.as_ref().map_or([0; 3], live);
            let long_poll = entry.readers().saturating_sub(sse + ndjson + websocket);
            ReadersByForm { long_poll, sse, ndjson, websocket, subscriptions: entry.subscribers.len() }
        })
    }

    /// Whether a stream has readers, or subscribers by name or wildcard.
    pub(super) fn has_readers(&self, name: &StreamName) -> bool {
        self.readers(name) > 0 || self.wildcards.have(name)
    }

    /// Returns the number of filters, each counted once per subscriber.
    pub(super) fn subscriptions(&self) -> usize {
        let exact: usize = self.entries.iter().map(|entry| entry.subscribers.len()).sum();
        exact + self.wildcards.len()
    }

    /// Applies `count_in` to the entry of a stream under the lock, creating the entry if needed: otherwise
    /// the last reader to leave could remove the entry in between.
    fn enter<T>(&self, name: &StreamName, count_in: impl FnOnce(&mut StreamEntry) -> T) -> T {
        let mut entry = self.entries.entry(name.clone()).or_default();
        if entry.attached.is_none() {
            self.attach(name, &mut entry);
        }
        let counted = count_in(&mut entry);
        drop(entry);
        self.origins.note_reader(name);
        counted
    }

    /// Applies `count_out` to the entry of a stream under the lock, and removes the entry if it is then
    /// unused.
    fn release(&self, name: &StreamName, count_out: impl FnOnce(&mut StreamEntry)) {
        let released = self.entries.remove_if_mut(name, |_, entry| {
            count_out(entry);
            entry.is_idle()
        });
        self.detach(name, released.and_then(|(_, entry)| entry.attached));
    }

    /// Attaches the stream that has this name now, which stops its TTL, and only then detaches its
    /// predecessor: in the other order the stream could expire in between.
    fn attach(&self, name: &StreamName, entry: &mut StreamEntry) {
        let before = std::mem::replace(&mut entry.attached, self.store.attach(name));
        self.detach(name, before);
    }

    fn detach(&self, name: &StreamName, epoch: Option<Epoch>) {
        if let Some(epoch) = epoch {
            self.store.detach(name, epoch, self.clock.now());
        }
    }
}

impl StreamEntry {
    fn readers(&self) -> usize {
        self.waiters.as_ref().map_or(0, |waiters| waiters.readers.load(Ordering::Relaxed))
    }

    fn is_idle(&self) -> bool {
        self.readers() == 0 && self.subscribers.is_empty()
    }
}

/// The readers of one stream, from its creation (or the end of an earlier stream of this name) to its end.
pub(super) struct StreamWaiters {
    pub(super) name: StreamName,
    pub(super) signal: Signal<TailState>,
    /// Number of readers that may wait here. Incremented only under the lock of the registry, so that no
    /// reader joins while the entry of the last one is removed.
    readers: AtomicUsize,
    /// How many of them read in each [`LiveForm`], for operators.
    live: [AtomicU32; 3],
}

/// The state that a waiter tests. The tail is that of the last append reported here.
#[derive(Debug, Default)]
pub(super) struct TailState {
    /// Epoch of the tail; `None` before the first append.
    epoch: Option<Epoch>,
    tail: Position,
    closed: bool,
    /// The stream was deleted or has expired.
    gone: bool,
    /// When the append that moved the tail was reported.
    moved_at: Option<Instant>,
    /// Everything that can be read from an offset now: the batch that the first woken reader read, shared
    /// with the others.
    read: Option<(Offset, SharedBatch)>,
}

/// What happened to a stream since its reader began to wait.
pub(super) enum TailMove {
    /// There may be something to read.
    On(Change<SharedBatch>),
    /// The stream has ended. A reader that continues to wait joins the waiters of its successor.
    Gone,
}

impl StreamWaiters {
    pub(super) fn new(name: &StreamName) -> Arc<Self> {
        let (signal, readers, live) = Default::default();
        Arc::new(Self { name: name.clone(), signal, readers, live })
    }

    /// Applies `change` to the number of readers in `form`, if it is a live form.
    fn count(&self, form: Option<LiveForm>, change: impl FnOnce(&AtomicU32) -> u32) {
        if let Some(live) = form.and_then(|form| self.live.get(form as usize)) {
            let _before = change(live);
        }
    }

    /// Moves the tail and delivers to the waiters.
    pub(super) fn advance(&self, epoch: Epoch, tail: Position, closed: bool) {
        deliver_to_all(self.signal.change(|state| state.advance(epoch, tail, closed)));
    }

    /// Tells the waiters that the stream has ended.
    pub(super) fn end(&self) {
        deliver_to_all(self.signal.change(|state| state.gone = true));
    }

    /// Shares a batch that one reader has read from `from` with the other readers, unless the tail has moved
    /// since.
    pub(super) fn share(&self, from: Offset, batch: &SharedBatch) {
        if self.readers.load(Ordering::Relaxed) > 1 {
            self.signal.note(|state| {
                let is_all = state.epoch == Some(batch.epoch)
                    && state.tail == batch.tail
                    && state.closed == batch.closed;
                if is_all {
                    state.read = Some((from, batch.clone()));
                }
            });
        }
    }
}

impl TailState {
    /// Ignores an append to an epoch earlier than the known one: the report came too late.
    fn advance(&mut self, epoch: Epoch, tail: Position, closed: bool) {
        if self.epoch > Some(epoch) {
            return;
        }
        if self.epoch < Some(epoch) {
            self.epoch = Some(epoch);
            (self.tail, self.closed) = Default::default();
        }
        self.tail = self.tail.max(tail);
        self.closed |= closed;
        self.read = None;
        self.moved_at = Some(Instant::now());
    }

    /// Tells a reader at `next`, which has read `epoch` up to `tail`, whether to read again. `None`: keep
    /// waiting.
    pub(super) fn moved(&self, next: Offset, epoch: Epoch, tail: Position) -> Option<TailMove> {
        if self.gone {
            return Some(TailMove::Gone);
        }
        let is_later_here = self.epoch == Some(epoch) && (self.tail > tail || self.closed);
        if !is_later_here && self.epoch <= Some(epoch) {
            return None;
        }
        let read = self.read.as_ref().filter(|(from, _)| *from == next);
        Some(TailMove::On(Change { published: self.moved_at, batch: read.map(|(_, batch)| batch.clone()) }))
    }
}

/// Delivers to up to [`PUBLISHER_DELIVERIES_MAX`] waiters at once. The others are split into one task per runtime thread; without a runtime they
/// are delivered to at once, too.
fn deliver_to_all(mut woken: Woken) {
    if let Some(others) = woken.len().checked_sub(PUBLISHER_DELIVERIES_MAX).filter(|others| *others > 0)
        && let Ok(runtime) = Handle::try_current()
    {
        // Before further threads take processors, so that the first client can read meanwhile.
        deliver(|| woken.wake(1));
        let mut others = woken.split_off(others);
        let part = others.len().div_ceil(runtime.metrics().num_workers().max(1));
        while !others.is_empty() {
            let mut part = others.split_off(part);
            runtime.spawn(async move {
                while !part.is_empty() {
                    deliver(|| part.wake(DELIVERIES_PER_TURN));
                    yield_now().await;
                }
            });
        }
    }
    deliver(|| drop(woken));
}
