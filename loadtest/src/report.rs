//! The output of a comparison: the HTML page, and sweeps over settings.

pub mod columns;
pub mod day;
pub mod page;
pub mod sweep;
pub mod verdict;

#[cfg(test)]
#[path = "../examples/report_page/fixture.rs"]
pub(crate) mod fixture;
