//! A simulated day as figures of a report.

use crate::cli::SimulateOptions;
use crate::data::{DayRow, SimulatedDay};
use crate::model::energy::battery_share;
use crate::model::radio::Radios;
use crate::simulate::Outcome;

/// Returns the figures of a day from the outcome of each strategy.
pub fn day(wanted: &SimulateOptions, outcomes: &[(String, Outcome)]) -> SimulatedDay {
    SimulatedDay {
        phones: wanted.phones,
        hours: f64::from(wanted.hours),
        seconds_between_messages: wanted.every.as_secs_f64(),
        rows: outcomes.iter().map(|(strategy, outcome)| row(strategy, outcome)).collect(),
    }
}

fn row(strategy: &str, outcome: &Outcome) -> DayRow {
    let phones = outcome.phones.max(1) as f64;
    let radios = Radios::default();
    let joules = outcome.joules.iter().map(|(name, joules)| {
        let is_known = radios.radio(Some(name)).is_ok();
        (name.to_string(), is_known.then_some(joules / phones))
    });
    let joules: Vec<_> = joules.collect();
    let sum = joules.iter().map(|(_, joules)| *joules).sum::<Option<f64>>();
    DayRow {
        strategy: strategy.to_owned(),
        published: outcome.published,
        lost: outcome.lost() + outcome.refused + outcome.gaps,
        doubled: outcome.doubled + outcome.reordered,
        delays: outcome
            .latencies
            .quantiles([0.5, 0.95, 1.0])
            .map(|delays| delays.map(|delay| delay.as_secs_f64())),
        requests: outcome.requests as f64 / phones,
        connections: outcome.connections as f64 / phones,
        forgotten: outcome.forgotten as f64 / phones,
        bytes: outcome.bytes as f64 / phones,
        battery: sum.map(battery_share),
        joules,
    }
}
