//! Load and faults: many clients at once, clients that disconnect silently, and failures in between.
//!
//! Each scenario prints a line with its figures (`cargo test --test faults -- --nocapture`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

#[path = "../world/mod.rs"]
mod world;

mod abandoned;
mod arena;
mod clock;
mod crowd;
mod descriptors;
mod device_clock;
mod drain;
mod expiring;
mod fill;
mod following;
mod marks;
mod measure;
mod mqtt_bounds;
mod phones;
mod polled_origins;
mod races;
mod refused;
mod shares;
mod soak;
mod ten_thousand;
