//! A held poll as an entry of its wait queue: its client, its subject, and the reason if it ends before its
//! deadline.

use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::budget::OpenCharge;
use crate::stream::{Offset, StreamName};

/// Maximum length of a client id, in bytes.
pub const CLIENT_ID_BYTES_MAX: usize = 128;

/// Separates the subject of a token from the id that a client of it has chosen, as in the sessions of MQTT.
const SEPARATOR: char = '\u{1f}';

/// Id that a client gives itself: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

/// The text is not a valid client id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a client id must be 1 to 128 visible ASCII characters")]
pub struct InvalidClientId;

impl ClientId {
    /// Parses a client id.
    pub fn parse(text: &str) -> Result<Self, InvalidClientId> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        let fits = (1..=CLIENT_ID_BYTES_MAX).contains(&text.len());
        if visible && fits { Ok(Self(text.into())) } else { Err(InvalidClientId) }
    }

    /// An id that the gateway has stored.
    pub(in crate::hub) fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The id as text, with the subject that it belongs to.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same id as that of a subject, which no other subject can have.
    pub fn of_subject(&self, subject: &str) -> Self {
        Self(format!("{subject}{SEPARATOR}{}", self.0).into())
    }

    /// The subject that it belongs to, if the gateway checks credentials.
    pub fn subject(&self) -> Option<&str> {
        self.0.rsplit_once(SEPARATOR).map(|(subject, _)| subject)
    }

    /// The id that the client gave itself.
    pub fn chosen(&self) -> &str {
        self.0.rsplit_once(SEPARATOR).map_or(&self.0, |(_, id)| id)
    }
}

/// What a poll waits for. A client holds at most one poll per stream, and one poll of many streams.
#[derive(Debug, Clone)]
pub enum Subject {
    /// One stream.
    Stream(StreamName),
    /// Many streams; the value is their number.
    Streams(usize),
}

/// Identifies the credentials of a held poll. The hub only keeps it; the caller of
/// [`Hub::end_polls`](crate::hub::Hub::end_polls) interprets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CredentialMark(pub NonZeroU64, pub u64);

/// Why a held poll ends before its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hub) enum HoldEnd {
    /// A newer poll of the same client for the same subject. The response waits until this time after the
    /// beginning of the hold or until its end, whichever is first, unless a message arrives before.
    Superseded { answer_after: Millis },
    /// The gateway is draining, or memory is critical.
    Draining,
    /// The credentials of the client give no rights any more.
    Unauthorized,
}

/// A time in milliseconds, rounded up, of at most 49 days. It takes less memory than a `Duration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hub) struct Millis(u32);

impl From<Duration> for Millis {
    fn from(time: Duration) -> Self {
        Self(u32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u32::MAX))
    }
}

impl From<Millis> for Duration {
    fn from(time: Millis) -> Self {
        Self::from_millis(time.0.into())
    }
}

/// A held poll. Kept small, since there may be very many.
pub(super) struct QueueEntry {
    pub(super) number: u64,
    pub(super) client: Option<ClientId>,
    pub(super) subject: Subject,
    pub(super) offset: Option<Offset>,
    pub(super) since: Instant,
    /// How long the poll is held.
    hold: Millis,
    /// `None`: the gateway checks no credentials, or the client has none.
    pub(super) credentials: Option<CredentialMark>,
    ending: OnceLock<HoldEnd>,
    waker: AtomicWaker,
    /// Counts the poll for its tenant, until it is answered.
    _open: Option<OpenCharge>,
}

impl QueueEntry {
    /// Creates the entry of a poll whose hold starts now.
    pub(super) fn new(
        number: u64,
        client: Option<ClientId>,
        subject: Subject,
        offset: Option<Offset>,
        hold: Duration,
        (credentials, open): (Option<CredentialMark>, Option<OpenCharge>),
    ) -> Self {
        let (ending, waker) = Default::default();
        let (since, hold) = (Instant::now(), hold.into());
        Self { number, client, subject, offset, since, hold, credentials, ending, waker, _open: open }
    }

    /// When the poll is answered at the latest.
    pub(super) fn deadline(&self) -> Instant {
        self.since + self.hold.into()
    }

    /// Ends the poll. Returns whether this call ended it, and not an earlier one.
    pub(super) fn end(&self, ending: HoldEnd) -> bool {
        let first = self.ending.set(ending).is_ok();
        if first {
            self.waker.wake();
        }
        first
    }

    /// Why the poll must end before its deadline, if it must.
    pub(super) fn ending(&self) -> Option<HoldEnd> {
        self.ending.get().copied()
    }

    /// Waits until the poll must end before its deadline.
    pub(super) fn poll_ended(&self, context: &mut Context<'_>) -> Poll<HoldEnd> {
        // Read after the waker is registered: an end between the two would otherwise wake nothing.
        self.waker.register(context.waker());
        self.ending().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Subject {
    /// Whether a newer poll for `other` supersedes a poll for this subject.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Stream(one), Self::Stream(other)) => one == other,
            (Self::Streams(_), Self::Streams(_)) => true,
            (Self::Stream(_), Self::Streams(_)) | (Self::Streams(_), Self::Stream(_)) => false,
        }
    }

    /// Returns the stream name, unless the poll is for many streams.
    pub(super) fn stream(&self) -> Option<&StreamName> {
        match self {
            Self::Stream(name) => Some(name),
            Self::Streams(_) => None,
        }
    }

    /// Returns the number of streams of a poll for many streams.
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

    /// The allocator has size classes of 160 and 192 bytes, and an `Arc` adds two counts of 8 bytes.
    #[test]
    fn an_entry_fits_into_160_bytes() {
        assert!(size_of::<QueueEntry>() <= 160 - 16, "{}", size_of::<QueueEntry>());
    }
}
