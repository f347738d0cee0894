//! Typed requests: what the handlers get instead of header fields and queries.

mod read;
mod write;

pub(super) use read::{Live, LongPoll, Read, ShortPoll, WebSocket};
pub(super) use write::{Post, Put};
