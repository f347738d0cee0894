//! The table on the terminal: one line per strategy, with what a phone's user and the operator notice of it.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::Outcome;
use crate::model::energy::battery_share;

/// What the columns mean.
pub const LEGEND: &str = "\
delay: from the call of publish to the message in the app, while there was a network or not; median, p95 and longest
lost, twice: messages that never arrived, or that arrived again or late behind a later one
requests, connections, forgotten, kB: of one phone in the day, on average; forgotten: connections that a network dropped in silence
battery: of one phone in the day, for its radio alone, if nothing else wakes it: share of a battery with 4000 mAh and 3.85 V
Everything is simulated: the code of gateway and client is real, networks and radios are models (src/simulate/day.toml, src/model/radios.toml)";

/// Formats the table.
pub fn table(outcomes: &[(String, Outcome)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "strategy",
        "delay p50",
        "p95",
        "max",
        "lost",
        "twice",
        "requests",
        "connections",
        "forgotten",
        "kB",
        "battery",
    ]);
    for (strategy, outcome) in outcomes {
        table.add_row(row(strategy, outcome));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn row(strategy: &str, outcome: &Outcome) -> Vec<String> {
    let phones = outcome.phones.max(1) as f64;
    let each = |count: u64| format!("{:.0}", count as f64 / phones);
    let quantiles = outcome.latencies.quantiles([0.5, 0.95, 1.0]);
    let delays = quantiles.map_or(["-".to_owned(), "-".to_owned(), "-".to_owned()], |times| times.map(time));
    // The sum of no figures is -0.
    let joules = outcome.joules.values().fold(0.0, |sum, joules| sum + joules) / phones;
    let mut row = vec![strategy.to_owned()];
    row.extend(delays);
    row.extend([
        outcome.lost().to_string(),
        (outcome.doubled + outcome.reordered).to_string(),
        each(outcome.requests),
        each(outcome.connections),
        each(outcome.forgotten),
        format!("{:.0}", outcome.bytes as f64 / 1000.0 / phones),
        format!("{:.2} %", 100.0 * battery_share(joules)),
    ]);
    row
}

/// Formats a time with three digits at most.
pub(super) fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds < 100.0 => format!("{seconds:.1} s"),
        seconds => format!("{:.1} min", seconds / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strategy_that_delivered_nothing_has_no_delay() {
        let outcome = Outcome { phones: 2, published: 13, requests: 20, bytes: 4000, ..Outcome::default() };
        let row = row("sse", &outcome);
        assert_eq!(row[..6], ["sse", "-", "-", "-", "13", "0"]);
        assert_eq!(row[6..], ["10", "0", "0", "2", "0.00 %"]);
    }

    #[test]
    fn times_have_the_unit_that_fits() {
        let formatted = [0.0301, 1.25, 99.0, 180.0].map(|seconds| time(Duration::from_secs_f64(seconds)));
        assert_eq!(formatted, ["30 ms", "1.2 s", "99.0 s", "3.0 min"]);
    }
}
