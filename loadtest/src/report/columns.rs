//! The figures of a run that are compared: the columns of the table on the terminal, the ranges of repeated rounds, and which strategies
//! are the best in each.

use crate::data::{Band, Report, Run};
use crate::table::{quantity, time};

/// A figure of a run, of which less is better.
pub struct Column {
    /// Name in `report.json`.
    pub key: &'static str,
    /// Header of the table.
    pub header: &'static str,
    /// Whether the table has it without being asked for all.
    pub is_usual: bool,
    /// Whether the strategies are ranked by it.
    pub is_ranked: bool,
    /// Returns the figure, if there is one. The energy is that of the radio with this name.
    pub pick: fn(&Run, &str) -> Option<f64>,
    /// Formats the figure.
    pub write: fn(f64) -> String,
}

/// The columns in their order.
pub const COLUMNS: [Column; 15] = [
    column("p50", "p50", |run, _| Some(run.latency.as_ref()?.p50), time).usual(),
    column("p99", "p99", |run, _| Some(run.latency.as_ref()?.p99), time).usual(),
    Column {
        is_ranked: false,
        ..column("lost", "lost", |run, _| Some(run.deliveries.lost as f64), whole).usual()
    },
    column("requests", "requests/h", |run, _| Some(run.requests.per_client_hour), whole).usual(),
    column(
        "bytes",
        "bytes/h",
        |run, _| Some(run.bytes.up_with_packets + run.bytes.down_with_packets),
        quantity,
    ),
    column("cpu", "CPU us/s", |run, _| Some(run.server_cost.as_ref()?.cpu_per_client_second), tenths).usual(),
    column("cpuPerDelivery", "us/msg", |run, _| run.server_cost.as_ref()?.cpu_per_delivery, tenths),
    column("memory", "KiB", memory, kib).usual(),
    column("battery", "battery/d", |run, radio| Some(run.of_radio(radio)?.battery_per_day), percent).usual(),
    column("energy", "J/h", |run, radio| Some(run.of_radio(radio)?.joules_per_client_hour), whole),
    Column {
        is_ranked: false,
        ..column("wakes", "wakes/h", |run, _| Some(run.wakes.as_ref()?.per_client_hour), whole)
    },
    column("toPollP50", "to poll p50", |run, _| Some(run.wakes.as_ref()?.to_poll_p50), time),
    column("toPollP99", "to poll p99", |run, _| Some(run.wakes.as_ref()?.to_poll_p99), time),
    column("openingBytes", "bytes/open", |run, _| run.opening.bytes, quantity),
    column("openingCpu", "us/open", |run, _| run.opening.cpu, tenths),
];

const fn column(
    key: &'static str,
    header: &'static str,
    pick: fn(&Run, &str) -> Option<f64>,
    write: fn(f64) -> String,
) -> Column {
    Column { key, header, is_usual: false, is_ranked: true, pick, write }
}

impl Column {
    const fn usual(self) -> Self {
        Self { is_usual: true, ..self }
    }
}

/// Memory of the gateway and of the kernel's buffers.
fn memory(run: &Run, _: &str) -> Option<f64> {
    let cost = run.server_cost.as_ref()?;
    Some(cost.user_bytes_per_client + cost.kernel_bytes_per_client?)
}

fn whole(figure: f64) -> String {
    format!("{figure:.0}")
}

fn tenths(figure: f64) -> String {
    format!("{figure:.1}")
}

fn kib(bytes: f64) -> String {
    format!("{:.1}", bytes / 1024.0)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Returns the radio whose energy is shown: the first profile.
pub fn radio(report: &Report) -> String {
    let first = report.runs.iter().find_map(|run| run.energy.first());
    first.map(|energy| energy.radio.clone()).unwrap_or_default()
}

/// Sets the ranges of a run's figures over its repeats.
pub fn set_bands(run: &mut Run, repeats: &[Run]) {
    let radio = run.energy.first().map(|energy| energy.radio.clone()).unwrap_or_default();
    let bands = COLUMNS.iter().filter(|column| column.is_ranked).filter_map(|column| {
        let figures = repeats.iter().map(|run| (column.pick)(run, &radio)).collect::<Option<Vec<_>>>()?;
        let least = figures.iter().copied().reduce(f64::min)?;
        let greatest = figures.iter().copied().reduce(f64::max)?;
        Some((column.key.to_owned(), Band { least, greatest }))
    });
    run.bands = bands.collect();
}

/// Marks in each run the figures that are the best of all runs, or that repeated rounds do not tell from the best: their ranges overlap.
/// Runs that lost messages are left out. Figures of a single round have no range, and none is the best.
pub fn mark_best(runs: &mut [Run]) {
    for column in COLUMNS.iter().filter(|column| column.is_ranked) {
        let bands = runs.iter().filter(|run| run.deliveries.are_comparable());
        let bands: Vec<Band> = bands.filter_map(|run| run.bands.get(column.key).copied()).collect();
        let Some(least) = bands.iter().map(|band| band.greatest).reduce(f64::min) else { continue };
        // A figure that is the same everywhere ranks nothing.
        if bands.iter().all(|band| band.least <= least) {
            continue;
        }
        for run in runs.iter_mut().filter(|run| run.deliveries.are_comparable()) {
            if run.bands.get(column.key).is_some_and(|band| band.least <= least) {
                run.best.push(column.key.to_owned());
            }
        }
    }
}
