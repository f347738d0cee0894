//! MQTT, byte by byte: what a client is sent in which order, what is remembered of it, and what hostile ones reach.
//! Other people's clients are in `tests/mqtt-clients`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

#[path = "../world/mod.rs"]
mod world;

mod both_worlds;
mod breaches;
mod empty;
mod endings;
mod flapping;
mod hostile;
mod idle;
mod names;
mod quotas;
mod refused;
mod sessions;
mod shared;
mod subscriptions;
mod survival;
mod takeovers;
