//! The metrics of the XMPP front.

use std::ops::Deref;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters and gauges of the XMPP front. Clones share them, and are small, since each client has some.
#[derive(Debug, Clone)]
pub(crate) struct XmppMetrics(Arc<XmppCounters>);

/// What [`XmppMetrics`] share.
#[derive(Debug)]
pub(crate) struct XmppCounters {
    /// Whether the component's link is up.
    pub(crate) linked: Gauge,
    pub(crate) links_lost: Counter,
    /// Clients that have logged in at the gateway itself.
    pub(crate) clients: Gauge,
    pub(crate) logins_failed: Counter,
    /// Streams without a connection, which may be resumed.
    pub(crate) suspended: Gauge,
    pub(crate) resumed: Counter,
    pub(crate) bosh_sessions: Gauge,
    /// Sessions whose client did not come back in time.
    pub(crate) bosh_lost: Counter,
    pub(crate) bosh_repeated: Counter,
    pub(crate) subscriptions: Gauge,
    pub(crate) requests: Counter,
    pub(crate) requests_failed: Counter,
    pub(crate) notified: Counter,
    pub(crate) returned: Counter,
    pub(crate) missed: Counter,
    pub(crate) epochs_changed: Counter,
}

impl XmppMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut counter = |name, help| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let links_lost = counter(
            "xmpp_component_links_lost",
            "Times that the link to the XMPP server could not be opened, or was lost",
        );
        let logins_failed = counter(
            "xmpp_logins_failed",
            "XMPP clients that were connected to the gateway and did not log in",
        );
        let resumed =
            counter("xmpp_resumed", "Streams that XMPP clients have resumed after a lost connection");
        let bosh_lost = counter(
            "xmpp_bosh_sessions_lost",
            "BOSH sessions that ended because no request of their client came in time",
        );
        let bosh_repeated = counter("xmpp_bosh_requests_repeated", "BOSH requests that a client sent again");
        let requests = counter("xmpp_requests", "Requests of XMPP clients");
        let requests_failed =
            counter("xmpp_requests_failed", "Requests of XMPP clients answered with an error");
        let notified = counter(
            "xmpp_notified",
            "Messages sent to subscribed XMPP addresses, with repetitions after a lost link",
        );
        let returned = counter(
            "xmpp_returned",
            "Notifications that an XMPP server returned as not deliverable; they are sent again later",
        );
        let missed = counter(
            "xmpp_missed",
            "Messages (JSON) or bytes (other content) trimmed or damaged before a subscribed XMPP address got them",
        );
        let epochs_changed = counter(
            "xmpp_epochs_changed",
            "Times that the offset of an XMPP subscription was from another epoch of the stream",
        );
        let mut gauge = |name, help| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let linked = gauge("xmpp_component_linked", "Whether the link to the XMPP server is up");
        let clients = gauge("xmpp_clients", "XMPP clients that have logged in at the gateway itself");
        let suspended = gauge(
            "xmpp_streams_suspended",
            "Streams of XMPP clients whose connections are lost, and that may be resumed",
        );
        let bosh_sessions = gauge("xmpp_bosh_sessions", "Open BOSH sessions");
        let subscriptions = gauge("xmpp_subscriptions", "Subscriptions of XMPP addresses");
        Self(Arc::new(XmppCounters {
            linked,
            links_lost,
            clients,
            logins_failed,
            suspended,
            resumed,
            bosh_sessions,
            bosh_lost,
            bosh_repeated,
            subscriptions,
            requests,
            requests_failed,
            notified,
            returned,
            missed,
            epochs_changed,
        }))
    }
}

impl Deref for XmppMetrics {
    type Target = XmppCounters;

    fn deref(&self) -> &XmppCounters {
        &self.0
    }
}
