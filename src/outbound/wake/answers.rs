//! What adapters share: building requests, and the meaning of statuses and fields that no provider defines otherwise.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::{AccessToken, ProviderAnswer};
use crate::hub::{Credential, Verdict};
use crate::outbound::retry_after;

/// How long a provider that is overloaded gets if it does not say.
pub(super) const PAUSE: Duration = Duration::from_secs(60);

/// How long a failed provider gets if it does not say.
pub(super) const RETRY: Duration = Duration::from_secs(10);

/// The longest pause that a provider may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long before its end an access token is replaced.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);

/// The longest part of an answer that is quoted in a reason, in characters.
const QUOTED_MAX: usize = 120;

pub(super) const FORM: &str = "application/x-www-form-urlencoded";
pub(super) const JSON: &str = "application/json";

/// A POST. Values that cannot be header values are an error of the settings.
pub(super) fn post(
    url: &str,
    content_type: &'static str,
    fields: &[(HeaderName, &str)],
    body: impl Into<Bytes>,
) -> Result<Request<Bytes>, Verdict> {
    let mut request = Request::builder().method(Method::POST).uri(url);
    request = request.header(CONTENT_TYPE, content_type);
    for (name, value) in fields {
        let value = HeaderValue::from_str(value)
            .map_err(|_| Verdict::config(format!("the header field {name} has an invalid value")))?;
        request = request.header(name, value);
    }
    request.body(body.into()).map_err(|_| Verdict::config(format!("{url:?} is no URL")))
}

/// A body of form fields.
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| percent_encoding::utf8_percent_encode(text, FORM_SET).to_string();
    let pairs: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    pairs.join("&")
}

/// Everything but unreserved characters (RFC 3986, section 2.3).
const FORM_SET: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The token of a device, for providers that know devices by one text.
pub(super) fn token_of(credential: &Credential) -> Result<&str, Verdict> {
    match credential {
        Credential::Token(token) => Ok(token),
        Credential::WebPush { .. } => {
            Err(Verdict::bad("the credential of the device is a Web Push subscription"))
        }
    }
}

/// The pause that the provider asks for.
fn asked_pause(answer: ProviderAnswer<'_>, now: SystemTime) -> Option<Duration> {
    retry_after(answer.headers, now, PAUSE_MAX)
}

/// The app has to slow down: for as long as the provider says, else for `default`.
pub(super) fn slow(answer: ProviderAnswer<'_>, default: Duration, now: SystemTime) -> Verdict {
    Verdict::Slow { until: now + asked_pause(answer, now).unwrap_or(default) }
}

/// The wake may be sent again: after as long as the provider says, else after `default`.
pub(super) fn retry(answer: ProviderAnswer<'_>, default: Duration, now: SystemTime) -> Verdict {
    Verdict::Retry { after: asked_pause(answer, now).unwrap_or(default) }
}

/// What a status means that the provider's documentation gives no own meaning. It never means that a device is gone.
pub(super) fn by_status(answer: ProviderAnswer<'_>, now: SystemTime) -> Verdict {
    let quoted = || quoted(answer);
    match answer.status {
        StatusCode::TOO_MANY_REQUESTS => slow(answer, PAUSE, now),
        StatusCode::REQUEST_TIMEOUT => retry(answer, RETRY, now),
        status if status.is_server_error() => retry(answer, RETRY, now),
        // Redirects are not followed: they would lead to a URL that nobody has allowed.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Verdict::config(quoted()),
        status if status.is_redirection() || status == StatusCode::METHOD_NOT_ALLOWED => {
            Verdict::config(quoted())
        }
        _ => Verdict::bad(quoted()),
    }
}

/// The status and the beginning of the body, as a reason for operators.
pub(super) fn quoted(answer: ProviderAnswer<'_>) -> String {
    let text = String::from_utf8_lossy(answer.body);
    let shown = text.chars().map(|one| if one.is_control() { ' ' } else { one }).take(QUOTED_MAX);
    format!("{} {}", answer.status.as_u16(), shown.collect::<String>()).trim_end().to_owned()
}

/// The body as JSON; `Null` if it is none.
pub(super) fn json(answer: ProviderAnswer<'_>) -> Value {
    serde_json::from_slice(answer.body).unwrap_or(Value::Null)
}

/// The value at a JSON pointer (RFC 6901); `Null` if there is none.
pub(super) fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

/// A number, which some providers send as text.
pub(super) fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// The wake was accepted, with the id that `value` has as text or number.
pub(super) fn accepted(value: &Value) -> Verdict {
    let id = match value {
        Value::String(text) => Some(text.as_str().into()),
        Value::Number(number) => Some(number.to_string().into()),
        _ => None,
    };
    Verdict::Ok { id }
}

/// The token of an OAuth answer: `access_token`, and `expires_in` seconds.
pub(super) fn oauth_token(answer: ProviderAnswer<'_>, now: SystemTime) -> Result<AccessToken, Verdict> {
    let body = json(answer);
    match (answer.status, at(&body, "/access_token").as_str()) {
        (StatusCode::OK, Some(value)) => {
            let life = number(at(&body, "/expires_in")).and_then(|seconds| u64::try_from(seconds).ok());
            Ok(AccessToken {
                value: value.into(),
                until: token_end(now, Duration::from_secs(life.unwrap_or(3600))),
            })
        }
        (status, _) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            Err(retry(answer, RETRY, now))
        }
        _ => Err(Verdict::config(format!("no access token: {}", quoted(answer)))),
    }
}

/// When to get another token instead of one that lives for `life`.
pub(super) fn token_end(now: SystemTime, life: Duration) -> SystemTime {
    now + life.saturating_sub(TOKEN_MARGIN).min(PAUSE_MAX)
}

pub(super) fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(super) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn sha256_hex(text: &str) -> String {
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}

/// What tests of adapters share.
#[cfg(test)]
pub(super) mod testing {
    use hyper::HeaderMap;

    use super::*;
    use crate::outbound::wake::{Adapter, Wake};

    /// 2026-11-29 00:00:00 UTC.
    pub(in crate::outbound::wake) fn the_time() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_910_400)
    }

    /// The verdict of an adapter about an answer.
    pub(in crate::outbound::wake) fn judged(
        adapter: &dyn Adapter,
        status: u16,
        fields: &[(&'static str, &str)],
        body: &str,
    ) -> Verdict {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        adapter.verdict(ProviderAnswer { status, headers: &headers, body: body.as_bytes() }, the_time())
    }

    /// The access token in an answer.
    pub(in crate::outbound::wake) fn token_in(
        adapter: &dyn Adapter,
        status: u16,
        body: &str,
    ) -> Result<AccessToken, Verdict> {
        let (status, headers) = (StatusCode::from_u16(status).unwrap(), HeaderMap::new());
        adapter.token(ProviderAnswer { status, headers: &headers, body: body.as_bytes() }, the_time())
    }

    /// The request for a wake to the device with the token `token`.
    pub(in crate::outbound::wake) fn sent(
        adapter: &dyn Adapter,
        token: &str,
        access: Option<&str>,
    ) -> Request<Bytes> {
        let credential = Credential::Token(token.into());
        let wake = Wake {
            id: "00112233aabbccdd",
            device: "phone",
            credential: &credential,
            ttl: Duration::from_secs(60),
        };
        let access = access.map(|value| AccessToken { value: value.into(), until: the_time() });
        adapter.request(wake, access.as_ref(), the_time()).unwrap()
    }

    pub(in crate::outbound::wake) fn body_of(request: &Request<Bytes>) -> Value {
        serde_json::from_slice(request.body()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::testing::the_time;
    use super::*;

    #[test]
    fn statuses_without_a_meaning_of_their_own_never_mean_that_a_device_is_gone() {
        let headers = HeaderMap::new();
        let word = |code| {
            let answer = ProviderAnswer {
                status: StatusCode::from_u16(code).unwrap(),
                headers: &headers,
                body: b"\r\nno",
            };
            by_status(answer, the_time()).as_str()
        };
        for (word_expected, codes) in [
            ("config", &[301, 302, 307, 401, 403, 404, 405][..]),
            ("bad", &[400, 409, 410, 413, 418]),
            ("slow", &[429]),
            ("retry", &[408, 500, 502, 503, 504, 599]),
        ] {
            for code in codes {
                assert_eq!(word(*code), word_expected, "{code}");
            }
        }
    }

    #[test]
    fn form_fields_are_encoded() {
        assert_eq!(form(&[("a", "1 2&3=ü"), ("b", "x-._~")]), "a=1%202%263%3D%C3%BC&b=x-._~");
    }
}
