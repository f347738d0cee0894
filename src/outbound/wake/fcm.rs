//! Firebase Cloud Messaging, HTTP v1: an access token for the service account, and one message a device.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::header::AUTHORIZATION;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::{
    FORM, JSON, PAUSE, RETRY, accepted, at, by_status, form, json, oauth_token, post, quoted, retry, slow,
    token_of, unix,
};
use super::jwt::{InvalidKey, ProviderKey};
use super::{AccessToken, Adapter, ProviderAnswer, Wake};
use crate::hub::Verdict;

const BASE: &str = "https://fcm.googleapis.com";
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";

/// The longest life of the signed request for an access token.
const ASSERTION_LIFE: Duration = Duration::from_secs(3600);

/// The longest time for which messages are kept: 28 days.
const TTL_MAX: u64 = 28 * 24 * 3600;

/// The type of the detail that has the error code.
const FCM_ERROR: &str = "type.googleapis.com/google.firebase.fcm.v1.FcmError";

/// One project.
#[derive(Debug)]
pub struct Fcm {
    key: ProviderKey,
    client_email: String,
    token_uri: String,
    send_url: String,
}

/// The JSON file of a service account.
#[derive(Deserialize)]
struct ServiceAccount {
    project_id: String,
    client_email: String,
    private_key: String,
    #[serde(default)]
    token_uri: Option<String>,
}

impl Fcm {
    /// Reads the JSON file of a service account. `base` and `token_url` replace the provider's.
    pub fn new(account: &[u8], base: Option<&str>, token_url: Option<&str>) -> Result<Self, InvalidKey> {
        let account: ServiceAccount = serde_json::from_slice(account).map_err(|_| InvalidKey)?;
        let key = ProviderKey::parse(account.private_key.as_bytes())?;
        let base = base.unwrap_or(BASE).trim_end_matches('/');
        let token_uri = token_url.map(str::to_owned).or(account.token_uri);
        Ok(Self {
            key,
            client_email: account.client_email,
            token_uri: token_uri.unwrap_or_else(|| TOKEN_URI.to_owned()),
            send_url: format!("{base}/v1/projects/{}/messages:send", account.project_id),
        })
    }
}

/// Whether the field of an invalid argument is the token of the device.
fn names_token(details: &[Value]) -> bool {
    let violations = details.iter().filter_map(|detail| at(detail, "/fieldViolations").as_array()).flatten();
    violations.into_iter().any(|violation| at(violation, "/field") == "message.token")
}

impl Adapter for Fcm {
    fn token_request(&self, now: SystemTime) -> Option<Result<Request<Bytes>, Verdict>> {
        let claims = json!({
            "iss": self.client_email,
            "scope": SCOPE,
            "aud": self.token_uri,
            "iat": unix(now),
            "exp": unix(now + ASSERTION_LIFE),
        });
        let assertion = self.key.token(json!({"typ": "JWT"}), &claims, false);
        Some(assertion.and_then(|assertion| {
            post(&self.token_uri, FORM, &[], form(&[("grant_type", GRANT), ("assertion", &assertion)]))
        }))
    }

    fn token(&self, answer: ProviderAnswer<'_>, now: SystemTime) -> Result<AccessToken, Verdict> {
        oauth_token(answer, now)
    }

    fn rejects_token(&self, answer: ProviderAnswer<'_>) -> bool {
        let has_code = at(&json(answer), "/error/details")
            .as_array()
            .is_some_and(|details| error_code(details).is_some());
        matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) && !has_code
    }

    fn request(
        &self,
        wake: Wake<'_>,
        access: Option<&AccessToken>,
        _: SystemTime,
    ) -> Result<Request<Bytes>, Verdict> {
        let body = json!({"message": {
            "token": token_of(wake.credential)?,
            "data": {"pollgate": wake.id},
            "android": {
                // With normal priority a phone that sleeps gets the message after minutes or hours.
                "priority": "high",
                "collapse_key": "pg",
                "ttl": format!("{}s", wake.ttl.as_secs().min(TTL_MAX)),
            },
        }});
        let bearer = format!("Bearer {}", access.map_or("", |access| &access.value));
        post(&self.send_url, JSON, &[(AUTHORIZATION, &bearer)], body.to_string())
    }

    fn verdict(&self, answer: ProviderAnswer<'_>, now: SystemTime) -> Verdict {
        let body = json(answer);
        if answer.status == StatusCode::OK {
            return accepted(at(&body, "/name"));
        }
        let details = at(&body, "/error/details").as_array().map(Vec::as_slice).unwrap_or_default();
        match (error_code(details), answer.status) {
            (Some("UNREGISTERED"), StatusCode::NOT_FOUND) => Verdict::Gone { since: None },
            // The token of another project, or the settings of another project.
            (Some("SENDER_ID_MISMATCH" | "THIRD_PARTY_AUTH_ERROR"), _) => Verdict::config(quoted(answer)),
            // Never a reason to delete: the message may be what is invalid.
            (Some("INVALID_ARGUMENT"), _) if names_token(details) => {
                Verdict::bad("the token of the device is malformed")
            }
            (Some("INVALID_ARGUMENT"), _) => Verdict::bad(quoted(answer)),
            (Some("QUOTA_EXCEEDED"), _) => slow(answer, PAUSE, now),
            (Some("UNAVAILABLE" | "INTERNAL"), _) => retry(answer, RETRY, now),
            _ => by_status(answer, now),
        }
    }
}

fn error_code(details: &[Value]) -> Option<&str> {
    let detail = details.iter().find(|detail| at(detail, "/@type") == FCM_ERROR)?;
    at(detail, "/errorCode").as_str()
}

#[cfg(test)]
mod tests {
    use ring::signature::RSA_PKCS1_2048_8192_SHA256;

    use super::super::answers::testing::{body_of, judged, sent, the_time, token_in};
    use super::super::jwt::tests::{RSA, key, opened};
    use super::*;

    fn fcm() -> Fcm {
        let account = json!({
            "type": "service_account", "project_id": "p", "client_email": "a@p.iam.gserviceaccount.com",
            "private_key": RSA, "private_key_id": "1", "token_uri": "https://oauth2.googleapis.com/token",
        });
        Fcm::new(account.to_string().as_bytes(), None, None).unwrap()
    }

    fn error(status: u16, code: &str, more: Value) -> String {
        let details = json!([{"@type": FCM_ERROR, "errorCode": code}, more]);
        json!({"error": {"code": status, "message": "m", "status": "S", "details": details}}).to_string()
    }

    #[test]
    fn an_access_token_is_requested_with_a_signed_assertion() {
        let app = fcm();
        let request = app.token_request(the_time()).unwrap().unwrap();
        assert_eq!(request.uri(), "https://oauth2.googleapis.com/token");
        assert_eq!(request.headers()["content-type"], FORM);
        let text = std::str::from_utf8(request.body()).unwrap();
        let (grant, assertion) = text.split_once("&assertion=").unwrap();
        assert_eq!(grant, "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer");
        let (_, claims) = opened(assertion, &key(RSA), &RSA_PKCS1_2048_8192_SHA256);
        let now = unix(the_time());
        let expected = json!({
            "iss": "a@p.iam.gserviceaccount.com", "scope": SCOPE, "aud": TOKEN_URI, "iat": now, "exp": now + 3600,
        });
        assert_eq!(claims, expected);
        let token =
            token_in(&app, 200, r#"{"access_token":"ya29.x","expires_in":3600,"token_type":"Bearer"}"#);
        let until = the_time() + Duration::from_secs(3540);
        assert_eq!(token, Ok(AccessToken { value: "ya29.x".into(), until }));
        assert_eq!(token_in(&app, 400, r#"{"error":"invalid_grant"}"#).unwrap_err().as_str(), "config");
        assert_eq!(token_in(&app, 503, "").unwrap_err().as_str(), "retry");
    }

    #[test]
    fn a_wake_is_a_data_message_of_high_priority() {
        let request = sent(&fcm(), "tok", Some("ya29.x"));
        assert_eq!(request.uri(), "https://fcm.googleapis.com/v1/projects/p/messages:send");
        assert_eq!(request.headers()["authorization"], "Bearer ya29.x");
        let expected = json!({"message": {
            "token": "tok", "data": {"pollgate": "00112233aabbccdd"},
            "android": {"priority": "high", "collapse_key": "pg", "ttl": "60s"},
        }});
        assert_eq!(body_of(&request), expected);
    }

    #[test]
    fn each_answer_has_its_verdict() {
        let app = fcm();
        let none = Value::Null;
        let of_token = json!({
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": "message.token", "description": "d"}],
        });
        for (status, body, word) in [
            (200, r#"{"name":"projects/p/messages/1"}"#.to_owned(), "ok"),
            (404, error(404, "UNREGISTERED", none.clone()), "gone"),
            (404, String::new(), "config"),
            (403, error(403, "SENDER_ID_MISMATCH", none.clone()), "config"),
            (400, error(400, "INVALID_ARGUMENT", none.clone()), "bad"),
            (400, error(400, "INVALID_ARGUMENT", of_token), "bad"),
            (429, error(429, "QUOTA_EXCEEDED", none.clone()), "slow"),
            (503, error(503, "UNAVAILABLE", none.clone()), "retry"),
            (500, error(500, "INTERNAL", none.clone()), "retry"),
            (401, error(401, "THIRD_PARTY_AUTH_ERROR", none), "config"),
            (401, String::new(), "config"),
            (500, "<html>".to_owned(), "retry"),
            (418, "garbage".to_owned(), "bad"),
        ] {
            assert_eq!(judged(&app, status, &[], &body).as_str(), word, "{status} {body}");
        }
        assert_eq!(judged(&app, 200, &[], r#"{"name":"n"}"#), Verdict::Ok { id: Some("n".into()) });
        let until = the_time() + Duration::from_secs(60);
        assert_eq!(judged(&app, 429, &[], ""), Verdict::Slow { until });
    }

    #[test]
    fn a_refused_access_token_is_replaced_and_a_refused_device_token_not() {
        let (app, headers) = (fcm(), hyper::HeaderMap::new());
        let rejects = |code: u16, body: &str| {
            let status = StatusCode::from_u16(code).unwrap();
            app.rejects_token(ProviderAnswer { status, headers: &headers, body: body.as_bytes() })
        };
        assert!(rejects(401, "") && rejects(403, "{}"));
        assert!(!rejects(403, &error(403, "SENDER_ID_MISMATCH", Value::Null)) && !rejects(404, ""));
    }
}
