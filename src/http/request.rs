//! Typed requests: what the handlers get instead of header fields and queries.

mod handshake;
mod many;
mod read;
mod write;

pub(super) use handshake::Handshake;
pub(super) use many::{LiveMany, LongPollMany, PostMany, ReadMany, WebSocketMany};
pub use read::HoldPolicy;
pub(super) use read::{HEARTBEAT_NONE, Hold, Live, LongPoll, Read, ShortPoll, WebSocket};
pub(super) use write::{Put, post};
