//! Writes the result files of a command: the figures as JSON, and the HTML page.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::data::{Report, SimulatedDay};
use crate::matrix::Rows;
use crate::report::page::{Page, html};
use crate::report::verdict::{verdict_of_day, verdict_of_networks};
use crate::sweep::Swept;

/// Writes `report.json` and `report.html` into `folder`, which is created if absent, and returns their paths.
pub fn write_report(report: &Report, folder: &Path) -> io::Result<[PathBuf; 2]> {
    write(folder, "report", report, &html(report, None))
}

/// Writes `sweep.json` and `sweep.html`. The page's table shows the first rate, and a note says so if there are more.
pub fn write_sweep(swept: &Swept, folder: &Path) -> io::Result<[PathBuf; 2]> {
    let Some(mut first) = swept.reports.first().cloned() else {
        return Err(io::Error::other("nothing was swept"));
    };
    if swept.reports.len() > 1 {
        let rate = first.workload.rate;
        first.notes.insert(
            0,
            format!("these results are for {rate} messages a second; the sweep below has all rates"),
        );
        first.notes.extend(swept.reports.iter().skip(1).flat_map(|report| report.notes.clone()));
    }
    write(folder, "sweep", swept, &html(&first, Some(&swept.sweep)))
}

/// Writes `networks.json` and `networks.html`.
pub fn write_networks(rows: &Rows, folder: &Path) -> io::Result<[PathBuf; 2]> {
    let verdict = verdict_of_networks(rows);
    let page =
        Page { verdict: verdict.as_deref(), command: &rows.command, networks: Some(rows), ..Page::default() };
    write(folder, "networks", rows, &page.html())
}

/// Writes `simulate.json` and `simulate.html`.
pub fn write_day(day: &SimulatedDay, folder: &Path) -> io::Result<[PathBuf; 2]> {
    let (verdict, command) = (verdict_of_day(day), std::env::args().collect::<Vec<_>>().join(" "));
    let page = Page { verdict: verdict.as_deref(), command: &command, day: Some(day), ..Page::default() };
    write(folder, "simulate", day, &page.html())
}

fn write(folder: &Path, name: &str, figures: &impl Serialize, page: &str) -> io::Result<[PathBuf; 2]> {
    let paths = ["json", "html"].map(|kind| folder.join(name).with_extension(kind));
    let [json, html] = &paths;
    std::fs::create_dir_all(folder)?;
    std::fs::write(json, serde_json::to_vec_pretty(figures)?)?;
    std::fs::write(html, page)?;
    Ok(paths)
}
