//! The output of a comparison: the HTML page, and sweeps over settings.

pub mod page;
pub mod sweep;

#[cfg(test)]
#[path = "../examples/report_page/fixture.rs"]
pub(crate) mod fixture;
