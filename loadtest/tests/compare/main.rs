//! Runs the whole command against real servers, and checks its messages when it cannot compare.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

#[path = "../world/mod.rs"]
mod world;

mod forms;
mod interrupted;
mod loads;
mod refusals;
mod rivals;
mod sweeps;
mod wakes;
