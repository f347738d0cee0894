//! The delivery forms: one offset for all, the same meaning in each, and the faults that each survives.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

#[path = "../world/mod.rs"]
mod world;

mod appending;
mod handshakes;
mod hostile_frames;
mod matrix;
mod meaning;
mod metrics;
mod property;
mod slow_readers;
mod sockets;
