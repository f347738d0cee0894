//! [`OriginPoller`]: polls the origins of streams, each once for all readers of its stream, and appends what is new.
//!
//! Each origin has a task, which sleeps while nobody reads. A reader that comes wakes it; two intervals after the last short poll, or
//! with the end of the last reader that waits, it sleeps again. How many requests are under way is bounded, in all, for each tenant and
//! for each host.
//!
//! If several gateways use the store, one of them polls an origin. The task at another one tells that gateway while there are readers.

mod permits;
mod response;
mod schedule;
mod seen;
mod state_stream;

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::clock::Clock;
use crate::http_client::{Destination, ExchangeLimits, HttpClient, Trust};
use crate::hub::{Hub, OriginPlace, OriginState, PolledOrigin};
use crate::limits::Limits;
use crate::metrics::OriginMetrics;
use crate::stream::{Append, AppendError, ChangeError, ContentType, TraceContext};
use permits::RequestPermits;
use response::{Fetched, PollFailure, Validators, asked_wait, fetched, request};
use schedule::PollSchedule;
use seen::{ContentLimits, SeenChange, SeenDigests};
use state_stream::StateStream;

/// Polls all origins of a hub.
pub struct OriginPoller {
    hub: Arc<Hub>,
    client: HttpClient,
    trust: Trust,
    limits: Arc<Limits>,
    clock: Clock,
    metrics: OriginMetrics,
    permits: RequestPermits,
    is_allowed: bool,
}

/// What the task of an origin remembers between two polls.
struct PollProgress {
    schedule: PollSchedule,
    seen: SeenDigests,
    validators: Validators,
}

impl OriginPoller {
    /// Creates a poller that sends its requests with `client`. It sends none until the operator has [`allowed`](Self::allowed) them.
    pub fn new(
        hub: Arc<Hub>,
        client: HttpClient,
        trust: Trust,
        limits: Arc<Limits>,
        clock: Clock,
        metrics: OriginMetrics,
    ) -> Self {
        let permits = RequestPermits::new(limits.origin_requests_max);
        Self { hub, client, trust, limits, clock, metrics, permits, is_allowed: false }
    }

    /// Whether the operator allows origins; otherwise readers of the streams that have one are told that it is disabled.
    pub fn allowed(self, is_allowed: bool) -> Self {
        Self { is_allowed, ..self }
    }

    /// Polls until the gateway drains. Dropping the future stops all requests.
    pub async fn run(self) {
        let Some(mut added) = self.hub.take_origins() else { return };
        let (poller, mut tasks) = (Arc::new(self), JoinSet::new());
        let mut draining = poller.hub.draining();
        loop {
            tokio::select! {
                Some(origin) = added.recv() => {
                    poller.metrics.added();
                    tasks.spawn(poller.clone().follow(origin));
                }
                Some(_) = tasks.join_next(), if !tasks.is_empty() => poller.metrics.removed(),
                Ok(_) = draining.wait_for(|draining| *draining) => return,
                else => return,
            }
        }
    }

    /// Follows an origin until its stream has ended.
    async fn follow(self: Arc<Self>, origin: Arc<PolledOrigin>) {
        let to = Destination::of_origin(&origin.settings().url, &self.trust);
        let to =
            if self.is_allowed { to.map_err(|_| PollFailure::Refused) } else { Err(PollFailure::Disabled) };
        let mut place = origin.place();
        loop {
            let current = *place.borrow_and_update();
            if current == OriginPlace::Ended {
                // A later stream of this name may have an origin, too.
                if !self.hub.has_shared_origin(origin.stream()).await {
                    StateStream::of(&origin).end(&self.hub).await;
                }
                return;
            }
            let follow = async {
                match (current, &to) {
                    (OriginPlace::Here, Ok(to)) => self.poll_while_read(&origin, to).await,
                    (OriginPlace::Here, Err(failure)) => self.refuse(&origin, failure).await,
                    _ => self.tell_readers(&origin).await,
                }
            };
            tokio::select! {
                // Does not fail, because the sender is part of the origin.
                _ = place.changed() => {}
                () = follow => {
                    self.hub.end_origin_of(origin.stream()).await;
                    let _moved = place.changed().await;
                }
            }
        }
    }

    /// The operator does not allow the origin.
    async fn refuse(&self, origin: &PolledOrigin, failure: &PollFailure) {
        let mut state = StateStream::of(origin);
        origin.failed(&failure.to_string(), self.clock.wall(), None);
        state.tell(origin, &self.hub).await;
        self.hub.tell_origin_status(origin).await;
        pending().await
    }

    /// Tells the gateway that polls the origin as long as there are readers here.
    async fn tell_readers(&self, origin: &PolledOrigin) {
        let interval = origin.settings().interval.at_least(self.limits.origin_interval_min.get()).min;
        loop {
            while !origin.was_read_within(2 * interval) && !self.hub.has_readers(origin.stream()) {
                origin.reader().await;
            }
            self.hub.tell_origin_is_read(origin).await;
            sleep(interval).await;
        }
    }

    /// Polls the origin as often as its schedule says, and waits for a reader if there is none. Returns when the stream has ended.
    async fn poll_while_read(&self, origin: &PolledOrigin, to: &Destination) {
        let interval = origin.settings().interval.at_least(self.limits.origin_interval_min.get());
        let mut progress = PollProgress {
            schedule: PollSchedule::new(interval, Instant::now()),
            seen: SeenDigests::stored(&origin.take_stored()),
            validators: Validators::default(),
        };
        origin.keeps(progress.seen.bytes());
        let mut state = StateStream::of(origin);
        loop {
            if !self.is_read(origin, &progress.schedule) {
                origin.is_due(None);
                self.hub.tell_origin_status(origin).await;
                while !self.is_read(origin, &progress.schedule) {
                    origin.reader().await;
                }
                progress.schedule.resume(Instant::now());
                origin.is_due(Some(self.wall_at(progress.schedule.next())));
            }
            sleep_until(progress.schedule.next()).await;
            if !self.is_read(origin, &progress.schedule) {
                continue;
            }
            let permit = self.permits.acquire(&origin.stream().tenant(), to.authority()).await;
            let stream = match self.hub.describe(origin.stream()).await {
                Ok(stream) => stream,
                Err(ChangeError::Missing(_)) => return,
                Err(ChangeError::Failed(failure)) => {
                    tracing::warn!(%failure, stream = %origin.stream(), "the store cannot be read; not polling");
                    drop(permit);
                    sleep_until(Instant::now() + origin.settings().interval.min).await;
                    continue;
                }
            };
            let (outcome, wait) = self.poll(origin, to, &stream.content_type, &mut progress).await;
            drop(permit);
            self.conclude(origin, to, &mut progress.schedule, outcome, wait);
            state.tell(origin, &self.hub).await;
            self.hub.tell_origin_status(origin).await;
        }
    }

    fn is_read(&self, origin: &PolledOrigin, schedule: &PollSchedule) -> bool {
        let is_read = origin.was_read_within(schedule.linger()) || self.hub.has_readers(origin.stream());
        (origin.settings().is_always_polled || is_read) && !self.hub.is_draining()
    }

    /// The time of day at an instant.
    fn wall_at(&self, instant: Instant) -> SystemTime {
        self.clock.wall() + instant.saturating_duration_since(Instant::now())
    }

    /// Sends one request, and appends what is new. Returns whether there was something new, and how long the origin asks to wait.
    async fn poll(
        &self,
        origin: &PolledOrigin,
        to: &Destination,
        content_type: &ContentType,
        progress: &mut PollProgress,
    ) -> (Result<bool, PollFailure>, Option<Duration>) {
        if self.hub.budget().is_critical() {
            return (Err(PollFailure::Store), None);
        }
        let (time, body_bytes_max) = (self.limits.origin_timeout.get(), self.limits.origin_bytes_max);
        let mut request = request(content_type, &progress.validators);
        let traced = self.hub.traces().and_then(|traces| traces.poll(origin.stream().as_str()));
        if let Some(traced) = &traced {
            traced.put(request.headers_mut());
        }
        let field = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let trace = TraceContext::new(field("traceparent"), field("tracestate"));
        let sent = self.client.send(to, request, ExchangeLimits { time, body_bytes_max }).await;
        if let Some(traced) = traced {
            traced.end(sent.as_ref().err().map(ToString::to_string));
        }
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(origin = ?to, %error, "polling an origin failed");
                return (Err(error.into()), None);
            }
        };
        let wait = asked_wait(response.status(), response.headers(), self.clock.wall());
        let outcome = match fetched(response, content_type) {
            Ok(Fetched::Unchanged) => Ok(false),
            Ok(Fetched::Body(body, validators)) => {
                let appended = self.append(origin, content_type, body, &mut progress.seen, trace).await;
                // After a failure the whole response is needed again.
                progress.validators = if appended.is_ok() { validators } else { Validators::default() };
                appended
            }
            Err(failure) => Err(failure),
        };
        (outcome, wait)
    }

    /// Appends what is new in a response. Returns whether anything is.
    async fn append(
        &self,
        origin: &PolledOrigin,
        content_type: &ContentType,
        body: Bytes,
        seen: &mut SeenDigests,
        trace: Option<Box<TraceContext>>,
    ) -> Result<bool, PollFailure> {
        let limits = ContentLimits {
            json_depth_max: self.limits.json_depth_max,
            elements_max: self.limits.origin_elements_max,
        };
        let change = seen.compare(body, content_type, origin.settings().key.as_ref(), limits)?;
        let Some(SeenChange { payload, seen: next, entries }) = change else { return Ok(false) };
        let is_new = !payload.is_empty();
        let stored = if is_new {
            let append = Append { trace, ..Append::of(content_type.clone(), payload) };
            self.hub.fill(origin, append, entries).await.map(drop)
        } else {
            self.hub.note_seen(origin, entries).await.map_err(AppendError::Failed)
        };
        stored.map_err(|error| {
            tracing::debug!(stream = origin.stream().as_str(), %error, "cannot store what an origin has");
            PollFailure::Store
        })?;
        *seen = next;
        origin.keeps(seen.bytes());
        Ok(is_new)
    }

    /// Schedules the next poll, and tells readers and operators the outcome of this one.
    fn conclude(
        &self,
        origin: &PolledOrigin,
        to: &Destination,
        schedule: &mut PollSchedule,
        outcome: Result<bool, PollFailure>,
        wait: Option<Duration>,
    ) {
        let (now, wall) = (Instant::now(), self.clock.wall());
        let was_failing = matches!(origin.status().state, OriginState::Failing { .. });
        match outcome {
            Ok(is_new) => {
                schedule.answered(now, is_new, wait, fastrand::f64());
                origin.succeeded(wall, Some(self.wall_at(schedule.next())));
                self.metrics.answered(to.host(), is_new, wall);
            }
            Err(failure) => {
                schedule.failed(now, wait, fastrand::f64());
                origin.failed(&failure.to_string(), wall, Some(self.wall_at(schedule.next())));
                self.metrics.failed(to.host(), failure.kind());
            }
        }
        if was_failing != outcome.is_err() {
            let (stream, reason) =
                (origin.stream().as_str(), outcome.err().map(|failure| failure.to_string()));
            match reason {
                Some(reason) => tracing::info!(stream, origin = ?to, reason, "an origin fails"),
                None => tracing::info!(stream, origin = ?to, "an origin answers again"),
            }
        }
    }
}
