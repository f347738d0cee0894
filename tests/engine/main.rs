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

mod history;
mod losses;
mod outages;
mod server;
mod two_gateways;
