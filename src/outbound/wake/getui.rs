//! Getui, version 2: an access token for a digest of the secret, and one message a device.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::header::HeaderName;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use super::answers::{
    JSON, PAUSE, RETRY, at, by_status, json, number, post, quoted, retry, sha256_hex, slow, token_end,
    token_of,
};
use super::{AccessToken, Adapter, ProviderAnswer, Wake};
use crate::hub::Verdict;

const BASE: &str = "https://restapi.getui.com";
const TOKEN: HeaderName = HeaderName::from_static("token");

/// The longest time for which messages are kept: three days.
const TTL_MAX: Duration = Duration::from_secs(3 * 24 * 3600);

/// One app.
pub struct Getui {
    app_key: String,
    master_secret: String,
    /// With the app's id.
    base: String,
}

/// Shows no secret.
impl std::fmt::Debug for Getui {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Getui").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Getui {
    /// `base` replaces the provider's URL.
    pub fn new(app_id: &str, app_key: String, master_secret: String, base: Option<&str>) -> Self {
        let base = base.unwrap_or(BASE).trim_end_matches('/');
        Self { app_key, master_secret, base: format!("{base}/v2/{app_id}") }
    }
}

impl Adapter for Getui {
    fn token_request(&self, now: SystemTime) -> Option<Result<Request<Bytes>, Verdict>> {
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis().to_string();
        let sign = sha256_hex(&[&self.app_key, millis.as_str(), &self.master_secret].concat());
        let body = json!({"sign": sign, "timestamp": millis, "appkey": self.app_key});
        Some(post(&format!("{}/auth", self.base), JSON, &[], body.to_string()))
    }

    fn token(&self, answer: ProviderAnswer<'_>, now: SystemTime) -> Result<AccessToken, Verdict> {
        let body = json(answer);
        match (number(at(&body, "/code")), at(&body, "/data/token").as_str()) {
            (Some(0), Some(value)) => {
                let millis =
                    number(at(&body, "/data/expire_time")).and_then(|millis| u64::try_from(millis).ok());
                let until = UNIX_EPOCH + Duration::from_millis(millis.unwrap_or_default());
                let life = until.duration_since(now).unwrap_or_default();
                Ok(AccessToken { value: value.into(), until: token_end(now, life) })
            }
            (Some(10_003 | 10_005), _) => Err(slow(answer, PAUSE, now)),
            (None, _) if answer.status.is_server_error() => Err(retry(answer, RETRY, now)),
            _ => Err(Verdict::config(format!("no access token: {}", quoted(answer)))),
        }
    }

    fn rejects_token(&self, answer: ProviderAnswer<'_>) -> bool {
        number(at(&json(answer), "/code")) == Some(10_001)
    }

    fn request(
        &self,
        wake: Wake<'_>,
        access: Option<&AccessToken>,
        _: SystemTime,
    ) -> Result<Request<Bytes>, Verdict> {
        let body = json!({
            // A second message with this id is dropped silently, so that a retry of the wake arrives once.
            "request_id": wake.id,
            "audience": {"cid": [token_of(wake.credential)?]},
            "settings": {"ttl": u64::try_from(wake.ttl.min(TTL_MAX).as_millis()).unwrap_or(0)},
            "push_message": {"transmission": json!({"pollgate": wake.id}).to_string()},
        });
        let token = access.map_or("", |access| &access.value);
        post(&format!("{}/push/single/cid", self.base), JSON, &[(TOKEN, token)], body.to_string())
    }

    fn verdict(&self, answer: ProviderAnswer<'_>, now: SystemTime) -> Verdict {
        let body = json(answer);
        if answer.status != StatusCode::OK && at(&body, "/code").is_null() {
            return by_status(answer, now);
        }
        match number(at(&body, "/code")) {
            Some(0) => delivered(at(&body, "/data")),
            Some(2) => retry(answer, RETRY, now),
            // 301: another domain, which only the operator may choose.
            Some(301 | 10_001 | 10_002) => Verdict::config(quoted(answer)),
            Some(10_003 | 10_005) => slow(answer, PAUSE, now),
            Some(20_001)
                if at(&body, "/msg").as_str().is_some_and(|text| text.contains("target user is invalid")) =>
            {
                Verdict::Gone { since: None }
            }
            Some(_) => Verdict::bad(quoted(answer)),
            None => Verdict::Retry { after: RETRY },
        }
    }
}

/// Reads `{task id: {device: outcome}}`.
fn delivered(data: &Value) -> Verdict {
    let task = data.as_object().and_then(|tasks| tasks.iter().next());
    let outcome = task.and_then(|(_, devices)| devices.as_object()?.values().next()?.as_str());
    match (outcome, task) {
        // The device has been offline for so long that messages are not kept for it.
        (Some("successed_ignore"), _) => Verdict::Gone { since: None },
        (_, task) => Verdict::Ok { id: task.map(|(id, _)| id.as_str().into()) },
    }
}

#[cfg(test)]
mod tests {
    use super::super::answers::testing::{body_of, judged, sent, the_time, token_in};
    use super::*;

    fn getui() -> Getui {
        Getui::new("app", "key".to_owned(), "s3cret".to_owned(), None)
    }

    #[test]
    fn an_access_token_is_requested_with_a_digest() {
        let app = getui();
        let request = app.token_request(the_time()).unwrap().unwrap();
        assert_eq!(request.uri(), "https://restapi.getui.com/v2/app/auth");
        let body = body_of(&request);
        assert_eq!((&body["timestamp"], &body["appkey"]), (&json!("1795910400000"), &json!("key")));
        // printf 'key1795910400000s3cret' | sha256sum
        assert_eq!(body["sign"], "e5210aaf45c0055df158a540db2cc32794dc5dab9a153a6739dccbe2337e1bb2");
        let token =
            token_in(&app, 200, r#"{"code":0,"msg":"","data":{"expire_time":"1795914000000","token":"t"}}"#);
        assert_eq!(token.unwrap().until, the_time() + Duration::from_secs(3540));
        for (body, word) in [(r#"{"code":10003}"#, "slow"), (r#"{"code":1}"#, "config")] {
            assert_eq!(token_in(&app, 200, body).unwrap_err().as_str(), word);
        }
    }

    #[test]
    fn a_retry_has_the_id_of_its_wake() {
        let request = sent(&getui(), "cid", Some("t"));
        assert_eq!(request.uri(), "https://restapi.getui.com/v2/app/push/single/cid");
        assert_eq!(request.headers()["token"], "t");
        let expected = json!({
            "request_id": "00112233aabbccdd", "audience": {"cid": ["cid"]}, "settings": {"ttl": 60_000},
            "push_message": {"transmission": r#"{"pollgate":"00112233aabbccdd"}"#},
        });
        assert_eq!(body_of(&request), expected);
    }

    #[test]
    fn each_answer_has_its_verdict() {
        let app = getui();
        for (status, body, word) in [
            (200, r#"{"code":0,"msg":"success","data":{"T1":{"cid":"successed_online"}}}"#, "ok"),
            (200, r#"{"code":0,"msg":"success","data":{"T1":{"cid":"successed_offline"}}}"#, "ok"),
            (200, r#"{"code":0,"msg":"success","data":{"T1":{"cid":"successed_ignore"}}}"#, "gone"),
            (200, r#"{"code":1,"msg":"general"}"#, "bad"),
            (200, r#"{"code":2,"msg":"starting"}"#, "retry"),
            (200, r#"{"code":301,"msg":"domain"}"#, "config"),
            (401, r#"{"code":10001,"msg":"token"}"#, "config"),
            (403, r#"{"code":10002,"msg":"blacklist"}"#, "config"),
            (403, r#"{"code":10003,"msg":"auth frequency"}"#, "slow"),
            (403, r#"{"code":10005,"msg":"rate"}"#, "slow"),
            (400, r#"{"code":20001,"msg":"parameter"}"#, "bad"),
            (400, r#"{"code":20001,"msg":"target user is invalid"}"#, "gone"),
            (405, "", "config"),
            (500, "", "retry"),
            (200, "garbage", "retry"),
        ] {
            assert_eq!(judged(&app, status, &[], body).as_str(), word, "{status} {body}");
        }
        let ok = judged(&app, 200, &[], r#"{"code":0,"data":{"T1":{"c":"successed_online"}}}"#);
        assert_eq!(ok, Verdict::Ok { id: Some("T1".into()) });
    }
}
