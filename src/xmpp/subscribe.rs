//! Requests of clients about their subscriptions (XEP-0060, section 6).

use minidom::Element;

use super::jid::Jid;
use super::service::{PUBSUB, stream_of};
use super::stanza::{StanzaError, failed};
use super::subscriptions::SubscriptionKey;
use super::xml::{WithAttribute, element};
use super::{PubsubService, Requester};
use crate::stream::StreamName;

impl PubsubService {
    /// Subscribes an address of the client to a node, from now on.
    pub(super) async fn subscribe(
        &self,
        who: &Requester,
        request: &Element,
        subscribe: &Element,
    ) -> Result<Element, StanzaError> {
        let invalid = || StanzaError::bad_request().because("invalid-jid");
        let jid = own_address(who, subscribe, invalid)?;
        let name = stream_of(who, subscribe)?;
        if request.get_child("options", PUBSUB).is_some() {
            return Err(StanzaError::unsupported("subscription-options"));
        }
        let tail = self.readable(who, &name).await?.tail;
        let key = SubscriptionKey { stream: name, jid };
        self.subscriptions.add(key.clone(), &who.grants, tail).await?;
        Ok(element("pubsub", PUBSUB).append(subscription(&key.stream, &key.jid)).build())
    }

    /// Ends a subscription of the client.
    pub(super) async fn unsubscribe(
        &self,
        who: &Requester,
        unsubscribe: &Element,
    ) -> Result<Option<Element>, StanzaError> {
        let jid = own_address(who, unsubscribe, StanzaError::forbidden)?;
        let key = SubscriptionKey { stream: stream_of(who, unsubscribe)?, jid };
        if self.subscriptions.remove(&key).await.map_err(failed)? {
            return Ok(None);
        }
        self.readable(who, &key.stream).await?;
        Err(StanzaError::unexpected_request().because("not-subscribed"))
    }

    /// Lists the subscriptions of the client, of one node or of all.
    pub(super) fn list_subscriptions(&self, who: &Requester, query: &Element) -> Element {
        let node = query.attr("node");
        let own = self.subscriptions.with(|table| table.of(&who.jid.bare()));
        let asked = own.iter().filter(|key| node.is_none_or(|node| node == key.stream.local()));
        let listed =
            element("subscriptions", PUBSUB).append_all(asked.map(|key| subscription(&key.stream, &key.jid)));
        element("pubsub", PUBSUB).append(listed.build()).build()
    }
}

/// The address that a client subscribes or unsubscribes, which must be its own, with a resource or without. `of_others` is the error if it
/// is another one (XEP-0060, sections 6.1.3.1 and 6.2.3.3).
fn own_address(
    who: &Requester,
    element: &Element,
    of_others: impl Fn() -> StanzaError,
) -> Result<Jid, StanzaError> {
    let invalid = || StanzaError::bad_request().because("invalid-jid");
    let jid = Jid::parse(element.attr("jid").ok_or_else(invalid)?).map_err(|_| invalid())?;
    if jid.bare() == who.jid.bare() { Ok(jid) } else { Err(of_others()) }
}

fn subscription(stream: &StreamName, jid: &Jid) -> Element {
    element("subscription", PUBSUB)
        .with("node", stream.local())
        .with("jid", jid.as_str())
        .with("subscription", "subscribed")
        .build()
}
