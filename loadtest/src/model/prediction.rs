//! What a strategy asks and how late its messages are, by formula (COST-MODEL section 5).
//!
//! Messages come at a Poisson rate, connections are warm, and a round trip `R` is twice the way `R/2`. Latency counts
//! from the message's being at the server to its being at the client.

use std::time::Duration;

/// What a formula says of a strategy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predicted {
    /// Requests a client-hour.
    pub requests_per_client_hour: f64,
    /// Of those, the ones whose answer holds no message.
    pub empty_per_client_hour: f64,
    /// Of a message.
    pub mean_latency: Duration,
    /// 95 % of the messages take no longer.
    pub p95_latency: Duration,
}

/// A short poll every `interval` from request to request, `rate` messages a second.
///
/// A client that waits for its answer cannot ask more often than once a round trip, so that is the least interval.
pub fn short_poll(interval: Duration, rate: f64, round_trip: Duration) -> Predicted {
    let interval = interval.max(round_trip);
    let requests = hourly(interval);
    Predicted {
        requests_per_client_hour: requests,
        empty_per_client_hour: requests * (-rate * interval.as_secs_f64()).exp(),
        mean_latency: interval.mul_f64(0.5) + round_trip / 2,
        p95_latency: interval.mul_f64(0.95) + round_trip / 2,
    }
}

/// A long poll held for at most `hold`. `gap` is from an answer to the next poll, as the server sees it: the round trip
/// and whatever the client does in between.
///
/// A hold that is jittered by 10 % around `hold` gives the same to about a thousandth.
pub fn long_poll(hold: Duration, rate: f64, gap: Duration, round_trip: Duration) -> Predicted {
    // What came in the gap is answered at once; else the poll is held, so B + e^(-L*B) * (1 - e^(-L*T)) / L.
    let held = (-rate * gap.as_secs_f64()).exp() * mean_held(hold.as_secs_f64(), rate);
    let cycle = gap + seconds(held);
    let requests = hourly(cycle);
    let late = late(gap, cycle);
    Predicted {
        requests_per_client_hour: requests,
        empty_per_client_hour: requests * (-rate * (gap + hold).as_secs_f64()).exp(),
        mean_latency: round_trip / 2 + late.mean,
        p95_latency: round_trip / 2 + late.p95,
    }
}

/// A connection that stays, and over which messages come by themselves: no requests.
pub fn push(round_trip: Duration) -> Predicted {
    Predicted {
        requests_per_client_hour: 0.0,
        empty_per_client_hour: 0.0,
        mean_latency: round_trip / 2,
        p95_latency: round_trip / 2,
    }
}

/// As [`push`], over connections that live for `life` and take `gap` to come back, each by one request. A request is
/// empty if no message came in its gap or its life.
pub fn reconnecting_push(life: Duration, gap: Duration, rate: f64, round_trip: Duration) -> Predicted {
    let cycle = life + gap;
    let requests = hourly(cycle);
    let late = late(gap, cycle);
    Predicted {
        requests_per_client_hour: requests,
        empty_per_client_hour: requests * (-rate * cycle.as_secs_f64()).exp(),
        mean_latency: round_trip / 2 + late.mean,
        p95_latency: round_trip / 2 + late.p95,
    }
}

/// What a middlebox does that forgets a quiet connection without a word.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SilentDrop {
    /// Share of the time in which the client cannot be reached.
    pub unreachable: f64,
    /// Mean delay that it adds, over all messages.
    pub mean_extra_delay: Duration,
}

/// A middlebox that forgets after `nat` without a packet, under a heartbeat of `heartbeat` whose failure takes `detect`
/// to notice and `reconnect` to mend. For a long poll the heartbeat is the client's own timeout.
///
/// Exact for messages far rarer than `nat`. Messages that get through also keep the way open, so that for more of them
/// this is the worst case.
pub fn silent_drop(heartbeat: Duration, nat: Duration, detect: Duration, reconnect: Duration) -> SilentDrop {
    if heartbeat <= nat {
        return SilentDrop { unreachable: 0.0, mean_extra_delay: Duration::ZERO };
    }
    let cycle = heartbeat + detect + reconnect;
    let outage = cycle - nat;
    SilentDrop {
        unreachable: outage.div_duration_f64(cycle),
        mean_extra_delay: outage.mul_f64(outage.div_duration_f64(cycle) / 2.0),
    }
}

/// Lateness of messages of which those wait that come in the first `gap` of each `cycle`, until its end.
struct Late {
    mean: Duration,
    p95: Duration,
}

fn late(gap: Duration, cycle: Duration) -> Late {
    if cycle.is_zero() {
        return Late { mean: Duration::ZERO, p95: Duration::ZERO };
    }
    // B^2 / 2K; and the share (B - w) / K waits longer than w, which is 5 % at B - K/20.
    Late { mean: gap.mul_f64(gap.div_duration_f64(cycle) / 2.0), p95: gap.saturating_sub(cycle / 20) }
}

/// Mean of the shorter of `hold` seconds and the time to the next message.
fn mean_held(hold: f64, rate: f64) -> f64 {
    if rate * hold < 1e-9 { hold } else { -(-rate * hold).exp_m1() / rate }
}

fn hourly(period: Duration) -> f64 {
    3600.0 / period.as_secs_f64()
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(100);
    const HOLD: Duration = Duration::from_secs(25);

    #[test]
    fn long_polls_ask_as_often_as_the_document_says() {
        let requests = |rate| long_poll(HOLD, rate, ROUND_TRIP, ROUND_TRIP).requests_per_client_hour.round();
        assert_eq!([requests(0.0), requests(1.0 / 60.0), requests(1.0)], [143.0, 176.0, 3583.0]);
    }

    #[test]
    fn a_silent_drop_costs_what_the_document_says() {
        let s = Duration::from_secs;
        let drop = silent_drop(s(600), s(300), s(8), s(2));
        assert_eq!((drop.unreachable * 100.0).round(), 51.0);
        assert_eq!(drop.mean_extra_delay.as_secs_f64().round(), 79.0);
        assert_eq!(silent_drop(s(300), s(300), s(8), s(2)).unreachable, 0.0);
    }

    #[test]
    fn short_polls_are_late_by_half_their_interval() {
        let predicted = short_poll(Duration::from_secs(2), 0.5, ROUND_TRIP);
        assert_eq!(predicted.requests_per_client_hour, 1800.0);
        assert_eq!(predicted.mean_latency, Duration::from_millis(1050));
        assert_eq!(predicted.p95_latency, Duration::from_millis(1950));
        assert!((predicted.empty_per_client_hour - 1800.0 * (-1.0_f64).exp()).abs() < 1e-9);
    }

    #[test]
    fn a_poll_can_not_overtake_its_answer() {
        let fastest = short_poll(Duration::from_millis(1), 1.0, ROUND_TRIP);
        assert_eq!(fastest, short_poll(ROUND_TRIP, 1.0, ROUND_TRIP));
    }

    #[test]
    fn an_open_connection_is_late_by_the_way_alone() {
        let open = push(ROUND_TRIP);
        assert_eq!((open.p95_latency, open.requests_per_client_hour), (ROUND_TRIP / 2, 0.0));
        let returning = reconnecting_push(Duration::from_secs(59), Duration::from_secs(1), 0.0, ROUND_TRIP);
        assert_eq!((returning.requests_per_client_hour, returning.empty_per_client_hour), (60.0, 60.0));
    }
}
