//! The table of a comparison on the terminal: one line per run.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::data::{Report, Run};
use crate::report::columns::{COLUMNS, Column, radio};

/// What the columns of [`table`] mean.
pub const LEGEND: &str = "\
p50, p99: half (99 of 100) of the messages arrive within it, from the intended publish time to the receipt of the whole message
lost: messages that did not arrive; requests/h, bytes/h: of one client in an hour; bytes both ways with packet headers
CPU us/s, us/msg: processor time of the server for one client in a second, and for one delivery; KiB: its memory, with the kernel's buffers
battery/d: what the named radio takes of a phone's battery in a day for this client alone; J/h: joules in an hour
*: the best of its column, or not told from it by the repeated rounds: their ranges overlap (--all-columns: further figures)";

/// Formats the runs: eight columns, or all of them. The energy is that of the first radio profile.
pub fn table(report: &Report, all_columns: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    let radio = radio(report);
    let has_figures = |column: &&Column| report.runs.iter().any(|run| (column.pick)(run, &radio).is_some());
    let columns = COLUMNS.iter().filter(|column| column.is_usual || all_columns).filter(has_figures);
    let columns: Vec<_> = columns.collect();
    let header = |column: &&Column| match column.key {
        "battery" | "energy" => format!("{radio} {}", column.header),
        _ => column.header.to_owned(),
    };
    table.set_header(["strategy".to_owned()].into_iter().chain(columns.iter().map(header)));
    for run in &report.runs {
        let cells = columns.iter().map(|column| cell(run, column, &radio));
        table.add_row([name(run)].into_iter().chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// Returns the strategy and its transport, after the name of a server that is not the gateway.
pub fn name(run: &Run) -> String {
    let server = if run.server == "pollgate" { String::new() } else { format!("{}: ", run.server) };
    let over = run.transport.as_ref().map(|transport| format!(" over {transport}")).unwrap_or_default();
    format!("{server}{}{over}{}", run.strategy, if run.interrupted { " (cut short)" } else { "" })
}

fn cell(run: &Run, column: &Column, radio: &str) -> String {
    let Some(figure) = (column.pick)(run, radio) else { return "-".to_owned() };
    let mark = if run.best.iter().any(|best| best == column.key) { "*" } else { "" };
    (column.write)(figure) + mark
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
pub(crate) fn quantity(bytes: f64) -> String {
    match bytes {
        bytes if bytes < 1e3 => format!("{bytes:.0} B"),
        bytes if bytes < 1e6 => format!("{:.1} kB", bytes / 1e3),
        bytes => format!("{:.2} MB", bytes / 1e6),
    }
}
