//! Request rate and latency of a strategy by formula (docs/design/cost-model.md).
//!
//! Messages arrive at a Poisson rate, connections are warm, and a one-way trip takes half a round trip `R`. Latency counts from
//! the message's arrival at the server to its arrival at the client.

use std::time::Duration;

/// Figures of a strategy by formula.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predicted {
    /// Requests per client-hour.
    pub requests_per_client_hour: f64,
    /// Requests per client-hour whose response holds no message.
    pub empty_per_client_hour: f64,
    /// Mean latency of a message.
    pub mean_latency: Duration,
    /// 95th percentile of the latency.
    pub p95_latency: Duration,
}

/// A short poll every `interval`, counted from request to request, with `rate` messages per second.
///
/// A client that waits for each response cannot poll more often than once per round trip, so that is the minimum interval.
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

/// A long poll held for at most `hold`. `gap` is the time from a response to the next poll, as the server sees it: the round
/// trip and the client's own pause.
///
/// A hold jittered by 10 % around `hold` gives the same within about a thousandth.
pub fn long_poll(hold: Duration, rate: f64, gap: Duration, round_trip: Duration) -> Predicted {
    // A message that came in the gap is returned at once; otherwise the poll is held: B + e^(-L*B) * (1 - e^(-L*T)) / L.
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

/// A connection that stays open and receives messages without requests.
pub fn push(round_trip: Duration) -> Predicted {
    Predicted {
        requests_per_client_hour: 0.0,
        empty_per_client_hour: 0.0,
        mean_latency: round_trip / 2,
        p95_latency: round_trip / 2,
    }
}

/// Like [`push`], over connections that live for `life` and take `gap` to reopen, each with one request. A request is empty if
/// no message came in its gap or its lifetime.
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

/// Effect of a middlebox that silently forgets an idle connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SilentDrop {
    /// Share of the time in which the client is unreachable.
    pub unreachable: f64,
    /// Mean additional delay, over all messages.
    pub mean_extra_delay: Duration,
}

/// A middlebox that forgets a connection after `nat` without a packet. The client sends a heartbeat every `heartbeat`, notices
/// its failure after `detect` and reconnects within `reconnect`. For a long poll the heartbeat is the client's own timeout.
///
/// Exact for messages far rarer than `nat`. Delivered messages also keep the path open, so that for more frequent messages this
/// is the worst case.
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

/// Delay of messages, of which those in the first `gap` of each `cycle` wait until the gap ends.
pub(super) struct Late {
    pub(super) mean: Duration,
    pub(super) p95: Duration,
}

pub(super) fn late(gap: Duration, cycle: Duration) -> Late {
    if cycle.is_zero() {
        return Late { mean: Duration::ZERO, p95: Duration::ZERO };
    }
    // The mean is B^2 / 2K. The share (B - w) / K waits longer than w, which is 5 % at B - K/20.
    Late { mean: gap.mul_f64(gap.div_duration_f64(cycle) / 2.0), p95: gap.saturating_sub(cycle / 20) }
}

/// Mean of the smaller of `hold` and the time to the next message, in seconds.
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
    fn long_poll_requests_agree_with_the_cost_model_document() {
        let requests = |rate| long_poll(HOLD, rate, ROUND_TRIP, ROUND_TRIP).requests_per_client_hour.round();
        assert_eq!([requests(0.0), requests(1.0 / 60.0), requests(1.0)], [143.0, 176.0, 3583.0]);
    }

    #[test]
    fn silent_drops_agree_with_the_cost_model_document() {
        let s = Duration::from_secs;
        let drop = silent_drop(s(600), s(300), s(8), s(2));
        assert_eq!((drop.unreachable * 100.0).round(), 51.0);
        assert_eq!(drop.mean_extra_delay.as_secs_f64().round(), 79.0);
        assert_eq!(silent_drop(s(300), s(300), s(8), s(2)).unreachable, 0.0);
    }

    #[test]
    fn short_polls_add_half_their_interval_on_average() {
        let predicted = short_poll(Duration::from_secs(2), 0.5, ROUND_TRIP);
        assert_eq!(predicted.requests_per_client_hour, 1800.0);
        assert_eq!(predicted.mean_latency, Duration::from_millis(1050));
        assert_eq!(predicted.p95_latency, Duration::from_millis(1950));
        assert!((predicted.empty_per_client_hour - 1800.0 * (-1.0_f64).exp()).abs() < 1e-9);
    }

    #[test]
    fn a_short_poll_takes_at_least_one_round_trip() {
        let fastest = short_poll(Duration::from_millis(1), 1.0, ROUND_TRIP);
        assert_eq!(fastest, short_poll(ROUND_TRIP, 1.0, ROUND_TRIP));
    }

    #[test]
    fn an_open_connection_adds_only_the_one_way_trip() {
        let open = push(ROUND_TRIP);
        assert_eq!((open.p95_latency, open.requests_per_client_hour), (ROUND_TRIP / 2, 0.0));
        let returning = reconnecting_push(Duration::from_secs(59), Duration::from_secs(1), 0.0, ROUND_TRIP);
        assert_eq!((returning.requests_per_client_hour, returning.empty_per_client_hour), (60.0, 60.0));
    }
}
