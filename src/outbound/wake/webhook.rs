//! A signed webhook for push platforms without an adapter of their own: the operator's service gets the wake and the credential of
//! the device. Signatures are those of Standard Webhooks (standardwebhooks.com), which has libraries for receivers.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::HeaderName;
use hyper::{Request, StatusCode};
use ring::hmac;
use serde_json::{Value, json};

use super::answers::{JSON, RETRY, by_status, post, quoted, retry, unix};
use super::jwt::InvalidKey;
use super::{AccessToken, Adapter, ProviderAnswer, Wake};
use crate::hub::{Credential, Verdict};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The beginning of a secret in its usual form; base64 follows.
const SECRET_PREFIX: &str = "whsec_";

/// The shortest secret, in bytes.
const SECRET_BYTES_MIN: usize = 16;

/// One receiver.
pub struct Webhook {
    url: String,
    key: hmac::Key,
}

/// Shows no key.
impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Webhook {
    /// The secret is `whsec_` and base64, or any text of at least 16 bytes.
    pub fn new(url: String, secret: &str) -> Result<Self, InvalidKey> {
        let bytes = match secret.strip_prefix(SECRET_PREFIX) {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| InvalidKey)?,
            None => secret.as_bytes().to_vec(),
        };
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(InvalidKey);
        }
        Ok(Self { url, key: hmac::Key::new(hmac::HMAC_SHA256, &bytes) })
    }
}

impl Adapter for Webhook {
    fn request(
        &self,
        wake: Wake<'_>,
        _: Option<&AccessToken>,
        now: SystemTime,
    ) -> Result<Request<Bytes>, Verdict> {
        let credential = match wake.credential {
            Credential::Token(token) => Value::from(&**token),
            Credential::WebPush { endpoint, p256dh, auth } => {
                json!({"endpoint": endpoint, "keys": {"p256dh": p256dh, "auth": auth}})
            }
        };
        let body = json!({
            "type": "wake",
            "wake": wake.id,
            "device": wake.device,
            "credential": credential,
            "ttl": wake.ttl.as_secs(),
        });
        let (body, timestamp) = (body.to_string(), unix(now).to_string());
        let signed = [wake.id, &timestamp, &body].join(".");
        let signature = format!("v1,{}", STANDARD.encode(hmac::sign(&self.key, signed.as_bytes())));
        let fields = [(ID, wake.id), (TIMESTAMP, timestamp.as_str()), (SIGNATURE, signature.as_str())];
        post(&self.url, JSON, &fields, body)
    }

    fn verdict(&self, answer: ProviderAnswer<'_>, now: SystemTime) -> Verdict {
        match answer.status {
            status if status.is_success() => Verdict::Ok { id: None },
            StatusCode::GONE => Verdict::Gone { since: None },
            StatusCode::CONFLICT | StatusCode::TOO_EARLY => retry(answer, RETRY, now),
            StatusCode::UNPROCESSABLE_ENTITY => Verdict::bad(quoted(answer)),
            _ => by_status(answer, now),
        }
    }

    fn continues_traces(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::answers::testing::{body_of, judged, sent};
    use super::*;

    /// `MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw` in base64, the example of the specification.
    const SECRET: &str = "whsec_TWZLUTlyOEdLWXFyVHdqVVBEOElMUFpJbzJMYUxhU3c=";

    #[test]
    fn a_wake_is_signed_as_standard_webhooks_are() {
        let app = Webhook::new("https://push.example/hook".to_owned(), SECRET).unwrap();
        let request = sent(&app, "tok", None);
        let field = |name: &str| request.headers()[name].to_str().unwrap();
        assert_eq!([field("webhook-id"), field("webhook-timestamp")], ["00112233aabbccdd", "1795910400"]);
        let expected = json!({"type": "wake", "wake": "00112233aabbccdd", "device": "phone", "credential": "tok", "ttl": 60});
        assert_eq!(body_of(&request), expected);
        let body = std::str::from_utf8(request.body()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let tag = hmac::sign(&key, format!("00112233aabbccdd.1795910400.{body}").as_bytes());
        assert_eq!(field("webhook-signature"), format!("v1,{}", STANDARD.encode(tag)));
        let without_prefix = Webhook::new(String::new(), "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert!(!format!("{without_prefix:?}").contains("key"));
        for secret in ["", "short", "whsec_?", "whsec_AAAA"] {
            assert!(Webhook::new(String::new(), secret).is_err(), "{secret}");
        }
    }

    #[test]
    fn each_status_has_its_verdict() {
        let app = Webhook::new(String::new(), SECRET).unwrap();
        for (status, word) in [
            (200, "ok"),
            (202, "ok"),
            (204, "ok"),
            (301, "config"),
            (400, "bad"),
            (401, "config"),
            (403, "config"),
            (404, "config"),
            (409, "retry"),
            (410, "gone"),
            (422, "bad"),
            (425, "retry"),
            (429, "slow"),
            (500, "retry"),
            (503, "retry"),
        ] {
            assert_eq!(judged(&app, status, &[], "").as_str(), word, "{status}");
        }
    }
}
