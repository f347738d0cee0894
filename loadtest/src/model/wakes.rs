//! Mean power of the radio for a pattern of wake-ups, in closed form (docs/design/cost-model.md, "Radio energy").
//!
//! The *age* is the time since the last wake-up. For a stationary pattern, the share of time in a stage of the tail is the
//! probability that the age lies within that stage, and the rate of promotions is the rate at which the age passes the tail's
//! end. So the distribution of the age is all that is needed of a pattern. For one stage this is the document's `(P*min(C,T) +
//! [C>T]*Ep) / C` for a period C and `P*(1 - e^(-rT)) + r*e^(-rT)*Ep` for a Poisson rate r.

use std::time::Duration;

use super::radio::Radio;

/// A pattern of packets that wake the radio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wakes {
    /// Messages at a Poisson rate, and a timer that messages do not affect.
    Beside {
        /// Messages per second.
        rate: f64,
        /// The timer, if any.
        timer: Option<Timer>,
    },
    /// Messages at a Poisson rate, and a timer that each message restarts, such as the hold of a long poll.
    Restarting {
        /// Messages per second.
        rate: f64,
        /// Period of the timer, which is the longest gap.
        longest: Duration,
    },
}

/// Heartbeats on connections of a fixed lifetime: a wake-up at the beginning of each connection and at each heartbeat during
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// Interval between two heartbeats. If it is as long as the lifetime, no heartbeat is sent.
    pub heartbeat: Duration,
    /// Time from one beginning to the next.
    pub life: Duration,
}

impl Timer {
    /// A wake-up every `period`.
    pub fn every(period: Duration) -> Self {
        Self { heartbeat: period, life: period }
    }

    /// The timer of a connection with a heartbeat, a lifetime or both; `None` if it has neither.
    pub fn of(heartbeat: Option<Duration>, life: Option<Duration>) -> Option<Self> {
        let period = heartbeat.or(life)?;
        Some(Self { heartbeat: period, life: life.unwrap_or(period) })
    }

    /// Returns the gaps within a lifetime as (count, seconds): the whole heartbeats and the rest.
    fn gaps(self) -> [(f64, f64); 2] {
        let [heartbeat, life] = [self.heartbeat, self.life].map(|time| time.as_secs_f64());
        let whole = (life / heartbeat).floor();
        [(whole, heartbeat), (1.0, (life - whole * heartbeat).max(0.0))]
    }

    /// Returns the share of time in which the age exceeds `age` seconds.
    fn share_above(self, age: f64) -> f64 {
        let above: f64 = self.gaps().iter().map(|(count, gap)| count * (gap - age).max(0.0)).sum();
        above / self.life.as_secs_f64()
    }

    /// Returns how often per second the age passes `age` seconds.
    fn passes(self, age: f64) -> f64 {
        let longer: f64 = self.gaps().iter().map(|(count, gap)| if *gap > age { *count } else { 0.0 }).sum();
        longer / self.life.as_secs_f64()
    }
}

impl Wakes {
    /// Returns the share of time in which a radio with this tail sleeps.
    pub fn asleep(self, tail: Duration) -> f64 {
        self.share_above(tail.as_secs_f64())
    }

    /// The wake-ups of a timer alone.
    pub fn period(period: Duration) -> Self {
        Self::Beside { rate: 0.0, timer: Some(Timer::every(period)) }
    }

    /// The wake-ups of messages alone.
    pub fn poisson(rate: f64) -> Self {
        Self::Beside { rate, timer: None }
    }

    /// Returns the share of time in which the age exceeds `age` seconds.
    fn share_above(self, age: f64) -> f64 {
        match self {
            Self::Beside { rate, timer } => {
                (-rate * age).exp() * timer.map_or(1.0, |timer| timer.share_above(age))
            }
            Self::Restarting { rate, longest } => {
                let longest = longest.as_secs_f64();
                if age >= longest {
                    0.0
                } else if rate * longest < 1e-9 {
                    1.0 - age / longest
                } else {
                    (-rate * age).exp() * (-rate * (longest - age)).exp_m1() / (-rate * longest).exp_m1()
                }
            }
        }
    }

    /// Returns how often per second the age passes `age` seconds.
    fn passes(self, age: f64) -> f64 {
        match self {
            Self::Beside { rate, timer } => {
                let (above, passes) =
                    timer.map_or((1.0, 0.0), |timer| (timer.share_above(age), timer.passes(age)));
                (-rate * age).exp() * (rate * above + passes)
            }
            Self::Restarting { rate, longest } => {
                let longest = longest.as_secs_f64();
                if age >= longest {
                    0.0
                } else if rate * longest < 1e-9 {
                    longest.recip()
                } else {
                    -rate * (-rate * age).exp() / (-rate * longest).exp_m1()
                }
            }
        }
    }
}

impl Radio {
    /// Returns the mean watts above sleep, without the energy of the bytes ([`Radio::transfer_joules`]).
    pub fn watts(&self, wakes: Wakes) -> f64 {
        let awake: f64 = self
            .stages()
            .map(|(begin, end, watts)| watts * (wakes.share_above(begin) - wakes.share_above(end)))
            .sum();
        awake + wakes.passes(self.tail_time().as_secs_f64()) * self.promotion_joules()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::energy::PacketEvent;
    use crate::model::radio::Radios;
    use crate::model::simulation::exponential;

    fn within(percent: f64, measured: f64, expected: f64, what: &str) {
        let deviation = 100.0 * (measured - expected).abs() / expected;
        assert!(deviation <= percent, "{what}: {measured} is {deviation:.2} % from {expected}");
    }

    fn events(times: impl Iterator<Item = f64>) -> Vec<PacketEvent> {
        times.map(|at| PacketEvent { at: Duration::from_secs_f64(at), up: true, bytes: 0 }).collect()
    }

    #[test]
    fn periods_and_rates_agree_with_the_cost_model_document() {
        let lte = Radios::default().iter().next().unwrap().clone();
        let (tail_watts, tail, promotion) = (1.0755, 11.576, 0.2601 * 1.2107);
        for period in [1.0_f64, 11.0, 12.0, 25.0, 300.0] {
            let asleep = if period > tail { promotion } else { 0.0 };
            let formula = (tail_watts * period.min(tail) + asleep) / period;
            within(1e-6, lte.watts(Wakes::period(Duration::from_secs_f64(period))), formula, "period");
        }
        for rate in [0.001, 0.2, 5.0_f64] {
            let formula = tail_watts * (1.0 - (-rate * tail).exp()) + rate * (-rate * tail).exp() * promotion;
            within(1e-6, lte.watts(Wakes::poisson(rate)), formula, "rate");
        }
    }

    /// Reference traces: a short poll every 5 s, an idle long poll of 25 s with 50 ms between a response and the next request,
    /// a heartbeat every 200 s.
    #[test]
    fn periodic_traces_agree_with_the_closed_form() {
        for radio in Radios::default().iter() {
            for (period, bursts, count) in
                [(5.0, &[0.0, 0.04][..], 720), (25.0, &[0.0, 0.05], 144), (200.0, &[0.0], 18)]
            {
                let times =
                    (0..count).flat_map(|n| bursts.iter().map(move |b| f64::from(n) * period + 1.0 + b));
                let horizon = Duration::from_secs_f64(period * f64::from(count));
                let trace = radio.mean_watts(&events(times), horizon);
                let formula = radio.watts(Wakes::period(Duration::from_secs_f64(period)));
                // A burst also keeps the radio on for its own length.
                let burst = radio.tail.first().unwrap().power_w * bursts.last().unwrap() / period;
                assert!(
                    (formula - 1e-9..=formula + burst + 1e-9).contains(&trace),
                    "{} {period}",
                    radio.name
                );
            }
        }
    }

    #[test]
    fn random_traces_agree_with_the_closed_form() {
        const GAPS: usize = 100_000;
        let mut random = fastrand::Rng::with_seed(7);
        for rate in [0.01, 0.2, 2.0] {
            let mut now = 0.0;
            let messages: Vec<f64> = std::iter::repeat_with(|| {
                now += exponential(&mut random, rate);
                now
            })
            .take(GAPS)
            .collect();
            let horizon = Duration::from_secs_f64(now);
            let beside = timer_beside(&messages, 30.0, 30.0, now);
            let nested = timer_beside(&messages, 30.0, 70.0, now);
            let restarting = timer_restarted(&messages, 30.0);
            let timer = Duration::from_secs(30);
            for (trace, wakes) in [
                (messages, Wakes::poisson(rate)),
                (beside, Wakes::Beside { rate, timer: Some(Timer::every(timer)) }),
                (
                    nested,
                    Wakes::Beside { rate, timer: Timer::of(Some(timer), Some(Duration::from_secs(70))) },
                ),
                (restarting, Wakes::Restarting { rate, longest: timer }),
            ] {
                let trace = events(trace.into_iter());
                for radio in Radios::default().iter() {
                    let what = format!("{} {wakes:?}", radio.name);
                    within(1.0, radio.mean_watts(&trace, horizon), radio.watts(wakes), &what);
                }
            }
        }
    }

    fn timer_beside(messages: &[f64], heartbeat: f64, life: f64, end: f64) -> Vec<f64> {
        let mut all = messages.to_vec();
        for begin in (0..).map(|n| f64::from(n) * life).take_while(|&begin| begin < end) {
            let beats = (0..).map(|n| begin + f64::from(n) * heartbeat);
            all.extend(beats.take_while(|&beat| beat < (begin + life).min(end)));
        }
        all.sort_by(f64::total_cmp);
        all
    }

    fn timer_restarted(messages: &[f64], longest: f64) -> Vec<f64> {
        let mut all = Vec::new();
        let mut last = 0.0;
        for &message in messages {
            while message - last > longest {
                last += longest;
                all.push(last);
            }
            last = message;
            all.push(last);
        }
        all
    }

    #[test]
    fn an_idle_long_poll_costs_as_much_as_a_ping_with_the_same_interval() {
        for radio in Radios::default().iter() {
            let hold = Duration::from_secs(25);
            let poll = radio.watts(Wakes::Restarting { rate: 0.0, longest: hold });
            within(1e-6, poll, radio.watts(Wakes::period(hold)), &radio.name);
        }
    }
}
