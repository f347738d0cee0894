//! The HTTP front: connections, typed requests, one handler per operation and delivery form, one error mapping.
//!
//! Handlers never read header fields: `request` has turned them into values before.

pub mod admin;
mod answer;
mod append;
pub mod conn;
mod create;
mod delete;
mod dispatch;
mod envelope;
mod error;
mod fields;
mod form;
mod gateway;
mod head;
mod live;
mod long_poll;
mod origin;
mod preflight;
mod query;
mod read;
mod request;
mod request_log;
mod resume_token;
mod routes;
mod short_poll;
mod sse;
mod upgrade;
mod upload;
mod web;
mod websocket;

pub use error::Problem;
pub use gateway::Gateway;
pub use origin::Origins;
pub use request::HoldPolicy;
pub use sse::event as sse_event;

use conn::bare;
