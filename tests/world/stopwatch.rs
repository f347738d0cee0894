//! Measures what the gateway promises about time, on a machine that may be busy with something else.
//!
//! A promise such as "closed within a second of its limit" is about a gateway that gets a processor when it needs one.
//! While a build runs beside the tests it does not, and neither does a thread of the test that only wants to wake up
//! every few milliseconds, as the gateway's timers do. How late that thread wakes up is the control: it is taken off
//! what is measured before an upper bound is checked. A lower bound is checked with the time on the clock.

use std::fmt;
use std::future::poll_fn;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

/// How long the control sleeps at a time.
const TICK: Duration = Duration::from_millis(5);

/// How late a control that has a processor for itself wakes up at most, as timers are not exact.
const INEXACT: Duration = Duration::from_micros(200);

/// A control that wakes up so late has missed a moment: scenarios of what comes first have pauses of 100 ms and more.
const MISSED: Duration = Duration::from_millis(25);

/// How often a scenario is run on a machine that misses a moment each time.
const RUNS: u32 = 5;

/// A measurement that has begun.
#[derive(Clone, Copy)]
pub struct Stopwatch {
    began: Instant,
    /// When what is measured may have begun, at the earliest.
    earliest: Instant,
    late: Duration,
}

/// How long something took.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Took {
    /// Less what the machine was late.
    own: Duration,
    /// Since the earliest moment at which it may have begun.
    clock: Duration,
}

impl Stopwatch {
    pub fn start() -> Self {
        let began = Instant::now();
        Self { late: late(), began, earliest: began }
    }

    /// A measurement of what the gateway began between `earliest` and now, such as a timer that it starts when it accepts
    /// a connection: its lower bound counts from the one, its upper bound from the other.
    pub fn start_since(earliest: Instant) -> Self {
        Self { earliest, ..Self::start() }
    }

    pub fn took(&self) -> Took {
        let own = self.began.elapsed().saturating_sub(late() - self.late);
        Took { own, clock: self.earliest.elapsed() }
    }
}

impl Took {
    /// The same if the gateway waited for a processor for `waited` meanwhile, when that was more than the machine was late: a
    /// process that has much to do at once waits longer than the control, which only wakes up.
    pub fn less(self, waited: Duration) -> Self {
        Self { own: self.own.min(self.clock.saturating_sub(waited)), ..self }
    }

    /// Less what the machine was late, for a bound by what was measured.
    pub fn own(self) -> Duration {
        self.own
    }

    pub fn is_below(self, limit: Duration) -> bool {
        self.own < limit
    }

    /// Whether it took at least as long as the range begins, on the clock, and less than it ends.
    pub fn is_within(self, range: &Range<Duration>) -> bool {
        self.clock >= range.start && self.is_below(range.end)
    }
}

impl fmt::Debug for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1?} ({:.1?} less what the machine was late)", self.clock, self.own)
    }
}

/// Runs a scenario that is about what comes first, such as a byte 200 ms before a limit. A failure on a machine that has
/// missed a moment meanwhile says nothing, so the scenario is run again.
pub async fn on_time(scenario: impl AsyncFn()) {
    for run in 1.. {
        let missed = control().missed.load(Ordering::Relaxed);
        let mut running = pin!(scenario());
        let ended =
            poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(context))) {
                Ok(polled) => polled.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            });
        let Err(panic) = ended.await else { return };
        if run == RUNS || control().missed.load(Ordering::Relaxed) == missed {
            resume_unwind(panic);
        }
        eprintln!("the machine was more than {MISSED:?} late meanwhile: run {run} says nothing");
    }
}

/// What the control has seen so far.
#[derive(Default)]
struct Control {
    late_micros: AtomicU64,
    missed: AtomicU64,
}

fn control() -> &'static Control {
    static CONTROL: LazyLock<&Control> = LazyLock::new(|| {
        let control: &Control = Box::leak(Box::default());
        std::thread::spawn(|| {
            loop {
                let slept = Instant::now();
                std::thread::sleep(TICK);
                let late = slept.elapsed().saturating_sub(TICK + INEXACT);
                control.late_micros.fetch_add(late.as_micros() as u64, Ordering::Relaxed);
                control.missed.fetch_add(u64::from(late > MISSED), Ordering::Relaxed);
            }
        });
        control
    });
    &CONTROL
}

fn late() -> Duration {
    Duration::from_micros(control().late_micros.load(Ordering::Relaxed))
}
