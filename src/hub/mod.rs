//! The hub stands between the fronts and the store: it appends messages, wakes the readers that wait for
//! them, and reads streams. It is the only layer that waits for messages.
//!
//! An append is written to the store, then the stream's tail moves, and the move wakes every reader that
//! waits for a tail beyond its offset. The reader then reads the log from its offset. Nothing is copied or
//! queued per client.
//!
//! [`Hub`] has the operations. [`StreamReader`] and [`MultiReader`] read one stream or many and wait;
//! [`HeldPoll`] is a long poll and [`Tail`] a live delivery form over either of them. A [`Subscriber`] learns
//! which streams have changed.

mod changes;
mod claims;
mod clients;
mod devices;
mod drain;
mod held_poll;
mod in_place;
mod listing;
mod moves;
mod multi_reader;
mod news;
mod polled_origins;
mod signal;
mod source;
mod stream_reader;
mod subscriber;
pub mod subscriptions;
mod sync;
mod tail;
mod takeovers;
#[cfg(test)]
mod tests;
mod update;
mod waiters;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub use changes::{Creation, CreationError, PendingAppend};
pub use claims::UNCLAIMED_MAX;
pub use clients::{
    CLIENT_ID_BYTES_MAX, ClientId, ClientView, CredentialMark, HeldView, InvalidClientId, Subject,
    SubscribedView, TooManyPolls,
};
pub use devices::{
    AppPolicy, ChannelView, Credential, CredentialKind, DeviceConnection, DeviceError, DeviceSpec,
    DeviceView, Devices, QuietHours, ReceiptState, RemovalReason, Removed, Verdict, WakeOrder,
};
pub use drain::DrainWaiter;
pub use held_poll::{HeldPoll, PollError, PollSettings, PollStart, Polled, UnreadPoll};
pub use in_place::{InPlace, is_in_place};
pub use listing::{StreamListing, StreamQuery, StreamView};
pub use moves::Moves;
pub use multi_reader::{MultiBatch, MultiReader, RequestedStream, StreamUpdate};
pub use news::ClaimNews;
pub use polled_origins::{
    ElementKey, OriginInterval, OriginPlace, OriginSettings, OriginState, OriginStatus, PolledOrigin,
    SeenEntry,
};
pub use signal::{Signal, WaitUntil, Waiter, Woken};
pub use source::Source;
pub use stream_reader::StreamReader;
pub use subscriber::{Marker, StreamWalk, Subscriber};
pub use tail::{EndSignal, Tail, TailSettings};
pub use takeovers::Takeovers;
pub use update::{Change, SharedBatch, Update, Variant};
pub use waiters::{LiveForm, ReadersByForm};

use crate::budget::{Account, Budget, OpenCharge};
use crate::clock::{Backoff, Clock};
use crate::limits::{Limits, Span};
use crate::metrics::{Counts, MemoryCounts, Metrics, TenantUsage};
use crate::stream::{
    Batch, ChangeError, Description, Failure, MessageLimit, Messages, Offset, Position, ReadError, ReadLimit,
    Retention, SessionNames, Shortage, Start, Store, StoredSession, StreamName, Tenant,
};
use crate::traces::Traces;

/// Least interval between two sweeps for expired streams.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Longest time from a sweep to the next one if nothing is due before.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Timers do not notice a suspend of the machine, so what is due in a time is looked for after this part of it: a stream that ended
/// while the machine was suspended ends late by no more.
const SWEEP_PART: u32 = 4096;

/// Default retention in bytes of a stream in a memory store.
const VOLATILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Part of the memory budget that [`VOLATILE_BYTES_MAX`] may take at most: one sixteenth.
const VOLATILE_PART: u64 = 16;
/// Default retention by age of a stream in a memory store: one week.
const VOLATILE_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// While memory is critical, each sweep answers one in this many held polls early.
const ANSWERED_EARLY_PART: usize = 10;

/// Interval between two batches of held polls that a drain ends.
const DRAIN_STEP: Duration = Duration::from_millis(50);

/// Operations on streams, clients and sessions, shared by all fronts. See the [module](self) documentation.
pub struct Hub {
    store: Arc<dyn Store>,
    waiters: Arc<waiters::WaiterRegistry>,
    clients: Arc<clients::Clients>,
    subscribers: Arc<subscriber::Subscribers>,
    devices: Arc<Devices>,
    origins: Arc<polled_origins::PolledOrigins>,
    claim_listeners: Arc<news::ClaimListeners>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    clock: Clock,
    budget: Arc<Budget>,
    /// `None`: messages are not traced.
    traces: Option<Arc<Traces>>,
    default_retention: Retention,
    drain: Arc<drain::Drain>,
}

/// Delays between the attempts to read a store that cannot be reached.
const UNREACHABLE: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(5) };

/// Repeats `read` until the store answers, for work that no client waits for.
///
/// Cancel safe.
async fn until_answered<T, F: Future<Output = Result<T, Failure>>>(mut read: impl FnMut() -> F) -> T {
    let mut failures = 0;
    loop {
        match read().await {
            Ok(answer) => return answer,
            Err(error) => {
                failures += 1;
                if failures == 1 {
                    tracing::warn!(%error, "the store cannot be read; trying again");
                }
                sleep(UNREACHABLE.half_jitter(failures, fastrand::f64())).await;
            }
        }
    }
}

/// A walk over stored sessions by pages; advanced by [`Hub::next_sessions`].
#[derive(Debug)]
pub struct SessionWalk {
    names: SessionNames<'static>,
    after: Option<Arc<str>>,
    is_over: bool,
}

impl SessionWalk {
    /// Begins a walk over the sessions that `names` selects.
    pub fn over(names: SessionNames<'static>) -> Self {
        Self { names, after: None, is_over: false }
    }
}

/// What a tenant has, for the metrics.
fn usage_of((tenant, [streams, open]): (Tenant, [u64; 2])) -> (String, TenantUsage) {
    (tenant.prefix().to_owned(), TenantUsage { streams, open })
}

/// Retention of streams whose creator sets none. Limits that are set apply. Otherwise a memory store bounds
/// bytes and age, so that one forgotten publisher cannot use up the memory budget, and a store on disk keeps
/// everything.
fn default_retention(limits: &Limits, is_lasting: bool, budget: &Budget) -> Retention {
    let limit = |max: u64| (max > 0).then_some(max);
    let bytes = || if is_lasting { 0 } else { VOLATILE_BYTES_MAX.min(budget.max() / VOLATILE_PART) };
    let age_max = || if is_lasting { Duration::ZERO } else { VOLATILE_AGE_MAX };
    let age = limits.retention_age_max.map_or_else(age_max, Span::get);
    Retention {
        messages_max: limit(limits.retention_messages_max),
        bytes_max: limit(limits.retention_bytes_max.unwrap_or_else(bytes)),
        age_max: (!age.is_zero()).then_some(age),
    }
}

impl Hub {
    /// Creates a hub over `store`, with an unlimited memory budget until [`within`](Self::within) is called.
    pub fn new(store: Arc<dyn Store>, limits: Arc<Limits>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        store.follow_wall(clock.now(), clock.wall());
        let subscribers = Arc::<subscriber::Subscribers>::default();
        let devices = Devices::new(metrics.wakes().clone(), subscribers.unlisted(), limits.wakes_at_once_max);
        let origins = Arc::<polled_origins::PolledOrigins>::default();
        let waiters = Arc::new(waiters::WaiterRegistry::new(store.clone(), clock, origins.clone()));
        let claim_listeners = Arc::<news::ClaimListeners>::default();
        let followed = news::Followed::new(&waiters, subscribers.clone(), claim_listeners.clone());
        store.tell(Arc::new(followed));
        Self {
            waiters,
            clients: Arc::new(clients::Clients::new(&limits, &metrics, clock)),
            subscribers,
            devices: Arc::new(devices),
            origins,
            claim_listeners,
            default_retention: default_retention(&limits, store.outlives_process(), &Budget::unlimited()),
            budget: Budget::unlimited(),
            traces: None,
            store,
            limits,
            metrics,
            clock,
            drain: Arc::default(),
        }
    }

    /// Sets the memory budget, which must be the one that the store charges.
    pub fn within(self, budget: Arc<Budget>) -> Self {
        let default_retention = default_retention(&self.limits, self.store.outlives_process(), &budget);
        Self { default_retention, budget, ..self }
    }

    /// Records traces of messages.
    pub fn recording(self, traces: Option<Arc<Traces>>) -> Self {
        Self { traces, ..self }
    }

    /// The traces of messages. `None`: there are none.
    pub fn traces(&self) -> Option<&Arc<Traces>> {
        self.traces.as_ref()
    }

    /// Records that a client got the messages of a stream between two positions, in a delivery form.
    pub fn trace_delivery(&self, form: &'static str, name: &StreamName, from: Position, to: Position) {
        if let Some(traces) = &self.traces {
            traces.delivered(name.as_str(), form, from.0, to.0);
        }
    }

    /// The memory budget.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Counts one thing more that a tenant has open, see [`OpenCharge::new`].
    pub fn open(&self, tenant: &Tenant, replaces: bool) -> Result<Option<OpenCharge>, Shortage> {
        OpenCharge::new(&self.budget, tenant, replaces)
    }

    /// Counts a refusal of a client with credentials, for its tenant.
    pub fn count_refusal(&self, tenant: &Tenant) {
        if let Some(place) = self.metrics.tenant_place(tenant.prefix()) {
            self.metrics.tenant_refused(place);
        }
    }

    /// Reads from `start` without waiting for messages (short poll).
    pub async fn read(&self, name: &StreamName, start: Start) -> Result<Batch, ReadError> {
        match self.read_at_once(name, start) {
            Some(read) => read,
            None => self.read_waiting(name, start).await,
        }
    }

    /// Reads like [`read`](Self::read), if the store has nothing to wait for either.
    pub fn read_at_once(&self, name: &StreamName, start: Start) -> Option<Result<Batch, ReadError>> {
        self.origins.note_reader(name);
        self.store.read_at_once(name, start, self.read_limit(), self.clock.now())
    }

    /// Reads like [`read`](Self::read) what [`read_at_once`](Self::read_at_once) does not know.
    pub async fn read_waiting(&self, name: &StreamName, start: Start) -> Result<Batch, ReadError> {
        self.store.read(name, start, self.read_limit(), self.clock.now()).await
    }

    fn read_limit(&self) -> ReadLimit {
        ReadLimit { bytes_max: self.limits.read_bytes_max }
    }

    /// Reads messages one by one. This does not count as use of the stream.
    pub async fn peek(
        &self,
        name: &StreamName,
        start: Start,
        limit: MessageLimit,
    ) -> Result<Messages, ReadError> {
        self.store.peek(name, start, limit, self.clock.now()).await
    }

    /// Describes a stream. This does not count as use of the stream: its TTL keeps running.
    pub async fn describe(&self, name: &StreamName) -> Result<Description, ChangeError> {
        self.store.describe(name, self.clock.now()).await
    }

    /// Returns the tail of a stream, `None` if the stream does not exist. This does not count as use of the stream. Waits while the
    /// store cannot be read.
    pub async fn settled_tail(&self, name: &StreamName) -> Option<Offset> {
        self.settled_description(name).await.map(|description| description.tail)
    }

    /// Describes a stream like [`settled_tail`](Self::settled_tail).
    pub(in crate::hub) async fn settled_description(&self, name: &StreamName) -> Option<Description> {
        until_answered(|| self.description_of(name)).await
    }

    /// Returns the tail of a stream, `None` if the stream does not exist. This does not count as use of the stream.
    pub async fn tail_of(&self, name: &StreamName) -> Result<Option<Offset>, Failure> {
        Ok(self.description_of(name).await?.map(|description| description.tail))
    }

    async fn description_of(&self, name: &StreamName) -> Result<Option<Description>, Failure> {
        match self.describe(name).await {
            Ok(description) => Ok(Some(description)),
            Err(ChangeError::Missing(_)) => Ok(None),
            Err(ChangeError::Failed(failure)) => Err(failure),
        }
    }

    /// Whether stored sessions outlive the process.
    pub fn keeps_sessions(&self) -> bool {
        self.store.outlives_process()
    }

    /// Returns the next stored sessions of a walk. `None`: the walk is over.
    pub async fn next_sessions(&self, walk: &mut SessionWalk) -> Result<Option<Vec<StoredSession>>, Failure> {
        if walk.is_over {
            return Ok(None);
        }
        let page = self.store.session_page(walk.names, walk.after.as_deref()).await?;
        (walk.is_over, walk.after) = (page.next.is_none(), page.next);
        Ok(Some(page.sessions))
    }

    /// Lists clients that hold polls, subscribe, or are remembered, and whose names contain `contains`, in the order of their names. Returns at
    /// most `max` clients.
    pub fn clients(&self, contains: &str, max: usize) -> Vec<ClientView> {
        let subscribed = self.subscribers.views(contains, max, self.clock);
        clients::joined(self.clients.views(contains, max), subscribed, max)
    }

    /// Finds one client by its id, which for a subscriber need not be a valid [`ClientId`].
    pub fn client(&self, id: &str) -> Option<ClientView> {
        let subscribed = self.subscribers.one(id, self.clock).map(|view| (id.to_owned(), view));
        clients::joined(self.clients.one(id), subscribed, 1).pop()
    }

    /// Whether the store has found damaged records.
    pub fn store_is_damaged(&self) -> bool {
        self.store.is_damaged()
    }

    /// Whether what the store needs outside of this process answers.
    pub fn store_is_reachable(&self) -> bool {
        self.store.is_reachable()
    }

    /// Whether the store has failed and rejects all changes.
    pub fn store_has_failed(&self) -> bool {
        self.store.has_failed()
    }

    /// Takes a snapshot of the memory budget for the metrics.
    pub fn memory(&self) -> MemoryCounts {
        let usage = self.budget.usage();
        MemoryCounts {
            accounts: Account::ALL.map(Account::as_str).into_iter().zip(usage.accounts).collect(),
            refused: Shortage::ALL.map(Shortage::as_str).into_iter().zip(usage.refused).collect(),
            max: usage.max,
            resident: usage.resident,
            principals: usage.principals,
            tenants: self.budget.tenants().into_iter().map(usage_of).collect(),
        }
    }

    /// Takes a snapshot of the gauges for the metrics.
    pub fn counts(&self) -> Counts {
        let (watched_streams, waiters) = self.waiters.count();
        Counts {
            streams: self.store.streams(),
            watched_streams,
            waiters,
            held_polls: self.clients.held(),
            subscribers: self.subscribers.count(),
            subscriptions: self.waiters.subscriptions(),
            devices: self.devices.states(),
        }
    }

    /// Ends expired streams, within a second after they are due, and sleeps while none is. Never returns; runs as long as it is
    /// polled.
    pub async fn sweep(&self) {
        loop {
            let begun = Instant::now();
            loop {
                let now = self.clock.now();
                self.store.follow_wall(now, self.clock.wall());
                let ended = match self.store.sweep(now).await {
                    Ok(ended) if ended.is_empty() => break,
                    Ok(ended) => ended,
                    Err(error) => {
                        tracing::warn!(%error, "cannot remove expired streams; the next sweep tries again");
                        break;
                    }
                };
                for name in &ended {
                    self.waiters.end(name);
                    self.end_origin_of(name).await;
                }
                yield_now().await;
            }
            sleep_until(begun + SWEEP_INTERVAL).await;
            let Some(at) = self.store.next_sweep() else {
                self.store.sweep_sooner().await;
                continue;
            };
            let pause = at.duration_since(self.clock.now()).unwrap_or_default() / SWEEP_PART;
            if pause > SWEEP_INTERVAL {
                let pause = pause.min(SWEEP_INTERVAL_MAX) - SWEEP_INTERVAL;
                let _sooner_or_not = timeout(pause, self.store.sweep_sooner()).await;
            }
        }
    }

    /// Answers one in [`ANSWERED_EARLY_PART`] held polls with its offset while memory is critical. Their
    /// connections close (see [`is_shedding`](Self::is_shedding)).
    pub fn answer_idle_polls_if_memory_is_critical(&self) {
        if self.budget.is_critical() {
            self.clients.drain(self.clients.held().div_ceil(ANSWERED_EARLY_PART));
        }
    }

    /// Ends the held polls whose credentials `have_ended`, each with its offset and without messages.
    pub fn end_polls(&self, have_ended: impl Fn(CredentialMark) -> bool) {
        self.clients.end_unauthorized(have_ended);
    }

    /// Whether a connection closes after its current response: the gateway is draining, or memory is
    /// critical.
    pub fn is_shedding(&self) -> bool {
        self.is_draining() || self.budget.is_critical()
    }

    /// Whether the gateway is draining.
    pub fn is_draining(&self) -> bool {
        self.drain.has_begun()
    }

    /// Returns a receiver whose value becomes true when the gateway starts to drain.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.drain.subscribe()
    }

    /// Returns what a connection waits for the drain with, in place of [`draining`](Self::draining), since there are very many.
    pub fn drain_waiter(&self) -> DrainWaiter {
        self.drain.waiter()
    }

    /// Random delay, up to `drain_spread`, after which one connection ends during a drain. It differs per
    /// connection so that clients do not all reconnect at once.
    pub fn drain_moment(&self) -> Duration {
        self.limits.drain_spread.get().mul_f64(fastrand::f64())
    }

    /// Starts a drain: ends held polls and live delivery forms evenly over `drain_spread`, each with its
    /// offset, then returns; at once if nobody is connected. New polls are no longer held.
    pub async fn drain(&self) {
        self.drain.begin(|| self.store.retire());
        if !self.metrics.has_connections() && self.clients.held() == 0 {
            return;
        }
        let steps = (self.limits.drain_spread.get().as_millis() / DRAIN_STEP.as_millis()).max(1);
        let polls_per_step = self.clients.held().div_ceil(usize::try_from(steps).unwrap_or(1)).max(1);
        let mut interval = tokio::time::interval(DRAIN_STEP);
        for _ in 0..steps {
            interval.tick().await;
            self.clients.drain(polls_per_step);
        }
        self.clients.drain(usize::MAX);
    }
}
