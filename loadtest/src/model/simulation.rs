//! Seeded event-by-event simulations that check the formulas.

use std::time::Duration;

use fastrand::Rng;

use super::prediction::{Predicted, long_poll, reconnecting_push, short_poll, silent_drop};

const MESSAGES: usize = 500_000;

/// Returns the seconds to the next message of a Poisson process.
pub(super) fn exponential(random: &mut Rng, rate: f64) -> f64 {
    -(1.0 - random.f64()).ln() / rate
}

/// Counts of a simulation; times in seconds.
struct Counted {
    requests: u64,
    empty: u64,
    latencies: Vec<f64>,
    lasted: f64,
}

impl Counted {
    fn agrees(mut self, predicted: Predicted, what: &str) {
        let hours = self.lasted / 3600.0;
        let count = self.latencies.len();
        let mean = self.latencies.iter().sum::<f64>() / count as f64;
        self.latencies.sort_by(f64::total_cmp);
        let p95 = self.latencies[count * 95 / 100];
        for (name, counted, formula) in [
            ("requests", self.requests as f64 / hours, predicted.requests_per_client_hour),
            ("empty", self.empty as f64 / hours, predicted.empty_per_client_hour),
            ("mean", mean, predicted.mean_latency.as_secs_f64()),
            ("p95", p95, predicted.p95_latency.as_secs_f64()),
        ] {
            // Below ten an hour, the count of empty answers is mostly chance.
            let close = (counted - formula).abs() <= 0.01 * formula || (name == "empty" && formula < 10.0);
            assert!(close, "{what}, {name}: counted {counted}, formula {formula}");
        }
    }
}

/// Simulates polls. `next` returns when the server answers, from the time of the last answer and the time of the next message;
/// an answer holds all messages until then.
fn poll(random: &mut Rng, rate: f64, way: f64, mut next: impl FnMut(&mut Rng, f64, f64) -> f64) -> Counted {
    let mut counted = Counted { requests: 0, empty: 0, latencies: Vec::new(), lasted: 0.0 };
    let mut message = exponential(random, rate);
    while counted.latencies.len() < MESSAGES {
        let answered = next(random, counted.lasted, message);
        counted.requests += 1;
        counted.empty += u64::from(message > answered);
        while message <= answered {
            counted.latencies.push(answered - message + way);
            message += exponential(random, rate);
        }
        counted.lasted = answered;
    }
    counted
}

#[test]
fn short_polls_agree_with_the_formula() {
    let round_trip = Duration::from_millis(80);
    for (interval, rate) in [(1.0, 0.2), (5.0, 1.0), (30.0, 0.01), (0.5, 3.0)] {
        let random = &mut Rng::with_seed(1);
        let counted = poll(random, rate, 0.04, |_, last, _| last + interval);
        let predicted = short_poll(Duration::from_secs_f64(interval), rate, round_trip);
        counted.agrees(predicted, &format!("every {interval} s at {rate}"));
    }
}

#[test]
fn long_polls_agree_with_the_formula() {
    for (hold, rate, gap, way) in [
        (25.0, 0.2, 0.1, 0.05),
        (25.0, 1.0, 0.1, 0.05),
        (25.0, 1.0 / 60.0, 0.1, 0.05),
        (55.0, 5.0, 0.3, 0.1),
        (10.0, 0.5, 3.0, 0.05),
        (2.0, 0.1, 0.5, 0.01),
    ] {
        let [hold_time, gap_time, round_trip] = [hold, gap, 2.0 * way].map(Duration::from_secs_f64);
        let predicted = long_poll(hold_time, rate, gap_time, round_trip);
        // Held until the next message or the end of the hold; answered at once if a message is waiting.
        let fixed = |_: &mut Rng, last: f64, message: f64| (last + gap).max(message.min(last + gap + hold));
        poll(&mut Rng::with_seed(2), rate, way, fixed).agrees(predicted, &format!("{hold} s at {rate}"));
        let jittered = |random: &mut Rng, last: f64, message: f64| {
            (last + gap).max(message.min(last + gap + hold * (0.9 + 0.2 * random.f64())))
        };
        let counted = poll(&mut Rng::with_seed(3), rate, way, jittered);
        counted.agrees(predicted, &format!("about {hold} s at {rate}"));
    }
}

#[test]
fn connections_that_end_agree_with_the_formula() {
    for (life, gap, rate) in [(60.0, 0.1, 0.2), (60.0, 5.0, 1.0), (300.0, 40.0, 0.02)] {
        let random = &mut Rng::with_seed(4);
        let mut counted = Counted { requests: 0, empty: 0, latencies: Vec::new(), lasted: 0.0 };
        let mut message = exponential(random, rate);
        while counted.latencies.len() < MESSAGES {
            let open = counted.lasted + gap;
            let end = open + life;
            counted.requests += 1;
            counted.empty += u64::from(message > end);
            while message <= end {
                counted.latencies.push((open - message).max(0.0) + 0.05);
                message += exponential(random, rate);
            }
            counted.lasted = end;
        }
        let [life_time, gap_time] = [life, gap].map(Duration::from_secs_f64);
        let predicted = reconnecting_push(life_time, gap_time, rate, Duration::from_millis(100));
        counted.agrees(predicted, &format!("{life} s of life, {gap} s of gap at {rate}"));
    }
}

/// Returns the share of messages that met a closed path, and their delay averaged over all messages.
fn drops(rate: f64, [heartbeat, nat, mend]: [f64; 3], messages_keep_it_open: bool) -> (f64, f64) {
    let random = &mut Rng::with_seed(5);
    let (mut count, mut lost, mut delay) = (0_u32, 0_u32, 0.0);
    let mut message = exponential(random, rate);
    let mut begin = 0.0;
    while count < 200_000 {
        // One period: from a delivered heartbeat, or a new connection, to the next heartbeat.
        let mut forgotten = begin + nat;
        let beat = begin + heartbeat;
        while message < forgotten.min(beat) {
            count += 1;
            if messages_keep_it_open {
                forgotten = message + nat;
            }
            message += exponential(random, rate);
        }
        begin = if forgotten < beat { beat + mend } else { beat };
        while message < begin {
            (count, lost) = (count + 1, lost + 1);
            delay += begin - message;
            message += exponential(random, rate);
        }
    }
    (f64::from(lost) / f64::from(count), delay / f64::from(count))
}

#[test]
fn silent_drops_agree_with_the_formula() {
    for times in [[600.0, 300.0, 10.0], [400.0, 255.0, 30.0], [200.0, 300.0, 10.0]] {
        let [heartbeat, nat, mend] = times.map(Duration::from_secs_f64);
        let predicted = silent_drop(heartbeat, nat, mend / 2, mend / 2);
        let extra = predicted.mean_extra_delay.as_secs_f64();
        // Many messages, so that chance does not matter, which do not refresh the middlebox's timer.
        let (share, delay) = drops(1.0, times, false);
        assert!((share - predicted.unreachable).abs() <= 0.01 * predicted.unreachable, "{times:?}: {share}");
        assert!((delay - extra).abs() <= 0.01 * extra, "{times:?}: {delay}");
        // Rare messages that do refresh it come close to the formula; more frequent ones are lost less often.
        let (rare, _) = drops(1e-5, times, true);
        let (often, _) = drops(0.01, times, true);
        assert!(
            (rare - predicted.unreachable).abs() <= 0.01 * predicted.unreachable + 0.002,
            "{times:?}: {rare}"
        );
        assert!(often <= predicted.unreachable, "{times:?}: {often}");
    }
}
