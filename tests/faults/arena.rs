//! [`Arena`]: two threads that each run one future at the same moment, again and again.
//!
//! The side that wins too often is delayed by as much as keeps the races close: each side wins half of them, so that critical
//! moments occur most often.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::MutexGuard;
use tokio::time::Instant;

use crate::world::alone;

/// Each side begins late by a random number of turns, up to this, of an empty loop, so that no two races are the same.
const JITTER: u64 = 400;
const TURNS_UNTIL_YIELD: u64 = 5000;

/// Time after which no more races of a kind begin, unless `RACES` gives their number or less than a tenth of the usual number
/// is done. On a machine without two idle processors a race takes a few milliseconds.
const TIME_MAX: Duration = Duration::from_secs(40);

/// Far longer than a race, and the hold of a poll that was overlooked.
const RACE_MAX: Duration = Duration::from_secs(60);

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The two threads: the test's own and one more.
pub(crate) struct Arena {
    runtime: Runtime,
    jobs: Sender<(Job, u64)>,
    /// Number of races that the second side was ready for.
    ready: Arc<AtomicU64>,
    races: u64,
    /// A drop ends the watchdog of the races.
    _open: Sender<()>,
}

/// Results of the races of one kind, and the delay of the next one: of the second side, or if negative of the first.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) races: u64,
    first_was_there: u64,
    delay: i64,
}

impl Arena {
    /// Waits for the turn of this test. Call it before [`Arena::open`], since the second thread never sleeps.
    pub(crate) fn turn() -> MutexGuard<'static, ()> {
        runtime().block_on(alone())
    }

    pub(crate) fn open() -> Self {
        let (jobs, inbox) = channel();
        let ready = Arc::new(AtomicU64::new(0));
        let gate = ready.clone();
        std::thread::spawn(move || second_side(&inbox, &gate));
        let (open, closed) = channel();
        let (begun, name) = (ready.clone(), std::thread::current().name().unwrap_or("a race").to_owned());
        std::thread::spawn(move || watch(&name, &begun, &closed));
        Self { runtime: runtime(), jobs, ready, races: 0, _open: open }
    }

    /// Numbers the races from 1: as many as the variable `RACES` says, or else the usual number while time remains.
    pub(crate) fn rounds(usual: u64) -> impl Iterator<Item = u64> {
        let asked: Option<u64> = std::env::var("RACES").ok().map(|races| races.parse().expect("a number"));
        let since = Instant::now();
        let goes_on = move |race: &u64| asked.is_some() || *race <= usual / 10 || since.elapsed() < TIME_MAX;
        (1..=asked.unwrap_or(usual)).take_while(goes_on)
    }

    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Runs both futures at the same time.
    pub(crate) fn race<A, B>(&mut self, tally: &mut Tally, first: A, second: B) -> (A::Output, B::Output)
    where
        A: Future,
        B: Future<Output: Send> + Send + 'static,
    {
        let (outcome, outcomes) = channel();
        let job = async move { outcome.send(second.await).expect("the first side waits for it") };
        let (first_late, second_late) = tally.delays();
        self.jobs.send((Box::pin(job), second_late)).expect("the second side lives");
        self.races += 1;
        let races = self.races;
        awake_until(|| (self.ready.load(Ordering::Acquire) == races).then_some(()));
        spin(first_late);
        let first = self.runtime.block_on(first);
        (first, outcomes.recv().expect("the second side did not panic"))
    }

    /// Spins for a random short time.
    pub(crate) async fn moment() {
        spin(fastrand::u64(..JITTER));
    }
}

impl Tally {
    /// Counts a race. The side that was first is delayed more in the next race.
    pub(crate) fn count(&mut self, first_was_there: bool) {
        self.races += 1;
        self.first_was_there += u64::from(first_was_there);
        let step = self.delay.abs() / 32 + 8;
        self.delay += if first_was_there { -step } else { step };
    }

    /// Returns the random delays of both sides in the next race, in turns of an empty loop.
    fn delays(&self) -> (u64, u64) {
        let late = fastrand::u64(..=2 * self.delay.unsigned_abs());
        let (first, second) = if self.delay < 0 { (late, 0) } else { (0, late) };
        (first + fastrand::u64(..JITTER), second + fastrand::u64(..JITTER))
    }

    /// Asserts that both sides were first in at least a tenth of the races, or that there was no race.
    #[track_caller]
    pub(crate) fn was_close(&self) {
        let often = self.races / 10..=self.races - self.races / 10;
        assert!(often.contains(&self.first_was_there), "one side won nearly all: {self:?}");
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} of them met one that waited)", self.races, self.first_was_there)
    }
}

fn second_side(inbox: &Receiver<(Job, u64)>, ready: &AtomicU64) {
    let runtime = runtime();
    let next = || match inbox.try_recv() {
        Err(TryRecvError::Empty) => None,
        received => Some(received),
    };
    while let Ok((job, delay)) = awake_until(next) {
        ready.fetch_add(1, Ordering::Release);
        spin(delay);
        runtime.block_on(job);
    }
}

/// Aborts the process with the name of the test when a race does not end: a side that waits for ever cannot be cancelled.
fn watch(name: &str, begun: &AtomicU64, closed: &Receiver<()>) {
    let mut before = None;
    while closed.recv_timeout(RACE_MAX) == Err(RecvTimeoutError::Timeout) {
        let races = begun.load(Ordering::Acquire);
        if before == Some(races) {
            eprintln!("{name}: race {races} has no end within {RACE_MAX:?}");
            std::process::abort();
        }
        before = Some(races);
    }
}

/// Waits without sleep, since a thread that must be woken is late for every race. It yields after a while, for machines where
/// the two threads share a processor.
fn awake_until<T>(ready: impl Fn() -> Option<T>) -> T {
    loop {
        for _ in 0..TURNS_UNTIL_YIELD {
            if let Some(ready) = ready() {
                return ready;
            }
            std::hint::spin_loop();
        }
        std::thread::yield_now();
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn spin(turns: u64) {
    for _ in 0..turns {
        std::hint::spin_loop();
    }
}
