//! The HTTP front.
//!
//! * [`conn`]: connections: parses bytes into requests and writes responses.
//! * [`api`]: typed requests and responses: routes, header fields, errors. Handlers get values, never header fields.
//! * `read`: one file per delivery form, each over one stream or many.

pub mod api;
pub mod conn;
mod read;

pub use api::access::{AccessPolicy, InvalidAccess};
pub use api::bosh::{BoshExchange, BoshService};
pub use api::error::Problem;
pub use api::forwarded::{InvalidNetwork, TrustedProxies};
pub use api::gateway::{Gateway, HoldPolicy, SubscriptionFront};
pub use api::origins::InvalidOrigin;
pub use api::polled_origins::OriginPolicy;
pub use api::revocations::{RevocationLog, RevocationLogError};
pub use read::sse::event as sse_event;
