//! A phone: the Rust client, as an app uses it, and what its user sees.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pollgate::server::Running;
use pollgate_client::{BuildError, Client, Form, Item, Settings, Start, Subscription};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::day::Day;
use super::link::Link;
use super::mars;
use super::outcome::Latencies;
use crate::strategies::Strategy;

/// How phones read: by the client's own choice of forms, or by one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The client's default: the best form that the network lets through.
    Fallback,
    /// One form with its settings, without fallback.
    Only(Strategy),
    /// A WebSocket with heartbeats by Mars's rule, not by the client.
    Mars,
}

/// Name of the reader that uses Mars's rule.
const MARS: &str = "websocket:mars";

/// Where the messages of a phone come from.
enum Source {
    Client(Subscription),
    Mars(mpsc::UnboundedReceiver<Bytes>),
}

/// What a phone saw of the messages to it.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    /// Messages that arrived for the first time.
    pub received: u64,
    /// Messages that arrived again.
    pub doubled: u64,
    /// Messages that arrived after a later one.
    pub reordered: u64,
    /// Gaps that the client told.
    pub gaps: u64,
    /// Time from the call of publish to the arrival.
    pub latencies: Latencies,
}

impl Reader {
    /// The client's settings.
    pub(crate) fn settings(self) -> Settings {
        let settings = Settings { times: false, ..Settings::default() };
        let only = |form| Settings { forms: vec![form], ..settings.clone() };
        let with_heartbeat = |form, heartbeat: Option<Duration>| match heartbeat {
            None => only(form),
            Some(every) => Settings { heartbeat_min: every, heartbeat_max: every, ..only(form) },
        };
        match self {
            Self::Fallback | Self::Mars => settings,
            Self::Only(Strategy::ShortPoll(interval)) => Settings { interval, ..only(Form::ShortPoll) },
            Self::Only(Strategy::LongPoll(hold)) => Settings { hold, ..only(Form::LongPoll) },
            Self::Only(Strategy::Sse(heartbeat)) => with_heartbeat(Form::Sse, heartbeat),
            Self::Only(Strategy::Ndjson(heartbeat)) => with_heartbeat(Form::Ndjson, heartbeat),
            // Refused when it is parsed: any other strategy.
            Self::Only(strategy) => with_heartbeat(Form::WebSocket, strategy.heartbeat()),
        }
    }

    /// The strategy, unless the client chooses.
    pub(crate) fn strategy(self) -> Option<Strategy> {
        match self {
            Self::Only(strategy) => Some(strategy),
            Self::Fallback | Self::Mars => None,
        }
    }

    /// Name of the delivery form: that of a client which chooses is a WebSocket nearly always.
    pub(crate) fn form(self) -> &'static str {
        match self {
            Self::Only(Strategy::ShortPoll(_)) => "short-poll",
            Self::Only(Strategy::LongPoll(_)) => "long-poll",
            Self::Only(Strategy::Sse(_)) => "sse",
            Self::Only(Strategy::Ndjson(_)) => "ndjson",
            Self::Only(_) | Self::Fallback | Self::Mars => "websocket",
        }
    }

    /// The heartbeat of a live form, unless it is searched for.
    pub(crate) fn heartbeat(self) -> Option<Duration> {
        match self {
            Self::Only(Strategy::Sse(None) | Strategy::Ndjson(None)) => Some(self.settings().heartbeat_min),
            Self::Only(strategy) => strategy.heartbeat(),
            Self::Fallback | Self::Mars => None,
        }
    }

    /// The longest hold that is asked for.
    pub(super) fn hold(self) -> Duration {
        self.settings().hold
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fallback => formatter.write_str("fallback"),
            Self::Only(strategy) => strategy.fmt(formatter),
            Self::Mars => formatter.write_str(MARS),
        }
    }
}

impl FromStr for Reader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "fallback" {
            return Ok(Self::Fallback);
        }
        if text == MARS {
            return Ok(Self::Mars);
        }
        match text.parse()? {
            Strategy::Mqtt(_) | Strategy::XmppWebSocket | Strategy::XmppBosh | Strategy::Wake(_) => {
                Err("want fallback, short-poll:INTERVAL, long-poll:HOLD, sse, ndjson, websocket or websocket:mars".to_owned())
            }
            strategy => Ok(Self::Only(strategy)),
        }
    }
}

/// The name of a phone's stream.
pub(crate) fn stream(phone: u32) -> String {
    format!("phones/{phone}")
}

/// A message to a phone.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Text {
    /// Its number in the stream.
    pub(crate) number: u64,
    /// When it was published, in microseconds since the begin of the day.
    pub(crate) at: u64,
}

/// Moves the phone through the networks of the day, and tells the client of each.
async fn travel(day: Day, link: Arc<Link>, client: Client, began: Instant) {
    let mut until = Duration::ZERO;
    while until < day.length() {
        sleep_until(began + until).await;
        let (network, next) = day.at(until);
        link.enter(network.cloned());
        // Apps learn of a network that was found, not of one that was lost.
        if let Some(network) = network {
            client.network_changed(&network.name);
        }
        until = next;
    }
}

/// Reads the phone's stream. Ends when the task is aborted, or with a refusal.
pub(super) struct Phone {
    pub(super) link: Arc<Link>,
    pub(super) seen: Seen,
    began: Instant,
    source: Source,
    /// Moves the phone, and reads if the client does not; dropped with the phone.
    _tasks: JoinSet<()>,
}

impl Phone {
    pub(super) fn start(
        number: u32,
        reader: Reader,
        day: &Day,
        link: Arc<Link>,
        gateway: Arc<Running>,
        began: Instant,
    ) -> Result<Self, BuildError> {
        let (events, connecting, reading) = (link.clone(), link.clone(), gateway.clone());
        let client = Client::builder("http://localhost")
            .settings(reader.settings())
            .connector(move |_, _| connecting.clone().connect(gateway.clone()))
            .on_event(move |event| events.note(&format!("{event:?}"), 0))
            .build()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(travel(day.clone(), link.clone(), client.clone(), began));
        let source = if reader == Reader::Mars {
            let (sender, messages) = mpsc::unbounded_channel();
            tasks.spawn(mars::read(link.clone(), reading, stream(number), sender));
            Source::Mars(messages)
        } else {
            Source::Client(client.subscribe([stream(number)], Start::earliest()))
        };
        Ok(Self { link, seen: Seen::default(), began, source, _tasks: tasks })
    }

    /// Reads until all messages have arrived, or until the deadline. `expected` is their number, once it is known.
    pub(super) async fn read(&mut self, expected: &mut watch::Receiver<Option<u64>>, deadline: Instant) {
        while expected.borrow_and_update().is_none_or(|expected| self.seen.received < expected) {
            tokio::select! {
                biased;
                is_open = self.next() => if !is_open {
                    return self.link.note("refused", 0);
                },
                Ok(()) = expected.changed() => {}
                () = sleep_until(deadline) => return,
            }
        }
    }

    /// Takes the next item; `false`: there is none any more. Cancel safe.
    async fn next(&mut self) -> bool {
        match &mut self.source {
            Source::Client(subscription) => match subscription.next().await {
                Some(Item::Message(message)) => self.take(message.data.bytes()),
                Some(Item::Gap { .. }) => self.seen.gaps += 1,
                Some(other) => self.link.note(&format!("{other:?}"), 0),
                None => return false,
            },
            Source::Mars(messages) => match messages.recv().await {
                Some(message) => self.take(&message),
                None => return false,
            },
        }
        true
    }

    fn take(&mut self, message: &[u8]) {
        let Ok(Text { number, at }) = serde_json::from_slice(message) else {
            return self.link.note("no text", 0);
        };
        let delay = self.began.elapsed().saturating_sub(Duration::from_micros(at));
        self.link.note("message", number);
        match number.cmp(&self.seen.received) {
            std::cmp::Ordering::Equal => {
                self.seen.received += 1;
                self.seen.latencies.record(delay);
            }
            std::cmp::Ordering::Less => self.seen.doubled += 1,
            std::cmp::Ordering::Greater => self.seen.reordered += 1,
        }
    }
}
