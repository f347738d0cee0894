//! Typed requests and responses: routes, header fields, handlers of the operations that deliver no messages, and the only
//! mapping of errors to the wire.

pub(super) mod access;
pub mod admin;
pub(super) mod answer;
mod audit;
mod authority;
mod authorization;
pub mod bosh;
mod cookies;
pub(super) mod credentials;
mod devices;
mod dispatch;
pub(super) mod error;
pub(super) mod fields;
mod files;
pub(super) mod form;
pub(super) mod forwarded;
pub(super) mod gateway;
pub(super) mod handlers;
pub(super) mod handshake;
mod names;
pub(super) mod operation;
mod options;
pub(super) mod origins;
pub(super) mod polled_origins;
mod resources;
pub(super) mod revocations;
pub(super) mod routes;
mod subscription_bodies;
pub(super) mod subscriptions;
pub(super) mod target;
mod tickets;
pub(super) mod upgrade;
mod upload;
