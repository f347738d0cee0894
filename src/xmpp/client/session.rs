//! [`ClientSession`]: a client that has logged in, however its stanzas come. Its stanzas are handled one after the other. Its subscriptions
//! end with it: what it misses while it is away, it reads from the archive, behind the id that it has seen last.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use minidom::Element;
use tokio::time::Instant;

use super::login::SESSION;
use super::{AdmittedClient, ClientFront};
use crate::auth::{Grants, Unauthorized};
use crate::budget::OpenCharge;
use crate::hub::Waiter;
use crate::stream::{Failure, Offset, Principal};
use crate::xmpp::jid::Jid;
use crate::xmpp::service::{DISCO_INFO, PING};
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
    /// Counts the client for its tenant.
    open: Option<OpenCharge>,
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
        Self { front, service, who: Requester { jid, grants, principal, place: None }, open }
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
            None => self.handle_for_account(stanza),
            Some(Ok(to)) if to == self.service.name => self.handle_for_service(stanza, place).await,
            Some(Ok(to)) if to == self.who.jid.bare() => self.handle_for_account(stanza),
            Some(_) => self.refuse(&stanza, &StanzaError::service_unavailable()),
        };
        let encoded = stanzas.into_iter().map(|stanza| self.service.encode(stanza, CLIENT));
        encoded.filter(|bytes| !bytes.is_empty()).collect()
    }

    async fn handle_for_service(&self, stanza: Element, place: Option<RequestPlace>) -> Vec<Element> {
        let head = head_of(&stanza);
        match Stanza::read(stanza) {
            Ok(Stanza::Request(request)) if place.is_some() => {
                let who = Requester { place: place.map(Box::new), ..self.who.clone() };
                self.service.handle(&who, request).await
            }
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

/// What an account can do (XEP-0030, section 3).
fn account() -> Element {
    let identity = element("identity", DISCO_INFO).with("category", "account").with("type", "registered");
    let features = [PING, DISCO_INFO].map(|name| element("feature", DISCO_INFO).with("var", name).build());
    element("query", DISCO_INFO).append(identity.build()).append_all(features).build()
}
