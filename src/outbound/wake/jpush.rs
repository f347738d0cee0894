//! JPush (Jiguang), version 3: JSON with the key and the secret of the app as a password.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::AUTHORIZATION;
use hyper::{Request, StatusCode};
use serde_json::json;

use super::answers::{
    JSON, PAUSE, RETRY, accepted, at, by_status, json, number, post, quoted, retry, slow, token_of,
};
use super::{AccessToken, Adapter, ProviderAnswer, Wake};
use crate::hub::Verdict;

const BASE: &str = "https://api.jpush.cn";

/// The longest time for which messages are kept.
const TTL_MAX: u64 = 10 * 24 * 3600;

/// The field with the seconds until the quota of the minute is renewed.
const RESET: &str = "x-rate-limit-reset";

/// One app.
pub struct Jpush {
    /// The value of `Authorization`.
    password: String,
    apns_production: bool,
    send_url: String,
}

/// Shows no password.
impl std::fmt::Debug for Jpush {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jpush").field("send_url", &self.send_url).finish_non_exhaustive()
    }
}

impl Jpush {
    /// `base` replaces the provider's URL, as in the zone of Beijing.
    pub fn new(app_key: &str, secret: &str, apns_production: bool, base: Option<&str>) -> Self {
        let base = base.unwrap_or(BASE).trim_end_matches('/');
        let password = format!("Basic {}", STANDARD.encode(format!("{app_key}:{secret}")));
        Self { password, apns_production, send_url: format!("{base}/v3/push") }
    }
}

impl Adapter for Jpush {
    fn request(
        &self,
        wake: Wake<'_>,
        _: Option<&AccessToken>,
        _: SystemTime,
    ) -> Result<Request<Bytes>, Verdict> {
        let body = json!({
            "platform": "all",
            "audience": {"registration_id": [token_of(wake.credential)?]},
            // A silent message of the app, without a notification.
            "message": {"msg_content": "poll", "extras": {"pollgate": wake.id}},
            "options": {
                "time_to_live": wake.ttl.as_secs().min(TTL_MAX),
                "apns_production": self.apns_production,
                "apns_collapse_id": "pollgate",
            },
        });
        post(&self.send_url, JSON, &[(AUTHORIZATION, &self.password)], body.to_string())
    }

    fn verdict(&self, answer: ProviderAnswer<'_>, now: SystemTime) -> Verdict {
        let body = json(answer);
        if answer.status == StatusCode::OK {
            return accepted(at(&body, "/msg_id"));
        }
        match number(at(&body, "/error/code")) {
            Some(1000 | 1030) => retry(answer, RETRY, now),
            // No such audience: the device is gone, or has not been online for 255 days.
            Some(1011) => Verdict::Gone { since: None },
            Some(1001 | 1004 | 1020 | 2003..=2007) => Verdict::config(quoted(answer)),
            Some(2002) => {
                let reset = answer.headers.get(RESET).and_then(|reset| reset.to_str().ok()?.parse().ok());
                let pause = reset.map_or(PAUSE, |seconds: u64| Duration::from_secs(seconds.min(3600)));
                slow(answer, pause, now)
            }
            Some(_) => Verdict::bad(quoted(answer)),
            None => by_status(answer, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::answers::testing::{body_of, judged, sent, the_time};
    use super::*;

    fn jpush() -> Jpush {
        Jpush::new("key", "s3cret", true, None)
    }

    #[test]
    fn a_wake_is_a_silent_message() {
        let request = sent(&jpush(), "reg", None);
        assert_eq!(request.uri(), "https://api.jpush.cn/v3/push");
        assert_eq!(request.headers()["authorization"], format!("Basic {}", STANDARD.encode("key:s3cret")));
        let expected = json!({
            "platform": "all", "audience": {"registration_id": ["reg"]},
            "message": {"msg_content": "poll", "extras": {"pollgate": "00112233aabbccdd"}},
            "options": {"time_to_live": 60, "apns_production": true, "apns_collapse_id": "pollgate"},
        });
        assert_eq!(body_of(&request), expected);
        assert!(!format!("{:?}", jpush()).contains("Basic"));
    }

    #[test]
    fn each_code_has_its_verdict() {
        let app = jpush();
        for (status, code, word) in [
            (500, 1000, "retry"),
            (405, 1001, "config"),
            (400, 1002, "bad"),
            (400, 1003, "bad"),
            (400, 1005, "bad"),
            (400, 1008, "bad"),
            (400, 1009, "bad"),
            (400, 1012, "bad"),
            (400, 1011, "gone"),
            (401, 1004, "config"),
            (404, 1020, "config"),
            (503, 1030, "retry"),
            (429, 2002, "slow"),
            (403, 2003, "config"),
            (403, 2007, "config"),
        ] {
            let body = json!({"error": {"code": code, "message": "m"}}).to_string();
            assert_eq!(judged(&app, status, &[], &body).as_str(), word, "{status} {code}");
        }
        let ok = judged(&app, 200, &[], r#"{"sendno":"0","msg_id":"18100287007833676"}"#);
        assert_eq!(ok, Verdict::Ok { id: Some("18100287007833676".into()) });
        let body = r#"{"error":{"code":2002,"message":"m"}}"#;
        let until = the_time() + Duration::from_secs(17);
        assert_eq!(judged(&app, 429, &[("x-rate-limit-reset", "17")], body), Verdict::Slow { until });
        assert_eq!(judged(&app, 502, &[], "<html>").as_str(), "retry");
    }
}
