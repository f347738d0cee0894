//! Wait queues: one for each client that names itself, with the polls that it holds.
//!
//! A queue exists while it has a poll. What is left of a client afterwards is a record that may be lost: moka lets it
//! expire. Anonymous polls need no queue, since nothing supersedes them, and leave no record.

mod queue_entry;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use dashmap::DashMap;
use moka::sync::Cache;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::limits::Limits;
use crate::stream::Offset;

pub use view::{ClientView, HeldView, SubscribedView};

pub(super) use queue_entry::Ending;
pub use queue_entry::{CLIENT_ID_BYTES_MAX, ClientId, InvalidClientId, Subject};
pub(super) use view::joined;

use queue_entry::QueueEntry;

/// The client holds as many polls as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyPolls {
    /// The limit.
    pub max: usize,
}

/// All wait queues.
pub(super) struct Clients {
    queues: DashMap<ClientId, Queue>,
    /// Polls without a client, by their numbers.
    anonymous: DashMap<u64, Arc<QueueEntry>>,
    next_poll: AtomicU64,
    idle: Cache<ClientId, Arc<Record>>,
    polls_max: usize,
    clock: Clock,
}

#[derive(Default)]
struct Queue {
    polls: Vec<Arc<QueueEntry>>,
    answered: u64,
}

struct Record {
    answered: u64,
    last_subject: Subject,
    last_offset: Option<Offset>,
    last_seen: Instant,
}

/// Keeps a poll on its wait queue; dropping it leaves the queue.
pub(super) struct QueueSlot<'a> {
    clients: &'a Clients,
    entry: Arc<QueueEntry>,
}

impl Clients {
    pub(super) fn new(limits: &Limits, clock: Clock) -> Self {
        let idle = Cache::builder()
            .max_capacity(limits.idle_clients_max)
            .time_to_idle(limits.client_idle_timeout.get())
            .build();
        let (queues, anonymous, next_poll) = Default::default();
        Self { queues, anonymous, next_poll, idle, polls_max: limits.client_polls_max, clock }
    }

    /// Ends the poll that `client` holds for `subject`, if it holds one, because a newer one has come.
    pub(super) fn supersede(&self, client: &ClientId, subject: &Subject) {
        let older: Vec<_> = match self.queues.get(client) {
            Some(queue) => queue.polls.iter().filter(|poll| poll.subject.is_same(subject)).cloned().collect(),
            None => return,
        };
        for poll in older {
            poll.end(Ending::Superseded);
        }
    }

    /// Puts a poll on the queue of its client. A poll that it holds for the same subject is superseded and does not count.
    /// `offset` is where it reads from, for operators.
    pub(super) fn hold(
        &self,
        client: Option<ClientId>,
        subject: Subject,
        offset: Option<Offset>,
        deadline: Instant,
    ) -> Result<QueueSlot<'_>, TooManyPolls> {
        let number = self.next_poll.fetch_add(1, Ordering::Relaxed);
        let poll = Arc::new(QueueEntry::new(number, client, subject, offset, deadline));
        match &poll.client {
            Some(client) => self.queue(client, &poll)?,
            None => drop(self.anonymous.insert(number, poll.clone())),
        }
        Ok(QueueSlot { clients: self, entry: poll })
    }

    fn queue(&self, client: &ClientId, poll: &Arc<QueueEntry>) -> Result<(), TooManyPolls> {
        let remembered = || Queue {
            answered: self.idle.remove(client).map_or(0, |record| record.answered),
            ..Queue::default()
        };
        let mut queue = self.queues.entry(client.clone()).or_insert_with(remembered);
        let (same, others): (Vec<_>, Vec<_>) =
            queue.polls.iter().cloned().partition(|held| held.subject.is_same(&poll.subject));
        if others.len() >= self.polls_max {
            return Err(TooManyPolls { max: self.polls_max });
        }
        if queue.polls.is_empty() {
            queue.polls.reserve_exact(1);
        }
        queue.polls.push(poll.clone());
        drop(queue);
        for older in same {
            older.end(Ending::Superseded);
        }
        Ok(())
    }

    /// How many polls are held.
    pub(super) fn held(&self) -> usize {
        self.anonymous.len() + self.queues.iter().map(|queue| queue.polls.len()).sum::<usize>()
    }

    /// Ends up to `count` more of the held polls because the gateway drains, whether their tasks wait already or are about
    /// to.
    pub(super) fn drain(&self, count: usize) {
        let anonymous = self.anonymous.iter().filter(|poll| poll.end(Ending::Draining)).take(count).count();
        let named = self.queues.iter().flat_map(|queue| queue.polls.clone());
        named.filter(|poll| poll.end(Ending::Draining)).take(count - anonymous).for_each(drop);
    }
}

impl QueueSlot<'_> {
    /// When the hold began.
    pub(super) fn since(&self) -> Instant {
        self.entry.since
    }

    /// When the poll is answered at the latest.
    pub(super) fn deadline(&self) -> Instant {
        self.entry.deadline
    }

    /// Waits until the poll has to end before its time.
    pub(super) fn poll_ended(&self, context: &mut Context<'_>) -> Poll<Ending> {
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
        let left = clients.queues.remove_if_mut(id, |_, queue| {
            queue.polls.retain(|held| held.number != poll.number);
            queue.answered += 1;
            queue.polls.is_empty()
        });
        if let Some((id, queue)) = left {
            let (last_subject, last_offset, last_seen) = (poll.subject.clone(), poll.offset, Instant::now());
            let record = Record { answered: queue.answered, last_subject, last_offset, last_seen };
            clients.idle.insert(id, Arc::new(record));
        }
    }
}
