//! Apple Push Notification service: HTTP/2 alone, with a token of the provider that lives for 20 to 60 minutes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HeaderName};
use hyper::{Request, StatusCode};
use serde_json::json;

use super::answers::{JSON, PAUSE, RETRY, at, by_status, json, post, quoted, retry, token_of, unix};
use super::jwt::{InvalidKey, ProviderKey};
use super::{AccessToken, Adapter, ProviderAnswer, Wake};
use crate::hub::Verdict;

const BASE: &str = "https://api.push.apple.com";
const SANDBOX: &str = "https://api.sandbox.push.apple.com";

/// A token of the provider is used for this long. Apple refuses ones that are older than an hour, and more than one in 20 minutes.
const TOKEN_SLOT: u64 = 45 * 60;

/// How long Apple asks to leave one device alone.
const DEVICE_PAUSE: Duration = Duration::from_secs(20 * 60);

const TOPIC: HeaderName = HeaderName::from_static("apns-topic");
const PUSH_TYPE: HeaderName = HeaderName::from_static("apns-push-type");
const PRIORITY: HeaderName = HeaderName::from_static("apns-priority");
const EXPIRATION: HeaderName = HeaderName::from_static("apns-expiration");
const COLLAPSE_ID: HeaderName = HeaderName::from_static("apns-collapse-id");
const ID: &str = "apns-id";

/// One app of one team.
#[derive(Debug)]
pub struct Apns {
    key: ProviderKey,
    key_id: String,
    team_id: String,
    /// The bundle id.
    topic: String,
    base: String,
    /// The beginning of the current provider token's time, within [`TOKEN_SLOT`].
    phase: u64,
}

/// What identifies a key at Apple, and the app.
#[derive(Debug, Clone)]
pub struct ApnsIds {
    pub key_id: String,
    pub team_id: String,
    pub topic: String,
}

impl Apns {
    /// The key must be of P-256. `base` replaces the provider's URL.
    pub fn new(
        key: ProviderKey,
        ids: ApnsIds,
        sandbox: bool,
        base: Option<&str>,
    ) -> Result<Self, InvalidKey> {
        if !key.is_p256() {
            return Err(InvalidKey);
        }
        let base = base.unwrap_or(if sandbox { SANDBOX } else { BASE }).trim_end_matches('/').to_owned();
        let ApnsIds { key_id, team_id, topic } = ids;
        Ok(Self { key, key_id, team_id, topic, base, phase: fastrand::u64(..TOKEN_SLOT) })
    }

    /// When the token that is used at `now` was issued, so that one token serves a whole slot. Signing it again gives another
    /// signature, but Apple counts changes by the time of issue.
    fn issued_at(&self, now: SystemTime) -> u64 {
        let now = unix(now);
        now - (now + self.phase) % TOKEN_SLOT
    }
}

impl Adapter for Apns {
    fn request(
        &self,
        wake: Wake<'_>,
        _: Option<&AccessToken>,
        now: SystemTime,
    ) -> Result<Request<Bytes>, Verdict> {
        let token = token_of(wake.credential)?;
        if token.is_empty() || token.len() > 200 || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Verdict::bad("the token of the device must be hexadecimal"));
        }
        let claims = json!({"iss": self.team_id, "iat": self.issued_at(now)});
        let bearer = format!("bearer {}", self.key.token(json!({"kid": self.key_id}), &claims, false)?);
        let expiration = if wake.ttl.is_zero() { 0 } else { unix(now + wake.ttl) }.to_string();
        let fields = [
            (AUTHORIZATION, bearer.as_str()),
            (TOPIC, &self.topic),
            (PUSH_TYPE, "background"),
            // Apple refuses 10 for background pushes.
            (PRIORITY, "5"),
            (EXPIRATION, &expiration),
            (COLLAPSE_ID, "pollgate"),
        ];
        let body = json!({"aps": {"content-available": 1}, "pollgate": wake.id});
        post(&format!("{}/3/device/{token}", self.base), JSON, &fields, body.to_string())
    }

    fn verdict(&self, answer: ProviderAnswer<'_>, now: SystemTime) -> Verdict {
        let body = json(answer);
        let id = || answer.headers.get(ID).and_then(|id| id.to_str().ok()).map(Box::from);
        match (answer.status, at(&body, "/reason").as_str().unwrap_or_default()) {
            (StatusCode::OK, _) => Verdict::Ok { id: id() },
            (StatusCode::GONE, "Unregistered" | "ExpiredToken") => {
                let since =
                    at(&body, "/timestamp").as_u64().map(|millis| UNIX_EPOCH + Duration::from_millis(millis));
                Verdict::Gone { since }
            }
            // The usual cause is a token of the sandbox; the gate against mass deletion finds out.
            (StatusCode::BAD_REQUEST, "BadDeviceToken") => Verdict::Gone { since: None },
            (
                _,
                "DeviceTokenNotForTopic"
                | "TopicDisallowed"
                | "MissingTopic"
                | "BadTopic"
                | "InvalidPushType"
                | "ExpiredProviderToken"
                | "InvalidProviderToken"
                | "MissingProviderToken"
                | "UnrelatedKeyIdInToken"
                | "BadEnvironmentKeyIdInToken"
                | "BadCertificate"
                | "BadCertificateEnvironment"
                | "Forbidden",
            ) => Verdict::config(quoted(answer)),
            (_, "TooManyProviderTokenUpdates") => Verdict::Slow { until: now + PAUSE },
            // About this device, not about the app.
            (_, "TooManyRequests") => retry(answer, DEVICE_PAUSE, now),
            (_, "InternalServerError" | "ServiceUnavailable" | "Shutdown" | "IdleTimeout") => {
                retry(answer, RETRY, now)
            }
            (status, reason) if status.is_client_error() && !reason.is_empty() => {
                Verdict::bad(quoted(answer))
            }
            _ => by_status(answer, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::ECDSA_P256_SHA256_FIXED;

    use super::super::answers::testing::{body_of, judged, sent, the_time};
    use super::super::jwt::tests::{RSA, key, opened, p256};
    use super::*;
    use crate::hub::Credential;

    fn ids() -> ApnsIds {
        let [key_id, team_id, topic] = ["ABCDEFGHIJ", "TEAM123456", "org.example.app"].map(str::to_owned);
        ApnsIds { key_id, team_id, topic }
    }

    fn apns() -> Apns {
        Apns::new(key(&p256()), ids(), false, None).unwrap()
    }

    #[test]
    fn a_wake_is_a_background_push() {
        let app = apns();
        let request = sent(&app, "aabb01", None);
        assert_eq!(request.uri(), "https://api.push.apple.com/3/device/aabb01");
        let field = |name: &str| request.headers()[name].to_str().unwrap();
        let names = ["apns-topic", "apns-push-type", "apns-priority", "apns-collapse-id"];
        assert_eq!(names.map(field), ["org.example.app", "background", "5", "pollgate"]);
        assert_eq!(field("apns-expiration"), (unix(the_time()) + 60).to_string());
        assert_eq!(
            body_of(&request),
            json!({"aps": {"content-available": 1}, "pollgate": "00112233aabbccdd"})
        );
        let token = field("authorization").strip_prefix("bearer ").unwrap();
        let (header, claims) = opened(token, &app.key, &ECDSA_P256_SHA256_FIXED);
        assert_eq!(header, json!({"alg": "ES256", "kid": "ABCDEFGHIJ"}));
        assert_eq!(claims, json!({"iss": "TEAM123456", "iat": app.issued_at(the_time())}));
        let sandbox = Apns::new(key(&p256()), ids(), true, None).unwrap();
        assert_eq!(sent(&sandbox, "aa", None).uri().host(), Some("api.sandbox.push.apple.com"));
        assert!(Apns::new(key(RSA), ids(), false, None).is_err());
    }

    #[test]
    fn a_token_is_at_most_45_minutes_old_and_changes_that_often() {
        let app = apns();
        let times: Vec<_> = (0..200).map(|minute| the_time() + Duration::from_secs(60 * minute)).collect();
        let mut issued: Vec<_> = times.iter().map(|now| app.issued_at(*now)).collect();
        for (now, issued) in times.iter().zip(&issued) {
            assert!((0..TOKEN_SLOT).contains(&(unix(*now) - issued)));
        }
        issued.dedup();
        assert!(issued.windows(2).all(|pair| pair[1] - pair[0] == TOKEN_SLOT), "{issued:?}");
    }

    #[test]
    fn tokens_of_devices_cannot_change_the_path() {
        for token in ["", "../x", "zz", "aa?b", &"a".repeat(201)] {
            let credential = Credential::Token(token.into());
            let wake = Wake { id: "1", device: "d", credential: &credential, ttl: Duration::ZERO };
            assert!(matches!(apns().request(wake, None, the_time()), Err(Verdict::Bad(_))), "{token}");
        }
    }

    #[test]
    fn each_answer_has_its_verdict() {
        let app = apns();
        let reason = |reason: &str| json!({"reason": reason}).to_string();
        for (status, name, word) in [
            (200, "", "ok"),
            (410, "Unregistered", "gone"),
            (410, "ExpiredToken", "gone"),
            (400, "BadDeviceToken", "gone"),
            (400, "DeviceTokenNotForTopic", "config"),
            (400, "TopicDisallowed", "config"),
            (400, "MissingTopic", "config"),
            (400, "BadTopic", "config"),
            (413, "PayloadTooLarge", "bad"),
            (400, "InvalidPushType", "config"),
            (400, "BadPriority", "bad"),
            (403, "ExpiredProviderToken", "config"),
            (403, "InvalidProviderToken", "config"),
            (403, "UnrelatedKeyIdInToken", "config"),
            (403, "BadEnvironmentKeyIdInToken", "config"),
            (429, "TooManyProviderTokenUpdates", "slow"),
            (429, "TooManyRequests", "retry"),
            (500, "InternalServerError", "retry"),
            (503, "ServiceUnavailable", "retry"),
            (503, "Shutdown", "retry"),
            (410, "", "bad"),
            (404, "BadPath", "bad"),
        ] {
            let body = if name.is_empty() { String::new() } else { reason(name) };
            assert_eq!(judged(&app, status, &[], &body).as_str(), word, "{status} {name}");
        }
        let gone = r#"{"reason":"Unregistered","timestamp":1795910400000}"#;
        assert_eq!(judged(&app, 410, &[], gone), Verdict::Gone { since: Some(the_time()) });
        assert_eq!(judged(&app, 200, &[("apns-id", "E1")], ""), Verdict::Ok { id: Some("E1".into()) });
    }
}
