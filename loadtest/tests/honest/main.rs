//! Whether the comparison can be believed: against a server whose faults are known, and against the formulas.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

#[path = "../world/mod.rs"]
mod world;

mod fake;
mod faults;
// A debug build takes as long for a delivery as the formulas have for an error; tests/run has them optimised.
#[cfg(not(debug_assertions))]
mod formulas;
mod loads;
mod overload;
