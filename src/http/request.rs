//! Typed requests: what the handlers get instead of header fields and queries.

mod handshake;
mod read;
mod streams;
mod write;

pub(super) use handshake::Handshake;
pub use read::HoldPolicy;
pub(super) use read::{HEARTBEAT_NONE, Hold, Live, LongPoll, PostRead, Read, ReadFrom, ShortPoll, WebSocket};
pub(super) use streams::stream_name;
pub(super) use write::{Put, post};
