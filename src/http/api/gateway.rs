//! The state of the HTTP front, which every handler shares, and the origins whose pages may open WebSockets.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::form::FormMetrics;
use crate::clock::Clock;
use crate::http::conn::MqttSocket;
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::Metrics;

/// The front: answers requests from the hub.
pub struct Gateway {
    pub(in crate::http) hub: Arc<Hub>,
    pub(in crate::http) limits: Arc<Limits>,
    pub(in crate::http) holds: HoldPolicy,
    pub(in crate::http) metrics: Arc<Metrics>,
    pub(in crate::http) forms: FormMetrics,
    pub(in crate::http) clock: Clock,
    pub(in crate::http) origins: Origins,
    pub(in crate::http) mqtt_sockets: mpsc::Sender<MqttSocket>,
}

impl Gateway {
    /// A front of `hub`. WebSockets that speak MQTT are sent to `mqtt_sockets`.
    pub fn new(
        hub: Arc<Hub>,
        limits: Arc<Limits>,
        holds: HoldPolicy,
        metrics: Arc<Metrics>,
        clock: Clock,
        origins: Origins,
        mqtt_sockets: mpsc::Sender<MqttSocket>,
    ) -> Self {
        let forms = FormMetrics::new(metrics.clone());
        Self { hub, limits, holds, metrics, forms, clock, origins, mqtt_sockets }
    }
}

/// How long polls are held: the settings `hold` and `hold_max`.
#[derive(Debug, Clone, Copy)]
pub struct HoldPolicy {
    /// The hold time of a poll that names none, give or take a tenth.
    pub default: Duration,
    /// The longest hold time that a poll may name.
    pub max: Duration,
}

/// Origins besides the gateway's own host whose pages may open WebSockets. CORS does not hold these back, so the gateway has to
/// ask for them (RFC 6455, section 10.2).
#[derive(Debug, Clone, Default)]
pub struct Origins {
    allowed: Vec<String>,
}

impl Origins {
    /// Origins such as `https://example.com`; `*` is any.
    pub fn new(allowed: Vec<String>) -> Self {
        Self { allowed }
    }

    /// Whether a page of `origin` may connect to `host`. A client that names no origin is no browser.
    pub(in crate::http) fn allow(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        let same_host = authority.is_some() && authority == host;
        same_host || self.allowed.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_host_the_list_and_those_who_are_no_browser() {
        let origins = Origins::new(vec!["https://app.example".into()]);
        let host = Some("gate.example:4437");
        for (origin, allowed) in [
            (None, true),
            (Some("http://gate.example:4437"), true),
            (Some("https://app.example"), true),
            (Some("HTTPS://APP.example"), true),
            (Some("http://gate.example"), false),
            (Some("https://evil.example"), false),
            (Some("null"), false),
        ] {
            assert_eq!(origins.allow(origin, host), allowed, "{origin:?}");
        }
        assert!(Origins::new(vec!["*".into()]).allow(Some("null"), host));
        assert!(!Origins::default().allow(Some("null"), None));
    }
}
