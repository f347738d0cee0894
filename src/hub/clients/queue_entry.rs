//! A held poll as its wait queue sees it: whose it is, what it waits for, and why it ends before its time.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::stream::{Offset, StreamName};

/// The longest client id, in bytes.
pub const CLIENT_ID_BYTES_MAX: usize = 128;

/// How a client names itself: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

/// The text is no client id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a client id is 1 to 128 visible ASCII characters")]
pub struct InvalidClientId;

impl ClientId {
    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self, InvalidClientId> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        let fits = (1..=CLIENT_ID_BYTES_MAX).contains(&text.len());
        if visible && fits { Ok(Self(text.into())) } else { Err(InvalidClientId) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a poll waits for. A client holds one poll for each stream, and one for many streams at once.
#[derive(Debug, Clone)]
pub enum Subject {
    /// One stream.
    Stream(StreamName),
    /// The number of streams.
    Streams(usize),
}

/// Why a held poll ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hub) enum HoldEnd {
    /// A newer poll of the same client for the same subject. Unless messages come first, the response waits until
    /// `answer_at`, at most until the deadline of the poll.
    Superseded { answer_at: Instant },
    /// The gateway drains.
    Draining,
}

/// A held poll. There may be very many of them.
pub(super) struct QueueEntry {
    pub(super) number: u64,
    pub(super) client: Option<ClientId>,
    pub(super) subject: Subject,
    pub(super) offset: Option<Offset>,
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    ending: OnceLock<HoldEnd>,
    waker: AtomicWaker,
}

impl QueueEntry {
    /// A poll that is held from now on.
    pub(super) fn new(
        number: u64,
        client: Option<ClientId>,
        subject: Subject,
        offset: Option<Offset>,
        deadline: Instant,
    ) -> Self {
        let (ending, waker) = Default::default();
        Self { number, client, subject, offset, since: Instant::now(), deadline, ending, waker }
    }

    /// Ends the poll. Returns whether this was the first to do so.
    pub(super) fn end(&self, ending: HoldEnd) -> bool {
        let first = self.ending.set(ending).is_ok();
        if first {
            self.waker.wake();
        }
        first
    }

    /// Waits until the poll has to end before its time.
    pub(super) fn poll_ended(&self, context: &mut Context<'_>) -> Poll<HoldEnd> {
        // Read behind the registration, or an end that comes between the two would wake nobody.
        self.waker.register(context.waker());
        self.ending.get().map_or(Poll::Pending, |ending| Poll::Ready(*ending))
    }
}

impl Subject {
    /// Whether a newer poll for `other` replaces one for this.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Stream(one), Self::Stream(other)) => one == other,
            (Self::Streams(_), Self::Streams(_)) => true,
            (Self::Stream(_), Self::Streams(_)) | (Self::Streams(_), Self::Stream(_)) => false,
        }
    }

    /// The name of the one stream.
    pub(super) fn stream(&self) -> Option<&StreamName> {
        match self {
            Self::Stream(name) => Some(name),
            Self::Streams(_) => None,
        }
    }

    /// The number of many streams.
    pub(super) fn streams(&self) -> Option<usize> {
        match self {
            Self::Stream(_) => None,
            Self::Streams(count) => Some(*count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The allocator has sizes of 160 and 192 bytes, and an `Arc` two counts of 8.
    #[test]
    fn an_entry_fits_into_160_bytes() {
        assert!(size_of::<QueueEntry>() <= 160 - 16, "{}", size_of::<QueueEntry>());
    }
}
