//! What a comparison shows: the page, and sweeps over settings.

pub mod page;
pub mod sweep;

#[cfg(test)]
#[path = "../examples/report_page/fixture.rs"]
pub(crate) mod fixture;
