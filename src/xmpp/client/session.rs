//! [`ClientSession`]: a client that has logged in, however its stanzas come. Its stanzas are handled one after the other. Unless its stream
//! can be resumed, its subscriptions end with it: what it misses while it is away, it reads from the archive, behind the id that it
//! has seen last.

use std::future::pending;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use minidom::Element;
use tokio::time::{Instant, sleep_until};

use super::acks::{HandledCountTooHigh, STREAM_MANAGEMENT, StreamAcks};
use super::login::{CLIENT_STATE, SESSION};
use super::resumption::StreamPlace;
use super::{AdmittedClient, ClientFront};
use crate::auth::Grants;
use crate::budget::{Charge, OpenCharge};
use crate::hub::Waiter;
use crate::stream::Principal;
use crate::xmpp::jid::Jid;
use crate::xmpp::service::{DISCO_INFO, PING};
use crate::xmpp::stanza::{Request, Stanza, StanzaError, answer, returned, wants_answer};
use crate::xmpp::xml::{CLIENT, WithAttribute, element, to_bytes};
use crate::xmpp::{PubsubService, Requester};

const ROSTER: &str = "jabber:iq:roster";

/// Changed streams that are taken at once.
const CHANGED_MAX: usize = 64;

/// A client that has logged in.
pub(in crate::xmpp) struct ClientSession {
    pub(super) front: Arc<ClientFront>,
    pub(super) service: PubsubService,
    pub(super) who: Requester,
    /// `None`: the client has not enabled stream management.
    pub(super) acks: Option<Box<StreamAcks>>,
    /// `None`: the stream cannot be resumed.
    pub(super) resumable: Option<Box<Resumable>>,
    /// A stanza is being handled. If it stays so, nobody knows what became of it.
    pub(super) is_busy: bool,
    activity: ClientActivity,
    /// Subscriptions to serve before the next stanza of the client.
    flushes: usize,
    /// Counts the client for its tenant.
    open: Option<OpenCharge>,
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

impl ClientSession {
    /// A session of the client with the address `jid`. `address` is the principal of its network address.
    pub(super) fn new(
        front: Arc<ClientFront>,
        jid: Jid,
        admission: AdmittedClient,
        address: Principal,
    ) -> Self {
        let AdmittedClient { grants, open } = admission;
        let principal = grants.principal().unwrap_or(address);
        let service = PubsubService::of_client(
            (front.hub.clone(), front.limits.clone()),
            front.metrics.clone(),
            front.clock,
            front.auth.clone(),
            front.domain.clone(),
            principal,
        )
        .auditing(front.audit_log.clone());
        front.metrics.clients.inc();
        Self {
            front,
            service,
            who: Requester { jid, grants, principal },
            acks: None,
            resumable: None,
            is_busy: false,
            activity: ClientActivity::Active,
            flushes: 0,
            open,
        }
    }

    /// Returns the admission of the client, for another session. This one has to end.
    pub(super) fn leave_admission(&mut self) -> AdmittedClient {
        AdmittedClient { grants: self.who.grants.clone(), open: self.open.take() }
    }

    pub(in crate::xmpp) fn grants(&self) -> &Arc<Grants> {
        &self.who.grants
    }

    /// Handles an element of the client. Returns the bytes of the elements that answer it. After an error the stream ends.
    pub(in crate::xmpp) async fn handle(
        &mut self,
        received: Element,
    ) -> Result<Vec<Vec<u8>>, HandledCountTooHigh> {
        if received.has_ns(STREAM_MANAGEMENT) {
            return self.manage(&received).await;
        }
        if received.has_ns(CLIENT_STATE) {
            self.set_activity(received.name());
            return Ok(Vec::new());
        }
        let is_stanza = received.has_ns(CLIENT) && matches!(received.name(), "iq" | "message" | "presence");
        self.is_busy = true;
        let encoded = self.handle_stanza(received).await;
        self.is_busy = false;
        if let Some(acks) = &mut self.acks {
            encoded.iter().for_each(|_| acks.sent());
            if is_stanza {
                acks.handled();
            }
        }
        Ok(encoded)
    }

    /// Handles a stanza of a client without stream management. Returns the bytes of the stanzas that answer it.
    pub(in crate::xmpp) async fn handle_stanza(&self, stanza: Element) -> Vec<Vec<u8>> {
        let stanzas = match stanza.attr("to").map(Jid::parse) {
            // What has no address is for the account (RFC 6120, section 10.3.3), as are requests to the bare address.
            None => self.handle_for_account(stanza),
            Some(Ok(to)) if to == self.service.name => self.handle_for_service(stanza).await,
            Some(Ok(to)) if to == self.who.jid.bare() => self.handle_for_account(stanza),
            Some(_) => self.refuse(&stanza, &StanzaError::service_unavailable()),
        };
        let encoded = stanzas.into_iter().map(|stanza| self.service.encode(stanza, CLIENT));
        encoded.filter(|bytes| !bytes.is_empty()).collect()
    }

    /// Takes what the client says about itself (XEP-0352, section 4.2). What has waited until it is active is sent before it is answered
    /// anything else (section 5.1).
    fn set_activity(&mut self, state: &str) {
        match (state, &self.activity) {
            ("active", ClientActivity::Inactive { .. }) => {
                self.activity = ClientActivity::Active;
                while self.service.subscriptions.changed(CHANGED_MAX).now_or_never().is_some() {}
                self.flushes = self.service.subscriptions.with(|table| table.due_len());
            }
            ("inactive", ClientActivity::Active) => self.activity = ClientActivity::inactive(&self.front),
            _ => {}
        }
    }

    async fn handle_for_service(&self, stanza: Element) -> Vec<Element> {
        let head = head_of(&stanza);
        match Stanza::read(stanza) {
            Ok(Stanza::Request(request)) => self.service.handle(&self.who, request).await,
            Ok(Stanza::Presence { available }) => self.presence(available),
            Ok(Stanza::Answer | Stanza::Returned(_)) => Vec::new(),
            Ok(Stanza::Other) => self.refuse(&head, &StanzaError::service_unavailable()),
            Err(error) => self.refuse(&head, &error),
        }
    }

    /// Handles what clients ask of their account: there is nothing in it.
    fn handle_for_account(&self, stanza: Element) -> Vec<Element> {
        let head = head_of(&stanza);
        let request = match Stanza::read(stanza) {
            Ok(Stanza::Request(request)) => request,
            Ok(Stanza::Presence { available }) => return self.presence(available),
            Ok(_) => return self.refuse(&head, &StanzaError::service_unavailable()),
            Err(error) => return self.refuse(&head, &error),
        };
        let Request { id, is_set, payload } = request;
        let outcome = match (&*payload.ns(), payload.name(), is_set) {
            (PING, "ping", false) | (SESSION, "session", true) => Ok(None),
            (ROSTER, "query", false) => Ok(Some(element("query", ROSTER).build())),
            (DISCO_INFO, "query", false) => Ok(Some(account())),
            _ => Err(StanzaError::service_unavailable()),
        };
        vec![answer(&id, addressee(&head).as_ref(), &self.who.jid, outcome)]
    }

    /// While the client is not available, it is sent no messages.
    fn presence(&self, is_available: bool) -> Vec<Element> {
        self.service.subscriptions.with(|table| table.presence(&self.who.jid, is_available));
        Vec::new()
    }

    fn refuse(&self, stanza: &Element, error: &StanzaError) -> Vec<Element> {
        if wants_answer(stanza) {
            let id = stanza.attr("id").unwrap_or_default();
            let from = addressee(stanza);
            return vec![answer(id, from.as_ref(), &self.who.jid, Err(error.clone()))];
        }
        returned(stanza, &self.who.jid, error).into_iter().collect()
    }

    /// Whether there may be messages for the client.
    pub(in crate::xmpp) fn has_messages(&self) -> bool {
        self.service.subscriptions.with(|table| table.has_due())
    }

    /// Poll form of [`changed`](Self::changed), for state machines that are not futures. `waiter` must be dropped together with the session.
    pub(in crate::xmpp) fn poll_changed(&self, waiter: &mut Waiter, cx: &mut Context<'_>) -> Poll<()> {
        while !self.has_messages() {
            ready!(self.service.subscriptions.poll_changed(waiter, cx, CHANGED_MAX));
        }
        Poll::Ready(())
    }

    /// When streams that could not be read are read again, for callers of [`poll_changed`](Self::poll_changed). `None`: there are none.
    pub(in crate::xmpp) fn retry_at(&self) -> Option<Instant> {
        self.service.subscriptions.retry_at()
    }

    /// Waits until there may be messages to send to the client. Cancel safe.
    pub(in crate::xmpp) async fn changed(&self) {
        if !self.has_room() {
            return pending().await;
        }
        while !self.has_messages() {
            self.service.subscriptions.changed(CHANGED_MAX).await;
        }
        if let ClientActivity::Inactive { next_batch } = self.activity {
            sleep_until(next_batch).await;
        }
    }

    /// Whether messages are to be sent before the next stanza of the client is handled.
    pub(in crate::xmpp) fn is_flushing(&self) -> bool {
        self.flushes > 0 && self.has_room()
    }

    fn has_room(&self) -> bool {
        self.acks.as_deref().is_none_or(StreamAcks::has_room)
    }

    /// The same as [`next_messages`](Self::next_messages) for a client without stream management.
    pub(in crate::xmpp) async fn next_stanzas(&self) -> Vec<Vec<u8>> {
        let Some(due) = self.service.subscriptions.with(|table| table.take_due()) else { return Vec::new() };
        let notifications = self.service.deliver(&due).await;
        self.confirm_sent();
        let encoded = notifications.into_iter().map(|one| self.service.encode(one.stanza, CLIENT));
        encoded.filter(|bytes| !bytes.is_empty()).collect()
    }

    /// What was sent counts as received: nobody sends it again over another connection.
    fn confirm_sent(&self) {
        self.service.subscriptions.with(|table| {
            let sent = table.unconfirmed();
            table.confirm(sent);
        });
    }

    /// Returns the bytes of stanzas with the next messages of one subscription, which count as sent.
    pub(in crate::xmpp) async fn next_messages(&mut self) -> Vec<Vec<u8>> {
        let Some(due) = self.service.subscriptions.with(|table| table.take_due()) else {
            self.flushes = 0;
            return Vec::new();
        };
        self.flushes = self.flushes.saturating_sub(1);
        let mut sent = Vec::new();
        for notification in self.service.deliver(&due).await {
            let bytes = self.service.encode(notification.stanza, CLIENT);
            if bytes.is_empty() {
                continue;
            }
            sent.push(bytes);
            match &mut self.acks {
                Some(acks) if self.resumable.is_some() => acks.notified(&due.key, notification.next),
                Some(acks) => acks.sent(),
                None => {}
            }
        }
        if self.resumable.is_some() {
            self.charge_unacknowledged();
            sent.extend(self.acks.as_deref_mut().and_then(StreamAcks::ask).as_ref().map(to_bytes));
        } else {
            self.confirm_sent();
        }
        if matches!(self.activity, ClientActivity::Inactive { .. })
            && !self.service.subscriptions.with(|table| table.has_due())
        {
            self.activity = ClientActivity::inactive(&self.front);
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

impl Drop for ClientSession {
    fn drop(&mut self) {
        self.front.metrics.clients.dec();
    }
}

/// The address that a stanza is sent to.
fn addressee(stanza: &Element) -> Option<Jid> {
    stanza.attr("to").and_then(|text| Jid::parse(text).ok())
}

/// A stanza without its content, from which an error is made.
fn head_of(stanza: &Element) -> Element {
    let mut head = Element::bare(stanza.name(), stanza.ns());
    *head.attrs_mut() = stanza.attrs().clone();
    head
}

/// What an account can do (XEP-0030, section 3).
fn account() -> Element {
    let identity = element("identity", DISCO_INFO).with("category", "account").with("type", "registered");
    let features = [PING, DISCO_INFO].map(|name| element("feature", DISCO_INFO).with("var", name).build());
    element("query", DISCO_INFO).append(identity.build()).append_all(features).build()
}
