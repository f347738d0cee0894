//! A poll on its wait queue.

use std::sync::OnceLock;
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::ClientId;
use crate::stream::{Offset, StreamName};

/// Why a held poll ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hub) enum Ending {
    /// A newer poll of the same client for the same subject.
    Superseded,
    /// The gateway drains.
    Draining,
}

/// What a poll waits for. A client holds one poll for each stream, and one for many at once.
#[derive(Debug, Clone)]
pub(in crate::hub) enum Subject {
    Stream(StreamName),
    /// So many streams.
    Streams(usize),
}

/// What its queue knows of a poll. There may be very many of them.
pub(super) struct HeldPoll {
    pub(super) number: u64,
    pub(super) client: Option<ClientId>,
    pub(super) subject: Subject,
    pub(super) cursor: Option<Offset>,
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    ending: OnceLock<Ending>,
    waker: AtomicWaker,
}

impl Subject {
    /// Whether a newer poll for `other` is in place of one for this.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Stream(one), Self::Stream(other)) => one == other,
            (Self::Streams(_), Self::Streams(_)) => true,
            (Self::Stream(_), Self::Streams(_)) | (Self::Streams(_), Self::Stream(_)) => false,
        }
    }
}

impl HeldPoll {
    /// One that is held from now on.
    pub(super) fn new(
        number: u64,
        client: Option<ClientId>,
        subject: Subject,
        cursor: Option<Offset>,
        deadline: Instant,
    ) -> Self {
        let (ending, waker) = Default::default();
        Self { number, client, subject, cursor, since: Instant::now(), deadline, ending, waker }
    }

    /// Has it end; whether nobody did before.
    pub(super) fn end(&self, ending: Ending) -> bool {
        let first = self.ending.set(ending).is_ok();
        if first {
            self.waker.wake();
        }
        first
    }

    /// Waits until it has to end.
    pub(super) fn poll_ended(&self, context: &mut Context<'_>) -> Poll<Ending> {
        // Looked at behind the registration, or an end that comes between the two would wake nobody.
        self.waker.register(context.waker());
        self.ending.get().map_or(Poll::Pending, |ending| Poll::Ready(*ending))
    }
}
