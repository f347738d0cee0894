//! The delivery forms, from the one that costs least a message to the one that always gets through.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A way to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// One envelope a frame.
    #[serde(rename = "websocket")]
    WebSocket,
    /// Server-sent events.
    Sse,
    /// One envelope a line.
    Ndjson,
    /// A request that the gateway holds until there is something.
    LongPoll,
    /// A request that is answered at once.
    ShortPoll,
}

impl Form {
    /// All of them, in order of preference.
    pub const ALL: [Self; 5] = [Self::WebSocket, Self::Sse, Self::Ndjson, Self::LongPoll, Self::ShortPoll];

    /// Whether one answer brings many envelopes.
    pub fn is_live(self) -> bool {
        matches!(self, Self::WebSocket | Self::Sse | Self::Ndjson)
    }

    /// Its name, as `live` in a query has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::LongPoll => "long-poll",
            Self::ShortPoll => "short-poll",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
