//! Hostile networks: a middlebox between clients and any server.
//!
//! A [`Profile`] is a row of hops, and each hop does one thing to what goes through it; where nothing is said, bytes pass
//! unchanged. Those of the first kind carry bytes and know nothing of HTTP, those of the second are proxies.
//!
//! * `nat_idle`, `address_change`, `lifetime`, `slow`: connections.
//! * `proxy_cut`, `proxy_buffer`, `no_websocket`, `websocket_cut`, `no_streaming`, `http10`, `captive`, `lossy_answers`:
//!   requests and answers.
//!
//! A fault happens by rule or by seed, never by chance of timing.

mod address_change;
mod captive;
mod hop;
mod http10;
mod lifetime;
mod lossy_answers;
mod middlebox;
mod nat_idle;
mod no_streaming;
mod no_websocket;
mod profile;
mod proxy;
mod proxy_buffer;
mod proxy_cut;
mod relay;
mod route;
mod server;
mod slow;
mod stage;
mod tasks;
mod websocket_cut;

pub use hop::{Clock, Hop};
pub use middlebox::{Middlebox, Passed};
pub use profile::{Profile, ProfileError, Profiles};
pub use route::Route;
