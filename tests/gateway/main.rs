//! Scenarios against a gateway process, grouped by what a user of the gateway sees.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

#[path = "../world/mod.rs"]
mod world;

mod access_matrix;
mod authorization;
mod caching;
mod carriers;
mod client_commands;
mod command_line;
mod dashboard;
mod descriptions;
mod drained_store;
mod edges;
mod epochs;
mod event_source;
mod gaps;
mod half_closed;
mod holding;
mod hostile_events;
mod http2;
mod http_rules;
mod lifetimes;
mod mqtt_commands;
mod observability;
mod operators;
mod origins;
mod parked;
mod proxies;
mod publishing;
mod rebinding;
mod refusals;
mod revocation;
mod service_manager;
mod shared_answers;
mod sleeping;
mod slow_clients;
mod store_on_disk;
mod stream_origins;
mod subscriptions;
mod tenants;
mod tenants_at_an_edge;
mod tour;
mod traces;
mod two_parsers;
mod upgrades;
mod wait_queues;
mod wakes;
