//! Subscriptions and wakes as clients and workers see them (protocol, section 6). No view has a secret but the token of a wake.

use serde::Serialize;

use super::state::{Link, SubscriptionState, WakeBy, WakePhase};
use crate::stream::{Offset, StreamName};

/// The algorithm of signatures, as the protocol names it.
const SIGNATURES: &str = "ed25519";

/// The kind of a link that a client has made.
const EXPLICIT: &str = "explicit";

/// A subscription as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubscriptionView {
    id: String,
    subscription_id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    streams: Vec<LinkView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<WebhookView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wake_stream: Option<String>,
    lease_ttl_ms: u64,
    created_at: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct WebhookView {
    url: String,
    signing: SigningView,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct SigningView {
    alg: &'static str,
    kid: String,
    jwks_url: String,
}

/// A linked stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct LinkView {
    path: String,
    link_type: &'static str,
    acked_offset: String,
}

/// A linked stream as a worker sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PendingView {
    #[serde(flatten)]
    link: LinkView,
    tail_offset: String,
    has_pending: bool,
}

/// A wake as the worker that claims it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClaimView {
    pub(super) wake_id: String,
    pub(super) generation: u64,
    pub(super) token: String,
    pub(super) streams: Vec<PendingView>,
    pub(super) lease_ttl_ms: u64,
}

/// The body of a request to a webhook.
#[derive(Debug, Serialize)]
pub(super) struct WebhookBody<'a> {
    pub(super) subscription_id: &'a str,
    pub(super) wake_id: &'a str,
    pub(super) generation: u64,
    pub(super) streams: Vec<PendingView>,
    pub(super) callback_url: String,
    pub(super) callback_token: String,
}

/// A message on the stream of wakes.
#[derive(Debug, Serialize)]
pub(super) struct WakeEvent<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) subscription_id: &'a str,
    pub(super) stream: &'a str,
    pub(super) generation: u64,
    /// The time of day, in milliseconds since 1970.
    pub(super) ts: u64,
}

impl LinkView {
    fn new(name: &StreamName, link: &Link) -> Self {
        Self {
            path: name.local().to_owned(),
            link_type: if link.is_explicit { EXPLICIT } else { "glob" },
            acked_offset: link.acked.map_or_else(|| "-1".to_owned(), |acked| acked.to_string()),
        }
    }
}

impl SubscriptionView {
    /// The streams that clients have linked by their names.
    pub fn explicit_streams(&self) -> impl Iterator<Item = &str> {
        self.streams.iter().filter(|link| link.link_type == EXPLICIT).map(|link| link.path.as_str())
    }

    pub(super) fn new(id: &str, state: &SubscriptionState, key_id: &str, jwks_url: String) -> Self {
        let config = &state.config;
        // Links by name come first.
        let of_kind =
            |is_explicit| state.links.iter().filter(move |(_, link)| link.is_explicit == is_explicit);
        let links = of_kind(true).chain(of_kind(false));
        let (kind, webhook, wake_stream) = match &config.wake_by {
            WakeBy::Webhook(url) => {
                let signing = SigningView { alg: SIGNATURES, kid: key_id.to_owned(), jwks_url };
                ("webhook", Some(WebhookView { url: url.clone(), signing }), None)
            }
            WakeBy::PullWake(stream) => ("pull-wake", None, Some(stream.clone())),
        };
        Self {
            id: id.to_owned(),
            subscription_id: id.to_owned(),
            kind,
            pattern: config.pattern.as_ref().map(|pattern| pattern.as_str().to_owned()),
            streams: links.map(|(name, link)| LinkView::new(name, link)).collect(),
            webhook,
            wake_stream,
            lease_ttl_ms: config.lease_ttl_ms,
            created_at: state.created_at.clone(),
            status: if state.failures == 0 { "active" } else { "failed" },
            description: config.description.clone(),
        }
    }
}

/// All links as a worker sees them.
pub(super) fn pending_views(state: &SubscriptionState) -> Vec<PendingView> {
    let view = |(name, link): (&StreamName, &Link)| PendingView {
        link: LinkView::new(name, link),
        tail_offset: link.tail.unwrap_or(Offset::ZERO).to_string(),
        has_pending: link.is_pending(),
    };
    state.links.iter().map(view).collect()
}

/// The id of the wake that a worker holds.
pub(super) fn held_wake(state: &SubscriptionState) -> Option<&str> {
    match &state.phase {
        WakePhase::Held { wake_id, .. } => Some(wake_id),
        WakePhase::Idle { .. } | WakePhase::Woken { .. } => None,
    }
}
