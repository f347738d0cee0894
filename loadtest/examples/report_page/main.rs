//! Prints the report page of made-up figures, to look at it without a run:
//! `cargo run -p loadtest --example report_page > page.html`

mod fixture;

fn main() {
    print!("{}", loadtest::report::page::html(&fixture::report(), Some(&fixture::sweep())));
}
