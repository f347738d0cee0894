//! Answers the requests of XMPP clients, over whatever link they come, and maps errors of reads.

use minidom::{Element, ElementBuilder};

use super::page::PageQuery;
use super::stanza::{Request, StanzaError, answer, failed};
use super::xml::{POLLGATE, WithAttribute, element};
use super::{PubsubService, Requester};
use crate::stream::{Gap, GapReason, ReadError, StreamName};

pub(super) const PING: &str = "urn:xmpp:ping";
pub(super) const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
pub(super) const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
pub(super) const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
pub(super) const PUBSUB_OWNER: &str = "http://jabber.org/protocol/pubsub#owner";
pub(super) const ARCHIVE: &str = "urn:xmpp:mam:2";
pub(super) const DATA_FORM: &str = "jabber:x:data";
pub(super) const PUSH: &str = "urn:xmpp:push:0";

impl PubsubService {
    /// Answers a request. The last stanza is the answer; results of an archive come before it.
    pub(super) async fn handle(&self, who: &Requester, request: Request) -> Vec<Element> {
        self.metrics.requests.inc();
        let mut stanzas = Vec::new();
        let outcome = self.perform(who, &request, &mut stanzas).await;
        if let Err(error) = &outcome {
            self.metrics.requests_failed.inc();
            tracing::debug!(jid = %who.jid, ?error, "an XMPP request failed");
        }
        stanzas.push(answer(&request.id, Some(&self.name), &who.jid, outcome));
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
                None if payload.get_child("purge", PUBSUB_OWNER).is_some() => {
                    Err(StanzaError::unsupported("purge-nodes"))
                }
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
            // Messages stay until retention trims them.
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
        ReadError::Gap(gap) => StanzaError::item_not_found().saying(gap_element(&gap).build()),
        ReadError::Failed(failure) => failed(failure),
    }
}

/// The element that tells a client of messages that are gone.
pub(super) fn gap_element(gap: &Gap) -> ElementBuilder {
    let said = element("gap", POLLGATE).with("earliest", gap.earliest.to_string());
    match gap.reason {
        GapReason::Trimmed { missed } | GapReason::Damaged { missed } => {
            said.with("missed", missed.to_string())
        }
        GapReason::Epoch => said,
    }
}
