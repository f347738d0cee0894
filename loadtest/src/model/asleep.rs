//! A phone that sleeps and is woken by push or SMS: its wakes and its latency by formula (docs/design/cost-model.md, "Phones that
//! sleep").

use std::fmt;
use std::time::Duration;

use super::prediction::{Predicted, late};

/// How a phone is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeBy {
    /// Firebase Cloud Messaging.
    Fcm,
    /// Web Push.
    WebPush,
    /// SMS.
    Sms,
}

/// The 95th percentiles of the time from a wake to the phone's first packet. They are assumptions: no provider promises any, and a
/// gateway in use measures them (`wake_to_poll_seconds`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WakeDelays {
    /// Over a push service.
    pub push: Duration,
    /// By SMS.
    pub sms: Duration,
}

impl Default for WakeDelays {
    fn default() -> Self {
        Self { push: Duration::from_secs(3), sms: Duration::from_secs(15) }
    }
}

/// How often the gateway wakes one phone, by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WakeBudget {
    /// Mean time between two wakes.
    interval: Duration,
    /// Wakes at once after a pause.
    burst: u32,
}

/// The gateway does not wake a phone that has just polled.
const GRACE: Duration = Duration::from_secs(2);

/// The gateway's SMS to one phone in a day, by default.
const SMS_PER_DAY: u32 = 5;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Requests after a wake: one that returns the messages, and one that finds nothing more.
const REQUESTS: f64 = 2.0;

/// A burst hides the budget while less than this share of it is used.
const HIDDEN_SHARE: f64 = 0.8;

impl WakeBy {
    /// All ways to wake a phone.
    pub const ALL: [Self; 3] = [Self::Fcm, Self::WebPush, Self::Sms];

    /// The time from a wake to the phone's first packet.
    pub fn delay(self, delays: WakeDelays) -> Duration {
        match self {
            Self::Fcm | Self::WebPush => delays.push,
            Self::Sms => delays.sms,
        }
    }

    /// Returns the time that passes between two wakes at least, and whether the budget is why.
    ///
    /// As long as a burst hides the budget, a wake is only kept back by the poll before.
    pub fn pause(self, rate: f64, delay: Duration) -> (Duration, bool) {
        let own = delay + GRACE;
        let wakes_per_second = wakes_per_second(rate, own, delay);
        let WakeBudget { interval, burst } = self.budget(wakes_per_second);
        let is_hidden = burst > 1 && wakes_per_second * interval.as_secs_f64() < HIDDEN_SHARE;
        if is_hidden || interval <= own { (own, false) } else { (interval, true) }
    }

    /// The default budget of the gateway (docs/wake-ups.md). `wakes_per_second` is what the messages ask for.
    fn budget(self, wakes_per_second: f64) -> WakeBudget {
        let budget = |seconds, burst| WakeBudget { interval: Duration::from_secs(seconds), burst };
        match self {
            Self::Fcm => budget(180, 20),
            Self::WebPush => budget(10, 5),
            Self::Sms if wakes_per_second * DAY.as_secs_f64() > f64::from(SMS_PER_DAY) => {
                WakeBudget { interval: DAY / SMS_PER_DAY, burst: 1 }
            }
            Self::Sms => budget(3600, 1),
        }
    }

    /// Requests and latency of a phone that `rate` messages per second are for.
    pub fn predicted(self, delay: Duration, rate: f64, round_trip: Duration) -> Predicted {
        let (pause, _) = self.pause(rate, delay);
        let wakes_per_second = wakes_per_second(rate, pause, delay);
        let cycle = Duration::try_from_secs_f64(wakes_per_second.recip()).unwrap_or(Duration::MAX);
        // A message that comes after the poll waits for the rest of the pause; the first one after that is sent at once.
        let late = late(pause.saturating_sub(delay), cycle);
        // The connection is new: TCP and TLS before the request.
        let first_poll = delay + 3 * round_trip;
        Predicted {
            requests_per_client_hour: 3600.0 * wakes_per_second * REQUESTS,
            empty_per_client_hour: 3600.0 * wakes_per_second * (REQUESTS - 1.0),
            mean_latency: first_poll + late.mean,
            p95_latency: first_poll + late.p95,
        }
    }

    /// Wakes per second of a phone that `rate` messages per second are for.
    pub fn wakes_per_second(self, delay: Duration, rate: f64) -> f64 {
        wakes_per_second(rate, self.pause(rate, delay).0, delay)
    }
}

/// A wake is followed by another one after `pause` if a message came since the poll, which was `delay` after the wake; else by the
/// next message.
fn wakes_per_second(rate: f64, pause: Duration, delay: Duration) -> f64 {
    let (pause, delay) = (pause.as_secs_f64(), delay.as_secs_f64());
    let quiet = (-rate * (pause - delay)).exp() / rate;
    (pause + quiet).recip()
}

impl fmt::Display for WakeBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fcm => "push:fcm",
            Self::WebPush => "push:web",
            Self::Sms => "sms",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::simulation::exponential;

    const ROUND_TRIP: Duration = Duration::from_millis(100);

    fn predicted(by: WakeBy, rate: f64) -> Predicted {
        by.predicted(by.delay(WakeDelays::default()), rate, ROUND_TRIP)
    }

    #[test]
    fn rare_messages_cost_two_requests_each_and_the_delay_of_the_provider() {
        let rare = predicted(WakeBy::Fcm, 1.0 / 600.0);
        assert!((11.8..12.0).contains(&rare.requests_per_client_hour), "{rare:?}");
        assert_eq!(rare.p95_latency, Duration::from_millis(3300));
        assert_eq!(predicted(WakeBy::Sms, 1e-5).p95_latency, Duration::from_millis(15_300));
    }

    #[test]
    fn frequent_messages_wait_for_the_budget() {
        for (by, rate, hourly, p95) in [
            (WakeBy::Fcm, 0.2, 20.0, 160..180),
            (WakeBy::WebPush, 0.2, 320.0, 8..12),
            (WakeBy::WebPush, 10.0, 360.0, 8..12),
            // Five a day.
            (WakeBy::Sms, 1.0 / 3600.0, 0.208, 15_000..18_000),
        ] {
            let predicted = predicted(by, rate);
            let wakes = predicted.requests_per_client_hour / 2.0;
            assert!((wakes / hourly - 1.0).abs() < 0.05, "{by} {wakes}");
            assert!(p95.contains(&predicted.p95_latency.as_secs()), "{by} {predicted:?}");
        }
    }

    #[test]
    fn wakes_and_delays_agree_with_a_simulation() {
        let random = &mut fastrand::Rng::with_seed(3);
        for (rate, pause, delay) in [(0.02, 5.0, 3.0), (0.2, 5.0, 3.0), (0.01, 180.0, 3.0), (0.1, 10.0, 1.0)]
        {
            let (mut waits, mut wakes) = (Vec::new(), 0_u32);
            let (mut message, mut wake) = (0.0, f64::NEG_INFINITY);
            while waits.len() < 200_000 {
                let sent: f64 = f64::max(message, wake + pause);
                let polled = sent + delay;
                while message <= polled {
                    waits.push(polled - message);
                    message += exponential(random, rate);
                }
                (wake, wakes) = (sent, wakes + 1);
            }
            let duration = Duration::from_secs_f64;
            let by_formula = wakes_per_second(rate, duration(pause), duration(delay)) * message;
            assert!(
                (by_formula / f64::from(wakes) - 1.0).abs() < 0.02,
                "{rate} {pause}: {by_formula} {wakes}"
            );
            waits.sort_by(f64::total_cmp);
            let p95 = waits[waits.len() * 95 / 100];
            let late = late(duration(pause - delay), duration(message / f64::from(wakes)));
            let by_formula = delay + late.p95.as_secs_f64();
            assert!(
                by_formula >= 0.99 * p95 - 0.1,
                "the formula promises too much: {rate} {pause}: {by_formula} {p95}"
            );
            assert!(by_formula <= 1.15 * p95 + 0.1, "{rate} {pause}: {by_formula} {p95}");
        }
    }
}
