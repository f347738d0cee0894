//! [`ManagedSession`]: a session whose client may manage its stream (XEP-0198), and say that nobody looks at it (XEP-0352).

use std::future::pending;
use std::time::Duration;

use futures_util::FutureExt;
use minidom::Element;
use tokio::time::{Instant, sleep_until};

use super::ClientFront;
use super::acks::{HandledCountTooHigh, STREAM_MANAGEMENT, StreamAcks};
use super::login::CLIENT_STATE;
use super::resumption::StreamPlace;
use super::session::{CHANGED_MAX, ClientSession};
use crate::budget::Charge;
use crate::xmpp::service::PUSH;
use crate::xmpp::xml::{CLIENT, to_bytes};

/// A session with stream management and client state.
pub(super) struct ManagedSession {
    pub(super) session: ClientSession,
    /// `None`: the client has not enabled stream management.
    pub(super) acks: Option<Box<StreamAcks>>,
    /// `None`: the stream cannot be resumed.
    pub(super) resumable: Option<Box<Resumable>>,
    /// A stanza is being handled. If it stays so, nobody knows what became of it.
    pub(super) is_busy: bool,
    activity: ClientActivity,
    /// Subscriptions to serve before the next stanza of the client.
    flushes: usize,
}

/// What a session has whose stream can be resumed.
pub(super) struct Resumable {
    pub(super) place: StreamPlace,
    pub(super) resume_time: Duration,
    /// The charge of the notifications that are not acknowledged.
    pub(super) charge: Charge,
    /// Stanzas of the client that a gateway that is started again knows to be handled.
    pub(super) saved: u32,
    pub(super) saved_at: Instant,
}

/// Whether somebody looks at the client, as it says itself.
enum ClientActivity {
    Active,
    Inactive {
        /// Notifications wait until then.
        next_batch: Instant,
    },
}

impl ManagedSession {
    pub(super) fn new(session: ClientSession) -> Self {
        let activity = ClientActivity::Active;
        Self { session, acks: None, resumable: None, is_busy: false, activity, flushes: 0 }
    }

    /// Handles an element of the client. Returns the bytes of the elements that answer it. After an error the stream ends.
    pub(super) async fn handle(&mut self, received: Element) -> Result<Vec<Vec<u8>>, HandledCountTooHigh> {
        if received.has_ns(STREAM_MANAGEMENT) {
            return self.manage(&received).await;
        }
        if received.has_ns(CLIENT_STATE) {
            self.set_activity(received.name());
            return Ok(Vec::new());
        }
        let is_stanza = received.has_ns(CLIENT) && matches!(received.name(), "iq" | "message" | "presence");
        let is_push = received.children().any(|child| child.has_ns(PUSH));
        self.is_busy = true;
        let encoded = self.session.handle(received).await;
        self.is_busy = false;
        if is_push {
            self.push_changed().await;
        }
        if let Some(acks) = &mut self.acks {
            encoded.iter().for_each(|_| acks.sent());
            if is_stanza {
                acks.handled();
            }
        }
        Ok(encoded)
    }

    /// Takes what the client says about itself (XEP-0352, section 4.2). What has waited until it is active is sent before it is answered
    /// anything else (section 5.1).
    fn set_activity(&mut self, state: &str) {
        match (state, &self.activity) {
            ("active", ClientActivity::Inactive { .. }) => {
                self.activity = ClientActivity::Active;
                self.session.join_device();
                while self.session.service.subscriptions.changed(CHANGED_MAX).now_or_never().is_some() {}
                self.flushes = self.session.service.subscriptions.with(|table| table.due_len());
            }
            ("inactive", ClientActivity::Active) => {
                self.activity = ClientActivity::inactive(&self.session.front);
                self.session.leave_device();
            }
            _ => {}
        }
    }

    /// Whether the client says that nobody looks at it.
    pub(super) fn is_inactive(&self) -> bool {
        matches!(self.activity, ClientActivity::Inactive { .. })
    }

    /// Waits until there may be messages to send to the client. Cancel safe.
    pub(super) async fn changed(&self) {
        if !self.has_room() {
            return pending().await;
        }
        while !self.session.has_messages() {
            self.session.service.subscriptions.changed(CHANGED_MAX).await;
        }
        if let ClientActivity::Inactive { next_batch } = self.activity {
            sleep_until(next_batch).await;
        }
    }

    /// Whether messages are to be sent before the next stanza of the client is handled.
    pub(super) fn is_flushing(&self) -> bool {
        self.flushes > 0 && self.has_room()
    }

    fn has_room(&self) -> bool {
        self.acks.as_deref().is_none_or(StreamAcks::has_room)
    }

    /// Returns the bytes of stanzas with the next messages of one subscription, which count as sent.
    pub(super) async fn next_messages(&mut self) -> Vec<Vec<u8>> {
        let Some(due) = self.session.take_due() else {
            self.flushes = 0;
            return Vec::new();
        };
        self.flushes = self.flushes.saturating_sub(1);
        let mut sent = Vec::new();
        for (bytes, next) in self.session.deliver(&due).await {
            sent.push(bytes);
            match &mut self.acks {
                Some(acks) if self.resumable.is_some() => acks.notified(&due.key, next),
                Some(acks) => acks.sent(),
                None => {}
            }
        }
        if self.resumable.is_some() {
            self.charge_unacknowledged();
            sent.extend(self.acks.as_deref_mut().and_then(StreamAcks::ask).as_ref().map(to_bytes));
        } else {
            self.session.confirm_sent();
        }
        if self.is_inactive() && !self.session.has_messages() {
            self.activity = ClientActivity::inactive(&self.session.front);
        }
        sent
    }
}

impl ClientActivity {
    /// A client that becomes inactive, or has just been sent a batch.
    fn inactive(front: &ClientFront) -> Self {
        Self::Inactive { next_batch: Instant::now() + front.limits.xmpp_inactive_interval.get() }
    }
}
