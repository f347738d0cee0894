//! Waits that grow from failure to failure, each half left to chance so that a crowd spreads.

use std::time::Duration;

use fastrand::Rng;

use super::settings::Settings;

/// The wait after the next failure.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(settings: &Settings) -> Self {
        Self { min: settings.backoff_min, max: settings.backoff_max, next: settings.backoff_min }
    }

    /// How long to wait now: 50 to 100 % of what is due.
    pub(super) fn wait(&mut self, chance: &mut Rng) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(self.max);
        due.mul_f64(0.5 + chance.f64() / 2.0)
    }

    /// Something came through.
    pub(super) fn reset(&mut self) {
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
