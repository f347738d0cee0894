//! The table on the terminal: one line per server, and one line per rival with the ratios to it.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::{Column, Figures, ServerFigures, Spread};

/// Formats the table. `what` is what the load counts, in the plural.
pub fn table<F: Figures>(what: &str, standings: &[ServerFigures<F>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    let headers = F::COLUMNS.iter().map(|column| column.named(what));
    table.set_header(std::iter::once("server".to_owned()).chain(headers));
    for standing in standings {
        let cell = |column: &Column<F>| format_spread(standing.spread(column.pick), column.write);
        table.add_row(std::iter::once(standing.server.to_owned()).chain(F::COLUMNS.iter().map(cell)));
    }
    if let Some((own, rivals)) = standings.split_first() {
        for rival in rivals {
            let cell = |column: &Column<F>| {
                format_spread(own.ratio(rival, column.pick), |ratio| format!("{ratio:.2}"))
            };
            let name = format!("{} : {}", own.server, rival.server);
            table.add_row(std::iter::once(name).chain(F::COLUMNS.iter().map(cell)));
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// Formats the median and the range.
fn format_spread(spread: Option<Spread>, write: fn(f64) -> String) -> String {
    spread.map_or("-".to_owned(), |Spread { median, least, greatest }| {
        format!("{} ({} to {})", write(median), write(least), write(greatest))
    })
}
