//! pollgate delivers streams of messages to clients that may have nothing but plain HTTP.
//!
//! # Layout
//!
//! A request takes this way, and each module knows only those to the right of it:
//!
//! ```text
//! main -> config, server -> http, mqtt -> hub -> budget -> stream <- store
//! ```
//!
//! * [`stream`]: what a stream is, and the contract of a store. Pure: no IO, no clock.
//! * [`store`]: the stores that keep the contract, in memory and on disk. Passive: they answer at once with what is there.
//! * [`budget`]: how much memory the gateway and each client may take, and who holds how much.
//! * [`hub`]: appends and wakes, reads and waits. The only place that waits.
//! * [`http`]: the HTTP front, one file per operation and delivery form.
//! * [`mqtt`]: the MQTT front, onto the same streams.
//! * [`server`]: sockets, connections, limits of both, drain.
//! * [`maintenance`]: checking and moving a store while no server runs.
//! * [`config`], [`limits`], [`clock`], [`metrics`]: settings, bounds, time and counters for all of them.
//!
//! The client is a crate of its own, `pollgate-client` in `clients/rust`, which knows the wire alone.

pub mod budget;
pub mod clock;
pub mod config;
#[cfg(test)]
#[path = "../fuzz/driver.rs"]
mod fuzz;
pub mod http;
pub mod hub;
pub mod limits;
pub mod maintenance;
pub mod metrics;
pub mod mqtt;
pub mod server;
pub mod store;
pub mod stream;
