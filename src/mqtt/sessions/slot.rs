//! [`SessionSlot`]: the place of one client in the table of sessions, with its session while it is [`Away`], and who has the session or
//! waits for it.
//!
//! Wakers are woken without the lock of the slot, since a task that ends takes its lock.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::auth::{CredentialRecord, Grants};
use crate::mqtt::codec::Will;
use crate::mqtt::session::Session;
use crate::mqtt::shares::SessionCharge;

/// A time, and a number that makes it unique.
pub(super) type Due = (Instant, u64);

/// The session of a disconnected client.
#[derive(Debug)]
pub(in crate::mqtt) struct Away {
    pub(in crate::mqtt) session: Session,
    /// When the session expires.
    pub(in crate::mqtt) until: Instant,
    pub(in crate::mqtt) will: Option<DelayedWill>,
}

impl Away {
    /// When the session has to be looked at: it expires, or its will is to be published.
    pub(in crate::mqtt) fn due(&self) -> Instant {
        self.will.as_ref().map_or(self.until, |delayed| self.until.min(delayed.at))
    }
}

/// The will of a disconnected client.
#[derive(Debug)]
pub(in crate::mqtt) struct DelayedWill {
    pub(in crate::mqtt) will: Will,
    /// When it is published.
    pub(in crate::mqtt) at: Instant,
    pub(in crate::mqtt) rights: WillRights,
}

/// What a will is published by.
#[derive(Debug)]
pub(in crate::mqtt) enum WillRights {
    /// The rights that the client had when it left.
    Held(Arc<Grants>),
    /// The session was loaded from the store, with the credentials that the client had, if it had any.
    Stored(Option<CredentialRecord>),
}

/// The slot of one client. It holds the session while no connection has it.
#[derive(Debug)]
pub(super) struct SessionSlot {
    pub(super) client: Arc<str>,
    pub(super) state: Mutex<SlotState>,
}

/// A slot in the table, by its client.
#[derive(Debug)]
pub(super) struct SlotKey(pub(super) Arc<SessionSlot>);

#[derive(Debug, Default)]
pub(super) struct SlotState {
    /// Number of the newest connection that wants the session.
    pub(super) newest: u32,
    /// Number of connections that have the session or wait for it.
    pub(super) connections: u32,
    /// A connection has the session, or who looks at it because it is due.
    pub(super) is_held: bool,
    /// The slot has been removed from the table.
    pub(super) is_removed: bool,
    /// The session, while nobody has it. `None`: there is no session yet.
    pub(super) kept: Option<Box<KeptSession>>,
    /// Wakes the connection that has the session.
    pub(super) holder: Option<Waker>,
    /// Wakes the newest connection while it waits for the session. The others do not wait any more.
    pub(super) waiting: Option<Waker>,
}

/// The session of a disconnected client in its slot.
#[derive(Debug)]
pub(super) struct KeptSession {
    pub(super) away: Away,
    pub(super) due: Due,
    pub(super) charge: SessionCharge,
}

impl SlotState {
    /// Tells the connection that has the session that another one wants it. Returns the one that waits for it, to be woken without
    /// the lock.
    pub(super) fn supersede(&mut self) -> Option<Waker> {
        self.newest = self.newest.wrapping_add(1);
        self.wake_holder();
        self.waiting.take()
    }

    /// Lets a connection that waits have the session. Returns it, to be woken without the lock.
    pub(super) fn release(&mut self) -> Option<Waker> {
        self.is_held = false;
        self.holder = None;
        self.waiting.take()
    }

    /// Waits for the connection `number` until nobody has the session, and takes it.
    pub(super) fn poll_hold(
        &mut self,
        context: &Context<'_>,
        number: u32,
    ) -> Poll<Result<Option<Box<KeptSession>>, HoldError>> {
        if self.is_removed {
            return Poll::Ready(Err(HoldError::Removed));
        }
        if self.newest != number {
            return Poll::Ready(Err(HoldError::Superseded));
        }
        if self.is_held {
            self.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        self.is_held = true;
        Poll::Ready(Ok(self.kept.take()))
    }

    pub(super) fn wake_holder(&self) {
        self.holder.iter().for_each(Waker::wake_by_ref);
    }
}

impl Borrow<str> for SlotKey {
    fn borrow(&self) -> &str {
        &self.0.client
    }
}

impl Hash for SlotKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.client.hash(state);
    }
}

impl PartialEq for SlotKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.client == other.0.client
    }
}

impl Eq for SlotKey {}

/// Why a connection does not get the session of its client.
pub(super) enum HoldError {
    /// A newer connection wants it.
    Superseded,
    /// The slot is not in the table any more; there is another one.
    Removed,
}
