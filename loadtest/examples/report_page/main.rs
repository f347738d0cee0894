//! Prints a page with fictitious figures, to view it without a run: that of a comparison, or with PAGE=day or PAGE=networks another one.
//! `cargo run -p loadtest --example report_page > page.html`

mod fixture;

use loadtest::report::page::{Page, html};
use loadtest::report::verdict::{verdict_of_day, verdict_of_networks};

fn main() {
    let page = match std::env::var("PAGE").as_deref() {
        Ok("day") => {
            let day = fixture::day();
            let verdict = verdict_of_day(&day);
            let command = "cargo run --release -p loadtest -- simulate";
            Page { verdict: verdict.as_deref(), command, day: Some(&day), ..Page::default() }.html()
        }
        Ok("networks") => {
            let rows = fixture::networks();
            let verdict = verdict_of_networks(&rows);
            let page = Page { networks: Some(&rows), ..Page::default() };
            Page { verdict: verdict.as_deref(), command: &rows.command, ..page }.html()
        }
        _ => html(&fixture::report(), Some(&fixture::sweep())),
    };
    print!("{page}");
}
