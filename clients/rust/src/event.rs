//! What a client tells about its connections; what it tells about streams comes among the messages.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::attempt::Form;
use crate::error::CertificateError;

/// Something happened to the way of reading.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Another form is used from now on, be it to see whether it works again.
    Form {
        /// The one that was used; `None` at the start.
        from: Option<Form>,
        /// The one that is used now.
        to: Form,
        /// Why.
        reason: Reason,
    },
    /// The gateway is away or asks for patience (503, 429, 1012, 1013, connection refused).
    Restart {
        /// Until it is tried again.
        wait: Duration,
    },
    /// Something else answers in place of the gateway, such as a captive portal.
    NotGateway,
    /// A certificate is not trusted, after one that was: a captive portal or a proxy shows its own. [`Event::NotGateway`]
    /// follows. It is tried again for ten minutes; then the subscription ends with
    /// [`Item::Untrusted`](crate::Item::Untrusted).
    Untrusted(CertificateError),
}

/// Why a form was left or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is the first one.
    Start,
    /// Something on the way does not know WebSockets.
    NotUpgraded,
    /// The status with which it was refused.
    Refused(u16),
    /// No envelope came in time.
    NoEnvelope,
    /// It was open and brought nothing.
    Mute,
    /// It was cut, three times in a row.
    Cut,
    /// A better one may work again.
    Better,
    /// The caller said that the network is another one.
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

/// Who is told of events.
#[derive(Clone)]
pub(crate) struct OnEvent(pub(crate) Arc<dyn Fn(&Event) + Send + Sync>);

impl OnEvent {
    pub(crate) fn tell(&self, event: &Event) {
        (self.0)(event);
    }
}

impl fmt::Debug for OnEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnEvent")
    }
}
