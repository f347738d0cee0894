//! Web Push (RFC 8030) and UnifiedPush: an encrypted message to the URL that the push service of a browser or distributor has given
//! the device. The gateway introduces itself with a key (VAPID, RFC 8292), with which the device has subscribed.

mod encryption;

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, HeaderName, LOCATION};
use hyper::{Request, StatusCode, Uri};
use serde_json::json;

use super::answers::{PAUSE, at, base64url, by_status, json, number, post, quoted, retry, slow, unix};
use super::jwt::{InvalidKey, ProviderKey};
use super::{AccessToken, Adapter, ProviderAnswer, Wake};
use crate::hub::{Credential, Verdict};

/// How long a token of VAPID is valid. Push services accept at most 24 hours.
const VAPID_LIFE: Duration = Duration::from_secs(12 * 3600);

/// The longest time for which push services keep a message, in seconds.
const TTL_MAX: u64 = 2_592_000;

/// The longest endpoint, in bytes (UnifiedPush).
const ENDPOINT_BYTES_MAX: usize = 1000;

/// Messages with one topic replace each other while the device is offline.
const TOPIC: &str = "pollgate";

const TTL: HeaderName = HeaderName::from_static("ttl");
const URGENCY: HeaderName = HeaderName::from_static("urgency");
const TOPIC_FIELD: HeaderName = HeaderName::from_static("topic");

/// One application server key.
#[derive(Debug)]
pub struct WebPush {
    key: ProviderKey,
    /// The public key in base64url, which pages subscribe with.
    public: String,
    /// A `mailto:` or `https:` URL, under which the operator of a push service finds that of the gateway.
    contact: String,
}

impl WebPush {
    /// The key must be of P-256.
    pub fn new(key: ProviderKey, contact: String) -> Result<Self, InvalidKey> {
        if !key.is_p256() {
            return Err(InvalidKey);
        }
        Ok(Self { public: base64url(key.public()), key, contact })
    }

    fn vapid(&self, endpoint: &Uri, now: SystemTime) -> Result<String, Verdict> {
        let (Some(scheme), Some(authority)) = (endpoint.scheme_str(), endpoint.authority()) else {
            return Err(Verdict::bad("the endpoint is no URL"));
        };
        let claims = json!({
            "aud": format!("{scheme}://{authority}"),
            "exp": unix(now + VAPID_LIFE),
            "sub": self.contact,
        });
        let token = self.key.token(json!({"typ": "JWT"}), &claims, false)?;
        Ok(format!("vapid t={token}, k={}", self.public))
    }
}

impl Adapter for WebPush {
    fn request(
        &self,
        wake: Wake<'_>,
        _: Option<&AccessToken>,
        now: SystemTime,
    ) -> Result<Request<Bytes>, Verdict> {
        let Credential::WebPush { endpoint, p256dh, auth } = wake.credential else {
            return Err(Verdict::bad("the credential of the device is no Web Push subscription"));
        };
        let uri: Uri = endpoint.parse().map_err(|_| Verdict::bad("the endpoint is no URL"))?;
        if endpoint.len() > ENDPOINT_BYTES_MAX
            || uri.authority().is_none_or(|host| host.as_str().contains('@'))
        {
            return Err(Verdict::bad("the endpoint is no URL of at most 1000 bytes without a password"));
        }
        let malformed = || Verdict::bad("the keys of the Web Push subscription are malformed");
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| malformed());
        let message = json!({"pollgate": wake.id}).to_string();
        let body = encryption::encrypt(message.as_bytes(), &decode(p256dh)?, &decode(auth)?)
            .ok_or_else(malformed)?;
        let ttl = wake.ttl.as_secs().min(TTL_MAX).to_string();
        let fields = [
            (AUTHORIZATION, self.vapid(&uri, now)?),
            (CONTENT_ENCODING, "aes128gcm".to_owned()),
            (TTL, ttl),
            // A wake that waits for the device to be used is none.
            (URGENCY, "high".to_owned()),
            (TOPIC_FIELD, TOPIC.to_owned()),
        ];
        let fields = fields.each_ref().map(|(name, value)| (name.clone(), value.as_str()));
        post(endpoint, "application/octet-stream", &fields, body)
    }

    fn verdict(&self, answer: ProviderAnswer<'_>, now: SystemTime) -> Verdict {
        match answer.status {
            StatusCode::CREATED | StatusCode::ACCEPTED | StatusCode::OK | StatusCode::NO_CONTENT => {
                let id = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok());
                Verdict::Ok { id: id.map(Box::from) }
            }
            // Mozilla's autopush explains a 404 by a number: 102 is a malformed endpoint, which says nothing about the device.
            StatusCode::NOT_FOUND if number(at(&json(answer), "/errno")) == Some(102) => {
                Verdict::bad(quoted(answer))
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Verdict::Gone { since: None },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Verdict::config(quoted(answer)),
            StatusCode::TOO_MANY_REQUESTS => retry(answer, PAUSE, now),
            StatusCode::SERVICE_UNAVAILABLE => slow(answer, PAUSE, now),
            _ => by_status(answer, now),
        }
    }

    fn public_key(&self) -> Option<&str> {
        Some(&self.public)
    }

    fn is_sent_to_url_of_device(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::ECDSA_P256_SHA256_FIXED;

    use super::super::answers::testing::{judged, the_time};
    use super::super::jwt::tests::{RSA, key, opened, p256};
    use super::*;

    /// The subscription in RFC 8291, appendix A.
    const P256DH: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    fn web_push() -> WebPush {
        WebPush::new(key(&p256()), "mailto:ops@gate.example".to_owned()).unwrap()
    }

    fn request_to(endpoint: &str, p256dh: &str, auth: &str) -> Result<Request<Bytes>, Verdict> {
        let credential =
            Credential::WebPush { endpoint: endpoint.into(), p256dh: p256dh.into(), auth: auth.into() };
        let ttl = Duration::from_secs(60);
        web_push().request(
            Wake { id: "0123456789abcdef", device: "d", credential: &credential, ttl },
            None,
            the_time(),
        )
    }

    #[test]
    fn a_wake_is_encrypted_and_signed_for_the_origin_of_the_endpoint() {
        let app = web_push();
        let credential = Credential::WebPush {
            endpoint: "https://push.example:8443/wpush/v2/abc".into(),
            p256dh: P256DH.into(),
            auth: format!("{AUTH}==").into(),
        };
        let wake = Wake {
            id: "0123456789abcdef",
            device: "d",
            credential: &credential,
            ttl: Duration::from_secs(60),
        };
        let request = app.request(wake, None, the_time()).unwrap();
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri(), "https://push.example:8443/wpush/v2/abc");
        let field = |name: &str| request.headers()[name].to_str().unwrap();
        let fields = ["ttl", "urgency", "topic", "content-encoding"].map(field);
        assert_eq!(fields, ["60", "high", "pollgate", "aes128gcm"]);
        let (token, public) =
            field("authorization").strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap();
        assert_eq!(Some(public), app.public_key());
        let (header, claims) = opened(token, &app.key, &ECDSA_P256_SHA256_FIXED);
        assert_eq!(header, json!({"typ": "JWT", "alg": "ES256"}));
        let expected = json!({
            "aud": "https://push.example:8443", "exp": unix(the_time()) + 43_200, "sub": "mailto:ops@gate.example",
        });
        assert_eq!(claims, expected);
        // Salt, record size, key, and a record with the message, its delimiter and its tag.
        let message = r#"{"pollgate":"0123456789abcdef"}"#;
        assert_eq!(request.body().len(), 86 + message.len() + 17);
    }

    #[test]
    fn malformed_subscriptions_are_the_fault_of_the_device() {
        let endpoint = "https://push.example/a";
        let long = format!("https://push.example/{}", "a".repeat(1000));
        for (endpoint, p256dh, auth) in [
            ("not a url", P256DH, AUTH),
            ("/relative", P256DH, AUTH),
            ("https://user:secret@push.example/", P256DH, AUTH),
            (&long, P256DH, AUTH),
            (endpoint, "", AUTH),
            (endpoint, "AAAA", AUTH),
            (endpoint, P256DH, "AAAA"),
            (endpoint, P256DH, "?"),
        ] {
            let refused = request_to(endpoint, p256dh, auth);
            assert!(matches!(refused, Err(Verdict::Bad(_))), "{endpoint} {p256dh} {auth}: {refused:?}");
        }
        assert!(WebPush::new(key(RSA), String::new()).is_err());
    }

    #[test]
    fn each_answer_has_its_verdict() {
        let app = web_push();
        for (status, body, word) in [
            (201, "", "ok"),
            (202, "", "ok"),
            (404, "", "gone"),
            (410, "", "gone"),
            (404, r#"{"code":404,"errno":102}"#, "bad"),
            (410, r#"{"code":410,"errno":103}"#, "gone"),
            (410, r#"{"code":410,"errno":106}"#, "gone"),
            (400, r#"{"code":400,"errno":101}"#, "bad"),
            (400, r#"{"code":400,"errno":111}"#, "bad"),
            (400, r#"{"code":400,"errno":113}"#, "bad"),
            (401, r#"{"code":401,"errno":109}"#, "config"),
            (403, "", "config"),
            (413, r#"{"code":413,"errno":104}"#, "bad"),
            (429, "", "retry"),
            (500, "", "retry"),
            (502, r#"{"code":502,"errno":900}"#, "retry"),
            (503, r#"{"code":503,"errno":201}"#, "slow"),
            (307, "", "config"),
        ] {
            assert_eq!(judged(&app, status, &[], body).as_str(), word, "{status} {body}");
        }
        let location = [("location", "https://push.example/m/1"), ("ttl", "30")];
        assert_eq!(
            judged(&app, 201, &location, ""),
            Verdict::Ok { id: Some("https://push.example/m/1".into()) }
        );
        let after = Duration::from_secs(7);
        assert_eq!(judged(&app, 429, &[("retry-after", "7")], ""), Verdict::Retry { after });
        assert_eq!(
            judged(&app, 503, &[("retry-after", "7")], ""),
            Verdict::Slow { until: the_time() + after }
        );
    }
}
