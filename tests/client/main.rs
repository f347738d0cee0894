//! The client with a real gateway, over working and hostile networks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

#[path = "../world/mod.rs"]
mod world;

mod credentials;
mod devices;
mod edges;
mod fallback;
mod forms;
mod handling;
mod lost_twice;
mod publishing;
mod reading;
mod relay;
mod restarts;
mod rules;
mod tls;
