//! [`Candidate`]: a delivery form with its settings, and its cost by formula.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::asleep::WakeBy;
use super::energy::per_client_hour;
use super::prediction::{Predicted, long_poll, push, reconnecting_push, short_poll};
use super::radio::{Radio, Radios};
use super::wakes::{Timer, Wakes};
use crate::data::Energy;

/// A strategy that may be recommended. Its text form is the option value of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Candidate {
    /// A request `interval` after each response.
    ShortPoll {
        /// Time from a response to the next request.
        interval: Duration,
    },
    /// Requests that the server holds for up to `hold`.
    LongPoll {
        /// Maximum hold time.
        hold: Duration,
    },
    /// Server-sent events.
    Sse(Open),
    /// One JSON envelope per line.
    Ndjson(Open),
    /// One JSON envelope per frame.
    WebSocket(Open),
    /// A subscription at an MQTT broker.
    Mqtt(Open),
    /// A phone that sleeps until it is woken, and polls.
    Asleep {
        /// How it is woken.
        by: WakeBy,
        /// 95th percentile of the time from a wake to its first packet.
        delay: Duration,
    },
}

/// Settings of a connection that stays open; `None` means no such timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Interval between two heartbeats.
    pub heartbeat: Option<Duration>,
    /// Time after which the connection is reopened.
    pub life: Option<Duration>,
}

/// Load of one client and the round trip of its path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Messages per second to one client.
    pub rate: f64,
    /// Bytes of a message.
    pub message_bytes: f64,
    /// Usual round trip.
    pub round_trip: Duration,
}

/// Additional bytes per message, request and packet (docs/design/cost-model.md, "Bytes").
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overheads {
    /// Head of a request: 750 B, a middle value of browsers (SPDY whitepaper, V).
    pub request: f64,
    /// Head of a response: 400 B, the gateway's (D).
    pub answer: f64,
    /// Packets and records of a warm poll, in both directions together: 200 B (D).
    pub poll: f64,
    /// Envelope around pushed messages: 130 B, the gateway's (D).
    pub envelope: f64,
    /// TCP and IP headers of a packet, with timestamps: 52 B (D).
    pub packet: f64,
}

impl Default for Overheads {
    fn default() -> Self {
        Self { request: 750.0, answer: 400.0, poll: 200.0, envelope: 130.0, packet: 52.0 }
    }
}

/// Cost and latency of a strategy.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// 95th percentile of the latency.
    #[serde(rename = "p95Seconds", serialize_with = "as_seconds")]
    pub p95: Duration,
    /// Requests per client-hour.
    pub requests_per_client_hour: f64,
    /// Bytes per client-hour in both directions, with the headers of packets.
    pub bytes_per_client_hour: f64,
    /// Energy, one entry per radio.
    pub energy: Vec<Energy>,
    /// Wakes by push or SMS per client-hour; `None` for a client that does not sleep.
    pub wakes_per_client_hour: Option<f64>,
}

impl Figures {
    /// Returns the energy of a radio by its name.
    pub fn of_radio(&self, name: &str) -> Option<&Energy> {
        self.energy.iter().find(|energy| energy.radio == name)
    }
}

fn as_seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// How long the gateway keeps a connection open on which no request comes: its default of `idle_timeout`.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Round trips of a phone's connection after a wake: TCP and TLS, then two polls.
const WAKE_ROUND_TRIPS: u32 = 5;

/// If the radio sleeps for less than this share of the time, 95 % of the messages arrive without waiting for it.
const ASLEEP_MIN: f64 = 0.05;

impl Candidate {
    /// Returns the figures by formula.
    pub fn figures(self, load: &Load, overheads: &Overheads, radios: &Radios) -> Figures {
        let predicted = self.predicted(load);
        let (up, down) = self.bytes(load, overheads, predicted.requests_per_client_hour);
        let energy = radios.iter().map(|radio| {
            let watts = radio.watts(self.wakes(load)) + radio.transfer_joules(up, down) / 3600.0;
            per_client_hour(&radio.name, watts)
        });
        Figures {
            p95: predicted.p95_latency,
            requests_per_client_hour: predicted.requests_per_client_hour,
            bytes_per_client_hour: up + down,
            energy: energy.collect(),
            wakes_per_client_hour: self.wakes_per_second(load).map(|rate| 3600.0 * rate),
        }
    }

    /// Returns how much later the 95th percentile of the messages is because the radio has to wake up before them. The delay of a
    /// wake by push or SMS includes it.
    pub fn promotion(self, load: &Load, radio: &Radio) -> Duration {
        let sleeps = match self {
            Self::ShortPoll { interval } => interval > radio.tail_time(),
            Self::Asleep { .. } => false,
            _ => self.wakes(load).asleep(radio.tail_time()) > ASLEEP_MIN,
        };
        if sleeps { radio.promotion_time() } else { Duration::ZERO }
    }

    /// Returns how many connections one client has, on average over time.
    pub fn connections(self, load: &Load) -> f64 {
        match self {
            Self::ShortPoll { interval } => {
                let period = interval + load.round_trip;
                KEEP_ALIVE.min(period).div_duration_f64(period)
            }
            Self::Asleep { .. } => {
                let rate = self.wakes_per_second(load).unwrap_or_default();
                (rate * (load.round_trip * WAKE_ROUND_TRIPS).as_secs_f64()).min(1.0)
            }
            _ => 1.0,
        }
    }

    /// Says in words what a client does.
    pub fn description(self) -> String {
        let open = |what: &str, open: Open| match open.heartbeat {
            Some(heartbeat) => format!("{what}, with a heartbeat every {}", Setting(heartbeat)),
            None => what.to_owned(),
        };
        match self {
            Self::ShortPoll { interval } => format!("the client asks every {}", Setting(interval)),
            Self::LongPoll { hold } => {
                format!(
                    "the client asks, and the gateway holds the request until there is a message, for up to {}",
                    Setting(hold)
                )
            }
            Self::Sse(settings) => open("messages are events of an HTTP response that stays open", settings),
            Self::Ndjson(settings) => {
                open("messages are lines of an HTTP response that stays open", settings)
            }
            Self::WebSocket(settings) => open("messages come over a WebSocket that stays open", settings),
            Self::Mqtt(settings) => open("messages come over an MQTT connection that stays open", settings),
            Self::Asleep { by: WakeBy::Sms, .. } => {
                "the phone has no connection; an SMS wakes it, and it asks".to_owned()
            }
            Self::Asleep { .. } => {
                "the phone has no connection to the gateway; a push wakes it, and it asks".to_owned()
            }
        }
    }

    /// Wakes by push or SMS per second. `None`: the client does not sleep.
    fn wakes_per_second(self, load: &Load) -> Option<f64> {
        match self {
            Self::Asleep { by, delay } => Some(by.wakes_per_second(delay, load.rate)),
            _ => None,
        }
    }

    /// Returns requests and delays by formula.
    pub(crate) fn predicted(self, load: &Load) -> Predicted {
        let &Load { rate, round_trip, .. } = load;
        match self {
            Self::ShortPoll { interval } => short_poll(interval + round_trip, rate, round_trip),
            Self::LongPoll { hold } => long_poll(hold, rate, round_trip, round_trip),
            Self::Sse(open) | Self::Ndjson(open) | Self::WebSocket(open) | Self::Mqtt(open) => {
                reopened(open, load)
            }
            Self::Asleep { by, delay } => by.predicted(delay, rate, round_trip),
        }
    }

    /// Returns the pattern of the packets that wake the radio. The gateway restarts the heartbeat after each message; where a
    /// connection has a lifetime, too, the formula sends heartbeats regardless of messages, so that for SSE and NDJSON the result is
    /// slightly too high.
    fn wakes(self, load: &Load) -> Wakes {
        let &Load { rate, round_trip, .. } = load;
        match self {
            Self::ShortPoll { interval } => Wakes::period(interval + round_trip),
            Self::LongPoll { hold } => Wakes::Restarting { rate, longest: hold + round_trip },
            Self::WebSocket(Open { heartbeat: Some(longest), life: None }) => {
                Wakes::Restarting { rate, longest }
            }
            Self::Sse(open) | Self::Ndjson(open) | Self::WebSocket(open) | Self::Mqtt(open) => {
                Wakes::Beside { rate, timer: Timer::of(open.heartbeat, open.life) }
            }
            // A push and its two polls are one burst.
            Self::Asleep { .. } => Wakes::poisson(self.wakes_per_second(load).unwrap_or_default()),
        }
    }

    /// Returns bytes per client-hour, up and down.
    fn bytes(self, load: &Load, overheads: &Overheads, requests: f64) -> (f64, f64) {
        let messages = 3600.0 * load.rate;
        let up = requests * (overheads.request + overheads.poll / 2.0);
        let down = requests * (overheads.answer + overheads.poll / 2.0) + messages * load.message_bytes;
        match self {
            Self::ShortPoll { .. } | Self::LongPoll { .. } => (up, down),
            Self::Asleep { .. } => {
                let wakes = 3600.0 * self.wakes_per_second(load).unwrap_or_default();
                let packets = wakes * overheads.packet;
                (
                    up + packets * f64::from(WAKE_UP),
                    down + packets * f64::from(WAKE_DOWN) + wakes * WAKE_BYTES,
                )
            }
            Self::Sse(open) | Self::Ndjson(open) | Self::WebSocket(open) | Self::Mqtt(open) => {
                let heartbeat =
                    open.heartbeat.filter(|heartbeat| open.life.is_none_or(|life| *heartbeat < life));
                let beats = heartbeat.map_or(0.0, |heartbeat| 3600.0 / heartbeat.as_secs_f64());
                // Each message or heartbeat is one packet and its acknowledgement.
                let signs = messages + beats;
                (up + signs * overheads.packet, down + signs * (overheads.envelope + overheads.packet))
            }
        }
    }
}

/// Packets of a wake besides its requests: those that open and close a connection, and the push with its acknowledgement.
const WAKE_UP: u32 = 4;
const WAKE_DOWN: u32 = 4;
/// Bytes of the push itself.
const WAKE_BYTES: f64 = 200.0;

/// Round trips until a form that has ended is open again, on a new connection: TCP, then the request or the handshake.
const REOPEN_ROUND_TRIPS: u32 = 2;
/// How long a client waits on average before it reconnects, so that many do not in the same moment.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

fn reopened(open: Open, load: &Load) -> Predicted {
    let gap = load.round_trip * REOPEN_ROUND_TRIPS + REOPEN_PAUSE;
    match open.life {
        Some(life) => reconnecting_push(life, gap, load.rate, load.round_trip),
        None => push(load.round_trip),
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortPoll { interval } => write!(f, "short-poll:{}", Setting(*interval)),
            Self::LongPoll { hold } => write!(f, "long-poll:{}", Setting(*hold)),
            Self::Sse(open) => open.write("sse", f),
            Self::Ndjson(open) => open.write("ndjson", f),
            Self::WebSocket(open) => open.write("websocket", f),
            Self::Mqtt(open) => open.write("mqtt", f),
            Self::Asleep { by, .. } => by.fmt(f),
        }
    }
}

impl Open {
    fn write(self, form: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.heartbeat {
            Some(heartbeat) => write!(f, "{form}:{}", Setting(heartbeat)),
            None => f.write_str(form),
        }
    }
}

/// A duration as an option value: `25s`, `250ms`.
pub struct Setting(pub Duration);

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_nanos() {
            0 => write!(f, "{}s", self.0.as_secs()),
            _ => write!(f, "{}ms", self.0.as_millis()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load =
        Load { rate: 1.0 / 60.0, message_bytes: 256.0, round_trip: Duration::from_millis(100) };

    fn figures(candidate: Candidate) -> Figures {
        candidate.figures(&LOAD, &Overheads::default(), &Radios::default())
    }

    #[test]
    fn every_poll_costs_a_request_head_and_a_response_head() {
        let figures = figures(Candidate::ShortPoll { interval: Duration::from_millis(9900) });
        assert_eq!(figures.requests_per_client_hour, 360.0);
        assert!(
            (figures.bytes_per_client_hour - (360.0 * 1350.0 + 60.0 * 256.0)).abs() < 1e-6,
            "{figures:?}"
        );
        // A poll every ten seconds never lets LTE sleep.
        let transfer = 8e-9 * (360.0 * 850.0 * 438.39 + (360.0 * 500.0 + 60.0 * 256.0) * 51.97);
        assert!((figures.energy[0].joules_per_client_hour - 3600.0 * 1.0755 - transfer).abs() < 1e-6);
    }

    #[test]
    fn a_push_connection_costs_its_messages_and_heartbeats() {
        let heartbeat = Some(Duration::from_secs(50));
        let figures = figures(Candidate::WebSocket(Open { heartbeat, life: None }));
        assert_eq!((figures.requests_per_client_hour, figures.p95), (0.0, LOAD.round_trip / 2));
        let expected = (60.0 + 72.0) * (52.0 + 52.0 + 130.0) + 60.0 * 256.0;
        assert!((figures.bytes_per_client_hour - expected).abs() < 1e-6, "{figures:?}");
    }

    #[test]
    fn a_heartbeat_longer_than_the_connection_lifetime_costs_nothing() {
        let s = Duration::from_secs;
        let answer = |heartbeat| figures(Candidate::Sse(Open { heartbeat, life: Some(s(60)) }));
        let [with, without] = [answer(Some(s(200))), answer(None)];
        assert_eq!(with.bytes_per_client_hour, without.bytes_per_client_hour);
        assert_eq!(with.energy[0].joules_per_client_hour, without.energy[0].joules_per_client_hour);
        assert!(answer(Some(s(45))).energy[0].joules_per_client_hour > with.energy[0].joules_per_client_hour);
    }

    #[test]
    fn candidates_print_as_command_line_values() {
        let open = |seconds| Open { heartbeat: Some(Duration::from_secs(seconds)), life: None };
        let texts = [
            Candidate::ShortPoll { interval: Duration::from_millis(2500) }.to_string(),
            Candidate::LongPoll { hold: Duration::from_secs(25) }.to_string(),
            Candidate::Sse(open(45)).to_string(),
            Candidate::Mqtt(Open { heartbeat: None, life: None }).to_string(),
        ];
        assert_eq!(texts, ["short-poll:2500ms", "long-poll:25s", "sse:45s", "mqtt"]);
    }
}
