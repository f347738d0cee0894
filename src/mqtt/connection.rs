//! [`Connection`]: the connection of a client after its handshake. It handles packets, sends messages and
//! stores the session until either side ends the connection.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::consume_budget;
use tokio::time::{Instant, timeout};

use super::Broker;
use super::audit::Auditor;
use super::codec::{Breach, OutgoingPacket, Reason, Version, Will};
use super::keep_alive::KeepAliveTimer;
use super::parts::{Extras, PendingWork, TopicAliases};
use super::session::Session;
use super::session_store::{Negotiated, OpenSession};
use super::sessions::Attached;
use super::unconfirmed::{Confirmed, Unconfirmed};
use super::walks::CatchUp;
use super::wire::{Wire, WireProgress};
use crate::auth::{Grants, RightsEnd};
use crate::budget::OpenCharge;
use crate::hub::{Subscriber, Waiter};
use crate::stream::StreamName;

/// Maximum number of changed streams taken at once; the others stay marked.
pub(super) const READY_MAX: usize = 64;

/// Delay before unsaved changes are stored that need not be stored at once.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// Time for the client to read the last packet.
const LAST_PACKET_TIME: Duration = Duration::from_secs(1);

/// A connection and the session of its client.
pub(super) struct Connection<S> {
    pub(super) broker: Arc<Broker>,
    pub(super) wire: Wire<S>,
    pub(super) session: Session,
    pub(super) subscriber: Subscriber,
    pub(super) negotiated: Negotiated,
    pub(super) attached: Attached,
    /// What the client may do.
    pub(super) grants: Arc<Grants>,
    /// What only some connections have.
    pub(super) extras: Option<Box<Extras>>,
    /// `None`: nothing is to be sent, stored or ended at some time.
    pub(super) pending: Option<Box<PendingWork>>,
    /// Messages of QoS 0 that are not synced yet.
    pub(super) unconfirmed: Unconfirmed,
    /// A refused message of the connection has been logged.
    pub(super) has_logged_refusal: bool,
    /// The client has used enhanced authentication, and may authenticate again.
    pub(super) may_renew: bool,
    /// The next wait looks at the wire before it looks for changed streams.
    reads_first: bool,
    /// Waits for changes of the streams of `subscriber`.
    waiter: Waiter,
    keep_alive: KeepAliveTimer,
    /// When the last packet arrived.
    pub(super) heard_at: Instant,
    /// Counts the connection for its tenant.
    _open: Option<OpenCharge>,
}

/// What a connection waits for.
pub(super) enum Event {
    /// The wire has read or written, or has failed.
    Wire(io::Result<WireProgress>),
    /// More messages can be sent at once.
    More,
    /// These streams have changed.
    Changed(Vec<StreamName>),
    /// A message of QoS 0 is appended or refused.
    Confirmed(Confirmed),
    Timer(TimerEvent),
    /// The rights of the client have ended.
    RightsEnd(RightsEnd),
    /// A newer connection wants the session.
    Superseded,
    /// The gateway drains.
    Drain,
}

/// What happens when the timer fires.
pub(super) enum TimerEvent {
    End(Reason),
    Save,
    /// Streams that could not be read are read again.
    Retry,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ending {
    /// The client sent DISCONNECT. Its will is not published.
    #[error("the client disconnected")]
    Left,
    /// The client sent DISCONNECT and requested its will.
    #[error("the client disconnected and requested its will")]
    LeftWithWill,
    /// The connection was lost.
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    /// The gateway ends the connection, for this reason.
    #[error("ended by the gateway: {0:?}")]
    ByGateway(Reason),
}

impl From<Breach> for Ending {
    fn from(Breach(reason): Breach) -> Self {
        Self::ByGateway(reason)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    /// Creates a connection whose CONNACK is queued.
    pub(super) fn new(
        broker: Arc<Broker>,
        wire: Wire<S>,
        OpenSession { attached, mut session, .. }: OpenSession,
        negotiated: Negotiated,
        (grants, may_renew, auditor): (Arc<Grants>, bool, Option<Box<Auditor>>),
        open: Option<OpenCharge>,
    ) -> Self {
        session.reconnected();
        let subscriber = broker.hub.subscriber(session.client.clone());
        let device = broker.hub.session_connected(&session.client);
        let rights_end = Self::rights_end(&grants, &broker);
        let has_extras = auditor.is_some() || rights_end.is_some() || device.is_some();
        let extras = has_extras.then(|| {
            Box::new(Extras { aliases: TopicAliases::default(), auditor, rights_end, _device: device })
        });
        Self {
            wire,
            subscriber,
            negotiated,
            attached,
            grants,
            extras,
            pending: None,
            unconfirmed: Unconfirmed::default(),
            has_logged_refusal: false,
            may_renew,
            reads_first: false,
            waiter: Waiter::default(),
            keep_alive: broker.keep_alives.timer(),
            heard_at: Instant::now(),
            _open: open,
            session,
            broker,
        }
    }

    /// What the connection is about to do.
    pub(super) fn pending(&mut self) -> &mut PendingWork {
        self.pending.get_or_insert_default()
    }

    /// The audit log, if there is one.
    pub(super) fn auditor(&self) -> Option<&Auditor> {
        self.extras.as_ref()?.auditor.as_deref()
    }

    /// Resumes the session, up to where the connection waits. `None`: it is over.
    pub(super) async fn start(mut self: Box<Self>) -> Option<Box<Self>> {
        self.resume().await;
        let outcome = self.proceed().await;
        self.go_on(outcome).await
    }

    /// Handles an event, up to where the connection waits again. `None`: the connection is over.
    pub(super) async fn handle(mut self: Box<Self>, event: Event) -> Option<Box<Self>> {
        let mut outcome = self.accept(event).await;
        if outcome.is_ok() {
            outcome = self.proceed().await;
        }
        self.go_on(outcome).await
    }

    /// Frees what is unused if the connection goes on; otherwise suspends the session.
    async fn go_on(mut self: Box<Self>, outcome: Result<(), Ending>) -> Option<Box<Self>> {
        let Err(ending) = outcome else {
            self.shrink();
            return Some(self);
        };
        tracing::debug!(client = &*self.session.client, %ending, "mqtt connection ended");
        // A client that takes over finds everything in the log that was sent before. The connection ends already.
        let _refused = self.confirm_all().await;
        let broker = self.broker.clone();
        Box::pin(self.end(ending)).await;
        broker.metrics.open.dec();
        None
    }

    /// Frees what a connection that waits does not need.
    fn shrink(&mut self) {
        self.pending.take_if(|pending| pending.is_empty());
        self.session.shrink();
        self.wire.shrink();
    }

    /// Subscribes to the filters of a resumed session.
    async fn resume(&mut self) {
        self.end_forbidden().await;
        for filter in self.session.subscriptions().filters() {
            consume_budget().await;
            self.subscriber.add(filter.clone());
        }
        for key in self.session.shared_keys() {
            consume_budget().await;
            // If there is no room for its streams, the group is not entered, and the others go on.
            let _too_many = self.enter_group(&key).await;
        }
        if self.session.subscriptions().len() > 0 || !self.session.shared().is_empty() {
            self.pending().catch_up = Some(CatchUp::of(&self.session));
        }
    }

    /// Handles received packets, sends messages and stores changes as far as possible.
    async fn proceed(&mut self) -> Result<(), Ending> {
        loop {
            while let Some(packet) = self.wire.next()? {
                self.heard_at = Instant::now();
                Box::pin(self.dispatch(packet)).await?;
            }
            let has_more = self.wire.is_idle() && self.may_send() && Box::pin(self.fill()).await?;
            if self.session.is_due() {
                Box::pin(self.save()).await?;
            } else if self.save_at().is_some_and(|at| at <= Instant::now()) {
                Box::pin(self.save_if_possible()).await;
            }
            if !has_more {
                return Ok(());
            }
            // The wire, and what ends the connection, have their turn between two parts of a long delivery.
            let event = poll_fn(|context| self.poll_event(context, true)).await;
            self.accept(event).await?;
        }
    }

    /// Handles an event. What has been received is handled afterwards by [`proceed`](Self::proceed).
    async fn accept(&mut self, event: Event) -> Result<(), Ending> {
        let ending = match event {
            Event::Wire(Ok(WireProgress::Read | WireProgress::Written)) | Event::More => return Ok(()),
            Event::Wire(Ok(WireProgress::Ended)) => {
                return Err(Ending::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
            Event::Wire(Err(error)) => Ending::Lost(error),
            Event::Changed(names) => {
                self.pending().ready.extend(names);
                return Ok(());
            }
            Event::Timer(TimerEvent::End(why)) => Ending::ByGateway(why),
            Event::Timer(TimerEvent::Save) => return Ok(()),
            Event::Timer(TimerEvent::Retry) => {
                let pending = self.pending();
                pending.ready.extend(pending.failed.take().into_iter().flat_map(|failed| failed.streams));
                return Ok(());
            }
            Event::RightsEnd(RightsEnd::Expired) => {
                return Err(Ending::ByGateway(Reason::MaximumConnectTime));
            }
            Event::RightsEnd(RightsEnd::Revoked) => {
                // A will is published by right of the token.
                self.negotiated.will = None;
                return Err(Ending::ByGateway(Reason::NotAuthorized));
            }
            Event::Confirmed(confirmed) => return self.confirmed(confirmed),
            Event::Superseded => Ending::ByGateway(Reason::SessionTakenOver),
            Event::Drain => {
                self.pending().leave_at = Some(Instant::now() + self.broker.hub.drain_moment());
                return Ok(());
            }
        };
        Box::pin(self.read_out()).await?;
        let has_spoken = matches!(ending, Ending::ByGateway(Reason::KeepAliveTimeout)) && !self.is_silent();
        if has_spoken { Ok(()) } else { Err(ending) }
    }

    /// Waits for an event that needs handling.
    pub(super) fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        loop {
            let event = ready!(self.poll_event(context, false));
            let is_handled = matches!(event, Event::Wire(Ok(WireProgress::Written)))
                && self.wire.has_no_input()
                && !(self.wire.is_idle() && self.may_send())
                && !self.session.is_due();
            if !is_handled {
                return Poll::Ready(event);
            }
            self.wire.shrink();
        }
    }

    /// Waits for the next event. Changed streams are only taken if there is room for their messages.
    ///
    /// It keeps little for each connection that waits, which may be very many; a `select!` would keep a future for each event.
    fn poll_event(&mut self, context: &mut Context<'_>, has_more: bool) -> Poll<Event> {
        let has_room = self.wire.is_idle() && !has_more && !self.has_ready() && self.vacancy() > 0;
        if let Some(end) = self.extras.as_mut().and_then(|extras| extras.rights_end.as_mut())
            && let Poll::Ready(why) = end.as_mut().poll(context)
        {
            return Poll::Ready(Event::RightsEnd(why));
        }
        // They take turns, so that neither a client that floods the gateway nor a busy stream starves the other.
        self.reads_first = !self.reads_first;
        for is_turn_of_wire in [self.reads_first, !self.reads_first] {
            if is_turn_of_wire {
                if let Poll::Ready(progress) = self.wire.poll_progress(context) {
                    return Poll::Ready(Event::Wire(progress));
                }
            } else if has_more {
                return Poll::Ready(Event::More);
            } else if has_room
                && let Poll::Ready(names) = self.subscriber.poll_changed(&mut self.waiter, context, READY_MAX)
            {
                return Poll::Ready(Event::Changed(names));
            }
        }
        if let Poll::Ready(Some(confirmed)) = self.unconfirmed.poll_next(context) {
            return Poll::Ready(Event::Confirmed(confirmed));
        }
        if self.attached.poll_superseded(context).is_ready() {
            return Poll::Ready(Event::Superseded);
        }
        // Checked after the connection has left its waker, which the drain wakes.
        if self.broker.hub.is_draining() && self.leave_at().is_none() {
            return Poll::Ready(Event::Drain);
        }
        self.poll_timers(context).map(Event::Timer)
    }

    /// Whether streams are about to be read.
    fn has_ready(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| !pending.ready.is_empty())
    }

    fn leave_at(&self) -> Option<Instant> {
        self.pending.as_ref()?.leave_at
    }

    fn save_at(&self) -> Option<Instant> {
        self.pending.as_ref()?.save_at
    }

    /// Handles what the client had sent before the connection ends, so that no message is lost, and so that a
    /// DISCONNECT keeps its will from being published. A client that goes on sending is read up to
    /// `mqtt_last_bytes_max`, for at most `mqtt_last_bytes_timeout`.
    async fn read_out(&mut self) -> Result<(), Ending> {
        let until = Instant::now() + self.broker.limits.mqtt_last_bytes_timeout.get();
        let mut left = self.broker.limits.mqtt_last_bytes_max;
        loop {
            while let Some(packet) = self.wire.next_received()? {
                self.heard_at = Instant::now();
                Box::pin(self.dispatch(packet)).await?;
                if self.heard_at >= until {
                    return Ok(());
                }
            }
            match self.wire.read_arrived().await {
                Some(read) if read > 0 && read <= left => left -= read,
                _ => return Ok(()),
            }
        }
    }

    /// Whether the client has been silent for longer than its keep alive allows.
    fn is_silent(&self) -> bool {
        self.silence().is_some_and(|silence| self.heard_at + silence <= Instant::now())
    }

    /// Returns how long the client may be silent.
    fn silence(&self) -> Option<Duration> {
        let keep_alive = Duration::from_millis(self.negotiated.keep_alive_millis.into());
        (!keep_alive.is_zero()).then(|| keep_alive * 3 / 2)
    }

    /// Stores the unsaved changes of the session. Packets that must not be sent before are written
    /// afterwards.
    async fn save(&mut self) -> Result<(), Ending> {
        self.pending.iter_mut().for_each(|pending| pending.save_at = None);
        // Before the session: a message of QoS 2 that it has done with must not be sent again by the group.
        for group in self.session.groups() {
            self.broker.store_group(&group).await.map_err(Ending::ByGateway)?;
        }
        self.broker.store_offsets(&mut self.session).await.map_err(Ending::ByGateway)?;
        self.broker.store(self.session.change(None)).await.map_err(Ending::ByGateway)?;
        self.session.saved();
        Ok(())
    }

    /// Stores changes that need not be stored at once (see [`save`](Self::save)). If that fails, they stay
    /// unsaved and are retried.
    async fn save_if_possible(&mut self) {
        if let Err(error) = self.save().await {
            tracing::debug!(client = &*self.session.client, %error, "cannot store changes of a session; retrying");
        }
    }

    /// Completes when the client is silent for too long, the gateway drains, changes have to be stored, or streams are to be read again
    /// that could not be read.
    fn poll_timers(&mut self, context: &mut Context<'_>) -> Poll<TimerEvent> {
        if let Some(silence) = self.silence()
            && self.keep_alive.poll(context, self.heard_at + silence).is_ready()
        {
            return Poll::Ready(TimerEvent::End(Reason::KeepAliveTimeout));
        }
        if self.session.has_unsaved() {
            self.pending().save_at.get_or_insert_with(|| Instant::now() + SAVE_INTERVAL);
        }
        let Some(pending) = &mut self.pending else { return Poll::Pending };
        let leave = pending.leave_at.map(|at| (at, TimerEvent::End(Reason::ServerShuttingDown)));
        let save = pending.save_at.map(|at| (at, TimerEvent::Save));
        let retry = pending.failed.as_ref().map(|failed| (failed.retry_at, TimerEvent::Retry));
        let first = [leave, save, retry].into_iter().flatten().min_by_key(|(at, _)| *at);
        let Some((at, event)) = first else { return Poll::Pending };
        pending.timer.poll(context, at).map(|()| event)
    }

    /// Returns the memory of the session and its will, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.session.bytes() + self.negotiated.will.as_deref().map_or(0, Will::bytes)
    }

    /// Charges the session to its principal. Fails with `QuotaExceeded` if the session has too many streams
    /// or exceeds the share of the principal.
    pub(super) fn charge(&mut self) -> Result<(), Reason> {
        let is_within = self.session.offset_count() <= self.broker.limits.mqtt_session_streams_max;
        if is_within && self.attached.charge(self.bytes()) { Ok(()) } else { Err(Reason::QuotaExceeded) }
    }

    /// Returns how many more messages of QoS 1 and 2 may be sent.
    pub(super) fn vacancy(&self) -> usize {
        self.session.vacancy(self.negotiated.in_flight_max.into())
    }

    /// Suspends the session first, since a newer connection may wait for it, and then sends the last packets.
    async fn end(self: Box<Self>, ending: Ending) {
        let Self { broker, mut wire, mut session, subscriber, negotiated, attached, grants, .. } = *self;
        session.leave_groups();
        for group in session.groups() {
            // If this fails, the sweep tries again.
            let _unsaved = broker.store_group(&group).await;
        }
        drop(subscriber);
        // If the client is a device, it is woken for what it has not got.
        broker.hub.session_ended(&session.client, |stream| session.read_up_to(stream));
        let expiry = negotiated.session_expiry;
        // The client is not gone just because the gateway restarts (MQTT 5, section 3.1.2.5).
        let shutting_down = matches!(ending, Ending::ByGateway(Reason::ServerShuttingDown));
        let is_over = matches!(ending, Ending::Left) || (shutting_down && expiry.is_zero());
        let will = negotiated.will.filter(|_| !is_over).map(|will| *will);
        let opened = OpenSession { attached, session, is_present: true };
        if broker.suspend_session(opened, expiry, will, &grants, shutting_down).await.is_err() {
            // Packets that depend on the stored change must not be sent.
            wire.take_back();
        }
        if let Ending::ByGateway(reason) = ending {
            broker.metrics.ended(reason.code());
            if wire.version == Some(Version::V5) {
                wire.put(&OutgoingPacket::Disconnect(reason));
            }
        }
        if !matches!(ending, Ending::Lost(_)) {
            let _gone = timeout(LAST_PACKET_TIME, wire.close()).await;
        }
    }
}
