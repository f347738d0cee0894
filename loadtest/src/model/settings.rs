//! Proposes the strategies that a network allows, with their settings (docs/design/cost-model.md, "Settings that a path allows").

use std::time::Duration;

use super::asleep::{WakeBy, WakeDelays};
use super::candidate::{Candidate, Load, Open, Setting};
use super::network::Network;
use super::radio::{Radio, Radios};

/// The share of the time from one short poll to the next that 95 % of messages wait at most.
const P95_OF_PERIOD: f64 = 0.95;

/// The gateway's default of `--hold-max`.
pub(crate) const HOLD_MAX: Duration = Duration::from_secs(55);

/// How long the gateway keeps an SSE or NDJSON response open, jittered by 10 %.
pub(crate) const ANSWER_LIFE: Duration = Duration::from_secs(60);

/// A strategy that the network allows, with the reasons for its settings; or a form that it does not allow.
pub type Proposal = Result<(Candidate, Vec<String>), Refusal>;

/// A form that cannot work on this network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Name of the form on the command line.
    pub form: &'static str,
    /// Why it cannot work.
    pub reason: String,
}

/// What lies between a client's app and the gateway.
#[derive(Debug, Clone)]
pub struct ClientPath {
    /// The combined timeouts and restrictions of all parts.
    pub network: Network,
    /// Usual round trip.
    pub round_trip: Duration,
    /// The slowest round trip that must not count as a failure.
    pub round_trip_p99: Duration,
    /// Radio of the client, which has to wake up before it sends or receives.
    pub radio: Radio,
}

/// Returns one proposal per form, and one per way to wake a phone, for messages that must arrive within `p95`.
pub fn proposals(
    path: &ClientPath,
    load: &Load,
    p95: Duration,
    delays: WakeDelays,
    radios: &Radios,
) -> Vec<Proposal> {
    let ClientPath { network, round_trip_p99, .. } = path;
    let round_trip_p99 = *round_trip_p99;
    let forms = [
        short_poll(path, p95).map(|(candidate, reason)| (candidate, vec![reason])),
        long_poll(network, round_trip_p99, radios),
        answer("sse", Candidate::Sse, network, round_trip_p99),
        answer("ndjson", Candidate::Ndjson, network, round_trip_p99),
        connection("websocket", Candidate::WebSocket, network.websocket, network, round_trip_p99),
        connection("mqtt", Candidate::Mqtt, network.raw_tcp, network, round_trip_p99),
    ];
    forms.into_iter().chain(WakeBy::ALL.map(|by| Ok(asleep(by, load, delays)))).collect()
}

fn asleep(by: WakeBy, load: &Load, delays: WakeDelays) -> (Candidate, Vec<String>) {
    let delay = by.delay(delays);
    let option = if by == WakeBy::Sms { "--sms-delay" } else { "--push-delay" };
    let mut reasons = vec![format!(
        "95 of 100 wakes are assumed to reach the phone within {} ({option}); a gateway in use measures it as wake_to_poll_seconds",
        Setting(delay)
    )];
    let (pause, is_budget) = by.pause(load.rate, delay);
    if is_budget {
        reasons.push(format!("its default budget allows one wake in {}", Setting(pause)));
    }
    reasons.push(match by {
        WakeBy::Sms => {
            let daily = 24.0 * 3600.0 * by.wakes_per_second(delay, load.rate);
            format!("it costs {daily:.1} SMS a day, which is why it comes last; a phone without a data connection gets them")
        }
        WakeBy::Fcm | WakeBy::WebPush => {
            "the phone's connection to the push service, which all of its apps share, is not counted"
                .to_owned()
        }
    });
    (Candidate::Asleep { by, delay }, reasons)
}

/// Returns the short poll with the longest interval that keeps `p95`, and the reason for it.
pub(super) fn short_poll(path: &ClientPath, p95: Duration) -> Result<(Candidate, String), Refusal> {
    let refusal = |reason| Refusal { form: "short-poll", reason };
    let way = path.round_trip / 2;
    let Some(wait) = p95.checked_sub(way).filter(|wait| !wait.is_zero()) else {
        return Err(refusal(format!("the way alone takes {way:?}, and {p95:?} is promised")));
    };
    let round_trip = path.round_trip;
    // Clients wait for the interval after each response.
    let interval = |wait: Duration| two_digits(wait.div_f64(P95_OF_PERIOD).saturating_sub(round_trip));
    let (awake, tail) = (interval(wait), path.radio.tail_time());
    // A radio that sleeps between two polls has to wake up first.
    let interval = if awake <= tail {
        awake
    } else {
        interval(wait.saturating_sub(path.radio.promotion_time())).max(two_digits(tail))
    };
    if interval.is_zero() {
        return Err(refusal(format!("a poll takes {round_trip:?}, and {p95:?} is promised")));
    }
    let what = Setting(interval);
    Ok((
        Candidate::ShortPoll { interval },
        format!("{what} is the longest interval with which 95 of 100 messages arrive in time"),
    ))
}

fn long_poll(network: &Network, round_trip_p99: Duration, radios: &Radios) -> Proposal {
    let (hold, reason) = match network.hold(round_trip_p99) {
        None => (
            HOLD_MAX,
            format!(
                "no timeout on the path limits how long a request waits; {} is the gateway's maximum",
                Setting(HOLD_MAX)
            ),
        ),
        Some(Duration::ZERO) => {
            let reason =
                format!("no waiting request survives on the path {:?}: {}", network.name, network.source);
            return Err(Refusal { form: "long-poll", reason });
        }
        Some(hold) => {
            let what = Setting(hold);
            (
                hold,
                format!(
                    "{what} is the longest time for which nothing on the path {:?} ends a waiting request",
                    network.name
                ),
            )
        }
    };
    let mut reasons = vec![reason];
    let timeout = client_timeout(hold, round_trip_p99, radios);
    reasons.push(format!("the client gives a request up after {} without a response", Setting(timeout)));
    if hold > HOLD_MAX {
        reasons.push(format!("start the gateway with --hold-max {}", Setting(hold)));
    }
    Ok((Candidate::LongPoll { hold }, reasons))
}

/// Returns the client's timeout of a held poll: `hold` plus the larger of 5 s and the sum of three slow round trips and the
/// slowest promotion of a radio.
fn client_timeout(hold: Duration, round_trip_p99: Duration, radios: &Radios) -> Duration {
    let promotion = radios.iter().map(|radio| radio.promotion.seconds).fold(0.0, f64::max);
    let promotion = Duration::try_from_secs_f64(promotion).unwrap_or(Duration::MAX);
    hold + Duration::from_secs(5).max((round_trip_p99 * 3).saturating_add(promotion))
}

fn answer(
    form: &'static str,
    with: fn(Open) -> Candidate,
    network: &Network,
    round_trip_p99: Duration,
) -> Proposal {
    if !network.streaming {
        let reason = format!(
            "something on the path {:?} keeps a response back until it is complete, and this one does not end",
            network.name
        );
        return Err(Refusal { form, reason });
    }
    let life = network.lifetime.map_or(ANSWER_LIFE, |lifetime| lifetime.min(ANSWER_LIFE));
    open(form, with, Some(life), network, round_trip_p99)
}

fn connection(
    form: &'static str,
    with: fn(Open) -> Candidate,
    allowed: bool,
    network: &Network,
    round_trip_p99: Duration,
) -> Proposal {
    if !allowed {
        let what = if form == "mqtt" { "protocols other than HTTP" } else { "WebSocket upgrades" };
        let reason = format!("{what} are blocked on the path {:?}", network.name);
        return Err(Refusal { form, reason });
    }
    open(form, with, network.lifetime, network, round_trip_p99)
}

fn open(
    form: &'static str,
    with: fn(Open) -> Candidate,
    life: Option<Duration>,
    network: &Network,
    round_trip_p99: Duration,
) -> Proposal {
    let heartbeat = network.heartbeat(round_trip_p99);
    let mut reasons = Vec::new();
    match heartbeat {
        Some(Duration::ZERO) => {
            let reason =
                format!("no heartbeat is quick enough for the path {:?}: {}", network.name, network.source);
            return Err(Refusal { form, reason });
        }
        Some(beat) => {
            reasons.push(format!(
                "a heartbeat (a packet without a message) every {} keeps the path {:?} open",
                Setting(beat),
                network.name
            ));
        }
        None => reasons.push("no timeout on the path requires a heartbeat".to_owned()),
    }
    if let Some(life) = life {
        if life.is_zero() {
            return Err(Refusal { form, reason: format!("the path {:?} ends it at once", network.name) });
        }
        reasons.push(format!("it ends and is opened again about every {}, with one request", Setting(life)));
    }
    Ok((with(Open { heartbeat, life }), reasons))
}

/// Rounds down to two significant digits, in whole milliseconds.
fn two_digits(duration: Duration) -> Duration {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let step = 10_u64.pow(millis.max(1).ilog10().saturating_sub(1));
    Duration::from_millis(millis - millis % step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::network::Networks;

    const LOAD: Load = Load { rate: 0.2, message_bytes: 256.0, round_trip: Duration::from_millis(100) };

    fn path(network: &str) -> ClientPath {
        ClientPath {
            network: Networks::default().get(network).unwrap().clone(),
            round_trip: LOAD.round_trip,
            round_trip_p99: LOAD.round_trip * 10,
            radio: Radios::default().iter().next().unwrap().clone(),
        }
    }

    fn proposed(network: &str) -> Vec<String> {
        let p95 = Duration::from_secs(2);
        let all = proposals(&path(network), &LOAD, p95, WakeDelays::default(), &Radios::default());
        let (forms, asleep) = all.split_at(6);
        assert_eq!(
            asleep.len(),
            WakeBy::ALL.len(),
            "the path to the gateway says nothing about that of a push"
        );
        let text = |proposal: Proposal| match proposal {
            Ok((candidate, reasons)) => {
                assert!(!reasons.is_empty());
                candidate.to_string()
            }
            Err(refusal) => format!("no {}", refusal.form),
        };
        forms.iter().cloned().map(text).collect()
    }

    #[test]
    fn each_network_allows_its_own_strategies() {
        assert_eq!(
            proposed("unknown"),
            ["short-poll:1900ms", "long-poll:25s", "sse:45s", "ndjson:45s", "websocket:45s", "no mqtt"]
        );
        assert_eq!(
            proposed("buffering-proxy"),
            ["short-poll:1900ms", "long-poll:25s", "no sse", "no ndjson", "no websocket", "no mqtt"]
        );
        assert_eq!(
            proposed("none"),
            ["short-poll:1900ms", "long-poll:55s", "sse", "ndjson", "websocket", "mqtt"]
        );
        assert_eq!(proposed("cellular-direct")[5], "mqtt:200s");
    }

    #[test]
    fn a_client_waits_for_slow_answers() {
        let timeout =
            |p99| client_timeout(Duration::from_secs(25), Duration::from_millis(p99), &Radios::default());
        assert_eq!(timeout(100), Duration::from_secs(30));
        // Three round trips and 3G's promotion of 0.5821 s.
        assert_eq!(timeout(2000), Duration::from_millis(25_000 + 6000) + Duration::from_secs_f64(0.5821));
    }

    #[test]
    fn short_polls_that_break_the_promise_are_refused_with_the_reason() {
        let reason = |p95| short_poll(&path("none"), Duration::from_millis(p95)).unwrap_err().reason;
        assert!(reason(50).contains("the way alone takes 50ms"), "{}", reason(50));
        assert!(reason(100).contains("a poll takes 100ms, and 100ms is promised"), "{}", reason(100));
    }

    #[test]
    fn a_radio_that_sleeps_between_polls_shortens_their_interval() {
        let interval = |p95| short_poll(&path("none"), Duration::from_secs(p95)).unwrap().0.to_string();
        assert_eq!([10, 11, 60].map(interval), ["short-poll:10s", "short-poll:11s", "short-poll:62s"]);
    }

    #[test]
    fn intervals_have_two_significant_digits() {
        let digits = |millis| two_digits(Duration::from_millis(millis)).as_millis();
        assert_eq!([0, 9, 57, 104, 2034, 99_999].map(digits), [0, 9, 57, 100, 2000, 99_000]);
    }
}
