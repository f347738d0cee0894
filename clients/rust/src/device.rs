//! Devices that sleep: a registration, and the request that hands it to the gateway.

use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::ser::SerializeMap;

use crate::call::{Answer, Call, RequestError};
use crate::connection::ANSWER_BYTES_MAX;
use crate::offset::Offset;
use crate::settings::Shared;

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
pub(crate) async fn register(shared: &Shared, device: &Device) -> Result<(), RequestError> {
    // Strings and numbers always serialize.
    let body = serde_json::to_vec(device).unwrap_or_default().into();
    send(shared, Method::PUT, &device.id, body).await
}

/// Forgets a device. That the gateway does not know it is no error.
pub(crate) async fn unregister(shared: &Shared, id: &str) -> Result<(), RequestError> {
    match send(shared, Method::DELETE, id, Bytes::new()).await {
        Err(RequestError::Refused(refusal)) if refusal.kind == "device-not-found" => Ok(()),
        outcome => outcome,
    }
}

async fn send(shared: &Shared, method: Method, id: &str, body: Bytes) -> Result<(), RequestError> {
    let target = shared.endpoint.origin.device(id);
    let call = Call { method, target, body, bytes_max: ANSWER_BYTES_MAX };
    let is_ours = |answer: &Answer| answer.status == StatusCode::NO_CONTENT || answer.is_json();
    call.send(shared, is_ours).await.map(|_| ())
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
