//! How far a reader of many streams has come in one of them.

use super::{Offset, Start};

/// What a reader knows of a stream. It goes into the reader's cursor, so that each thing is told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing yet: begins at the earliest message that is kept.
    Earliest,
    /// The reader has all that lies before.
    At(Offset),
    /// The same, and knows that the stream is closed.
    Closed(Offset),
    /// It was told that there is no such stream. When there is one, it gets all of it.
    Missing,
}

impl Progress {
    /// Where to read on. One who waits for a stream to begin misses something if it is trimmed before it is read,
    /// and so reads from the zero offset, for which the store can say so.
    pub fn start(self) -> Start {
        match self {
            Self::Earliest => Start::Earliest,
            Self::At(offset) | Self::Closed(offset) => Start::At(offset),
            Self::Missing => Start::At(Offset::ZERO),
        }
    }

    /// Whether the stream was looked at before.
    pub fn is_known(self) -> bool {
        self != Self::Earliest
    }
}
