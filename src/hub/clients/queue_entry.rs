//! A held poll as its wait queue sees it.

use std::sync::OnceLock;
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::{ClientId, Subject};
use crate::stream::Offset;

/// Why a held poll ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hub) enum Ending {
    /// A newer poll of the same client for the same subject.
    Superseded,
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
    ending: OnceLock<Ending>,
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
    pub(super) fn end(&self, ending: Ending) -> bool {
        let first = self.ending.set(ending).is_ok();
        if first {
            self.waker.wake();
        }
        first
    }

    /// Waits until the poll has to end before its time.
    pub(super) fn poll_ended(&self, context: &mut Context<'_>) -> Poll<Ending> {
        // Read behind the registration, or an end that comes between the two would wake nobody.
        self.waker.register(context.waker());
        self.ending.get().map_or(Poll::Pending, |ending| Poll::Ready(*ending))
    }
}
