//! MQTT at packet level: deliveries and their order, session state, and hostile clients. Tests with other MQTT clients are in
//! `tests/mqtt-clients`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

#[path = "../world/mod.rs"]
mod world;

mod breaches;
mod commands;
mod empty;
mod endings;
mod flapping;
mod hostile;
mod idle;
mod mqtt_and_http;
mod names;
mod quotas;
mod refused;
mod sessions;
mod shared;
mod subscriptions;
mod survival;
mod takeovers;
