//! Checks that the comparison's figures are right: against a server with known faults, and against the formulas.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

#[path = "../world/mod.rs"]
mod world;

mod agreement;
mod fake;
mod faults;
mod formulas;
mod loads;
mod overload;
mod recommendations;
mod scale;
