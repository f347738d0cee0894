//! Runs the whole command against real servers, and checks its messages when it cannot compare.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

#[allow(unreachable_pub, reason = "the other test binaries use it, too")]
#[path = "../../../tests/world/ports.rs"]
mod ports;
#[path = "../world/mod.rs"]
mod world;

mod forms;
mod interrupted;
mod loads;
mod readme;
mod refusals;
mod rivals;
mod sweeps;
mod transports;
mod wakes;
