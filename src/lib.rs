//! pollgate delivers streams of messages to clients that may have nothing but plain HTTP.
//!
//! # Layout
//!
//! A request passes these modules from left to right. An arrow points to a module that is used:
//!
//! ```text
//! main -> config, server -> http, mqtt -> hub -> budget -> stream <- store
//! ```
//!
//! * [`stream`]: what a stream is, and the contract of a store ([`stream::Store`]). Pure: no IO, no clock.
//! * [`store`]: implementations of the contract, in memory and on disk. Passive: a read returns what is there and never waits
//!   for a message.
//! * [`budget`]: the memory budget of the gateway and of each client, and the accounts that count against it.
//! * [`hub`]: appends, reads, waits and wake-ups. The only module that waits for messages.
//! * [`http`]: the HTTP front, one file per operation and delivery form.
//! * [`mqtt`]: the MQTT front, over the same streams.
//! * [`server`]: listeners, accepting, limits of connections, drain.
//! * [`maintenance`]: checks, exports and imports a store while no server has it open.
//! * [`config`], [`limits`], [`clock`], [`metrics`]: settings, limits, time and metrics, which all modules use.
//!
//! The client is a crate of its own, `pollgate-client` in `clients/rust`, which uses only the wire protocol.

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
