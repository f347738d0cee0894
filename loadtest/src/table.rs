//! The table of a comparison on the terminal: one line per run.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::data::{Report, Run};

const HEADERS: [&str; 11] = [
    "strategy",
    "server",
    "p50",
    "p99",
    "lost",
    "requests/h",
    "bytes/h",
    "CPU us/s",
    "us/msg",
    "KiB user",
    "KiB kernel",
];

/// What the columns of [`table`] mean.
pub const LEGEND: &str = "\
p50, p99: from the intended publish time to the receipt of the whole message.
requests/h, bytes/h: of one client in an hour; bytes both ways with packet headers.
CPU us/s, us/msg: CPU time of the server for one client in a second, and for one delivery. KiB: memory of the server for one client.
J/h, battery/d: what a phone's radio takes for this client alone in an hour, and its part of the battery in a day.";

/// Formats all runs. The energy is that of the first radio profile.
pub fn table(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    let radio = report.runs.iter().find_map(|run| run.energy.first()).map(|energy| energy.radio.clone());
    let radio = radio.unwrap_or_default();
    let of_radio = [format!("{radio} J/h"), "battery/d".to_owned()];
    let has_wakes = report.runs.iter().any(|run| run.wakes.is_some());
    let of_wakes = ["wakes/h", "to poll p50", "p99"].iter().filter(|_| has_wakes).map(ToString::to_string);
    table.set_header(HEADERS.iter().map(ToString::to_string).chain(of_radio).chain(of_wakes));
    for run in &report.runs {
        table
            .add_row(cells(run, &radio).into_iter().chain(wake_cells(run).into_iter().filter(|_| has_wakes)));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn wake_cells(run: &Run) -> [String; 3] {
    match run.wakes {
        Some(wakes) => {
            [format!("{:.0}", wakes.per_client_hour), time(wakes.to_poll_p50), time(wakes.to_poll_p99)]
        }
        None => ["-", "-", "-"].map(str::to_owned),
    }
}

fn cells(run: &Run, radio: &str) -> Vec<String> {
    let cost = run.server_cost.as_ref();
    let kib = |bytes: f64| format!("{:.1}", bytes / 1024.0);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let energy = run.energy.iter().find(|energy| energy.radio == radio);
    let bytes = run.bytes.up_with_packets + run.bytes.down_with_packets;
    vec![
        run.strategy.clone() + if run.interrupted { " (cut short)" } else { "" },
        run.server.clone(),
        or_none(run.latency.as_ref().map(|latency| time(latency.p50))),
        or_none(run.latency.as_ref().map(|latency| time(latency.p99))),
        run.deliveries.lost.to_string(),
        format!("{:.0}", run.requests.per_client_hour),
        quantity(bytes),
        or_none(cost.map(|cost| format!("{:.1}", cost.cpu_per_client_second))),
        or_none(cost.and_then(|cost| cost.cpu_per_delivery).map(|micros| format!("{micros:.1}"))),
        or_none(cost.map(|cost| kib(cost.user_bytes_per_client))),
        or_none(cost.and_then(|cost| cost.kernel_bytes_per_client).map(kib)),
        or_none(energy.map(|energy| format!("{:.0}", energy.joules_per_client_hour))),
        or_none(energy.map(|energy| format!("{:.1} %", energy.battery_per_day * 100.0))),
    ]
}

/// Formats microseconds with a suitable unit.
pub(crate) fn time(micros: f64) -> String {
    match micros {
        micros if micros < 1000.0 => format!("{micros:.0} us"),
        micros if micros < 1e6 => format!("{:.1} ms", micros / 1e3),
        micros => format!("{:.2} s", micros / 1e6),
    }
}

/// Formats bytes with a suitable unit.
fn quantity(bytes: f64) -> String {
    match bytes {
        bytes if bytes < 1e3 => format!("{bytes:.0} B"),
        bytes if bytes < 1e6 => format!("{:.1} kB", bytes / 1e3),
        bytes => format!("{:.2} MB", bytes / 1e6),
    }
}
