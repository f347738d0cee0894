//! The matrix on the terminal: one line per network and reader.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::row::{Row, Rows};
use crate::table::time;

const HEADERS: [&str; 11] = [
    "network",
    "reader",
    "delivered",
    "lost",
    "duplicated",
    "p50",
    "p95",
    "longest",
    "requests",
    "faults",
    "form in the end",
];

/// Formats the matrix as text that is also Markdown.
pub fn table(rows: &Rows) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(HEADERS);
    rows.rows.iter().for_each(|row| {
        table.add_row(cells(row));
    });
    for column in table.column_iter_mut().skip(2).take(8) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn cells(row: &Row) -> Vec<String> {
    let counts = row.deliveries;
    let millis = |millis: Option<f64>| millis.map_or_else(|| "-".to_owned(), |millis| time(millis * 1e3));
    vec![
        row.network.clone(),
        row.reader.clone(),
        format!("{} of {}", counts.delivered, counts.intended),
        counts.lost.to_string(),
        counts.doubled.to_string(),
        millis(row.p50_millis),
        millis(row.p95_millis),
        millis(row.longest_millis),
        row.passed.requests.to_string(),
        row.passed.faults.to_string(),
        row.form.clone(),
    ]
}
