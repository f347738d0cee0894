//! Wait queues: one per client that names itself, with the polls it has held.
//!
//! A queue lives while it holds a poll. What is left of a client afterwards is a record that may be lost: moka
//! lets it expire. Anonymous polls get a queue each and leave no record.

use std::collections::HashMap;
use std::sync::Arc;

use moka::sync::Cache;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use super::signal::Signal;
use crate::clock::Clock;
use crate::limits::Limits;
use crate::stream::{Offset, StreamName};

/// The longest client id, in bytes.
pub const CLIENT_ID_BYTES_MAX: usize = 128;

/// How a client names itself: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

/// The text is no client id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a client id is 1 to 128 visible ASCII characters")]
pub struct InvalidClientId;

impl ClientId {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self, InvalidClientId> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        let fits = (1..=CLIENT_ID_BYTES_MAX).contains(&text.len());
        if visible && fits { Ok(Self(text.into())) } else { Err(InvalidClientId) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The client holds as many polls as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyPolls {
    /// The limit.
    pub max: usize,
}

/// Why a held poll ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// A newer poll of the same client for the same stream.
    Superseded,
    /// The gateway drains.
    Draining,
}

/// All wait queues.
pub(super) struct Clients {
    queues: Mutex<Queues>,
    idle: Cache<ClientId, Arc<Record>>,
    polls_max: usize,
    clock: Clock,
}

#[derive(Default)]
struct Queues {
    by_client: HashMap<Key, Queue>,
    next_poll: u64,
    held: usize,
}

/// Anonymous polls are told apart by their number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Named(ClientId),
    Anonymous(u64),
}

#[derive(Default)]
struct Queue {
    polls: Vec<Arc<HeldPoll>>,
    answered: u64,
}

struct HeldPoll {
    number: u64,
    stream: StreamName,
    cursor: Offset,
    since: Instant,
    deadline: Instant,
    ending: Signal<Option<Ending>>,
}

struct Record {
    answered: u64,
    last_stream: StreamName,
    last_cursor: Offset,
    last_seen: Instant,
}

/// A place on a wait queue; dropping it leaves the queue.
pub(super) struct Place {
    clients: Arc<Clients>,
    key: Key,
    poll: Arc<HeldPoll>,
}

/// What the admin listener shows of a client.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientView {
    /// Its id; anonymous polls are `anonymous-N`.
    pub client: String,
    /// The polls it has held, the oldest first.
    pub held: Vec<HeldView>,
    /// How many of its polls have ended since it was last unknown.
    pub answered: u64,
    /// For a client that holds no poll: the stream it asked for last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_stream: Option<String>,
    /// For a client that holds no poll: its last cursor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_cursor: Option<String>,
    /// For a client that holds no poll: when its last one ended (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<String>,
}

/// A held poll.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldView {
    /// The stream.
    pub stream: String,
    /// The offset from which it reads.
    pub cursor: String,
    /// Since when it is held (RFC 3339).
    pub since: String,
    /// When it will be answered at the latest (RFC 3339).
    pub deadline: String,
}

impl Clients {
    pub(super) fn new(limits: &Limits, clock: Clock) -> Self {
        let idle = Cache::builder()
            .max_capacity(limits.idle_clients_max)
            .time_to_idle(limits.client_idle_timeout.get())
            .build();
        Self { queues: Mutex::default(), idle, polls_max: limits.client_polls_max, clock }
    }

    /// Ends the poll that `client` holds for `stream`, if it holds one: a newer one has come.
    pub(super) fn supersede(&self, client: &ClientId, stream: &StreamName) {
        let older: Vec<_> = match self.queues.lock().by_client.get(&Key::Named(client.clone())) {
            Some(queue) => queue.polls.iter().filter(|poll| poll.stream == *stream).cloned().collect(),
            None => return,
        };
        for poll in older {
            poll.end(Ending::Superseded);
        }
    }

    /// Puts a poll on the queue of its client. A poll that it holds for the same stream is superseded and does
    /// not count.
    pub(super) fn hold(
        self: &Arc<Self>,
        client: Option<ClientId>,
        stream: &StreamName,
        cursor: Offset,
        deadline: Instant,
    ) -> Result<Place, TooManyPolls> {
        let mut queues = self.queues.lock();
        queues.next_poll += 1;
        let number = queues.next_poll;
        let key = client.map_or(Key::Anonymous(number), Key::Named);
        let remembered = || match &key {
            Key::Named(id) => self.idle.remove(id).map_or(0, |record| record.answered),
            Key::Anonymous(_) => 0,
        };
        let queue = queues
            .by_client
            .entry(key.clone())
            .or_insert_with(|| Queue { answered: remembered(), ..Queue::default() });
        let (same, others): (Vec<_>, Vec<_>) =
            queue.polls.iter().cloned().partition(|poll| poll.stream == *stream);
        if others.len() >= self.polls_max {
            return Err(TooManyPolls { max: self.polls_max });
        }
        let since = Instant::now();
        let ending = Signal::new(None);
        let poll = Arc::new(HeldPoll { number, stream: stream.clone(), cursor, since, deadline, ending });
        queue.polls.push(poll.clone());
        queues.held += 1;
        drop(queues);
        for older in same {
            older.end(Ending::Superseded);
        }
        Ok(Place { clients: self.clone(), key, poll })
    }

    /// How many polls are held.
    pub(super) fn held(&self) -> usize {
        self.queues.lock().held
    }

    /// Ends up to `count` more of the held polls because the gateway drains. Each of them, waiting already or about
    /// to, so that none is overlooked.
    pub(super) fn drain(&self, count: usize) {
        let queues = self.queues.lock();
        let polls = queues.by_client.values().flat_map(|queue| &queue.polls);
        polls.filter(|poll| poll.end(Ending::Draining)).take(count).for_each(drop);
    }

    /// The clients, those that hold polls and those that are remembered, by name; at most `max`.
    pub(super) fn views(&self, max: usize) -> Vec<ClientView> {
        let mut views: Vec<_> =
            self.queues.lock().by_client.iter().take(max).map(|(key, queue)| self.view(key, queue)).collect();
        let more = max.saturating_sub(views.len());
        views.extend(self.idle.iter().take(more).map(|(id, record)| self.idle_view(&id, &record)));
        views.sort_by(|a, b| a.client.cmp(&b.client));
        views
    }

    /// One client, if it is known.
    pub(super) fn one(&self, client: &str) -> Option<ClientView> {
        let key = match client.strip_prefix("anonymous-").and_then(|number| number.parse().ok()) {
            Some(number) => Key::Anonymous(number),
            None => Key::Named(ClientId::parse(client).ok()?),
        };
        let held = self.queues.lock().by_client.get(&key).map(|queue| self.view(&key, queue));
        held.or_else(|| match &key {
            Key::Named(id) => self.idle.get(id).map(|record| self.idle_view(id, &record)),
            Key::Anonymous(_) => None,
        })
    }

    fn view(&self, key: &Key, queue: &Queue) -> ClientView {
        let held = |poll: &Arc<HeldPoll>| HeldView {
            stream: poll.stream.to_string(),
            cursor: poll.cursor.to_string(),
            since: self.clock.text(poll.since),
            deadline: self.clock.text(poll.deadline),
        };
        ClientView {
            client: key.to_string(),
            held: queue.polls.iter().map(held).collect(),
            answered: queue.answered,
            last_stream: None,
            last_cursor: None,
            last_seen: None,
        }
    }

    fn idle_view(&self, id: &ClientId, record: &Record) -> ClientView {
        ClientView {
            client: id.as_str().to_owned(),
            held: Vec::new(),
            answered: record.answered,
            last_stream: Some(record.last_stream.to_string()),
            last_cursor: Some(record.last_cursor.to_string()),
            last_seen: Some(self.clock.text(record.last_seen)),
        }
    }
}

impl HeldPoll {
    /// Whether that was not the case already.
    fn end(&self, ending: Ending) -> bool {
        let mut first = false;
        self.ending.update(|state| {
            first = state.is_none();
            *state = state.or(Some(ending));
        });
        first
    }
}

impl Place {
    /// Waits until the poll has to end before its time.
    pub(super) async fn ended(&self) -> Ending {
        self.poll.ending.wait_until(|ending| *ending).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queues = self.clients.queues.lock();
        queues.held = queues.held.saturating_sub(1);
        let Some(queue) = queues.by_client.get_mut(&self.key) else { return };
        queue.polls.retain(|poll| poll.number != self.poll.number);
        queue.answered += 1;
        if !queue.polls.is_empty() {
            return;
        }
        let answered = queue.answered;
        queues.by_client.remove(&self.key);
        if let Key::Named(id) = &self.key {
            let poll = &self.poll;
            let (last_stream, last_cursor, last_seen) = (poll.stream.clone(), poll.cursor, Instant::now());
            self.clients
                .idle
                .insert(id.clone(), Arc::new(Record { answered, last_stream, last_cursor, last_seen }));
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(id) => f.write_str(id.as_str()),
            Self::Anonymous(number) => write!(f, "anonymous-{number}"),
        }
    }
}
