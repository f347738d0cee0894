//! The connection of a client that is known: packets in, messages out, until either side has had enough.

use std::collections::{HashMap, VecDeque};
use std::future::ready;
use std::io;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::consume_budget;
use tokio::time::{Instant, sleep_until, timeout};

use super::Broker;
use super::codec::{Breach, OutgoingPacket, Reason, Version, Will};
use super::session::Session;
use super::session_store::{Negotiated, TakenUp};
use super::sessions::Attached;
use super::walks::{CatchUp, RetainedWalk};
use super::wire::{Wire, WireProgress};
use crate::hub::Subscriber;
use crate::stream::StreamName;

/// Streams with something new that are taken note of at once; the others stay marked.
pub(super) const READY_MAX: usize = 64;

/// How soon what may be stored at some time is stored.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a client may take for its last packet.
const LAST_PACKET_TIME: Duration = Duration::from_secs(1);

/// Where no keep alive is agreed, and nothing else ends a connection.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A connection with the session of its client.
pub(super) struct Connection<S> {
    pub(super) broker: Arc<Broker>,
    pub(super) wire: Wire<S>,
    pub(super) session: Session,
    pub(super) subscriber: Subscriber,
    pub(super) negotiated: Negotiated,
    /// The topics that the client has given an alias.
    pub(super) aliases_received: Vec<Option<StreamName>>,
    /// The aliases that the client was given.
    pub(super) aliases_sent: HashMap<StreamName, NonZeroU16>,
    /// Streams that may have more for the client than it was sent.
    pub(super) ready: VecDeque<StreamName>,
    /// The subscription that is being sent what is retained.
    pub(super) retained: Option<Box<RetainedWalk>>,
    /// The streams that may have changed unnoticed are being looked at.
    pub(super) catch_up: Option<Box<CatchUp>>,
    pub(super) attached: Attached,
    draining: watch::Receiver<bool>,
    /// When the last packet came.
    pub(super) heard_at: Instant,
    /// When to go in a drain.
    leave_at: Option<Instant>,
    /// When to store what may be stored at some time.
    save_at: Option<Instant>,
}

/// What is done when its moment comes.
enum TimerEvent {
    End(Reason),
    Save,
}

/// Why a connection comes to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ending {
    /// The client has said good-bye. Its will is not published.
    #[error("the client left")]
    Left,
    /// The client has said good-bye and wants its will to be published.
    #[error("the client left, with its will")]
    LeftWithWill,
    /// The client is gone.
    #[error("the connection broke: {0}")]
    Lost(#[from] io::Error),
    /// The gateway ends it.
    #[error("{0:?}")]
    Told(Reason),
}

impl From<Breach> for Ending {
    fn from(Breach(reason): Breach) -> Self {
        Self::Told(reason)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    /// A connection whose CONNACK is about to be written.
    pub(super) fn new(
        broker: Arc<Broker>,
        wire: Wire<S>,
        TakenUp { attached, mut session, .. }: TakenUp,
        negotiated: Negotiated,
    ) -> Self {
        session.reconnected();
        let subscriber = broker.hub.subscriber(&session.client);
        let draining = broker.hub.draining();
        Self {
            wire,
            subscriber,
            negotiated,
            aliases_received: Vec::new(),
            aliases_sent: HashMap::new(),
            ready: VecDeque::new(),
            retained: None,
            catch_up: None,
            attached,
            draining,
            heard_at: Instant::now(),
            leave_at: None,
            save_at: None,
            session,
            broker,
        }
    }

    /// Runs to its end, and leaves the session where the client will find it.
    pub(super) async fn run(mut self: Box<Self>) {
        self.resume().await;
        let ending = loop {
            if let Err(ending) = self.turn().await {
                break ending;
            }
        };
        tracing::debug!(client = &*self.session.client, %ending, "mqtt connection ended");
        Box::pin(self.end(ending)).await;
    }

    /// Follows the subscriptions of an earlier connection on.
    async fn resume(&mut self) {
        for filter in self.session.subscriptions().filters() {
            consume_budget().await;
            self.subscriber.add(filter.clone());
        }
        if self.session.subscriptions().len() > 0 {
            self.catch_up = Some(Box::new(CatchUp::of(&self.session)));
        }
    }

    /// Does what there is to do, or else waits for something to do.
    async fn turn(&mut self) -> Result<(), Ending> {
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
        let (alarm_at, alarm) = self.next_alarm();
        tokio::select! {
            progress = self.wire.progress() => match progress? {
                WireProgress::Read | WireProgress::Written => {}
                WireProgress::Ended => return Err(Ending::Lost(io::ErrorKind::UnexpectedEof.into())),
            },
            names = self.subscriber.changed(READY_MAX), if has_room => self.ready.extend(names),
            () = ready(()), if has_more => {}
            () = sleep_until(alarm_at) => match alarm {
                TimerEvent::End(why) => return Err(Ending::Told(why)),
                TimerEvent::Save => {}
            },
            () = self.attached.superseded() => return Err(Ending::Told(Reason::SessionTakenOver)),
            Ok(_) = self.draining.wait_for(|draining| *draining), if self.leave_at.is_none() => {
                self.leave_at = Some(Instant::now() + self.broker.hub.drain_moment());
            }
        }
        Ok(())
    }

    /// Stores what has changed of the session. What it wants stored first is not written before.
    async fn save(&mut self) -> Result<(), Ending> {
        self.save_at = None;
        self.broker.store_offsets(&mut self.session).await.map_err(Ending::Told)?;
        self.broker.store(self.session.change(None)).await.map_err(Ending::Told)?;
        self.session.saved();
        Ok(())
    }

    /// The same for changes whose loss can be borne: if it fails they stay with the others, for the next time.
    async fn save_if_possible(&mut self) {
        if let Err(error) = self.save().await {
            tracing::debug!(client = &*self.session.client, %error, "a session is not stored yet");
        }
    }

    /// When the connection ends if nothing is heard from the client, or because the gateway drains; or when the session
    /// is stored before that.
    fn next_alarm(&mut self) -> (Instant, TimerEvent) {
        let silence =
            if self.negotiated.keep_alive.is_zero() { NEVER } else { self.negotiated.keep_alive * 3 / 2 };
        let silent = (self.heard_at + silence, TimerEvent::End(Reason::KeepAliveTimeout));
        let leave = self.leave_at.map(|at| (at, TimerEvent::End(Reason::ServerShuttingDown)));
        let save = self.session.has_unsaved().then(|| {
            let at = self.save_at.get_or_insert_with(|| Instant::now() + SAVE_INTERVAL);
            (*at, TimerEvent::Save)
        });
        [leave, save]
            .into_iter()
            .flatten()
            .fold(silent, |first, next| if next.0 < first.0 { next } else { first })
    }

    /// What the session takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.session.bytes() + self.negotiated.will.as_deref().map_or(0, Will::bytes)
    }

    /// Refuses a session that has become larger than one may be, or than there is room for among those of its address.
    pub(super) fn charge(&mut self) -> Result<(), Reason> {
        let is_within = self.session.offset_count() <= self.broker.limits.mqtt_session_streams_max;
        if is_within && self.attached.charge(self.bytes()) { Ok(()) } else { Err(Reason::QuotaExceeded) }
    }

    /// How many more messages of QoS 1 and 2 may be sent.
    pub(super) fn vacancy(&self) -> usize {
        self.session.vacancy(self.negotiated.in_flight_max)
    }

    /// Puts the session down first, since a newer connection may wait for it, and then tells the client.
    async fn end(self: Box<Self>, ending: Ending) {
        let Self { broker, mut wire, session, subscriber, negotiated, attached, .. } = *self;
        drop(subscriber);
        let expiry = negotiated.session_expiry;
        // A gateway that is about to come back is no reason to say that a client is gone (MQTT 5, section 3.1.2.5).
        let shutting_down = matches!(ending, Ending::Told(Reason::ServerShuttingDown));
        let is_over = matches!(ending, Ending::Left) || (shutting_down && expiry.is_zero());
        let will = negotiated.will.filter(|_| !is_over).map(|will| *will);
        let taken_up = TakenUp { attached, session, is_present: true };
        if broker.put_down(taken_up, expiry, will, shutting_down).await.is_err() {
            // What waits for that is not said.
            wire.take_back();
        }
        if let Ending::Told(reason) = ending {
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
