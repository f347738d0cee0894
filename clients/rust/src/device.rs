//! Devices that sleep: a registration, and the request that hands it to the gateway.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{HeaderMap, Method, StatusCode};
use serde::Serialize;
use serde::ser::SerializeMap;
use tokio::time::{sleep, timeout};

use crate::connection::exchange;
use crate::error::{CertificateError, ConnectError};
use crate::offset::Offset;
use crate::refusal::{Refusal, is_final_for_append, retry_after};
use crate::settings::{Backoff, Shared};

/// A device that sleeps, and how the gateway wakes it while something is new and the device is not connected. See
/// [`Client::register_device`](crate::Client::register_device).
#[derive(Debug, Clone, Serialize)]
pub struct Device {
    #[serde(skip)]
    id: String,
    #[serde(serialize_with = "by_name")]
    streams: Vec<(String, Option<Offset>)>,
    channels: Vec<Channel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    escalate_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
}

#[derive(Debug, Clone, Serialize)]
struct Channel {
    app: String,
    credential: Credential,
}

#[derive(Clone, Serialize)]
#[serde(untagged)]
enum Credential {
    Text(String),
    WebPush { endpoint: String, keys: Keys },
}

#[derive(Clone, Serialize)]
struct Keys {
    p256dh: String,
    auth: String,
}

/// Why the gateway does not know of a device, or still knows of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The gateway, or a proxy before it, refuses the request with a status that no retry can change.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The certificate of the gateway is not trusted.
    #[error(transparent)]
    Untrusted(#[from] CertificateError),
}

impl Device {
    /// Begins the registration of a device. Its id is the caller's, and stays the same for the device.
    pub fn new(id: &str) -> Self {
        let (streams, channels) = (Vec::new(), Vec::new());
        Self { id: id.to_owned(), streams, channels, escalate_after: None, expires_in: None }
    }

    /// Adds a stream that the device reads, from what the gateway knows of the device, else from the tail.
    pub fn stream(mut self, name: &str) -> Self {
        self.streams.push((name.to_owned(), None));
        self
    }

    /// Adds a stream that the device has read up to this offset.
    pub fn stream_at(mut self, name: &str, offset: Offset) -> Self {
        self.streams.push((name.to_owned(), Some(offset)));
        self
    }

    /// Adds a channel: an app of the gateway, and the token that its provider knows the device by, or a phone number.
    /// Channels are tried in the order in which they are added.
    pub fn channel(mut self, app: &str, token: &str) -> Self {
        self.channels.push(Channel { app: app.to_owned(), credential: Credential::Text(token.to_owned()) });
        self
    }

    /// Adds a channel for Web Push or UnifiedPush: the URL of the push service, and the keys of the device in base64url.
    pub fn web_push(mut self, app: &str, endpoint: &str, p256dh: &str, auth: &str) -> Self {
        let keys = Keys { p256dh: p256dh.to_owned(), auth: auth.to_owned() };
        let credential = Credential::WebPush { endpoint: endpoint.to_owned(), keys };
        self.channels.push(Channel { app: app.to_owned(), credential });
        self
    }

    /// Sets the time without a poll after which the next channel is tried; zero for never. It is sent in whole seconds.
    pub fn escalate_after(self, time: Duration) -> Self {
        Self { escalate_after: Some(time.as_secs()), ..self }
    }

    /// Sets the time until the registration ends. It is sent in whole seconds.
    pub fn expires_in(self, time: Duration) -> Self {
        Self { expires_in: Some(time.as_secs()), ..self }
    }
}

/// Hides the credential, which is a secret: it is all that is needed to send to the device.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text(…)",
            Self::WebPush { .. } => "WebPush(…)",
        })
    }
}

fn by_name<S: serde::Serializer>(
    streams: &[(String, Option<Offset>)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(streams.len()))?;
    for (name, offset) in streams {
        map.serialize_entry(name, &offset.map(|offset| offset.to_string()))?;
    }
    map.end()
}

/// Registers a device.
pub(crate) async fn register(shared: &Shared, device: &Device) -> Result<(), DeviceError> {
    // Strings and numbers always serialize.
    let body = serde_json::to_vec(device).unwrap_or_default().into();
    send(shared, Method::PUT, &device.id, body).await
}

/// Forgets a device. That the gateway does not know it is no error.
pub(crate) async fn unregister(shared: &Shared, id: &str) -> Result<(), DeviceError> {
    match send(shared, Method::DELETE, id, Bytes::new()).await {
        Err(DeviceError::Refused(refusal)) if refusal.kind == "device-not-found" => Ok(()),
        outcome => outcome,
    }
}

/// Sends a request until it succeeds or is refused for good. Each has the same effect if it is repeated.
async fn send(shared: &Shared, method: Method, id: &str, body: Bytes) -> Result<(), DeviceError> {
    let Shared { endpoint, settings, .. } = shared;
    let (mut backoff, mut rng, mut renewed) = (Backoff::new(settings), Rng::new(), false);
    loop {
        endpoint.credentials.ready().await?;
        let version = endpoint.credentials.version();
        let request = endpoint.request(method.clone(), endpoint.origin.device(id));
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(body.clone()));
        let request = request.map_err(|_| Refusal::of_status(StatusCode::BAD_REQUEST))?;
        let mut idle = None;
        let wait = match timeout(settings.answer_timeout, exchange(request, &mut idle, endpoint)).await {
            Ok(Ok((StatusCode::UNAUTHORIZED, ..))) if !renewed && endpoint.credentials.refused(version) => {
                renewed = true;
                Some(Duration::ZERO)
            }
            Ok(Ok((status, headers, document))) => match outcome_of(status, &headers, &document) {
                Some(outcome) => return outcome,
                None => headers.get(RETRY_AFTER).and_then(retry_after),
            },
            Ok(Err(ConnectError::Untrusted(error))) => return Err(error.into()),
            _ => None,
        };
        let wait = wait.map_or_else(|| backoff.wait(&mut rng), |wait| wait.min(settings.reprobe_max));
        sleep(wait).await;
    }
}

/// What a response means. `None`: it has to be repeated. A success that is not JSON is not the gateway's.
fn outcome_of(status: StatusCode, headers: &HeaderMap, document: &[u8]) -> Option<Result<(), DeviceError>> {
    let is_json = headers.get(CONTENT_TYPE).is_some_and(|content_type| content_type == "application/json");
    if status == StatusCode::NO_CONTENT || (status.is_success() && is_json) {
        return Some(Ok(()));
    }
    let refused = || Refusal::parse(document).unwrap_or_else(|| Refusal::of_status(status));
    is_final_for_append(status).then(|| Err(refused().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_what_the_gateway_takes_and_hides_its_credentials() {
        let offset = "31e1cc947a056239_000000000000000c".parse().unwrap();
        let device = Device::new("phone")
            .stream("news")
            .stream_at("orders/17", offset)
            .web_push("web", "https://push.example/1", "BKey", "secret")
            .channel("sms", "+31600000001")
            .escalate_after(Duration::from_secs(30))
            .expires_in(Duration::from_secs(3600));
        let expected = serde_json::json!({
            "streams": {"news": null, "orders/17": offset.to_string()},
            "channels": [
                {"app": "web", "credential": {
                    "endpoint": "https://push.example/1", "keys": {"p256dh": "BKey", "auth": "secret"}
                }},
                {"app": "sms", "credential": "+31600000001"}
            ],
            "escalate_after": 30,
            "expires_in": 3600
        });
        assert_eq!(serde_json::to_value(&device).unwrap(), expected);
        let shown = format!("{device:?}");
        assert!(!shown.contains("secret") && !shown.contains("+316"), "{shown}");
    }
}
