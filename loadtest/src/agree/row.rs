//! [`Row`]: one strategy on one network, simulated and measured.

use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::simulate::{Outcome, Reader};
use crate::table::{quantity, time};

/// Allowed relative deviation of a simulated figure from the measured one.
const APART: f64 = 0.1;

/// What the columns mean.
pub const LEGEND: &str = "\
Each pair: simulated | measured, by the same clients with the same messages; all of one row together.
p50, p95: from the call of publish to the message in the app, over a path with a round trip of 400 ms besides what the network does
requests, bytes: of the clients while messages were published, counted next to them, without the headers of packets
lost: messages that never arrived
apart: figures that differ by more than 10 % of the measured one; (chance): within 10 % of where it lies by chance in 95 of 100 runs,
  as simulations with other seeds show";

/// One strategy on one network.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Name of the network.
    pub network: String,
    /// The strategy.
    pub strategy: String,
    /// As simulated.
    pub simulated: Observed,
    /// As measured.
    pub measured: Observed,
    /// The figures that differ by more than 10 %.
    pub apart: Vec<Apart>,
}

/// A figure of which simulation and measurement differ by more than 10 %.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Apart {
    /// Name of the figure.
    pub figure: &'static str,
    /// The difference of the simulated and the measured figure, divided by the measured one. `None` if only one of them exists.
    pub off: Option<f64>,
    /// Whether the measured figure is within 10 % of where chance puts it, as five simulations with other seeds show.
    pub by_chance: bool,
}

/// What came of all clients of a row together.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// Messages that the gateway acknowledged.
    pub published: u64,
    /// Messages that did not arrive.
    pub lost: u64,
    /// Messages that arrived again, or after a later one.
    pub doubled: u64,
    /// Median of the time to the arrival; `None` if nothing arrived.
    pub p50_millis: Option<f64>,
    /// 95th percentile of it.
    pub p95_millis: Option<f64>,
    /// Requests.
    pub requests: u64,
    /// Content bytes.
    pub bytes: u64,
    /// Connections.
    pub connections: u64,
}

impl Row {
    /// Compares the first simulation with the measurement; the other ones differ by their seeds.
    pub(super) fn new(
        network: String,
        reader: Reader,
        simulations: Vec<Outcome>,
        measured: &Outcome,
    ) -> Self {
        let seeds: Vec<_> = simulations.iter().map(Observed::of).collect();
        let measured = Observed::of(measured);
        let simulated = seeds.first().copied().unwrap_or_else(|| Observed::of(&Outcome::default()));
        let mut all = Outcome::default();
        simulations.into_iter().for_each(|outcome| all.add(outcome));
        let received = measured.published - measured.lost;
        let delay = |figure, share, of: fn(&Observed) -> Option<f64>| {
            apart(figure, of(&simulated), of(&measured), quantile_by_chance(&all, share, received))
        };
        let count = |figure, of: fn(&Observed) -> u64| {
            let [of_simulated, of_measured] = [&simulated, &measured].map(|figures| Some(of(figures) as f64));
            apart(figure, of_simulated, of_measured, count_by_chance(seeds.iter().map(of)))
        };
        let compared = [
            delay("p50", 0.5, |figures| figures.p50_millis),
            delay("p95", 0.95, |figures| figures.p95_millis),
            count("requests", |figures| figures.requests),
            count("bytes", |figures| figures.bytes),
            count("lost", |figures| figures.lost),
            count("twice", |figures| figures.doubled),
        ];
        let apart = compared.into_iter().flatten().collect();
        Self { network, strategy: reader.to_string(), simulated, measured, apart }
    }

    /// Whether all figures agree within 10 %, but for what chance does.
    pub fn agrees(&self) -> bool {
        self.apart.iter().all(|apart| apart.by_chance)
    }
}

/// Compares a figure. `None`: they agree.
fn apart(
    figure: &'static str,
    simulated: Option<f64>,
    measured: Option<f64>,
    [least, greatest]: [f64; 2],
) -> Option<Apart> {
    let Some((simulated, measured)) = simulated.zip(measured) else {
        return (simulated != measured).then_some(Apart { figure, off: None, by_chance: false });
    };
    let allowed = APART * measured;
    if (simulated - measured).abs() <= allowed {
        return None;
    }
    let by_chance = (least - allowed..=greatest + allowed).contains(&measured);
    Some(Apart { figure, off: Some(simulated / measured - 1.0), by_chance })
}

/// Where the quantile of so many messages lies in 95 of 100 cases, in milliseconds: its rank has a binomial distribution.
fn quantile_by_chance(simulated: &Outcome, share: f64, messages: u64) -> [f64; 2] {
    let spread = 2.0 * (share * (1.0 - share) / messages.max(1) as f64).sqrt();
    let shares = [(share - spread).max(0.0), (share + spread).min(1.0)];
    let times = simulated.latencies.quantiles(shares).unwrap_or_default();
    times.map(|time| time.as_secs_f64() * 1e3)
}

/// Where a further count of the same kind lies in 95 of 100 cases: 3 standard deviations around the mean of five.
fn count_by_chance(counts: impl Iterator<Item = u64> + Clone) -> [f64; 2] {
    let number = counts.clone().count().max(1) as f64;
    let mean = counts.clone().sum::<u64>() as f64 / number;
    let squares = counts.map(|count| (count as f64 - mean).powi(2)).sum::<f64>();
    let spread = 3.0 * (squares / (number - 1.0).max(1.0)).sqrt();
    [mean - spread, mean + spread]
}

impl fmt::Display for Apart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.figure)?;
        if let Some(off) = self.off {
            write!(formatter, " {:+.0} %", 100.0 * off)?;
        }
        formatter.write_str(if self.by_chance { " (chance)" } else { "" })
    }
}

impl Observed {
    fn of(outcome: &Outcome) -> Self {
        let quantiles = outcome.latencies.quantiles([0.5, 0.95]);
        let millis = |place: usize| Some(quantiles?.get(place)?.as_secs_f64() * 1e3);
        Self {
            published: outcome.published,
            lost: outcome.lost(),
            doubled: outcome.doubled + outcome.reordered,
            p50_millis: millis(0),
            p95_millis: millis(1),
            requests: outcome.requests,
            bytes: outcome.bytes,
            connections: outcome.connections,
        }
    }
}

/// Formats the rows, and says how many agree.
pub fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    let pairs = ["p50", "p95", "requests", "bytes", "lost"];
    let headers = ["network", "strategy", "messages"].into_iter().chain(pairs).chain(["apart"]);
    table.set_header(headers);
    for row in rows {
        table.add_row(cells(row));
    }
    for column in table.column_iter_mut().skip(2).take(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let within = rows.iter().filter(|row| row.apart.is_empty()).count();
    let by_chance = rows.iter().filter(|row| row.agrees()).count() - within;
    format!(
        "{table}\n{within} of {} rows agree within {:.0} %, and {by_chance} more but for what chance does",
        rows.len(),
        100.0 * APART
    )
}

fn cells(row: &Row) -> Vec<String> {
    let Row { simulated, measured, .. } = row;
    let pair = |of: &dyn Fn(&Observed) -> String| format!("{} / {}", of(simulated), of(measured));
    let millis = |millis: Option<f64>| millis.map_or_else(|| "-".to_owned(), |millis| time(millis * 1e3));
    vec![
        row.network.clone(),
        row.strategy.clone(),
        measured.published.to_string(),
        pair(&|figures| millis(figures.p50_millis)),
        pair(&|figures| millis(figures.p95_millis)),
        pair(&|figures| figures.requests.to_string()),
        pair(&|figures| quantity(figures.bytes as f64)),
        pair(&|figures| figures.lost.to_string()),
        row.apart.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn outcome(delays: impl Iterator<Item = u64>, requests: u64) -> Outcome {
        let mut outcome = Outcome { requests, ..Outcome::default() };
        for millis in delays {
            outcome.latencies.record(Duration::from_millis(millis));
            (outcome.published, outcome.received) = (outcome.published + 1, outcome.received + 1);
        }
        outcome
    }

    #[test]
    fn figures_that_differ_by_more_than_a_tenth_are_named_and_chance_is_told_from_faults() {
        let simulations = || [100, 101, 99, 100, 102].map(|requests| outcome(101..=200, requests)).to_vec();
        let row = |delays, requests| {
            let measured = outcome(delays, requests);
            Row::new("none".to_owned(), Reader::Fallback, simulations(), &measured)
        };
        assert!(row(101..=200, 109).apart.is_empty());
        let text = |row: &Row| row.apart.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(&row(101..=200, 125)), ["requests -20 %"]);
        // The median of 100 such delays is 140 to 160 by chance.
        assert_eq!(text(&row(121..=220, 100)), ["p50 -12 % (chance)"]);
        let late = row(301..=400, 100);
        assert_eq!(text(&late), ["p50 -57 %", "p95 -51 %"]);
        assert!(!late.agrees());
    }
}
