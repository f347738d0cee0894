//! Sends each message at its intended time, regardless of earlier ones (an open loop).
//!
//! A thread of its own sleeps between the messages, since tokio's timer has a resolution of one millisecond. Each stream has
//! one publisher, which keeps the order: a message waits for the answer to the one before it *in its stream*. The server causes
//! this wait, and it is part of the latency, since latency counts from the intended time.

mod broker;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{PATIENCE, addressed};
use crate::dialects::Dialect;
use crate::recorder::{Recorder, add_time, times};
use crate::streams::stream_name;
use crate::target::Target;
use crate::wire::{Connection, Dialer, RedisConnection, WireError, accepted, open};
use crate::workload::{MessageId, Workload};

/// Publishes messages to the streams of a server.
pub struct Publisher {
    target: Target,
    recorder: Arc<Recorder>,
    idle: Mutex<Vec<PublisherConnection>>,
    /// Per stream with a request in flight: the messages that wait behind it.
    busy: Mutex<HashMap<u32, VecDeque<MessageId>>>,
    lateness: Mutex<Histogram<u64>>,
    round_trips: Mutex<RoundTrips>,
}

/// Round trips of publishing in the measured time: over the same path and under the same load as the deliveries.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct RoundTrips {
    /// Number of round trips.
    pub count: u32,
    /// Sum of their durations.
    pub sum: Duration,
}

impl RoundTrips {
    /// Returns the mean; `None` without any.
    pub fn mean(self) -> Option<Duration> {
        self.sum.checked_div(self.count)
    }
}

/// A message that is due.
#[derive(Debug, Clone, Copy)]
struct Due {
    intended: Duration,
    message: MessageId,
}

impl Publisher {
    /// Creates a publisher without connections.
    pub fn new(target: Target, recorder: Arc<Recorder>) -> Result<Self, CreationError> {
        let lateness = Mutex::new(times()?);
        Ok(Self {
            target: target.for_publishers(),
            recorder,
            idle: Mutex::default(),
            busy: Mutex::default(),
            lateness,
            round_trips: Mutex::default(),
        })
    }

    /// Publishes all messages of the streams that `wanted` accepts.
    pub async fn run(self: Arc<Self>, start: Instant, wanted: impl Fn(u32) -> bool) {
        let due = paced(start, self.recorder.workload.in_order(wanted));
        let outcome = match (self.target.dialect, self.target.dialect.xmpp()) {
            (Dialect::Mqtt, _) => self.run_at_broker(start, due).await,
            (Dialect::Nats, _) => self.run_at_nats(start, due).await,
            (Dialect::Xmpp, Some(service)) => self.run_at_xmpp_server(service, start, due).await,
            _ => {
                self.run_by_requests(start, due).await;
                return;
            }
        };
        if let Err(error) = outcome {
            self.recorder.troubles.note(format!("publishing: {error}"));
        }
    }

    async fn run_by_requests(self: Arc<Self>, start: Instant, mut due: UnboundedReceiver<Due>) {
        let mut sends = JoinSet::new();
        while let Some(Due { intended, message }) = due.recv().await {
            self.note_lateness((start + intended).elapsed());
            if let Some(queue) = self.busy.lock().get_mut(&message.stream) {
                queue.push_back(message);
                continue;
            }
            self.busy.lock().insert(message.stream, VecDeque::new());
            sends.spawn(self.clone().send_all(message));
            while sends.try_join_next().is_some() {}
        }
        sends.join_all().await;
    }

    fn note_lateness(&self, lateness: Duration) {
        add_time(&mut self.lateness.lock(), lateness);
    }

    /// Returns how late each message was sent, in microseconds.
    pub fn lateness(&self) -> Histogram<u64> {
        self.lateness.lock().clone()
    }

    /// Returns the round trips until now.
    pub fn round_trips(&self) -> RoundTrips {
        *self.round_trips.lock()
    }

    /// Publishes a message, and those that queue up for its stream meanwhile.
    async fn send_all(self: Arc<Self>, first: MessageId) {
        let mut next = Some(first);
        while let Some(message) = next {
            if let Err(error) = self.send(message).await {
                self.recorder.troubles.note(format!("publishing: {error}"));
            }
            let mut busy = self.busy.lock();
            next = busy.get_mut(&first.stream).and_then(VecDeque::pop_front);
            if next.is_none() {
                busy.remove(&first.stream);
            }
        }
    }

    async fn send(&self, message: MessageId) -> Result<(), WireError> {
        let Workload { plan, .. } = &*self.recorder.workload;
        let (stream, body) = (stream_name(plan.run, message.stream), self.recorder.workload.body(message));
        let mut connection = self.connection().await?;
        let sent = Instant::now();
        match &mut connection {
            PublisherConnection::Redis(connection) => connection.append(&stream, &body).await?,
            PublisherConnection::Http(connection) => {
                let dialect = self.target.dialect.http().ok_or(WireError::Closed)?;
                let request = addressed(dialect.publish(&stream, body), &self.target)?;
                accepted(&connection.exchange(request).await?)?;
            }
        }
        if self.recorder.workload.is_measured(message) {
            let mut round_trips = self.round_trips.lock();
            round_trips.count += 1;
            round_trips.sum += sent.elapsed();
        }
        self.idle.lock().push(connection);
        Ok(())
    }

    /// Returns an idle connection, or opens one.
    async fn connection(&self) -> Result<PublisherConnection, WireError> {
        loop {
            let idle = self.idle.lock().pop();
            match idle {
                Some(PublisherConnection::Http(connection)) if connection.is_closed() => {}
                Some(connection) => return Ok(connection),
                None => break,
            }
        }
        let io = open(self.target.address).await?;
        Ok(match self.target.dialect {
            Dialect::Redis => PublisherConnection::Redis(RedisConnection::over(io, PATIENCE).await?),
            _ => PublisherConnection::Http(Dialer::new(&self.target)?.start_http(io).await?),
        })
    }
}

/// A connection on which one message at a time is published and acknowledged.
enum PublisherConnection {
    Http(Connection),
    Redis(RedisConnection),
}

/// Sends each message to the channel when it is due. The thread ends when the receiver is dropped.
fn paced(start: Instant, messages: Vec<(Duration, MessageId)>) -> UnboundedReceiver<Due> {
    let (due, receiver) = unbounded_channel();
    std::thread::spawn(move || pace(start, messages, &due));
    receiver
}

fn pace(start: Instant, messages: Vec<(Duration, MessageId)>, due: &UnboundedSender<Due>) {
    for (intended, message) in messages {
        std::thread::sleep((start + intended).saturating_duration_since(Instant::now()));
        if due.send(Due { intended, message }).is_err() {
            break;
        }
    }
}
