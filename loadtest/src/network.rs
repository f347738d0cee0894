//! Hostile networks: a middlebox between clients and any server.
//!
//! A [`Profile`] is a list of hops. Each hop changes one thing; it passes all other bytes on unchanged. Hops of the first group
//! relay bytes without knowledge of HTTP, hops of the second group are HTTP proxies.
//!
//! * `nat_idle`, `address_change`, `lifetime`, `slow`: connections.
//! * `proxy_cut`, `proxy_buffer`, `no_websocket`, `websocket_cut`, `no_streaming`, `http10`, `captive`, `lossy_answers`:
//!   requests and answers.
//!
//! Faults follow a rule or a seed, never the timing of a run.

mod address_change;
mod as_path;
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
pub(crate) use middlebox::begins_request;
pub use middlebox::{Middlebox, Passed};
pub use profile::{Profile, ProfileError, Profiles};
pub use route::Route;
pub(crate) use server::Opener;
