//! Settings of a client, and the state that its subscriptions and producers share.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::attempt::Form;
use crate::endpoint::Endpoint;
use crate::event::OnEvent;
use crate::memory::Memory;
use crate::room::Room;

/// Forms, timeouts and heartbeats of a client. The defaults fit the open internet. Hold times and heartbeats are sent as
/// whole seconds, at least 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Forms that may be used, best first. An empty list means all.
    pub forms: Vec<Form>,
    /// Time limit for the first envelope of a live form, or four round trips if that is more.
    pub envelope_timeout: Duration,
    /// Largest time limit for the first envelope of a form that was silent before, which is given twice the time.
    pub envelope_timeout_max: Duration,
    /// After this time, the end of a live form is not a failure.
    pub stable_after: Duration,
    /// Hold time of a long poll.
    pub hold: Duration,
    /// Time limit for the response to a publish, or to a poll after its hold; three round trips if that is more.
    pub answer_timeout: Duration,
    /// Time between two short polls.
    pub interval: Duration,
    /// Delay after a first failure. Each further failure in a row doubles it; it is jittered by half.
    pub backoff_min: Duration,
    /// Longest delay after a failure.
    pub backoff_max: Duration,
    /// Time until a form that was given up is tried again. Each further failure doubles it.
    pub reprobe_after: Duration,
    /// Longest time until a form is tried again, and longest `Retry-After` that is obeyed.
    pub reprobe_max: Duration,
    /// Shortest heartbeat, which every network should bear. SSE and NDJSON always use it.
    pub heartbeat_min: Duration,
    /// Longest heartbeat of a WebSocket, which is searched for between the two.
    pub heartbeat_max: Duration,
    /// Idle timeout of something on the path, if it is known. Heartbeats stay 5 s below it.
    pub idle_clock: Option<Duration>,
    /// Most messages of all producers that wait for an acknowledgement. Further ones wait for room.
    pub publish_messages_max: usize,
    /// Most bytes of such messages. A longer message waits until no other one does.
    pub publish_bytes_max: usize,
    /// Whether messages have their [time](crate::Message::time), which takes about 15 bytes of each.
    pub times: bool,
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
            publish_messages_max: 10_000,
            publish_bytes_max: 16 << 20,
            times: false,
        }
    }
}

/// Rounds down to whole seconds, at least 1.
pub(crate) fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs().max(1))
}

/// State that all subscriptions and producers of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) endpoint: Endpoint,
    pub(crate) settings: Settings,
    pub(crate) network: watch::Sender<Arc<str>>,
    pub(crate) memory: Mutex<Memory>,
    pub(crate) room: Arc<Room>,
    pub(crate) on_event: OnEvent,
}

/// Delays after failures in a row.
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

    /// The next delay: 50 to 100 % of what is due.
    pub(crate) fn wait(&mut self, rng: &mut Rng) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(self.max);
        due.mul_f64(0.5 + rng.f64() / 2.0)
    }

    /// Starts over after a success.
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
        let mut rng = Rng::with_seed(1);
        let mut due = 250;
        for _ in 0..12 {
            let wait = backoff.wait(&mut rng).as_millis();
            assert!((due / 2..=due).contains(&wait), "{wait} of {due}");
            due = (due * 2).min(30_000);
        }
        backoff.reset();
        assert!(backoff.wait(&mut rng).as_millis() <= 250);
    }
}
