//! The connection of a client that is known: packets in, messages out, until either side has had enough.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::Broker;
use super::codec::{Breach, Outgoing, Reason, Version, Will};
use super::session::Session;
use super::sessions::Attached;
use super::wire::{Progress, Wire};
use crate::hub::Subscriber;
use crate::stream::StreamName;

/// Streams with something new that are taken note of at once; the others stay marked.
pub(super) const READY_MAX: usize = 64;

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
    pub(super) terms: Terms,
    /// The topics that the client has given an alias.
    pub(super) aliases_received: Vec<Option<StreamName>>,
    /// The aliases that the client was given.
    pub(super) aliases_sent: HashMap<StreamName, NonZeroU16>,
    /// Streams that may have more for the client than it was sent.
    pub(super) ready: VecDeque<StreamName>,
    attached: Attached,
    draining: watch::Receiver<bool>,
    /// When the last packet came.
    pub(super) heard_at: Instant,
    /// When to go in a drain.
    leave_at: Option<Instant>,
}

/// What client and gateway have agreed on.
#[derive(Debug)]
pub(super) struct Terms {
    /// The longest silence of the client; zero: any.
    pub(super) keep_alive: Duration,
    /// How long the session is kept after the connection.
    pub(super) session_expiry: Duration,
    /// Messages that the client takes before it has acknowledged one.
    pub(super) in_flight_max: usize,
    /// The last alias that the client takes, if it takes any.
    pub(super) last_alias: Option<NonZeroU16>,
    pub(super) will: Option<Box<Will>>,
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
        attached: Attached,
        mut session: Session,
        terms: Terms,
    ) -> Self {
        session.in_flight.reconnected();
        let subscriber = broker.hub.subscriber(&session.client);
        let draining = broker.hub.draining();
        Self {
            wire,
            subscriber,
            terms,
            aliases_received: Vec::new(),
            aliases_sent: HashMap::new(),
            ready: VecDeque::new(),
            attached,
            draining,
            heard_at: Instant::now(),
            leave_at: None,
            session,
            broker,
        }
    }

    /// Runs to its end, and leaves the session where the client will find it.
    pub(super) async fn run(mut self: Box<Self>) {
        self.resume();
        let ending = loop {
            if let Err(ending) = self.turn().await {
                break ending;
            }
        };
        tracing::debug!(client = &*self.session.client, %ending, "mqtt connection ended");
        Box::pin(self.end(ending)).await;
    }

    /// Follows the subscriptions of an earlier connection on.
    fn resume(&mut self) {
        for filter in self.session.subscriptions.filters() {
            self.subscriber.add(filter.clone());
            // Those that came while the client was away have no cursor yet.
            for name in self.broker.hub.names_matching(filter) {
                self.subscriber.mark(name);
            }
        }
    }

    /// Does what there is to do, or else waits for something to do.
    async fn turn(&mut self) -> Result<(), Ending> {
        while let Some(packet) = self.wire.next()? {
            self.heard_at = Instant::now();
            Box::pin(self.take(packet)).await?;
        }
        if self.wire.is_idle() {
            Box::pin(self.fill()).await;
        }
        let has_room = self.wire.is_idle() && self.ready.is_empty() && self.vacancy() > 0;
        let (end_at, why) = self.next_end();
        tokio::select! {
            progress = self.wire.progress() => match progress? {
                Progress::Read | Progress::Written => {}
                Progress::Ended => return Err(Ending::Lost(io::ErrorKind::UnexpectedEof.into())),
            },
            names = self.subscriber.changed(READY_MAX), if has_room => self.ready.extend(names),
            () = sleep_until(end_at) => return Err(Ending::Told(why)),
            () = self.attached.superseded() => return Err(Ending::Told(Reason::SessionTakenOver)),
            Ok(_) = self.draining.wait_for(|draining| *draining), if self.leave_at.is_none() => {
                self.leave_at = Some(Instant::now() + self.broker.hub.drain_moment());
            }
        }
        Ok(())
    }

    /// When the connection ends if nothing is heard from the client, or because the gateway drains.
    fn next_end(&self) -> (Instant, Reason) {
        let silence = if self.terms.keep_alive.is_zero() { NEVER } else { self.terms.keep_alive * 3 / 2 };
        let silent_until = self.heard_at + silence;
        match self.leave_at {
            Some(leave_at) if leave_at < silent_until => (leave_at, Reason::ServerShuttingDown),
            _ => (silent_until, Reason::KeepAliveTimeout),
        }
    }

    /// How many more messages of quality 1 and 2 may be sent.
    pub(super) fn vacancy(&self) -> usize {
        self.session.in_flight.vacancy(self.terms.in_flight_max)
    }

    /// Puts the session down first, since a newer connection may wait for it, and then tells the client.
    async fn end(self: Box<Self>, ending: Ending) {
        let Self { broker, mut wire, session, subscriber, terms, attached, .. } = *self;
        drop(subscriber);
        let (client, expiry) = (session.client.clone(), terms.session_expiry);
        // A gateway that is about to come back is no reason to say that a client is gone (MQTT 5, section 3.1.2.5).
        let shutting_down = matches!(ending, Ending::Told(Reason::ServerShuttingDown));
        let will = terms.will.filter(|_| !matches!(ending, Ending::Left) && !shutting_down);
        let (now_due, later) = match will {
            Some(will) if will.delay.is_zero() || expiry.is_zero() => (Some(*will), None),
            will => (None, will),
        };
        if expiry.is_zero() {
            drop(attached);
        } else {
            let now = Instant::now();
            let will_at =
                later.map(|will| (now + will.delay.min(expiry), *will)).map(|(at, will)| (will, at));
            attached.keep(session, now + expiry, will_at);
        }
        if let Some(will) = now_due {
            broker.publish_will(&client, will).await;
        }
        if let Ending::Told(reason) = ending {
            broker.metrics.ended(reason.code());
            if wire.version == Some(Version::V5) {
                wire.put(&Outgoing::Disconnect(reason));
            }
        }
        if !matches!(ending, Ending::Lost(_)) {
            let _gone = timeout(LAST_PACKET_TIME, wire.close()).await;
        }
    }
}
