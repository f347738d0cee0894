//! Measures the gateway's timing guarantees on a machine that may be busy.
//!
//! A guarantee such as "closed within a second of its limit" assumes that the gateway gets a processor when it needs one. While
//! a build runs beside the tests it does not, nor does the control: a thread of the test that wakes up every few milliseconds,
//! like the gateway's timers. The delay of the control is subtracted from a measured time before an upper bound is checked. A
//! lower bound is checked with the wall-clock time.

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

/// Sleep time of the control.
const TICK: Duration = Duration::from_millis(5);

/// Maximum delay of a control on an idle machine, since timers are not exact.
const INEXACT: Duration = Duration::from_micros(200);

/// A control with this delay has missed a moment: scenarios that test an order of events have pauses of at least 100 ms.
const MISSED: Duration = Duration::from_millis(25);

/// Maximum number of runs of a scenario on a machine that misses a moment each time.
const RUNS: u32 = 5;

/// A running measurement.
#[derive(Clone, Copy)]
pub struct Stopwatch {
    began: Instant,
    /// Earliest time at which the measured operation may have begun.
    earliest: Instant,
    late: Duration,
}

/// A measured duration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Took {
    /// Duration minus the delay of the machine.
    own: Duration,
    /// Duration since the earliest time at which the operation may have begun.
    clock: Duration,
}

impl Stopwatch {
    pub fn start() -> Self {
        let began = Instant::now();
        Self { late: late(), began, earliest: began }
    }

    /// Measures an operation that the gateway began between `earliest` and now, such as a timer that it starts when it accepts
    /// a connection: the lower bound counts from `earliest`, the upper bound from now.
    pub fn start_since(earliest: Instant) -> Self {
        Self { earliest, ..Self::start() }
    }

    pub fn took(&self) -> Took {
        let own = self.began.elapsed().saturating_sub(late() - self.late);
        Took { own, clock: self.earliest.elapsed() }
    }
}

impl Took {
    /// Subtracts the time `waited` that the gateway waited for a processor, if that was longer than the delay of the machine: a
    /// process with much work at once waits longer than the control, which only wakes up.
    pub fn less(self, waited: Duration) -> Self {
        Self { own: self.own.min(self.clock.saturating_sub(waited)), ..self }
    }

    /// Returns the duration minus the delay of the machine, to compute bounds from measured times.
    pub fn own(self) -> Duration {
        self.own
    }

    pub fn is_below(self, limit: Duration) -> bool {
        self.own < limit
    }

    /// Whether the wall-clock duration is at least the start of the range, and the duration is below its end.
    pub fn is_within(self, range: &Range<Duration>) -> bool {
        self.clock >= range.start && self.is_below(range.end)
    }
}

impl fmt::Debug for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1?} ({:.1?} less what the machine was late)", self.clock, self.own)
    }
}

/// Runs a scenario that tests an order of events, such as a byte 200 ms before a limit. A failure on a machine that missed a
/// moment during the run is inconclusive, so the scenario is repeated.
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

/// Measurements of the control until now.
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
