//! Hostile networks: each has its own effect and no other; and clients behind them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

#[path = "../world/mod.rs"]
mod world;

mod behind;
mod command;
mod compared;
mod connections;
mod descriptors;
mod ends;
mod exchanges;
mod fallback;
mod losses;
mod proxies;
mod publishing;
mod scripted;
mod websockets;
