//! [`Queues`]: what waits to be sent, by destination. Each destination has a bounded number of requests under way and a breaker, so that
//! one that is slow or dead delays no other.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Backoff, Breaker, BreakerPolicy, Permission};

/// When nothing more is sent to a destination that fails.
const BREAKER: BreakerPolicy = BreakerPolicy {
    failures_max: 5,
    pause: Backoff { first: Duration::from_secs(2), max: Duration::from_secs(60) },
};

/// Destinations without anything under way whose failures are remembered.
const REMEMBERED_MAX: usize = 4096;

/// Queues of items of the type `T`, each with a key. An item replaces one with the same key that still waits.
#[derive(Debug)]
pub struct Queues<K, T> {
    destinations: HashMap<String, DestinationQueue<K, T>>,
    /// Destinations in the order in which they are visited.
    order: VecDeque<String>,
    /// Requests under way to one destination.
    concurrency_max: usize,
    /// Items that wait for one destination.
    waiting_max: usize,
}

#[derive(Debug)]
struct DestinationQueue<K, T> {
    order: VecDeque<K>,
    items: HashMap<K, T>,
    under_way: usize,
    breaker: Breaker<Instant>,
}

/// Why an item was not queued. What is pending follows from the store, so nothing is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotQueued {
    /// The breaker of the destination is open; come again after this time.
    Open(Duration),
    /// Too much waits for the destination.
    Full,
}

/// How a request ended, for its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// The destination works.
    Answered,
    /// It does not, and wants no request before this time has passed, if it says so.
    Failed(Option<Duration>),
    /// Nothing was sent.
    Withdrawn,
}

impl<K, T> Default for DestinationQueue<K, T> {
    fn default() -> Self {
        let (order, items, breaker) = (VecDeque::new(), HashMap::new(), Breaker::default());
        Self { order, items, under_way: 0, breaker }
    }
}

impl<K, T> DestinationQueue<K, T> {
    fn is_unused(&self) -> bool {
        self.under_way == 0 && self.items.is_empty()
    }
}

impl<K: Clone + Eq + Hash, T> Queues<K, T> {
    /// Creates empty queues.
    pub fn new(concurrency_max: usize, waiting_max: usize) -> Self {
        let (destinations, order) = (HashMap::new(), VecDeque::new());
        Self { destinations, order, concurrency_max: concurrency_max.max(1), waiting_max: waiting_max.max(1) }
    }

    /// Adds an item for a destination.
    pub fn push(&mut self, to: &str, key: K, item: T, now: Instant) -> Result<(), (NotQueued, T)> {
        self.forget();
        let queue = match self.destinations.get_mut(to) {
            Some(queue) => queue,
            None => {
                self.order.push_back(to.to_owned());
                self.destinations.entry(to.to_owned()).or_default()
            }
        };
        if queue.breaker.is_open(now)
            && let Permission::NotBefore(until) = queue.breaker.permit(now)
        {
            return Err((NotQueued::Open(until.duration_since(now)), item));
        }
        if queue.items.len() >= self.waiting_max && !queue.items.contains_key(&key) {
            return Err((NotQueued::Full, item));
        }
        if queue.items.insert(key.clone(), item).is_none() {
            queue.order.push_back(key);
        }
        Ok(())
    }

    /// Takes the next item that may be sent now, with its destination; the destinations take turns. [`finished`](Self::finished) must
    /// follow.
    pub fn next(&mut self, now: Instant) -> Option<(String, T)> {
        for _ in 0..self.order.len() {
            let to = self.order.pop_front()?;
            self.order.push_back(to.clone());
            let Some(queue) = self.destinations.get_mut(&to) else { continue };
            if queue.under_way >= self.concurrency_max || queue.items.is_empty() {
                continue;
            }
            if queue.breaker.permit(now) != Permission::Granted {
                continue;
            }
            while let Some(key) = queue.order.pop_front() {
                if let Some(item) = queue.items.remove(&key) {
                    queue.under_way += 1;
                    return Some((to, item));
                }
            }
            queue.breaker.withdrawn();
        }
        None
    }

    /// Notes the outcome of a request. `random` is below 1.
    pub fn finished(&mut self, to: &str, outcome: RequestOutcome, now: Instant, random: f64) {
        let Some(queue) = self.destinations.get_mut(to) else { return };
        queue.under_way = queue.under_way.saturating_sub(1);
        match outcome {
            RequestOutcome::Answered => queue.breaker.succeeded(),
            RequestOutcome::Failed(wait) => {
                queue.breaker.failed(&BREAKER, now, wait, random);
            }
            RequestOutcome::Withdrawn => queue.breaker.withdrawn(),
        }
        if queue.is_unused() && queue.breaker.is_idle() {
            self.destinations.remove(to);
            self.order.retain(|other| other != to);
        }
    }

    /// When an item that waits for a pause of its destination can be sent.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let waiting = self.destinations.values().filter(|queue| !queue.items.is_empty());
        let until = waiting.filter_map(|queue| match queue.breaker.clone().permit(now) {
            Permission::NotBefore(until) => Some(until),
            Permission::Granted | Permission::Probing => None,
        });
        until.min()
    }

    /// Items that wait.
    pub fn waiting(&self) -> usize {
        self.destinations.values().map(|queue| queue.items.len()).sum()
    }

    /// Forgets the failures of unused destinations if there are too many.
    fn forget(&mut self) {
        if self.destinations.len() >= REMEMBERED_MAX {
            self.destinations.retain(|_, queue| !queue.is_unused());
            self.order.retain(|to| self.destinations.contains_key(to));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues() -> Queues<u32, u32> {
        Queues::new(2, 3)
    }

    fn taken(queues: &mut Queues<u32, u32>, now: Instant) -> Vec<(String, u32)> {
        std::iter::from_fn(|| queues.next(now)).collect()
    }

    #[test]
    fn destinations_take_turns_and_have_their_own_limit() {
        let (mut queues, now) = (queues(), Instant::now());
        for (to, key) in [("a", 1), ("a", 2), ("a", 3), ("b", 4)] {
            queues.push(to, key, key, now).unwrap();
        }
        let a = |key| ("a".to_owned(), key);
        assert_eq!(taken(&mut queues, now), [a(1), ("b".to_owned(), 4), a(2)]);
        assert_eq!((queues.next(now), queues.waiting()), (None, 1));
        queues.finished("a", RequestOutcome::Answered, now, 0.5);
        assert_eq!(taken(&mut queues, now), [a(3)]);
        for to in ["a", "a", "b"] {
            queues.finished(to, RequestOutcome::Answered, now, 0.5);
        }
        assert!(queues.destinations.is_empty() && queues.order.is_empty());
    }

    #[test]
    fn an_item_replaces_its_predecessor_and_a_full_queue_refuses() {
        let (mut queues, now) = (queues(), Instant::now());
        for key in 1..=3 {
            queues.push("a", key, key, now).unwrap();
        }
        queues.push("a", 2, 20, now).unwrap();
        assert_eq!(queues.push("a", 4, 4, now), Err((NotQueued::Full, 4)));
        assert_eq!(taken(&mut queues, now), [("a".to_owned(), 1), ("a".to_owned(), 20)]);
    }

    #[test]
    fn a_destination_that_fails_is_paused_and_probed() {
        let (mut queues, now) = (queues(), Instant::now());
        for key in 0..5 {
            queues.push("a", key, key, now).unwrap();
            assert!(queues.next(now).is_some());
            queues.finished("a", RequestOutcome::Failed(None), now, 1.0);
        }
        let pause = Duration::from_secs(2);
        assert_eq!(queues.push("a", 6, 6, now), Err((NotQueued::Open(pause), 6)));
        queues.push("b", 7, 7, now).unwrap();
        assert_eq!(queues.next(now), Some(("b".to_owned(), 7)));
        let later = now + pause;
        for key in 8..10 {
            queues.push("a", key, key, later).unwrap();
        }
        assert_eq!(taken(&mut queues, later), [("a".to_owned(), 8)], "one probe");
        queues.finished("a", RequestOutcome::Failed(Some(Duration::from_secs(90))), later, 1.0);
        assert_eq!(queues.next_due(later), Some(later + Duration::from_secs(90)));
        assert_eq!(queues.next(later), None);
        assert_eq!(queues.next(later + Duration::from_secs(90)), Some(("a".to_owned(), 9)));
        queues.finished("a", RequestOutcome::Answered, later, 1.0);
        assert_eq!(queues.next_due(later), None);
    }
}
