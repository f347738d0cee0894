//! Prints the report page with fictitious figures, to view it without a run:
//! `cargo run -p loadtest --example report_page > page.html`

mod fixture;

fn main() {
    print!("{}", loadtest::report::page::html(&fixture::report(), Some(&fixture::sweep())));
}
