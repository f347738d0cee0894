//! Many streams in one request: one resume token and one wait for all of them, in every delivery form.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

#[path = "../world/mod.rs"]
mod world;

mod ask;
mod blocked;
mod costs;
mod exchange;
mod falling_back;
mod hostile;
mod lives;
mod nodes;
mod reader;
mod sockets;
mod waiting;
