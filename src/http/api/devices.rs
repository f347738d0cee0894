//! `/v1/devices`: registers devices that the gateway wakes by push or SMS when something lies behind the offset of their last poll.
//!
//! A device is a client id. Its polls, which have the same `client`, confirm wakes and say what it has read. With authorization, a
//! device belongs to the subject of the token that registered it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer;
use super::credentials::Rights;
use super::error::Error;
use super::gateway::Gateway;
use super::handlers::{content_type, refuse_content_encoding};
use super::target::stream_name;
use crate::auth::{Action, Unauthorized};
use crate::clock::rfc3339;
use crate::http::conn::Body;
use crate::hub::{
    ChannelView, ClientId, Credential, CredentialKind, DeviceError, DeviceSpec, DeviceView, QuietHours,
};
use crate::stream::{Filter, Offset, Principal, Start, StreamName};

/// The path of the list of apps, and of all devices below it.
pub(super) const DEVICES_PATH: &str = "/v1/devices";

pub(super) const APPS_METHODS: &str = "GET, OPTIONS";
pub(super) const DEVICE_METHODS: &str = "GET, PUT, DELETE, OPTIONS";
pub(super) const WAKE_METHODS: &str = "POST, OPTIONS";

/// The longest time before the next channel is tried.
const ESCALATE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A resource below [`DEVICES_PATH`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) enum DevicePath {
    /// The apps of the gateway.
    Apps,
    Device(ClientId),
    /// The wake of a device.
    Wake(ClientId),
}

/// A request about devices.
#[derive(Debug)]
pub(in crate::http) enum DeviceRequest {
    Apps,
    Get(ClientId),
    Put(Box<DeviceSpec>),
    Delete(ClientId),
    Wake(ClientId),
}

/// The body of a PUT.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    #[serde(default)]
    streams: Map<String, Value>,
    #[serde(default)]
    filters: Vec<String>,
    channels: Vec<JsonChannel>,
    #[serde(default)]
    quiet: Option<JsonQuiet>,
    #[serde(default)]
    escalate_after: Option<u64>,
    #[serde(default)]
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonChannel {
    app: String,
    credential: JsonCredential,
}

/// A text, or a subscription as browsers write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum JsonCredential {
    Token(String),
    WebPush { endpoint: String, keys: JsonKeys },
}

#[derive(Deserialize)]
struct JsonKeys {
    p256dh: String,
    auth: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonQuiet {
    from: String,
    to: String,
    #[serde(default)]
    utc_offset: i16,
}

impl DevicePath {
    /// Parses a path. `None`: it is another resource.
    pub(super) fn parse(path: &str) -> Option<Result<Self, Error>> {
        let rest = path.strip_prefix(DEVICES_PATH)?;
        if rest.is_empty() {
            return Some(Ok(Self::Apps));
        }
        let id = rest.strip_prefix('/')?;
        let (id, is_wake) = match id.split_once('/') {
            None => (id, false),
            Some((id, "wake")) => (id, true),
            Some(_) => return Some(Err(Error::NoSuchPath)),
        };
        let decoded = percent_encoding::percent_decode_str(id).decode_utf8();
        let parsed = decoded.map_err(|_| Error::NameNotUtf8).and_then(|id| Ok(ClientId::parse(&id)?));
        Some(parsed.map(|id| if is_wake { Self::Wake(id) } else { Self::Device(id) }))
    }

    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Apps => APPS_METHODS,
            Self::Device(_) => DEVICE_METHODS,
            Self::Wake(_) => WAKE_METHODS,
        }
    }

    /// The request without a body that a method makes. `None`: a PUT, whose body has to be read.
    pub(super) fn request(self, method: &Method) -> Result<Option<DeviceRequest>, Error> {
        let allowed = self.methods();
        Ok(Some(match (self, method.as_str()) {
            (Self::Apps, "GET") => DeviceRequest::Apps,
            (Self::Device(id), "GET") => DeviceRequest::Get(id),
            (Self::Device(id), "DELETE") => DeviceRequest::Delete(id),
            (Self::Device(_), "PUT") => return Ok(None),
            (Self::Wake(id), "POST") => DeviceRequest::Wake(id),
            _ => return Err(Error::MethodNotAllowed { allowed }),
        }))
    }
}

impl DeviceRequest {
    pub(super) fn check_head(head: &Parts) -> Result<(), Error> {
        refuse_content_encoding(&head.headers)?;
        let is_json = content_type(&head.headers)?.is_some_and(|content_type| content_type.is_json());
        if is_json { Ok(()) } else { Err(Error::NotJson) }
    }

    /// Parses the body of a PUT.
    pub(super) fn put(id: ClientId, body: &Bytes) -> Result<Self, Error> {
        let registration: Registration = serde_json::from_slice(body).map_err(|error| {
            Error::Device(DeviceError::Invalid(format!("the registration is invalid: {error}")))
        })?;
        let Registration { streams, filters, channels, quiet, escalate_after, expires_in } = registration;
        let streams = streams.into_iter().map(|(name, offset)| {
            let start = match offset {
                Value::Null => None,
                Value::String(text) => Some(text.parse::<Start>().map_err(Error::Offset)?),
                _ => return Err(invalid("an offset must be a text, or null for what the gateway knows")),
            };
            Ok((stream_name(&name)?, start))
        });
        let filters = filters.iter().map(|text| match Filter::parse(text) {
            Ok(_) if text.starts_with('$') => Err(invalid("a filter must not begin with $")),
            filter => filter.map_err(|error| invalid(&error.to_string())),
        });
        let channels = channels.into_iter().map(|JsonChannel { app, credential }| {
            let credential = match credential {
                JsonCredential::Token(token) => Credential::Token(token.into()),
                JsonCredential::WebPush { endpoint, keys } => Credential::WebPush {
                    endpoint: endpoint.into(),
                    p256dh: keys.p256dh.into(),
                    auth: keys.auth.into(),
                },
            };
            (Arc::from(app), credential)
        });
        let escalate_after = escalate_after.map_or(DeviceSpec::ESCALATE_AFTER, Duration::from_secs);
        if escalate_after > ESCALATE_MAX {
            return Err(invalid("escalate_after must be 0 to 86400 seconds"));
        }
        Ok(Self::Put(Box::new(DeviceSpec {
            id,
            principal: Principal::GATEWAY,
            streams: streams.collect::<Result<_, _>>()?,
            filters: filters.collect::<Result<BTreeSet<_>, _>>()?.into_iter().collect(),
            channels: channels.collect(),
            quiet: quiet.map(JsonQuiet::parse).transpose()?,
            escalate_after,
            life: expires_in.map_or(DeviceSpec::LIFE, Duration::from_secs),
            credentials: None,
        })))
    }
}

impl JsonQuiet {
    fn parse(self) -> Result<QuietHours, Error> {
        let minutes = |text: &str| {
            let two_digits = |text: &str| match text.as_bytes() {
                [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
                    Some(u16::from(tens - b'0') * 10 + u16::from(ones - b'0'))
                }
                _ => None,
            };
            let (hours, minutes) = text.split_once(':')?;
            let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
            (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
        };
        match (minutes(&self.from), minutes(&self.to)) {
            (Some(from), Some(to)) if (-840..=840).contains(&self.utc_offset) => {
                Ok(QuietHours { from, to, utc_offset: self.utc_offset })
            }
            _ => Err(invalid("quiet needs from and to as HH:MM, and utc_offset in minutes")),
        }
    }
}

fn invalid(text: &str) -> Error {
    Error::Device(DeviceError::Invalid(text.to_owned()))
}

impl Rights {
    /// Checks that the client may read the streams of a device, and makes the device that of the token's subject.
    pub(super) fn admit_device(&self, request: DeviceRequest) -> Result<DeviceRequest, Error> {
        self.check_subject()?;
        Ok(match request {
            DeviceRequest::Apps => DeviceRequest::Apps,
            DeviceRequest::Get(id) => DeviceRequest::Get(self.own_client(&id)),
            DeviceRequest::Delete(id) => DeviceRequest::Delete(self.own_client(&id)),
            DeviceRequest::Wake(id) => DeviceRequest::Wake(self.own_client(&id)),
            DeviceRequest::Put(mut spec) => {
                for (stream, _) in &mut spec.streams {
                    self.enter(stream);
                    self.check(Action::Read, stream)?;
                }
                for filter in &mut spec.filters {
                    *filter = self.enter_filter(filter);
                    self.check_filter(Action::Read, filter)?;
                }
                spec.credentials = self.credentials();
                (spec.id, spec.principal) = (self.own_client(&spec.id), self.principal());
                DeviceRequest::Put(spec)
            }
        })
    }
}

impl Gateway {
    /// Answers a request about devices. `address` is the principal of clients without a token.
    pub(in crate::http) async fn devices(
        &self,
        request: DeviceRequest,
        address: Principal,
    ) -> Result<Response<Body>, Error> {
        match request {
            DeviceRequest::Apps => Ok(json_answer(StatusCode::OK, &self.apps())),
            DeviceRequest::Get(id) => {
                self.hub.fetch_device(&id).await.map_err(|failure| Error::Device(failure.into()))?;
                let device = self.hub.device(&id).ok_or(Error::Device(DeviceError::Missing))?;
                Ok(json_answer(StatusCode::OK, &shown(&id, &device)))
            }
            DeviceRequest::Put(mut spec) => {
                spec.principal = spec.principal.or(address);
                let (id, credentials) = (spec.id.clone(), spec.credentials.clone());
                let (device, is_new) = self.hub.put_device(*spec).await.map_err(Error::Device)?;
                // What was revoked meanwhile may have missed the device.
                if credentials.is_some_and(|credentials| self.auth.has_revoked(&credentials)) {
                    let _removed = self.hub.delete_device(&id).await;
                    return Err(Error::Unauthorized(Unauthorized::Revoked));
                }
                let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
                Ok(json_answer(status, &shown(&id, &device)))
            }
            DeviceRequest::Delete(id) => match self.hub.delete_device(&id).await {
                Ok(true) => Ok(answer::uncached(StatusCode::NO_CONTENT)),
                Ok(false) => Err(Error::Device(DeviceError::Missing)),
                Err(failure) => Err(Error::Device(failure.into())),
            },
            DeviceRequest::Wake(id) => {
                self.hub.fetch_device(&id).await.map_err(|failure| Error::Device(failure.into()))?;
                self.hub.wake_device(&id).map_err(Error::Device)?;
                Ok(answer::uncached(StatusCode::ACCEPTED))
            }
        }
    }

    /// The apps with which devices can be woken.
    fn apps(&self) -> Value {
        let apps = self.hub.devices().apps().into_iter().map(|app| {
            let credential = match app.credential {
                CredentialKind::Token => "token",
                CredentialKind::WebPush => "web-push",
                CredentialKind::Phone => "phone",
            };
            let key = app.public_key.map(|key| ("public_key", json!(*key)));
            let fields = [
                ("app", json!(*app.name)),
                ("provider", json!(app.provider)),
                ("credential", json!(credential)),
            ];
            let fields = fields.into_iter().chain(key);
            Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect())
        });
        json!({"apps": apps.collect::<Vec<_>>()})
    }
}

fn json_answer(status: StatusCode, body: &Value) -> Response<Body> {
    let mut answer: Response<Body> = answer::uncached(status);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *answer.body_mut() = Body::full((body.to_string() + "\n").into());
    answer
}

fn shown(id: &ClientId, device: &DeviceView) -> Value {
    let stream = |(stream, offset): &(StreamName, Option<Offset>)| {
        let offset = offset.map_or_else(|| "-1".to_owned(), |offset| offset.to_string());
        (stream.local().to_owned(), json!(offset))
    };
    json!({
        "device": id.chosen(),
        "streams": device.streams.iter().map(stream).collect::<Map<_, _>>(),
        "filters": device.filters.iter().map(Filter::local).collect::<Vec<_>>(),
        "channels": device.channels.iter().map(shown_channel).collect::<Vec<_>>(),
        "pending": device.is_pending,
        "wake": device.outstanding.as_ref().map(|(app, since)| json!({"app": app, "since": rfc3339(*since)})),
        "expires_at": rfc3339(device.expires_at),
    })
}

fn shown_channel(channel: &ChannelView) -> Value {
    json!({
        "app": channel.app,
        "credential": channel.credential,
        "added_at": rfc3339(channel.added_at),
        "last_ok": channel.last_ok.map(rfc3339),
        "last_error": channel.last_error,
        "state": if channel.is_gone { "gone" } else { "active" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_the_list_of_apps_a_device_or_its_wake() {
        let id = |text: &str| ClientId::parse(text).unwrap();
        let parse = |path: &str| DevicePath::parse(path).map(Result::ok);
        assert_eq!(parse("/v1/devices"), Some(Some(DevicePath::Apps)));
        assert_eq!(parse("/v1/devices/a%2Db"), Some(Some(DevicePath::Device(id("a-b")))));
        assert_eq!(parse("/v1/devices/a/wake"), Some(Some(DevicePath::Wake(id("a")))));
        for path in [
            "/v1/devices/",
            "/v1/devices/a/sleep",
            "/v1/devices/a/wake/b",
            "/v1/devices/a%20b",
            "/v1/devices/%ff",
        ] {
            assert_eq!(parse(path), Some(None), "{path}");
        }
        assert_eq!(parse("/v1/device/a"), None);
        assert_eq!(parse("/v1/devicesx"), None);
    }

    fn put(body: Value) -> Result<DeviceSpec, String> {
        match DeviceRequest::put(ClientId::parse("phone").unwrap(), &Bytes::from(body.to_string())) {
            Ok(DeviceRequest::Put(spec)) => Ok(*spec),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_registration_has_streams_and_channels() {
        let subscription = json!({
            "endpoint": "https://push.example/a", "expirationTime": null, "keys": {"p256dh": "B", "auth": "A"},
        });
        let spec = put(json!({
            "streams": {"news": null, "orders/1": "-1", "c": "now"},
            "channels": [{"app": "web", "credential": subscription}, {"app": "sms", "credential": "+31600000001"}],
            "quiet": {"from": "22:30", "to": "07:00", "utc_offset": 60},
        }));
        let spec = spec.unwrap();
        let name = |text| StreamName::parse(text).unwrap();
        let expected =
            [(name("c"), Some(Start::Tail)), (name("news"), None), (name("orders/1"), Some(Start::Earliest))];
        let mut streams = spec.streams.clone();
        streams.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(streams, expected);
        assert_eq!(spec.channels.len(), 2);
        assert_eq!(spec.quiet, Some(QuietHours { from: 1350, to: 420, utc_offset: 60 }));
        assert_eq!((spec.escalate_after.as_secs(), spec.life.as_secs()), (60, 2_592_000));
    }

    #[test]
    fn a_mistyped_registration_is_refused_with_its_reason() {
        let channels = json!([{"app": "a", "credential": "t"}]);
        for (body, reason) in [
            (json!({"streams": {}, "channels": channels, "chanels": []}), "unknown field `chanels`"),
            (json!({"streams": {"a": 1}, "channels": channels}), "an offset must be a text"),
            (json!({"streams": {"$auth/x": null}, "channels": channels}), "$auth/"),
            (
                json!({"streams": {"a": null}, "channels": channels, "escalate_after": 86_401}),
                "escalate_after",
            ),
            (
                json!({"streams": {"a": null}, "channels": channels, "quiet": {"from": "24:00", "to": "07:00"}}),
                "HH:MM",
            ),
            (
                json!({"streams": {"a": null}, "channels": channels, "quiet": {"from": "22:00", "to": "+7:0"}}),
                "HH:MM",
            ),
            (json!({"streams": {"a": null}, "channels": [{"app": "a", "credential": 1}]}), "invalid"),
        ] {
            let refused = put(body.clone()).unwrap_err();
            assert!(refused.contains(reason), "{body}: {refused}");
        }
    }
}
