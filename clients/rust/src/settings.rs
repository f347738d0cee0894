//! What a client may be told about times and forms (the defaults fit the open internet), and what all of its parts share.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::attempt::Form;
use crate::endpoint::Endpoint;
use crate::event::OnEvent;
use crate::memory::Memory;

/// Times and forms of a client. Hold and heartbeats go out as whole seconds, and as one at least.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The forms that may be used, best first. None at all means all of them.
    pub forms: Vec<Form>,
    /// How long a live form may take for its first envelope, or four round trips if that is more.
    pub envelope_timeout: Duration,
    /// How long at the most after it had gone mute and is given twice the time.
    pub envelope_timeout_max: Duration,
    /// How long a live form must have lived for its end to be no failure.
    pub stable_after: Duration,
    /// How long a long poll asks to be held.
    pub hold: Duration,
    /// How long an answer may take behind the hold, or three round trips if that is more; also of an append.
    pub answer_timeout: Duration,
    /// Between two short polls.
    pub interval: Duration,
    /// The first wait after a failure; each further one doubles it, and half of it is left to chance.
    pub backoff_min: Duration,
    /// The longest of these waits.
    pub backoff_max: Duration,
    /// When a form that was given up is tried again; each further failure doubles it.
    pub reprobe_after: Duration,
    /// The longest of these waits, and the longest that `Retry-After` is obeyed.
    pub reprobe_max: Duration,
    /// The heartbeat that every network is expected to bear, and the one of all forms but the WebSocket.
    pub heartbeat_min: Duration,
    /// The longest heartbeat that is asked for.
    pub heartbeat_max: Duration,
    /// After how long without a packet something on the way is known to end connections; heartbeats stay 5 s below.
    pub idle_clock: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            forms: Form::ALL.to_vec(),
            envelope_timeout: Duration::from_secs(2),
            envelope_timeout_max: Duration::from_secs(10),
            stable_after: Duration::from_secs(5),
            hold: Duration::from_secs(25),
            answer_timeout: Duration::from_secs(5),
            interval: Duration::from_secs(5),
            backoff_min: Duration::from_millis(250),
            backoff_max: Duration::from_secs(30),
            reprobe_after: Duration::from_secs(60),
            reprobe_max: Duration::from_secs(600),
            heartbeat_min: Duration::from_secs(15),
            heartbeat_max: Duration::from_secs(300),
            idle_clock: None,
        }
    }
}

/// Whole seconds, one at least, as the wire has them.
pub(crate) fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs().max(1))
}

/// What all subscriptions and producers of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) endpoint: Endpoint,
    pub(crate) settings: Settings,
    pub(crate) network: watch::Sender<Arc<str>>,
    pub(crate) memory: Mutex<Memory>,
    pub(crate) on_event: OnEvent,
}

/// The wait after the next failure.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { min: settings.backoff_min, max: settings.backoff_max, next: settings.backoff_min }
    }

    /// How long to wait now: 50 to 100 % of what is due.
    pub(crate) fn wait(&mut self, chance: &mut Rng) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(self.max);
        due.mul_f64(0.5 + chance.f64() / 2.0)
    }

    /// Something came through.
    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(&Settings::default());
        let mut chance = Rng::with_seed(1);
        let mut due = 250;
        for _ in 0..12 {
            let wait = backoff.wait(&mut chance).as_millis();
            assert!((due / 2..=due).contains(&wait), "{wait} of {due}");
            due = (due * 2).min(30_000);
        }
        backoff.reset();
        assert!(backoff.wait(&mut chance).as_millis() <= 250);
    }
}
