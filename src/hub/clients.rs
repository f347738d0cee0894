//! Wait queues: one per client that names itself, with the polls it has held.
//!
//! A queue lives while it holds a poll. What is left of a client afterwards is a record that may be lost: moka
//! lets it expire. Anonymous polls get a queue each and leave no record.

mod view;

use std::collections::HashMap;
use std::sync::Arc;

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::signal::Signal;
use crate::clock::Clock;
use crate::limits::Limits;
use crate::stream::{Offset, StreamName};

pub use view::{ClientView, HeldView, SubscribedView};

pub(super) use view::joined;

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
    /// A newer poll of the same client for the same subject.
    Superseded,
    /// The gateway drains.
    Draining,
}

/// What a poll waits for. A client holds one poll for each stream, and one for many at once.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    Stream(StreamName),
    /// So many streams.
    Streams(usize),
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
    subject: Subject,
    cursor: Option<Offset>,
    since: Instant,
    deadline: Instant,
    ending: Signal<Option<Ending>>,
}

struct Record {
    answered: u64,
    last_subject: Subject,
    last_cursor: Option<Offset>,
    last_seen: Instant,
}

/// A place on a wait queue; dropping it leaves the queue.
pub(super) struct Place {
    clients: Arc<Clients>,
    key: Key,
    poll: Arc<HeldPoll>,
}

impl Clients {
    pub(super) fn new(limits: &Limits, clock: Clock) -> Self {
        let idle = Cache::builder()
            .max_capacity(limits.idle_clients_max)
            .time_to_idle(limits.client_idle_timeout.get())
            .build();
        Self { queues: Mutex::default(), idle, polls_max: limits.client_polls_max, clock }
    }

    /// Ends the poll that `client` holds for `subject`, if it holds one: a newer one has come.
    pub(super) fn supersede(&self, client: &ClientId, subject: &Subject) {
        let older: Vec<_> = match self.queues.lock().by_client.get(&Key::Named(client.clone())) {
            Some(queue) => queue.polls.iter().filter(|poll| poll.subject.is_same(subject)).cloned().collect(),
            None => return,
        };
        for poll in older {
            poll.end(Ending::Superseded);
        }
    }

    /// Puts a poll on the queue of its client. A poll that it holds for the same subject is superseded and does
    /// not count. `cursor` is for operators.
    pub(super) fn hold(
        self: &Arc<Self>,
        client: Option<ClientId>,
        subject: Subject,
        cursor: Option<Offset>,
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
            queue.polls.iter().cloned().partition(|poll| poll.subject.is_same(&subject));
        if others.len() >= self.polls_max {
            return Err(TooManyPolls { max: self.polls_max });
        }
        let since = Instant::now();
        let ending = Signal::new(None);
        let poll = Arc::new(HeldPoll { number, subject, cursor, since, deadline, ending });
        if queue.polls.is_empty() {
            queue.polls.reserve_exact(1);
        }
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
}

impl Subject {
    /// Whether a newer poll for `other` is in place of one for this.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Stream(one), Self::Stream(other)) => one == other,
            (Self::Streams(_), Self::Streams(_)) => true,
            (Self::Stream(_), Self::Streams(_)) | (Self::Streams(_), Self::Stream(_)) => false,
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
            let (last_subject, last_cursor, last_seen) = (poll.subject.clone(), poll.cursor, Instant::now());
            self.clients
                .idle
                .insert(id.clone(), Arc::new(Record { answered, last_subject, last_cursor, last_seen }));
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
