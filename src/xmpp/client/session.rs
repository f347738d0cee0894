//! [`ClientSession`]: a client that has logged in, however its stanzas come. Its stanzas are handled one after the other. Its subscriptions
//! end with it: what it misses while it is away, it reads from the archive, behind the id that it has seen last.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use minidom::Element;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::login::SESSION;
use super::{AdmittedClient, ClientFront};
use crate::auth::{Grants, Unauthorized};
use crate::budget::OpenCharge;
use crate::hub::{ClientId, DeviceConnection, Waiter};
use crate::stream::{Failure, Offset, Principal};
use crate::xmpp::jid::Jid;
use crate::xmpp::service::{DISCO_INFO, PING, PUSH};
use crate::xmpp::stanza::{Request, Stanza, StanzaError, answer, returned, wants_answer};
use crate::xmpp::subscriptions::{DueSubscription, SubscriptionKey};
use crate::xmpp::xml::{CLIENT, WithAttribute, element};
use crate::xmpp::{PubsubService, RequestPlace, Requester};

const ROSTER: &str = "jabber:iq:roster";

/// Changed streams that are taken at once.
pub(super) const CHANGED_MAX: usize = 64;

/// A client that has logged in.
pub(in crate::xmpp) struct ClientSession {
    pub(super) front: Arc<ClientFront>,
    pub(super) service: PubsubService,
    pub(super) who: Requester,
    /// `None`: the client has not enabled push.
    pub(super) device: Mutex<Option<Box<PushDevice>>>,
    /// Counts the client for its tenant.
    open: Option<OpenCharge>,
}

/// The device that a client has become by enabling push.
pub(super) struct PushDevice {
    /// As that of the client's subject.
    pub(super) id: ClientId,
    /// `None`: the device is woken although its client may be connected, as nobody looks at it.
    pub(super) connection: Option<Box<DeviceConnection>>,
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
        let who = Requester { jid, grants, principal, place: None };
        Self { front, service, who, device: Mutex::default(), open }
    }

    /// The session of a client that has logged in before, at another gateway or before a restart. `grants`: see [`Grants::to_bytes`]. `Ok(None)`:
    /// whether its credentials still count is not known yet, or its tenant has no room for it.
    pub(in crate::xmpp) fn restore(
        front: &Arc<ClientFront>,
        jid: Jid,
        grants: Option<&[u8]>,
        address: Principal,
    ) -> Result<Option<Self>, Unauthorized> {
        let Some(grants) = front.auth.restore(grants, front.clock.wall())? else { return Ok(None) };
        let Ok(open) = front.hub.open(grants.tenant(), false) else { return Ok(None) };
        Ok(Some(Self::new(front.clone(), jid, AdmittedClient { grants, open }, address)))
    }

    /// Returns the admission of the client, for another session. This one has to end.
    pub(super) fn leave_admission(&mut self) -> AdmittedClient {
        AdmittedClient { grants: self.who.grants.clone(), open: self.open.take() }
    }

    /// From now on, the subscriptions of the client are stored in the session `name`.
    pub(in crate::xmpp) fn store_in(&self, name: Arc<str>) {
        self.service.subscriptions.store_in(name);
    }

    /// Stores the offsets of the client that have changed, together with other entries of its session.
    pub(in crate::xmpp) async fn save(&self, entries: Vec<(Bytes, Option<Bytes>)>) -> Result<(), Failure> {
        self.service.subscriptions.save_with(entries).await
    }

    /// Adds the subscriptions that were stored, which go on at their offsets.
    pub(in crate::xmpp) fn adopt(&self, subscriptions: Vec<(SubscriptionKey, Offset, bool)>) {
        self.service.subscriptions.adopt(subscriptions.into_iter(), &self.who.grants);
    }

    pub(in crate::xmpp) fn jid(&self) -> &Jid {
        &self.who.jid
    }

    pub(in crate::xmpp) fn grants(&self) -> &Arc<Grants> {
        &self.who.grants
    }

    /// Handles a stanza of the client. Returns the bytes of the stanzas that answer it.
    pub(in crate::xmpp) async fn handle(&self, stanza: Element) -> Vec<Vec<u8>> {
        self.handle_at(stanza, None).await
    }

    /// Handles a stanza that the client sends again if it does not know whether it was handled.
    pub(in crate::xmpp) async fn handle_at(
        &self,
        stanza: Element,
        place: Option<RequestPlace>,
    ) -> Vec<Vec<u8>> {
        let stanzas = match stanza.attr("to").map(Jid::parse) {
            // What has no address is for the account (RFC 6120, section 10.3.3), as are requests to the bare address.
            None => self.handle_for_account(stanza).await,
            Some(Ok(to)) if to == self.service.name => self.handle_for_service(stanza, place).await,
            Some(Ok(to)) if to == self.who.jid.bare() => self.handle_for_account(stanza).await,
            Some(_) => self.refuse(&stanza, &StanzaError::service_unavailable()),
        };
        let encoded = stanzas.into_iter().map(|stanza| self.service.encode(stanza, CLIENT));
        encoded.filter(|bytes| !bytes.is_empty()).collect()
    }

    async fn handle_for_service(&self, stanza: Element, place: Option<RequestPlace>) -> Vec<Element> {
        let head = head_of(&stanza);
        match Stanza::read(stanza) {
            Ok(Stanza::Request(request)) => self.perform(request, place).await,
            Ok(Stanza::Presence { available }) => self.presence(available),
            Ok(Stanza::Answer | Stanza::Returned(_)) => Vec::new(),
            Ok(Stanza::Other) => self.refuse(&head, &StanzaError::service_unavailable()),
            Err(error) => self.refuse(&head, &error),
        }
    }

    async fn perform(&self, request: Request, place: Option<RequestPlace>) -> Vec<Element> {
        let changed = self.changed_subscription(&request).map(|stream| (request.id.clone(), stream));
        let stanzas = match place {
            Some(place) => {
                let who = Requester { place: Some(Box::new(place)), ..self.who.clone() };
                self.service.handle(&who, request).await
            }
            None => self.service.handle(&self.who, request).await,
        };
        let Some((id, stream)) = changed else { return stanzas };
        match self.follow_subscription(stream).await {
            Ok(()) => stanzas,
            // The client learns that it would not be woken.
            Err(error) => vec![answer(&id, Some(&self.service.name), &self.who.jid, Err(error))],
        }
    }

    /// Handles what clients ask of their account, which has nothing but push.
    async fn handle_for_account(&self, stanza: Element) -> Vec<Element> {
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
            (DISCO_INFO, "query", false) => Ok(Some(account(self.may_enable_push()))),
            (PUSH, _, true) => self.change_push(&payload).await.map(|()| None),
            _ => Err(StanzaError::service_unavailable()),
        };
        vec![answer(&id, addressee(&head).as_ref(), &self.who.jid, outcome)]
    }

    /// While the client is not available, it is sent no messages, but may be woken for them.
    fn presence(&self, is_available: bool) -> Vec<Element> {
        match is_available {
            true => self.join_device(),
            false => self.leave_device(),
        }
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

    /// Polls for messages for the client, for state machines that are not futures. `waiter` must be dropped together with the session.
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

    /// Returns the bytes of stanzas with the next messages of one subscription, which count as sent and as received.
    pub(in crate::xmpp) async fn next_messages(&self) -> Vec<Vec<u8>> {
        let Some(due) = self.take_due() else { return Vec::new() };
        let notifications = self.deliver(&due).await;
        self.confirm_sent();
        notifications.into_iter().map(|(bytes, _)| bytes).collect()
    }

    pub(super) fn take_due(&self) -> Option<DueSubscription> {
        self.service.subscriptions.with(|table| table.take_due())
    }

    /// Returns the bytes of stanzas with the next messages of a subscription, which count as sent, each with the offset behind it.
    pub(super) async fn deliver(&self, due: &DueSubscription) -> Vec<(Vec<u8>, Offset)> {
        let notifications = self.service.deliver(due).await.into_iter();
        let encoded = notifications.map(|one| (self.service.encode(one.stanza, CLIENT), one.next));
        encoded.filter(|(bytes, _)| !bytes.is_empty()).collect()
    }

    /// What was sent counts as received: nobody sends it again over another connection.
    pub(super) fn confirm_sent(&self) {
        self.service.subscriptions.with(|table| {
            let sent = table.unconfirmed();
            table.confirm(sent);
        });
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

/// What an account can do (XEP-0030, section 3; XEP-0357, section 4.1).
fn account(may_enable_push: bool) -> Element {
    let identity = element("identity", DISCO_INFO).with("category", "account").with("type", "registered");
    let features = [PING, DISCO_INFO].into_iter().chain(may_enable_push.then_some(PUSH));
    let features = features.map(|name| element("feature", DISCO_INFO).with("var", name).build());
    element("query", DISCO_INFO).append(identity.build()).append_all(features).build()
}
