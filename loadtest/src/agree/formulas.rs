//! The formulas of the cost model beside simulations of the real code, over a grid of settings.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::parallel;
use crate::model::candidate::{Candidate, Load, Open, Setting};
use crate::model::prediction::Predicted;
use crate::model::settings::ANSWER_LIFE;
use crate::simulate::{Day, Network, Reader, Simulation, SimulationError};
use crate::strategies::Strategy;

/// Allowed relative deviation of the requests from the formula.
const REQUESTS: f64 = 0.03;

/// Allowed relative deviation of the mean delay from the formula.
const DELAY: f64 = 0.1;

/// The strategies of the grid.
const STRATEGIES: [&str; 10] = [
    "short-poll:5s",
    "short-poll:20s",
    "short-poll:60s",
    "long-poll:5s",
    "long-poll:25s",
    "long-poll:55s",
    "long-poll:240s",
    "sse",
    "ndjson",
    "websocket:45s",
];

/// Mean seconds between two messages to a client.
const EVERY: [u64; 4] = [1, 10, 60, 300];

/// Milliseconds of the round trip. A simulated clock has steps of a millisecond, so shorter ones would not be exact.
const ROUND_TRIPS: [u64; 4] = [50, 100, 400, 2000];

/// Clients of each setting.
const CLIENTS: u32 = 4;

/// Messages of each setting, at least. The delay of a message is spread by at most 0.58 of its mean (a short poll's), so that the mean
/// of 600 has a standard deviation of 2.4 %.
const MESSAGES_MIN: f64 = 600.0;

/// Cycles of each client, at least: the part of a cycle at the end changes the number of requests by less than 0.5 %.
const CYCLES_MIN: f64 = 100.0;

/// Cycles of long polls of each client, at least. The formula gets the drawn rate, so that the standard deviation of the length of a cycle
/// is under 0.6 of its mean, and that of the mean of all 6000 cycles under 0.8 %.
const LONG_POLL_CYCLES_MIN: f64 = 1500.0;

/// A draw of the grid.
#[derive(Debug, Clone, Copy)]
pub struct FormulaGrid {
    /// Number of settings; at most the whole grid of 160.
    pub settings: usize,
    /// Seed of the draw, and of the simulations.
    pub seed: u64,
}

/// One setting: what the formula says, and what the simulation counted.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    strategy: String,
    every_seconds: u64,
    round_trip_millis: u64,
    /// Simulated hours of all clients together.
    hours: f64,
    /// Delivered messages.
    messages: u64,
    /// Requests per client-hour after the first one.
    requests: Beside,
    /// Mean delay in milliseconds.
    delay_millis: Beside,
}

/// A figure by formula, and as simulated.
#[derive(Debug, Clone, Copy, Serialize)]
struct Beside {
    formula: f64,
    simulated: f64,
}

impl Beside {
    /// The relative deviation of the simulation from the formula.
    fn deviation(self) -> f64 {
        if self.formula == self.simulated { 0.0 } else { self.simulated / self.formula - 1.0 }
    }
}

impl Checked {
    /// Whether both figures are within their bounds.
    pub fn agrees(&self) -> bool {
        self.requests.deviation().abs() <= REQUESTS && self.delay_millis.deviation().abs() <= DELAY
    }
}

/// A setting of the grid.
#[derive(Debug, Clone, Copy)]
struct Point {
    candidate: Candidate,
    reader: Reader,
    every: u64,
    round_trip: u64,
}

impl FormulaGrid {
    /// Simulates each setting.
    pub fn run(self) -> Result<Vec<Checked>, SimulationError> {
        let mut checked = parallel::for_each(&self.points(), |point| point.check(self.seed))?;
        checked.sort_by_cached_key(|checked| {
            let place = STRATEGIES.iter().position(|strategy| *strategy == checked.strategy);
            (place, checked.every_seconds, checked.round_trip_millis)
        });
        Ok(checked)
    }

    /// Draws settings of the grid.
    fn points(self) -> Vec<Point> {
        let readers = STRATEGIES.iter().filter_map(|text| text.parse().ok());
        let candidates = readers.filter_map(|reader| Some((reader, candidate(reader)?)));
        let mut all: Vec<Point> = candidates
            .flat_map(|(reader, candidate)| {
                EVERY.into_iter().flat_map(move |every| {
                    ROUND_TRIPS.map(|round_trip| Point { candidate, reader, every, round_trip })
                })
            })
            .collect();
        fastrand::Rng::with_seed(self.seed).shuffle(&mut all);
        all.truncate(self.settings);
        all
    }
}

/// The strategy of the cost model that a simulated client follows.
fn candidate(reader: Reader) -> Option<Candidate> {
    let Reader::Only(strategy) = reader else { return None };
    match strategy {
        Strategy::ShortPoll(interval) => Some(Candidate::ShortPoll { interval }),
        Strategy::LongPoll(hold) => Some(Candidate::LongPoll { hold }),
        Strategy::Sse(heartbeat) => Some(Candidate::Sse(Open { heartbeat, life: Some(ANSWER_LIFE) })),
        Strategy::Ndjson(heartbeat) => Some(Candidate::Ndjson(Open { heartbeat, life: Some(ANSWER_LIFE) })),
        Strategy::WebSocket(heartbeat) => Some(Candidate::WebSocket(Open { heartbeat, life: None })),
        _ => None,
    }
}

impl Point {
    fn check(&self, seed: u64) -> Result<Checked, SimulationError> {
        let length = self.length();
        let network = Network {
            round_trip: self.round_trip().as_secs_f64(),
            jitter: 0.0,
            loss: 0.0,
            ..Network::mobile("LTE")
        };
        let simulation = Simulation {
            day: Day::within(network, length),
            phones: CLIENTS,
            reader: self.reader,
            every: Duration::from_secs(self.every),
            seed,
            keeps_trace: false,
        };
        let outcome = simulation.run()?;
        let seconds = length.as_secs_f64() * f64::from(CLIENTS);
        let predicted = self.predicted(outcome.published as f64 / seconds);
        let requests = outcome.requests.saturating_sub(u64::from(CLIENTS));
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        Ok(Checked {
            strategy: self.reader.to_string(),
            every_seconds: self.every,
            round_trip_millis: self.round_trip,
            hours: seconds / 3600.0,
            messages: outcome.received,
            requests: Beside {
                formula: predicted.requests_per_client_hour,
                simulated: 3600.0 * requests as f64 / seconds,
            },
            delay_millis: Beside {
                formula: millis(predicted.mean_latency),
                simulated: millis(outcome.latencies.mean().unwrap_or_default()),
            },
        })
    }

    fn round_trip(&self) -> Duration {
        Duration::from_millis(self.round_trip)
    }

    fn predicted(&self, rate: f64) -> Predicted {
        self.candidate.predicted(&Load { rate, message_bytes: 0.0, round_trip: self.round_trip() })
    }

    /// How long the setting is simulated, so that chance does not decide.
    fn length(&self) -> Duration {
        let requests = self.predicted(1.0 / self.every as f64).requests_per_client_hour;
        let cycles = match self.candidate {
            Candidate::LongPoll { .. } => LONG_POLL_CYCLES_MIN,
            _ => CYCLES_MIN,
        };
        let of_cycles = if requests > 0.0 { 3600.0 * cycles / requests } else { 0.0 };
        let of_messages = MESSAGES_MIN * self.every as f64 / f64::from(CLIENTS);
        Duration::from_secs_f64(of_cycles.max(of_messages))
    }
}

/// Formats the settings, one per line, and says how far formulas and simulations are apart at most.
pub fn table(checked: &[Checked]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "strategy",
        "message every",
        "round trip",
        "requests/h: formula",
        "simulated",
        "",
        "mean delay: formula",
        "simulated",
        "",
    ]);
    let percent = |beside: Beside| format!("{:+.1} %", 100.0 * beside.deviation());
    for setting in checked {
        let Checked { requests, delay_millis, .. } = *setting;
        let mut row = vec![
            setting.strategy.clone(),
            Setting(Duration::from_secs(setting.every_seconds)).to_string(),
            format!("{} ms", setting.round_trip_millis),
        ];
        row.extend([requests.formula, requests.simulated].map(|count| format!("{count:.1}")));
        row.push(percent(requests));
        row.extend([delay_millis.formula, delay_millis.simulated].map(|millis| format!("{millis:.0} ms")));
        row.push(percent(delay_millis));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let furthest = |of: fn(&Checked) -> Beside| {
        100.0 * checked.iter().map(|setting| of(setting).deviation().abs()).fold(0.0, f64::max)
    };
    let disagreeing = checked.iter().filter(|setting| !setting.agrees()).count();
    format!(
        "{table}\n{} settings, {disagreeing} of them apart by more than {:.0} % of the requests or {:.0} % of the mean delay; \
         at most {:.1} % and {:.1} %",
        checked.len(),
        100.0 * REQUESTS,
        100.0 * DELAY,
        furthest(|setting| setting.requests),
        furthest(|setting| setting.delay_millis)
    )
}
