//! Wait queues: for each client with an id, the polls that it holds.
//!
//! A queue exists while it has a poll. When it empties, a [`ClientRecord`] stays in a cache and expires;
//! losing a record does no harm. Anonymous polls have no queue, since nothing supersedes them, and leave no
//! record.

mod queue_entry;
mod view;

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use dashmap::DashMap;
use moka::sync::Cache;
use tokio::time::Instant;

use super::Takeovers;
use crate::budget::OpenCharge;
use crate::clock::Clock;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::stream::{Offset, StreamName};

pub use view::{ClientView, HeldView, SubscribedView};

pub(super) use queue_entry::HoldEnd;
pub use queue_entry::{CLIENT_ID_BYTES_MAX, ClientId, CredentialMark, InvalidClientId, Subject};
pub(super) use view::{VISITED_MAX, joined};

use queue_entry::QueueEntry;

/// The memory of a client in the cache, of which there is room for `idle_clients_max` times as much.
const IDLE_CLIENT_BYTES: u64 = 300;

/// The memory of a record with its places in the cache, without the client id and the name of the stream.
const RECORD_BYTES: usize = 256;

/// The client already holds the maximum number of polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyPolls {
    /// The limit.
    pub max: usize,
}

/// Hashes numbers that no client chooses, without a random key, so that a simulated drain repeats itself.
type OwnNumbers = BuildHasherDefault<NumberHasher>;

/// Multiplies by 2^64 divided by the golden ratio, which spreads consecutive numbers.
#[derive(Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// All wait queues, the anonymous polls, and the records of clients that hold no poll.
pub(super) struct Clients {
    queues: DashMap<ClientId, Queue>,
    /// Polls without a client id, by poll number.
    anonymous: DashMap<u64, Arc<QueueEntry>, OwnNumbers>,
    next_poll: AtomicU64,
    idle: Cache<ClientId, Arc<ClientRecord>>,
    takeovers: Takeovers,
    polls_max: usize,
    clock: Clock,
}

#[derive(Default)]
struct Queue {
    polls: Vec<Arc<QueueEntry>>,
    answered: u64,
}

struct ClientRecord {
    answered: u64,
    last_subject: Subject,
    last_offset: Option<Offset>,
    last_seen: Instant,
}

impl ClientRecord {
    /// The memory of the record of `client`, with its places in the cache.
    fn bytes(&self, client: &ClientId) -> u32 {
        let name = self.last_subject.stream().map_or(0, |stream| stream.as_str().len());
        u32::try_from(RECORD_BYTES + client.as_str().len() + name).unwrap_or(u32::MAX)
    }
}

/// Keeps a poll in its wait queue; dropping it removes the poll.
pub(super) struct QueueSlot<'a> {
    clients: &'a Clients,
    entry: Arc<QueueEntry>,
}

impl Clients {
    pub(super) fn new(limits: &Limits, metrics: &Metrics, clock: Clock) -> Self {
        let weigh = |client: &ClientId, record: &Arc<ClientRecord>| record.bytes(client);
        let idle = Cache::builder()
            .max_capacity(limits.idle_clients_max.saturating_mul(IDLE_CLIENT_BYTES))
            .weigher(weigh)
            .time_to_idle(limits.client_idle_timeout.get())
            .build();
        let (queues, anonymous, next_poll) = Default::default();
        let takeovers = Takeovers::new("polls", limits, metrics);
        let polls_max = limits.client_polls_max;
        Self { queues, anonymous, next_poll, idle, takeovers, polls_max, clock }
    }

    /// Ends the poll that `client` holds for `subject`, because a newer one has arrived. Returns whether there is one.
    pub(super) fn supersede(&self, client: &ClientId, subject: &Subject) -> bool {
        let mut older = Vec::new();
        self.leave(client, |poll| poll.subject.is_same(subject), &mut older);
        let took_over = !older.is_empty();
        self.end_superseded(client, subject, older);
        took_over
    }

    /// Moves the polls that match `leaves` from the queue of `client` to `left`. An emptied queue becomes a
    /// record.
    fn leave(
        &self,
        client: &ClientId,
        leaves: impl Fn(&QueueEntry) -> bool,
        left: &mut Vec<Arc<QueueEntry>>,
    ) {
        let emptied = self.queues.remove_if_mut(client, |_, queue| {
            left.extend(queue.polls.extract_if(.., |poll| leaves(poll)));
            queue.answered += left.len() as u64;
            queue.polls.is_empty()
        });
        if let (Some((id, queue)), Some(poll)) = (emptied, left.last()) {
            let (last_subject, last_offset, last_seen) = (poll.subject.clone(), poll.offset, Instant::now());
            let record = ClientRecord { answered: queue.answered, last_subject, last_offset, last_seen };
            self.idle.insert(id, Arc::new(record));
        }
    }

    /// Ends polls that a newer one has replaced in the queue. If takeovers are too frequent, the responses
    /// are delayed (see [`Takeovers`]).
    fn end_superseded(&self, client: &ClientId, subject: &Subject, older: Vec<Arc<QueueEntry>>) {
        for poll in older {
            let delay = self.takeovers.count(client.as_str(), subject.stream().map(StreamName::as_str));
            let answer_after = (poll.since.elapsed() + delay).into();
            poll.end(HoldEnd::Superseded { answer_after });
        }
    }

    /// Adds a poll to the queue of `client`, or to the anonymous polls. An older poll of the client for the
    /// same subject is superseded and does not count against the limit. `offset` is shown to operators. Also returns
    /// whether an older poll was superseded.
    pub(super) fn hold(
        &self,
        client: Option<ClientId>,
        subject: Subject,
        offset: Option<Offset>,
        hold: Duration,
        (credentials, open): (Option<CredentialMark>, Option<OpenCharge>),
    ) -> Result<(QueueSlot<'_>, bool), TooManyPolls> {
        let number = self.next_poll.fetch_add(1, Ordering::Relaxed);
        let poll = Arc::new(QueueEntry::new(number, client, subject, offset, hold, (credentials, open)));
        let took_over = match &poll.client {
            Some(client) => self.queue(client, &poll)?,
            None => self.anonymous.insert(number, poll.clone()).is_some(),
        };
        Ok((QueueSlot { clients: self, entry: poll }, took_over))
    }

    fn queue(&self, client: &ClientId, poll: &Arc<QueueEntry>) -> Result<bool, TooManyPolls> {
        let remembered = || Queue {
            answered: self.idle.remove(client).map_or(0, |record| record.answered),
            ..Queue::default()
        };
        let mut queue = self.queues.entry(client.clone()).or_insert_with(remembered);
        let is_same = |held: &QueueEntry| held.subject.is_same(&poll.subject);
        if queue.polls.iter().filter(|held| !is_same(held)).count() >= self.polls_max {
            return Err(TooManyPolls { max: self.polls_max });
        }
        let same: Vec<_> = queue.polls.extract_if(.., |held| is_same(held)).collect();
        queue.answered += same.len() as u64;
        if queue.polls.is_empty() {
            queue.polls.reserve_exact(1);
        }
        queue.polls.push(poll.clone());
        drop(queue);
        let took_over = !same.is_empty();
        self.end_superseded(client, &poll.subject, same);
        Ok(took_over)
    }

    /// How long ago a client held a poll; zero while it does. `None`: it is not remembered.
    pub(super) fn last_seen(&self, client: &ClientId) -> Option<Duration> {
        if self.queues.contains_key(client) {
            return Some(Duration::ZERO);
        }
        let record = self.idle.get(client)?;
        // At least something, as it is not now.
        Some(record.last_seen.elapsed().max(Duration::from_nanos(1)))
    }

    /// Returns the number of held polls.
    pub(super) fn held(&self) -> usize {
        self.anonymous.len() + self.queues.iter().map(|queue| queue.polls.len()).sum::<usize>()
    }

    /// Ends up to `count` held polls that have not been ended yet, because the gateway is draining or memory
    /// is critical. A poll that its task has not polled yet ends too.
    pub(super) fn drain(&self, count: usize) {
        let anonymous = self.anonymous.iter().filter(|poll| poll.end(HoldEnd::Draining)).take(count).count();
        let named = self.queues.iter().flat_map(|queue| queue.polls.clone());
        named.filter(|poll| poll.end(HoldEnd::Draining)).take(count - anonymous).for_each(drop);
    }

    /// Ends the held polls whose credentials `have_ended`.
    pub(super) fn end_unauthorized(&self, have_ended: impl Fn(CredentialMark) -> bool) {
        let end = |poll: &QueueEntry| {
            if poll.credentials.is_some_and(&have_ended) {
                poll.end(HoldEnd::Unauthorized);
            }
        };
        self.anonymous.iter().for_each(|poll| end(&poll));
        self.queues.iter().for_each(|queue| queue.polls.iter().for_each(|poll| end(poll)));
    }
}

impl QueueSlot<'_> {
    /// When the hold began.
    pub(super) fn since(&self) -> Instant {
        self.entry.since
    }

    /// When the poll is answered at the latest.
    pub(super) fn deadline(&self) -> Instant {
        self.entry.deadline()
    }

    /// Why the poll must end before its deadline, if it must.
    pub(super) fn ending(&self) -> Option<HoldEnd> {
        self.entry.ending()
    }

    /// Waits until the poll must end before its deadline.
    pub(super) fn poll_ended(&self, context: &mut Context<'_>) -> Poll<HoldEnd> {
        self.entry.poll_ended(context)
    }
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        let (clients, poll) = (self.clients, &self.entry);
        let Some(id) = &poll.client else {
            clients.anonymous.remove(&poll.number);
            return;
        };
        // A superseded poll is no longer in its queue.
        clients.leave(id, |held| held.number == poll.number, &mut Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_of_idle_clients_have_a_bound_in_bytes_whatever_the_length_of_names() {
        let limits = Limits { idle_clients_max: 10, ..Limits::default() };
        let clients = Clients::new(&limits, &Metrics::new(), Clock::start());
        for (name, expected) in [("s".to_owned(), 11), ("s".repeat(512), 3)] {
            for number in 0..100 {
                let client = ClientId::parse(&format!("client-{number}")).unwrap();
                let subject = Subject::Stream(StreamName::parse(&name).unwrap());
                drop(clients.hold(Some(client), subject, None, Duration::ZERO, (None, None)));
            }
            clients.idle.run_pending_tasks();
            assert!((1..=expected).contains(&clients.idle.entry_count()), "{}", clients.idle.entry_count());
            assert!(clients.idle.weighted_size() <= 10 * IDLE_CLIENT_BYTES);
            clients.idle.invalidate_all();
        }
    }
}
