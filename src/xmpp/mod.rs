//! The XMPP front: a publish-subscribe service (XEP-0060) whose nodes are the streams that HTTP reads.
//!
//! [`Component`] connects it to an XMPP server, which has the clients. [`ClientFront`] serves clients that connect to the gateway itself, over
//! WebSocket, and [`BoshFront`] those that talk in HTTP requests. All use:
//!
//! * `xml` turns the bytes of a stream, cut anywhere, into elements (`StreamDecoder`), or a whole frame into one (`parse_document`), within
//!   limits, and elements into bytes. Stanzas are in the namespace `jabber:client`; `in_namespace` moves those of another link. No IO.
//! * `stanza` says what a stanza is (`Stanza::read`), and makes answers and errors. `page` and `payload` do the same for pages of
//!   results and for messages. No IO.
//! * `PubsubService` answers requests: `PubsubService::handle(who, request)` returns the stanzas to send. `who` is a `Requester`, an address that the
//!   link has verified and its grants; a link with tokens makes one from the grants of its token. Requests of one address are
//!   to be handled one after the other.
//! * `JidSubscriptions` has the subscriptions of all addresses with their stored offsets; `PubsubService::deliver` reads what is due. A link that
//!   has the client itself notes what is `sent`, and `confirm`s what the client has acknowledged.

mod audit;
mod bosh;
mod client;
mod component;
mod delivery;
#[cfg(test)]
#[path = "../../fuzz/xmpp_request.rs"]
mod fuzz;
mod items;
mod jid;
mod nodes;
mod page;
mod payload;
mod service;
mod stanza;
mod subscribe;
mod subscriptions;
mod xml;

use std::sync::Arc;

use minidom::Element;
use tokio::sync::watch;

use crate::access_log::audit::AuditLog;
use crate::auth::{Authenticator, Grants};
use crate::clock::Clock;
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::{Metrics, XmppMetrics};
use crate::stream::{Failure, Principal};
use jid::Jid;
use stanza::{StanzaError, answer, answered_by};
use subscriptions::JidSubscriptions;
use xml::{CLIENT, in_namespace, to_bytes};

pub use bosh::{BoshFront, ParkedRequest};
pub use client::ClientFront;
pub use component::{Component, ComponentSettings};
pub use jid::InvalidJid;

/// Answers the requests of XMPP clients, and keeps their subscriptions.
struct PubsubService {
    hub: Arc<Hub>,
    limits: Arc<Limits>,
    metrics: XmppMetrics,
    clock: Clock,
    auth: Arc<Authenticator>,
    /// The address of the service.
    name: Jid,
    subscriptions: JidSubscriptions,
    /// `None`: there is no audit log.
    audit_log: Option<AuditLog>,
}

/// The client that sends a request.
#[derive(Debug, Clone)]
struct Requester {
    /// Its address, as the link that it comes from has verified it.
    jid: Jid,
    grants: Arc<Grants>,
    /// Whom quotas apply to.
    principal: Principal,
    /// The place of the request among those that the client may send again. `None`: it sends none again.
    place: Option<Box<RequestPlace>>,
}

/// The place of a request of a client that sends it again if it does not know whether it was handled.
#[derive(Debug, Clone)]
struct RequestPlace {
    /// Distinguishes the client from all others of its principal.
    session: Arc<str>,
    /// Grows with each request.
    number: u64,
}

impl PubsubService {
    /// Creates the service, and loads the subscriptions that the store has kept.
    async fn load(
        hub: Arc<Hub>,
        limits: Arc<Limits>,
        metrics: &Metrics,
        clock: Clock,
        auth: Arc<Authenticator>,
        name: Jid,
    ) -> Result<Self, Failure> {
        let metrics = metrics.xmpp().clone();
        let subscriptions = JidSubscriptions::load(&hub, &limits, &auth, metrics.clone()).await?;
        Ok(Self { hub, limits, metrics, clock, auth, name, subscriptions, audit_log: None })
    }

    /// Creates the service for one client, whose subscriptions are not stored.
    fn of_client(
        (hub, limits): (Arc<Hub>, Arc<Limits>),
        metrics: XmppMetrics,
        clock: Clock,
        auth: Arc<Authenticator>,
        name: Jid,
        client: Principal,
    ) -> Self {
        let subscriptions = JidSubscriptions::of_client(&hub, &limits, metrics.clone(), client);
        Self { hub, limits, metrics, clock, auth, name, subscriptions, audit_log: None }
    }

    /// The client whose address the server of a component's link vouches for.
    fn requester(&self, jid: Jid) -> Requester {
        let grants = self.auth.jid(jid.bare().as_str());
        // The rights of an address have a subject; without any, all such clients share the quota of the gateway.
        let principal = grants.principal().unwrap_or(Principal::GATEWAY);
        Requester { jid, grants, principal, place: None }
    }

    /// The bytes of a stanza in the namespace of a link. An answer that is too large is replaced by an error; any other stanza is
    /// left out.
    fn encode(&self, stanza: Element, namespace: &str) -> Vec<u8> {
        let answered = answered_by(&stanza);
        let bytes = to_bytes(&in_namespace(stanza, CLIENT, namespace));
        match answered {
            _ if bytes.len() <= self.limits.xmpp_stanza_bytes_max => bytes,
            None => Vec::new(),
            Some((id, to)) => {
                let refused = answer(&id, Some(&self.name), &to, Err(StanzaError::answer_too_large()));
                to_bytes(&in_namespace(refused, CLIENT, namespace))
            }
        }
    }
}

/// Waits until the gateway drains. Cancel safe.
async fn drain_begins(draining: &mut watch::Receiver<bool>) {
    let _begun = draining.wait_for(|draining| *draining).await;
}
