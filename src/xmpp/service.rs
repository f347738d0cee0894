//! [`PubsubService`]: the publish-subscribe service that XMPP clients talk to, over whatever link their stanzas come. It answers requests.

use std::sync::Arc;

use minidom::Element;

use super::jid::Jid;
use super::page::PageQuery;
use super::stanza::{Request, StanzaError, answer, failed};
use super::subscriptions::JidSubscriptions;
use super::xml::{POLLGATE, WithAttribute, element};
use crate::auth::{Authenticator, Grants};
use crate::clock::Clock;
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::{Metrics, XmppMetrics};
use crate::stream::{Failure, GapReason, Principal, ReadError, StreamName};

pub(super) const PING: &str = "urn:xmpp:ping";
pub(super) const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
pub(super) const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
pub(super) const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
pub(super) const PUBSUB_OWNER: &str = "http://jabber.org/protocol/pubsub#owner";
pub(super) const ARCHIVE: &str = "urn:xmpp:mam:2";
pub(super) const DATA_FORM: &str = "jabber:x:data";

/// Answers the requests of XMPP clients, and keeps their subscriptions.
pub(super) struct PubsubService {
    pub(super) hub: Arc<Hub>,
    pub(super) limits: Arc<Limits>,
    pub(super) metrics: XmppMetrics,
    pub(super) clock: Clock,
    auth: Arc<Authenticator>,
    /// The address of the service.
    pub(super) name: Jid,
    pub(super) subscriptions: JidSubscriptions,
}

/// The client that sends a request.
#[derive(Debug, Clone)]
pub(super) struct Requester {
    /// Its address, as the link that it comes from has verified it.
    pub(super) jid: Jid,
    pub(super) grants: Arc<Grants>,
}

impl Requester {
    /// Whom quotas apply to.
    pub(super) fn principal(&self) -> Principal {
        // The rights of an address have a subject; without any, all such clients share the quota of the gateway.
        self.grants.principal().unwrap_or(Principal::GATEWAY)
    }
}

impl PubsubService {
    /// Creates the service, and loads the subscriptions that the store has kept.
    pub(super) async fn load(
        hub: Arc<Hub>,
        limits: Arc<Limits>,
        metrics: &Metrics,
        clock: Clock,
        auth: Arc<Authenticator>,
        name: Jid,
    ) -> Result<Self, Failure> {
        let metrics = metrics.xmpp().clone();
        let subscriptions = JidSubscriptions::load(&hub, &limits, &auth, metrics.clone()).await?;
        Ok(Self { hub, limits, metrics, clock, auth, name, subscriptions })
    }

    /// The client whose address the server of a component's link vouches for.
    pub(super) fn requester(&self, jid: Jid) -> Requester {
        let grants = self.auth.jid(jid.bare().as_str());
        Requester { jid, grants }
    }

    /// Answers a request. The last stanza is the answer; results of an archive come before it.
    pub(super) async fn handle(&self, who: &Requester, request: Request) -> Vec<Element> {
        self.metrics.requests.inc();
        let mut stanzas = Vec::new();
        let outcome = self.perform(who, &request, &mut stanzas).await;
        if let Err(error) = &outcome {
            self.metrics.requests_failed.inc();
            tracing::debug!(jid = %who.jid, ?error, "an XMPP request failed");
        }
        stanzas.push(answer(&request.id, &self.name, &who.jid, outcome));
        stanzas
    }

    async fn perform(
        &self,
        who: &Requester,
        request: &Request,
        stanzas: &mut Vec<Element>,
    ) -> Result<Option<Element>, StanzaError> {
        let Request { is_set, payload, .. } = request;
        let namespace = payload.ns();
        match (&*namespace, payload.name(), is_set) {
            (PING, "ping", false) => Ok(None),
            (DISCO_INFO, "query", false) => self.describe(who, payload).await.map(Some),
            (DISCO_ITEMS, "query", false) => self.list(who, payload).await.map(Some),
            (PUBSUB, "pubsub", _) => self.publish_subscribe(who, payload, *is_set).await,
            (PUBSUB_OWNER, "pubsub", true) => match payload.get_child("delete", PUBSUB_OWNER) {
                Some(delete) => self.delete(who, delete).await,
                None => Err(StanzaError::unsupported("config-node")),
            },
            (PUBSUB_OWNER, "pubsub", false) => Err(StanzaError::unsupported("config-node")),
            (ARCHIVE, "query", true) => self.query_archive(who, payload, stanzas).await.map(Some),
            _ => Err(StanzaError::service_unavailable()),
        }
    }

    async fn publish_subscribe(
        &self,
        who: &Requester,
        payload: &Element,
        is_set: bool,
    ) -> Result<Option<Element>, StanzaError> {
        let action =
            payload.children().find(|child| child.has_ns(PUBSUB)).ok_or_else(StanzaError::bad_request)?;
        match (action.name(), is_set) {
            ("create", true) => self.create(who, payload, action).await,
            ("publish", true) => self.publish(who, payload, action).await.map(Some),
            ("items", false) => self.items(who, payload, action).await.map(Some),
            ("subscribe", true) => self.subscribe(who, payload, action).await.map(Some),
            ("unsubscribe", true) => self.unsubscribe(who, action).await,
            ("subscriptions", false) => Ok(Some(self.list_subscriptions(who, action))),
            // Messages stay until retention trims them, whoever wants them to be gone.
            ("retract", true) => Err(StanzaError::unsupported("retract-items")),
            ("options", _) => Err(StanzaError::unsupported("subscription-options")),
            ("affiliations", _) => Err(StanzaError::unsupported("retrieve-affiliations")),
            ("default", _) => Err(StanzaError::unsupported("retrieve-default")),
            _ => Err(StanzaError::bad_request()),
        }
    }

    /// The page that a request asks for.
    pub(super) fn page(&self, parent: &Element) -> Result<Option<PageQuery>, StanzaError> {
        PageQuery::read(parent, self.limits.xmpp_page_max)
    }
}

/// The stream of a node: its name is that of the node, in the tenant of the client.
pub(super) fn stream_of(who: &Requester, element: &Element) -> Result<StreamName, StanzaError> {
    let node = element.attr("node").ok_or_else(|| StanzaError::bad_request().because("nodeid-required"))?;
    let name = StreamName::parse(node).map_err(|_| StanzaError::not_acceptable())?;
    Ok(name.of_tenant(who.grants.tenant()))
}

/// The error for a client that reads a stream. A missing stream and a forbidden one look the same.
pub(super) fn read_error(error: ReadError) -> StanzaError {
    match error {
        ReadError::Missing(_) | ReadError::BehindTail => StanzaError::item_not_found(),
        ReadError::Gap(gap) => {
            let said = element("gap", POLLGATE).with("earliest", gap.earliest.to_string());
            StanzaError::item_not_found().saying(match gap.reason {
                GapReason::Trimmed { missed } | GapReason::Damaged { missed } => {
                    said.with("missed", missed.to_string()).build()
                }
                GapReason::Epoch => said.build(),
            })
        }
        ReadError::Failed(failure) => failed(failure),
    }
}
