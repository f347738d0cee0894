//! The HTTP front.
//!
//! * [`conn`]: bytes to requests, and responses to bytes.
//! * [`api`]: requests and responses as values: routes, header fields, errors. Handlers never read header fields.
//! * `read`: one file a delivery form, each over one stream or many.

pub mod api;
pub mod conn;
mod read;

pub use api::access::{AccessPolicy, InvalidAccess};
pub use api::error::Problem;
pub use api::gateway::{Gateway, HoldPolicy};
pub use api::origins::InvalidOrigin;
pub use read::sse::event as sse_event;
