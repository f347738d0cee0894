//! Several gateways on one Redis or Valkey. `ENGINE_BINARY` names the server, by default `redis-server`.

#![allow(unreachable_pub, reason = "a binary of tests")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

#[path = "../world/mod.rs"]
mod world;

mod cluster;
mod commands;
mod deployment;
mod devices;
mod encryption;
mod failover;
mod failover_history;
mod history;
mod hot_tails;
mod interest;
mod library;
mod losses;
mod mqtt_sessions;
mod origins;
mod outages;
mod partition;
mod scripts;
mod server;
mod shares;
mod store_suite;
mod subscriptions;
/// The contract of a store. It is not beside that of the store on disk: a child that is being started has copies of all descriptors
/// for a moment, and with them the lock of a directory that another test opens again.
#[macro_use]
#[allow(dead_code, reason = "the stores on disk use all of it")]
#[path = "../store/suite/mod.rs"]
mod suite;
mod two_gateways;

store_suite!(redis, crate::store_suite::make);
