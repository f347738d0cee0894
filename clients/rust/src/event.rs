//! Events: what a client reports about its connections. What it reports about streams is among the items.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::attempt::Form;
use crate::error::CertificateError;

/// Something has happened to the connections of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A subscription changes its form, perhaps to try whether a better one works again.
    Form {
        /// The form that was used; `None` at the start.
        from: Option<Form>,
        /// The form that is used now.
        to: Form,
        /// Why the form changes.
        reason: Reason,
    },
    /// The gateway is unreachable or asks to retry later (503, 429, close codes 1012 and 1013, connection refused).
    Restart {
        /// Time until the next attempt.
        wait: Duration,
    },
    /// Something else answers in place of the gateway, such as a captive portal.
    NotGateway,
    /// A certificate is not trusted, after one that was: a captive portal or a proxy shows its own. [`Event::NotGateway`]
    /// follows. It is tried again for ten minutes; then the subscription ends with
    /// [`Item::Untrusted`](crate::Item::Untrusted).
    Untrusted(CertificateError),
}

/// Why a form was left or chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is the first form.
    Start,
    /// Something on the path does not support WebSockets.
    NotUpgraded,
    /// The form was refused with this status.
    Refused(u16),
    /// No envelope arrived in time.
    NoEnvelope,
    /// The connection was open and silent.
    Mute,
    /// The connection was cut three times in a row.
    Cut,
    /// A better form may work again.
    Better,
    /// The user said that the network has changed.
    NetworkChanged,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::NotUpgraded => "not_upgraded",
            Self::Refused(status) => return write!(f, "refused {status}"),
            Self::NoEnvelope => "no_envelope",
            Self::Mute => "mute",
            Self::Cut => "cut",
            Self::Better => "better",
            Self::NetworkChanged => "network_changed",
        })
    }
}

/// The user's function for events.
#[derive(Clone)]
pub(crate) struct OnEvent(pub(crate) Arc<dyn Fn(&Event) + Send + Sync>);

impl OnEvent {
    pub(crate) fn report(&self, event: &Event) {
        (self.0)(event);
    }
}

impl fmt::Debug for OnEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnEvent")
    }
}
