//! [`KeepAlives`]: wakes connections whose clients may have been silent for too long (MQTT 5, section 3.1.2.10). A timer of tokio
//! takes 136 bytes a connection. This table takes one waker: each of its lists has the wakers of one tick.
//!
//! A connection is in one list at most. It stays there while its deadline moves, as it does with each packet of the client, and finds the
//! new deadline when it is woken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

/// Connections are woken at multiples of this.
const TICK: Duration = Duration::from_millis(100);

/// Connections woken between two yields.
const WAKES_PER_TURN: usize = 64;

/// The timers of all connections.
#[derive(Debug)]
pub(super) struct KeepAlives {
    start: Instant,
    table: Mutex<TickTable>,
    /// Notified when the first tick is earlier than before.
    is_earlier: Notify,
}

#[derive(Debug, Default)]
struct TickTable {
    /// Ticks up to this one have passed.
    passed: u32,
    ticks: BTreeMap<u32, Tick>,
}

/// The connections that are woken at the same time.
#[derive(Debug, Default)]
struct Tick {
    places: Vec<Place>,
    /// Number of places with a waker.
    waiting: usize,
    /// The place that was left last, if there are places without a waker.
    free: u32,
}

#[derive(Debug)]
enum Place {
    Waiting(Waker),
    /// The value is the place that was left before this one, if there are further places without a waker.
    Free(u32),
}

/// The timer of one connection.
#[derive(Debug)]
pub(super) struct KeepAliveTimer {
    all: Arc<KeepAlives>,
    /// When the connection is woken; 0: it has no place.
    tick: u32,
    place: u32,
}

impl KeepAlives {
    /// Has no timers. They need [`run`](Self::run).
    pub(super) fn new() -> Arc<Self> {
        let (table, is_earlier) = Default::default();
        Arc::new(Self { start: Instant::now(), table, is_earlier })
    }

    /// A timer that does not run yet.
    pub(super) fn timer(self: &Arc<Self>) -> KeepAliveTimer {
        KeepAliveTimer { all: self.clone(), tick: 0, place: 0 }
    }

    /// Wakes connections. Never returns; runs as long as it is polled.
    pub(super) async fn run(&self) {
        loop {
            let next = self.table.lock().ticks.keys().next().copied();
            let Some(next) = next else {
                self.is_earlier.notified().await;
                continue;
            };
            tokio::select! {
                () = sleep_until(self.start + TICK * next) => {}
                () = self.is_earlier.notified() => continue,
            }
            let mut due = self.table.lock().take(self.passed(Instant::now()).max(next));
            while !due.is_empty() {
                due.drain(due.len().saturating_sub(WAKES_PER_TURN)..).for_each(Waker::wake);
                yield_now().await;
            }
        }
    }

    /// The last tick that is not later than `now`.
    fn passed(&self, now: Instant) -> u32 {
        let ticks = now.saturating_duration_since(self.start).as_millis() / TICK.as_millis();
        u32::try_from(ticks).unwrap_or(u32::MAX - 1)
    }
}

impl KeepAliveTimer {
    /// Completes at `until`. The deadline may change between polls, which are those of the same task.
    pub(super) fn poll(&mut self, context: &Context<'_>, until: Instant) -> Poll<()> {
        let now = Instant::now();
        if now >= until {
            return Poll::Ready(());
        }
        let (passed, due) = (self.all.passed(now), self.all.passed(until) + 1);
        if self.tick <= passed || self.tick > due {
            let mut table = self.all.table.lock();
            table.remove(self.tick, self.place);
            let is_first = table.ticks.keys().next().is_none_or(|first| due < *first);
            (self.tick, self.place) = table.insert(due, context.waker());
            drop(table);
            if is_first {
                self.all.is_earlier.notify_one();
            }
        }
        Poll::Pending
    }
}

impl Drop for KeepAliveTimer {
    fn drop(&mut self) {
        if self.tick > 0 {
            let left = self.all.table.lock().remove(self.tick, self.place);
            drop(left);
        }
    }
}

impl TickTable {
    /// Adds a waker. Returns its tick, which is later than those that have passed, and its place.
    fn insert(&mut self, tick: u32, waker: &Waker) -> (u32, u32) {
        let tick = tick.max(self.passed + 1);
        let Tick { places, waiting, free } = self.ticks.entry(tick).or_default();
        let has_free = *waiting < places.len();
        *waiting += 1;
        let place = Place::Waiting(waker.clone());
        if let Some(left) = places.get_mut(*free as usize).filter(|_| has_free)
            && let Place::Free(before) = std::mem::replace(left, place)
        {
            return (tick, std::mem::replace(free, before));
        }
        places.push(Place::Waiting(waker.clone()));
        (tick, u32::try_from(places.len() - 1).unwrap_or(u32::MAX))
    }

    /// Removes a waker, unless its tick has passed.
    fn remove(&mut self, tick: u32, place: u32) -> Option<Waker> {
        let at = self.ticks.get_mut(&tick)?;
        let free = Place::Free(std::mem::replace(&mut at.free, place));
        let left = std::mem::replace(at.places.get_mut(place as usize)?, free);
        at.waiting -= 1;
        if at.waiting == 0 {
            self.ticks.remove(&tick);
        }
        left.into_waker()
    }

    /// Takes the wakers of all ticks up to `passed`.
    fn take(&mut self, passed: u32) -> Vec<Waker> {
        self.passed = self.passed.max(passed);
        let later = self.ticks.split_off(&(self.passed + 1));
        let due = std::mem::replace(&mut self.ticks, later);
        due.into_values().flat_map(|tick| tick.places).filter_map(Place::into_waker).collect()
    }
}

impl Place {
    fn into_waker(self) -> Option<Waker> {
        match self {
            Self::Waiting(waker) => Some(waker),
            Self::Free(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;

    async fn wait(timer: &mut KeepAliveTimer, until: Instant) {
        poll_fn(|context| timer.poll(context, until)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_timer_ends_at_its_deadline_to_one_tick() {
        let all = KeepAlives::new();
        let runs = all.clone();
        let running = tokio::spawn(async move { runs.run().await });
        let mut timers = JoinSet::new();
        for milliseconds in [5000, 1, 99, 100, 101, 5000, 4950, 250, 0] {
            let mut timer = all.timer();
            timers.spawn(async move {
                let until = Instant::now() + Duration::from_millis(milliseconds);
                wait(&mut timer, until).await;
                let late = Instant::now() - until;
                assert!(late <= TICK, "{milliseconds} ms: {late:?}");
            });
        }
        while let Some(ended) = timers.join_next().await {
            ended.unwrap();
        }
        assert!(all.table.lock().ticks.is_empty());
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_wakes_once_in_its_first_interval() {
        let all = KeepAlives::new();
        let runs = all.clone();
        let running = tokio::spawn(async move { runs.run().await });
        let (mut timer, mut polls) = (all.timer(), 0);
        let begun = Instant::now();
        // The client speaks whenever its connection is woken, three times.
        let ended = poll_fn(|context| {
            polls += 1;
            timer.poll(context, begun + Duration::from_secs(10 * polls.min(3)))
        });
        ended.await;
        assert_eq!((polls, begun.elapsed().as_secs()), (4, 30));
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_timer_leaves_its_place_to_the_next_one() {
        let all = KeepAlives::new();
        let until = Instant::now() + Duration::from_secs(60);
        let mut timers: Vec<_> = (0..10).map(|_| all.timer()).collect();
        let poll = |timer: &mut KeepAliveTimer| {
            assert!(timer.poll(&Context::from_waker(Waker::noop()), until).is_pending());
        };
        timers.iter_mut().for_each(poll);
        for _ in 0..5 {
            timers.drain(3..7);
            timers.extend((0..4).map(|_| all.timer()));
            timers.iter_mut().for_each(poll);
        }
        assert_eq!(all.table.lock().ticks.values().map(|tick| tick.places.len()).sum::<usize>(), 10);
        // An earlier deadline takes another place, and a later one none.
        let earlier = Instant::now() + Duration::from_secs(1);
        assert!(timers[0].poll(&Context::from_waker(Waker::noop()), earlier).is_pending());
        sleep(Duration::from_millis(10)).await;
        timers.iter_mut().for_each(poll);
        let counts: Vec<_> = all.table.lock().ticks.values().map(|tick| tick.waiting).collect();
        assert_eq!(counts, [1, 9]);
        timers.clear();
        assert!(all.table.lock().ticks.is_empty());
    }
}
