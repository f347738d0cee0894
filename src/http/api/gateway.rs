//! The state of the HTTP front, which all handlers share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::access::AccessPolicy;
use super::bosh::BoshService;
use super::fields::{Fields, TRACEPARENT, TRACESTATE};
use super::form::FormMetrics;
use super::polled_origins::OriginPolicy;
use crate::access_log::AccessLog;
use crate::access_log::audit::AuditLog;
use crate::auth::{Authenticator, Tickets};
use crate::clock::{Clock, jittered};
use crate::http::conn::SubprotocolSocket;
use crate::http_client::AddressPolicy;
use crate::hub::Hub;
use crate::hub::subscriptions::SubscriptionTable;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::stream::TraceContext;

/// The HTTP front for publishers and readers: answers requests from the hub.
pub struct Gateway {
    pub(in crate::http) hub: Arc<Hub>,
    pub(in crate::http) limits: Arc<Limits>,
    pub(in crate::http) holds: HoldPolicy,
    pub(in crate::http) metrics: Arc<Metrics>,
    pub(in crate::http) forms: FormMetrics,
    pub(in crate::http) clock: Clock,
    /// Decides which requests are accepted.
    pub(in crate::http) access: AccessPolicy,
    /// Verifies the credentials of clients.
    pub(in crate::http) auth: Arc<Authenticator>,
    pub(in crate::http) tickets: Tickets,
    /// From which origins the gateway fills streams.
    pub(in crate::http) origin_policy: OriginPolicy,
    /// Hands WebSockets with the subprotocol `mqtt` to the MQTT front.
    pub(in crate::http) mqtt_sockets: mpsc::Sender<SubprotocolSocket>,
    /// Hands WebSockets with the subprotocol `xmpp` to the XMPP front. `None`: it accepts none.
    pub(in crate::http) xmpp_sockets: Option<mpsc::Sender<SubprotocolSocket>>,
    /// Answers BOSH requests. `None`: there is no such resource.
    pub(in crate::http) bosh: Option<Arc<dyn BoshService>>,
    /// The subscriptions, if there are any.
    pub(in crate::http) subscriptions: Option<SubscriptionFront>,
    /// Where requests are logged, if they are.
    pub(in crate::http) access_log: Option<AccessLog>,
    /// Where changes and refusals are logged, if they are.
    pub(in crate::http) audit_log: Option<AuditLog>,
}

impl Gateway {
    /// Creates a front of `hub` that checks no credentials. WebSockets with the subprotocol `mqtt` are sent to `mqtt_sockets`.
    pub fn new(
        hub: Arc<Hub>,
        limits: Arc<Limits>,
        holds: HoldPolicy,
        metrics: Arc<Metrics>,
        clock: Clock,
        access: AccessPolicy,
        mqtt_sockets: mpsc::Sender<SubprotocolSocket>,
    ) -> Self {
        let forms = FormMetrics::new(metrics.clone());
        let auth = Arc::new(Authenticator::open());
        let tickets = Tickets::new(limits.tickets_max, limits.tickets_per_subject_max);
        let (access_log, audit_log, subscriptions) = (None, None, None);
        Self {
            hub,
            limits,
            holds,
            metrics,
            forms,
            clock,
            access,
            auth,
            tickets,
            origin_policy: OriginPolicy::default(),
            mqtt_sockets,
            xmpp_sockets: None,
            bosh: None,
            subscriptions,
            access_log,
            audit_log,
        }
    }

    /// The trace context of a publish, if messages are traced.
    pub(in crate::http) fn trace_of(&self, fields: &(impl Fields + ?Sized)) -> Option<Box<TraceContext>> {
        self.hub.traces()?;
        let field = |name| fields.values(name).next().and_then(|value| std::str::from_utf8(value).ok());
        TraceContext::new(field(&TRACEPARENT), field(&TRACESTATE))
    }

    /// Checks the credentials of all requests.
    pub fn with_auth(mut self, auth: Arc<Authenticator>) -> Self {
        self.access.origins.accept_credentials(auth.is_enabled());
        Self { auth, ..self }
    }

    /// Sends WebSockets with the subprotocol `xmpp` to `sockets`.
    pub fn handing_xmpp(self, xmpp_sockets: Option<mpsc::Sender<SubprotocolSocket>>) -> Self {
        Self { xmpp_sockets, ..self }
    }

    /// Serves BOSH requests.
    pub fn with_bosh(self, bosh: Option<Arc<dyn BoshService>>) -> Self {
        Self { bosh, ..self }
    }

    /// Serves subscriptions.
    pub fn with_subscriptions(self, subscriptions: SubscriptionFront) -> Self {
        Self { subscriptions: Some(subscriptions), ..self }
    }

    /// Fills streams from origins.
    pub fn filling_from(self, origin_policy: OriginPolicy) -> Self {
        Self { origin_policy, ..self }
    }

    /// Logs changes and refusals.
    pub fn auditing(self, audit_log: Option<AuditLog>) -> Self {
        Self { audit_log, ..self }
    }

    /// Logs each request.
    pub fn logging_access(self, access_log: Option<AccessLog>) -> Self {
        Self { access_log, ..self }
    }
}

/// The subscriptions of a gateway, and the addresses that their webhooks may have.
pub struct SubscriptionFront {
    /// The subscriptions.
    pub subscriptions: Arc<SubscriptionTable>,
    /// The addresses that webhooks may have.
    pub policy: AddressPolicy,
}

/// How long polls are held: the settings `hold` and `hold_max`.
#[derive(Debug, Clone, Copy)]
pub struct HoldPolicy {
    /// Hold time of a poll that requests none, jittered by 10 %.
    pub default: Duration,
    /// Longest hold time that a poll may request.
    pub max: Duration,
}

impl HoldPolicy {
    /// Returns the hold time of a poll that requests `requested` seconds, or none.
    pub(in crate::http) fn hold(self, requested: Option<u64>) -> Duration {
        requested.map_or_else(|| jittered(self.default), Duration::from_secs).min(self.max)
    }
}
