//! [`Connection`]: the connection of a client after its handshake. It handles packets, sends messages and
//! stores the session until either side ends the connection.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::consume_budget;
use tokio::time::{Instant, timeout};

use super::Broker;
use super::audit::Auditor;
use super::codec::{Breach, OutgoingPacket, Reason, Version, Will};
use super::session::Session;
use super::session_store::{Negotiated, OpenSession};
use super::sessions::Attached;
use super::unconfirmed::{Confirmed, Unconfirmed};
use super::walks::{CatchUp, RetainedWalk};
use super::wire::{Wire, WireProgress};
use crate::auth::{EndOfRights, Grants, RightsEnd};
use crate::budget::OpenCharge;
use crate::clock::ReusableSleep;
use crate::hub::{DeviceConnection, DrainWaiter, Subscriber, Waiter};
use crate::stream::StreamName;

/// Maximum number of changed streams taken at once; the others stay marked.
pub(super) const READY_MAX: usize = 64;

/// Delay before unsaved changes are stored that need not be stored at once.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// Time for the client to read the last packet.
const LAST_PACKET_TIME: Duration = Duration::from_secs(1);

/// Stands for no limit, if no keep alive is agreed.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A connection and the session of its client.
pub(super) struct Connection<S> {
    pub(super) broker: Arc<Broker>,
    pub(super) wire: Wire<S>,
    pub(super) session: Session,
    pub(super) subscriber: Subscriber,
    pub(super) negotiated: Negotiated,
    /// Boxed, as most connections have none.
    pub(super) aliases: Option<Box<TopicAliases>>,
    /// Streams that may have messages to send.
    pub(super) ready: VecDeque<StreamName>,
    /// Streams that could not be read. `None`: there are none.
    pub(super) failed: Option<Box<FailedReads>>,
    /// The walk that sends retained messages to a new subscription.
    pub(super) retained: Option<Box<RetainedWalk>>,
    /// The walk over streams that may have changed without a mark.
    pub(super) catch_up: Option<Box<CatchUp>>,
    pub(super) attached: Attached,
    /// Messages of QoS 0 that are not synced yet.
    pub(super) unconfirmed: Unconfirmed,
    /// A refused message of the connection has been logged.
    pub(super) has_logged_refusal: bool,
    /// What the client may do.
    pub(super) grants: Arc<Grants>,
    /// The client has used enhanced authentication, and may authenticate again.
    pub(super) may_renew: bool,
    /// `None`: there is no audit log.
    pub(super) auditor: Option<Box<Auditor>>,
    /// Completes when the rights of the client end. `None`: they never do.
    pub(super) rights_end: Option<EndOfRights>,
    /// Waits for changes of the streams of `subscriber`.
    waiter: Waiter,
    drain: DrainWaiter,
    timer: ReusableSleep,
    /// The next wait looks at the wire before it looks for changed streams.
    reads_first: bool,
    /// When the last packet arrived.
    pub(super) heard_at: Instant,
    /// When to end the connection during a drain.
    leave_at: Option<Instant>,
    /// When to store changes that need not be stored at once.
    save_at: Option<Instant>,
    /// Counts the connection for its tenant, and keeps a device from being woken.
    _open: (Option<OpenCharge>, Option<Box<DeviceConnection>>),
}

/// The topic aliases of a connection.
#[derive(Default)]
pub(super) struct TopicAliases {
    /// Topics by the alias that the client has assigned.
    pub(super) received: Vec<Option<StreamName>>,
    /// Aliases that the gateway has assigned.
    pub(super) sent: HashMap<StreamName, NonZeroU16>,
}

/// Streams of a connection that could not be read.
pub(super) struct FailedReads {
    pub(super) streams: BTreeSet<StreamName>,
    /// When they are read again.
    pub(super) retry_at: Instant,
}

/// What a connection waits for.
enum Event {
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
enum TimerEvent {
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
        let drain = broker.hub.drain_waiter();
        let open = (open, broker.hub.session_connected(&session.client));
        Self {
            wire,
            subscriber,
            negotiated,
            aliases: None,
            ready: VecDeque::new(),
            failed: None,
            retained: None,
            catch_up: None,
            attached,
            unconfirmed: Unconfirmed::default(),
            has_logged_refusal: false,
            rights_end: Self::rights_end(&grants, &broker),
            grants,
            may_renew,
            auditor,
            waiter: Waiter::default(),
            drain,
            timer: ReusableSleep::default(),
            reads_first: false,
            heard_at: Instant::now(),
            leave_at: None,
            save_at: None,
            _open: open,
            session,
            broker,
        }
    }

    /// Runs the connection to its end, then suspends the session.
    pub(super) async fn run(mut self: Box<Self>) {
        // Boxed: it is over before the connection waits.
        Box::pin(self.resume()).await;
        let ending = loop {
            if let Err(ending) = self.process().await {
                break ending;
            }
        };
        tracing::debug!(client = &*self.session.client, %ending, "mqtt connection ended");
        // A client that takes over finds everything in the log that was sent before. The connection ends already.
        let _refused = self.confirm_all().await;
        Box::pin(self.end(ending)).await;
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
            self.catch_up = Some(Box::new(CatchUp::of(&self.session)));
        }
    }

    /// Handles received packets, sends messages and stores changes as far as possible, then waits for the
    /// next event.
    async fn process(&mut self) -> Result<(), Ending> {
        while let Some(packet) = self.wire.next()? {
            self.heard_at = Instant::now();
            Box::pin(self.dispatch(packet)).await?;
        }
        let has_more = self.wire.is_idle() && Box::pin(self.fill()).await?;
        if self.session.is_due() {
            Box::pin(self.save()).await?;
        } else if self.save_at.is_some_and(|at| at <= Instant::now()) {
            Box::pin(self.save_if_possible()).await;
        }
        let has_room = self.wire.is_idle() && self.ready.is_empty() && self.vacancy() > 0 && !has_more;
        let ending = match poll_fn(|context| self.poll_event(context, has_room, has_more)).await {
            Event::Wire(Ok(WireProgress::Read | WireProgress::Written)) | Event::More => return Ok(()),
            Event::Wire(Ok(WireProgress::Ended)) => {
                return Err(Ending::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
            Event::Wire(Err(error)) => Ending::Lost(error),
            Event::Changed(names) => {
                self.ready.extend(names);
                return Ok(());
            }
            Event::Timer(TimerEvent::End(why)) => Ending::ByGateway(why),
            Event::Timer(TimerEvent::Save) => return Ok(()),
            Event::Timer(TimerEvent::Retry) => {
                self.ready.extend(self.failed.take().into_iter().flat_map(|failed| failed.streams));
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
                self.leave_at = Some(Instant::now() + self.broker.hub.drain_moment());
                return Ok(());
            }
        };
        Box::pin(self.read_out()).await?;
        let has_spoken = matches!(ending, Ending::ByGateway(Reason::KeepAliveTimeout)) && !self.is_silent();
        if has_spoken { Ok(()) } else { Err(ending) }
    }

    /// Waits for the next event. Changed streams are only taken if there is room for their messages.
    ///
    /// It keeps little for each connection that waits, which may be very many; a `select!` would keep a future for each event.
    fn poll_event(&mut self, context: &mut Context<'_>, has_room: bool, has_more: bool) -> Poll<Event> {
        if let Some(end) = &mut self.rights_end
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
        if self.leave_at.is_none() && self.drain.poll(context).is_ready() {
            return Poll::Ready(Event::Drain);
        }
        let (timer_at, timer) = self.next_timer();
        self.timer.poll(context, timer_at).map(|()| Event::Timer(timer))
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
        let keep_alive = self.negotiated.keep_alive;
        (!keep_alive.is_zero()).then(|| keep_alive * 3 / 2)
    }

    /// Stores the unsaved changes of the session. Packets that must not be sent before are written
    /// afterwards.
    async fn save(&mut self) -> Result<(), Ending> {
        self.save_at = None;
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

    /// Returns the next timer: the end of the connection because the client is silent or the gateway is
    /// draining, the time to store changes, or the time to read streams again that could not be read.
    fn next_timer(&mut self) -> (Instant, TimerEvent) {
        let silent_at = self.heard_at + self.silence().unwrap_or(NEVER);
        let silent = (silent_at, TimerEvent::End(Reason::KeepAliveTimeout));
        let leave = self.leave_at.map(|at| (at, TimerEvent::End(Reason::ServerShuttingDown)));
        let save = self.session.has_unsaved().then(|| {
            let at = self.save_at.get_or_insert_with(|| Instant::now() + SAVE_INTERVAL);
            (*at, TimerEvent::Save)
        });
        let retry = self.failed.as_ref().map(|failed| (failed.retry_at, TimerEvent::Retry));
        [leave, save, retry]
            .into_iter()
            .flatten()
            .fold(silent, |first, next| if next.0 < first.0 { next } else { first })
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
        self.session.vacancy(self.negotiated.in_flight_max)
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
