//! The hub: appends and then wakes, reads and else waits. The only place that waits.
//!
//! A message takes this way: the store has it, then the stream's tail moves, then whoever waits for a tail
//! beyond its offset wakes and reads the log from there. Nothing is copied or queued per client.

mod changes;
mod clients;
mod held_poll;
mod multi_reader;
mod signal;
mod source;
mod stream_reader;
mod subscriber;
mod sync;
mod tail;
mod takeovers;
#[cfg(test)]
mod tests;
mod update;
mod waiters;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::yield_now;

pub use changes::{Creation, CreationError};
pub use clients::{
    CLIENT_ID_BYTES_MAX, ClientId, ClientView, HeldView, InvalidClientId, Subject, SubscribedView,
    TooManyPolls,
};
pub use held_poll::{HeldPoll, PollError, PollSettings, PollStart, Polled};
pub use multi_reader::{MultiBatch, MultiReader, RequestedStream, StreamUpdate};
pub use signal::{Signal, WaitUntil, Waiter, Woken};
pub use source::Source;
pub use stream_reader::StreamReader;
pub use subscriber::{StreamWalk, Subscriber};
pub use tail::{Tail, TailSettings};
pub use takeovers::Takeovers;
pub use update::{Change, SharedBatch, Update, Variant};

use crate::budget::{Account, Budget};
use crate::clock::Clock;
use crate::limits::{Limits, Span};
use crate::metrics::{Counts, MemoryCounts, Metrics};
use crate::stream::{
    Batch, Description, Missing, ReadError, ReadLimit, Retention, Shortage, Start, Store, StoredSession,
    StreamName,
};

/// How often streams that have ended are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What a stream in memory keeps that does not say: so many bytes, at most this part of the memory budget, for so long.
const VOLATILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
const VOLATILE_PART: u64 = 16;
const VOLATILE_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// While memory is critical, this part of the held polls is answered each second.
const ANSWERED_EARLY_PART: usize = 10;

/// How often held polls are ended during a drain.
const DRAIN_STEP: Duration = Duration::from_millis(50);

/// Everything between the fronts and the store.
pub struct Hub {
    store: Arc<dyn Store>,
    waiters: Arc<waiters::WaiterRegistry>,
    clients: Arc<clients::Clients>,
    subscribers: subscriber::Subscribers,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    clock: Clock,
    budget: Arc<Budget>,
    default_retention: Retention,
    draining: watch::Sender<bool>,
    /// The same, for those who ask with each answer.
    is_draining: AtomicBool,
}

/// What streams keep that do not say. If the limits do not say either, a store in memory keeps what an application is sure to
/// have read by then, so that a publisher that was forgotten does not use up the budget; a store on disk keeps all.
fn default_retention(limits: &Limits, is_lasting: bool, budget: &Budget) -> Retention {
    let limit = |max: u64| (max > 0).then_some(max);
    let bytes = || if is_lasting { 0 } else { VOLATILE_BYTES_MAX.min(budget.max() / VOLATILE_PART) };
    let age = || if is_lasting { Duration::ZERO } else { VOLATILE_AGE_MAX };
    let age = limits.retention_age_max.map_or_else(age, Span::get);
    Retention {
        messages_max: limit(limits.retention_messages_max),
        bytes_max: limit(limits.retention_bytes_max.unwrap_or_else(bytes)),
        age_max: (!age.is_zero()).then_some(age),
    }
}

impl Hub {
    /// A hub over `store`.
    pub fn new(store: Arc<dyn Store>, limits: Arc<Limits>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        store.follow_wall(clock.now(), clock.wall());
        Self {
            waiters: Arc::new(waiters::WaiterRegistry::new(store.clone(), clock)),
            clients: Arc::new(clients::Clients::new(&limits, &metrics, clock)),
            subscribers: subscriber::Subscribers::default(),
            default_retention: default_retention(&limits, store.outlives_process(), &Budget::unlimited()),
            budget: Budget::unlimited(),
            store,
            limits,
            metrics,
            clock,
            draining: watch::Sender::new(false),
            is_draining: AtomicBool::new(false),
        }
    }

    /// The same with the budget that the store is within.
    pub fn within(self, budget: Arc<Budget>) -> Self {
        let default_retention = default_retention(&self.limits, self.store.outlives_process(), &budget);
        Self { default_retention, budget, ..self }
    }

    /// The memory budget.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Reads what is there and does not wait: the short poll.
    pub async fn read(&self, name: &StreamName, start: Start) -> Result<Batch, ReadError> {
        let limit = ReadLimit { bytes_max: self.limits.read_bytes_max };
        self.store.read(name, start, limit, self.clock.now()).await
    }

    /// Tells about a stream without using it.
    pub async fn describe(&self, name: &StreamName) -> Result<Description, Missing> {
        self.store.describe(name, self.clock.now()).await
    }

    /// Whether a session that is stored outlives the process.
    pub fn keeps_sessions(&self) -> bool {
        self.store.outlives_process()
    }

    /// The sessions that the store has kept.
    pub fn sessions(&self) -> Vec<StoredSession> {
        self.store.sessions()
    }

    /// The clients that hold polls, subscribe, or are remembered, by name; at most `max` of them.
    pub fn clients(&self, max: usize) -> Vec<ClientView> {
        clients::joined(self.clients.views(max), self.subscribers.views(max, self.clock), max)
    }

    /// One client, if it is known. An id that no wait queue can have may be a subscriber's.
    pub fn client(&self, id: &str) -> Option<ClientView> {
        let subscribed = self.subscribers.one(id, self.clock).map(|view| (id.to_owned(), view));
        clients::joined(self.clients.one(id), subscribed, 1).pop()
    }

    /// Whether the gateway drains.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
    }

    /// Whether something that the store kept is damaged.
    pub fn store_is_damaged(&self) -> bool {
        self.store.is_damaged()
    }

    /// Whether the store takes nothing any more.
    pub fn store_has_failed(&self) -> bool {
        self.store.has_failed()
    }

    /// Becomes true when the gateway drains.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// When in a drain one connection is to end: at a moment of its own, so that not all clients come again at once.
    pub fn drain_moment(&self) -> Duration {
        self.limits.drain_spread.get().mul_f64(fastrand::f64())
    }

    /// What the memory budget shows.
    pub fn memory(&self) -> MemoryCounts {
        let usage = self.budget.usage();
        MemoryCounts {
            accounts: Account::ALL.map(Account::as_str).into_iter().zip(usage.accounts).collect(),
            refused: Shortage::ALL.map(Shortage::as_str).into_iter().zip(usage.refused).collect(),
            max: usage.max,
            resident: usage.resident,
            principals: usage.principals,
        }
    }

    /// What the gauges show.
    pub fn counts(&self) -> Counts {
        let (watched_streams, waiters) = self.waiters.count();
        Counts {
            streams: self.store.streams(),
            watched_streams,
            waiters,
            held_polls: self.clients.held(),
            subscribers: self.subscribers.count(),
            subscriptions: self.waiters.subscriptions(),
        }
    }

    /// Ends streams whose time has come, for as long as it is polled.
    pub async fn sweep(&self) {
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            interval.tick().await;
            // This also comes soon after the machine was suspended, which timers do not notice.
            let now = self.clock.now();
            self.store.follow_wall(now, self.clock.wall());
            self.answer_idle_polls_if_memory_is_critical();
            loop {
                let ended = self.store.sweep(now);
                if ended.is_empty() {
                    break;
                }
                ended.iter().for_each(|name| self.waiters.end(name));
                yield_now().await;
            }
        }
    }

    /// Answers a part of the held polls early, each with its offset. Their connections close (`Hub::is_shedding`).
    fn answer_idle_polls_if_memory_is_critical(&self) {
        if self.budget.is_critical() {
            self.clients.drain(self.clients.held().div_ceil(ANSWERED_EARLY_PART));
        }
    }

    /// Whether connections close behind the answer that is under way: the gateway drains, or memory is critical.
    pub fn is_shedding(&self) -> bool {
        self.is_draining() || self.budget.is_critical()
    }

    /// Ends held polls and live forms, each with its offset, evenly over the spread; then returns. What comes
    /// during a drain is not held any more.
    pub async fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
        self.draining.send_replace(true);
        let steps = (self.limits.drain_spread.get().as_millis() / DRAIN_STEP.as_millis()).max(1);
        let a_step = self.clients.held().div_ceil(usize::try_from(steps).unwrap_or(1)).max(1);
        let mut interval = tokio::time::interval(DRAIN_STEP);
        for _ in 0..steps {
            interval.tick().await;
            self.clients.drain(a_step);
        }
        self.clients.drain(usize::MAX);
    }
}
