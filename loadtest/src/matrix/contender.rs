//! [`Contender`]: the kinds of readers in the matrix.

use std::time::Duration;

use clap::ValueEnum;

use super::scale::Scale;
use crate::strategies::Strategy;

/// A kind of reader. All but the last are unchanged strategies of the comparison: after a failure they try again with the same
/// form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Contender {
    /// A request every 5 s
    ShortPoll,
    /// Requests held for 55 s, the longest hold that the gateway allows by default
    LongPoll,
    /// Server-sent events
    Sse,
    /// NDJSON
    Ndjson,
    /// WebSocket
    #[value(name = "websocket")]
    WebSocket,
    /// The client that falls back from form to form
    Fallback,
}

impl Contender {
    /// Name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::ShortPoll => "short-poll",
            Self::LongPoll => "long-poll",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::WebSocket => "websocket",
            Self::Fallback => "fallback",
        }
    }

    /// The strategy with scaled times; `None` for the client that chooses its form itself.
    pub(super) fn strategy(self, scale: Scale) -> Option<Strategy> {
        match self {
            Self::ShortPoll => Some(Strategy::ShortPoll(scale.of(Duration::from_secs(5)))),
            Self::LongPoll => Some(Strategy::LongPoll(scale.whole(Duration::from_secs(55)))),
            Self::Sse => Some(Strategy::Sse(None)),
            Self::Ndjson => Some(Strategy::Ndjson(None)),
            Self::WebSocket => Some(Strategy::WebSocket(None)),
            Self::Fallback => None,
        }
    }
}
