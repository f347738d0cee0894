//! The gateway of pollgate as a library: it delivers streams of messages to clients that may have nothing but plain HTTP.
//!
//! Its public API is a server to start and its settings; the command `pollgate` is built on it. The API for programs that publish and
//! read is the crate `pollgate-client`, and the protocol is in `docs/protocol.md`.
//!
//! ```no_run
//! use pollgate::config::{Settings, StorePlace};
//! use pollgate::server::Server;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings { store: StorePlace::Memory, ..Settings::default() };
//! let server = Server::bind(&settings)?;
//! println!("listening on http://{}", server.gateway_address());
//! let running = server.start().await?;
//! tokio::signal::ctrl_c().await?;
//! running.drain().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//!
//! A request passes these modules from left to right. An arrow points to a module that is used:
//!
//! ```text
//! main -> config, server -> http, mqtt, xmpp -> auth, hub -> budget -> stream <- store
//! ```
//!
//! * `stream`: what a stream is, and the contract of a store. Pure: no IO, no clock.
//! * `store`: implementations of the contract: in memory, on disk, in an engine that gateways share, and as an edge of an upstream
//!   gateway. Passive: a read returns stored messages and never waits for new ones.
//! * `budget`: the memory budget of the gateway and of each client, and the accounts that count against it.
//! * `hub`: appends, reads, waits and wake-ups. The only module that waits for messages.
//! * `auth`: what a client may do, and the tokens that prove it. Every front asks it before it asks the hub.
//! * `http_client`: sends requests to other servers, over connections that are kept.
//! * `http`: the HTTP front, one file per operation and delivery form.
//! * `mqtt`: the MQTT front, over the same streams.
//! * `xmpp`: the XMPP front, over the same streams.
//! * `outbound`: the requests that the gateway sends itself, with queues and retries: webhooks, polls of origins, and wakes of
//!   devices by push services and SMS.
//! * [`server`]: listeners, accepting, limits of connections, drain.
//! * `export`: exports the streams of a store, for [`maintenance`] and for operators of a running server.
//! * [`maintenance`]: checks, exports and imports a store while no server has it open.
//! * [`tokens`]: makes keys and tokens.
//! * [`config`], [`limits`], `clock`, `metrics`, `traces`, `access_log`, `platform`: settings, limits, time, metrics, traces, the log of requests,
//!   and what differs between operating systems, which all modules use.
//!
//! Modules without a link are private. The feature `internals` makes them public for the tests and benchmarks of this package.

// Without the feature, items that only the tests use are unused, and items that are `pub` for other modules are unreachable.
#![cfg_attr(not(feature = "internals"), allow(dead_code, unreachable_pub, unused_imports))]

pub mod config;
#[cfg(test)]
#[path = "../fuzz/driver.rs"]
mod fuzz;
pub mod limits;
pub mod maintenance;
mod platform;
pub mod server;

pub use auth::issue as tokens;

#[cfg(not(feature = "internals"))]
mod access_log;
#[cfg(not(feature = "internals"))]
mod auth;
#[cfg(not(feature = "internals"))]
mod budget;
#[cfg(not(feature = "internals"))]
mod clock;
#[cfg(not(feature = "internals"))]
mod export;
#[cfg(not(feature = "internals"))]
mod http;
#[cfg(not(feature = "internals"))]
mod http_client;
#[cfg(not(feature = "internals"))]
mod hub;
#[cfg(not(feature = "internals"))]
mod metrics;
#[cfg(not(feature = "internals"))]
mod mqtt;
#[cfg(not(feature = "internals"))]
mod outbound;
#[cfg(not(feature = "internals"))]
mod store;
#[cfg(not(feature = "internals"))]
mod stream;
#[cfg(not(feature = "internals"))]
mod traces;
#[cfg(not(feature = "internals"))]
mod xmpp;

#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod access_log;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod auth;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod budget;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod clock;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod export;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod http;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod http_client;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod hub;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod metrics;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod mqtt;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod outbound;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod store;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod stream;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod traces;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod xmpp;

/// The program in the README is compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
