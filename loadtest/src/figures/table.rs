//! The table on the terminal: a line a server, and a line a rival with the ratios to it.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::{Pick, Spread, Standing};
use crate::table::time;

/// A figure: what the header says of it, how it is found, and how it is written.
struct Column {
    header: &'static str,
    pick: Pick,
    write: fn(f64) -> String,
}

const COLUMNS: [Column; 5] = [
    Column { header: "WHAT/s", pick: |figures| Some(figures.rate), write: |rate| format!("{rate:.0}") },
    Column { header: "p50", pick: |figures| Some(figures.p50), write: time },
    Column { header: "p99", pick: |figures| Some(figures.p99), write: time },
    Column { header: "server CPU", pick: |figures| figures.server_processor, write: time },
    Column {
        header: "generator cores",
        pick: |figures| Some(figures.generator_cores),
        write: |cores| format!("{cores:.2}"),
    },
];

/// `what` is what the load counts, in the plural.
pub fn table(what: &str, standings: &[Standing]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    let headers = COLUMNS.iter().map(|column| column.header.replace("WHAT", what));
    table.set_header(std::iter::once("server".to_owned()).chain(headers));
    for standing in standings {
        let cell = |column: &Column| written(standing.spread(column.pick), column.write);
        table.add_row(std::iter::once(standing.server.to_owned()).chain(COLUMNS.iter().map(cell)));
    }
    if let Some((own, rivals)) = standings.split_first() {
        for rival in rivals {
            let cell =
                |column: &Column| written(own.ratio(rival, column.pick), |ratio| format!("{ratio:.2}"));
            let name = format!("{} : {}", own.server, rival.server);
            table.add_row(std::iter::once(name).chain(COLUMNS.iter().map(cell)));
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// The median, and between which figures it lies.
fn written(spread: Option<Spread>, write: fn(f64) -> String) -> String {
    spread.map_or("-".to_owned(), |Spread { median, least, greatest }| {
        format!("{} ({} to {})", write(median), write(least), write(greatest))
    })
}
