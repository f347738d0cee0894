//! Tencent Push Notification Service (Xinge): JSON with a signature over time, access id and body.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::HeaderName;
use hyper::{Request, StatusCode};
use ring::hmac;
use serde_json::json;

use super::answers::{
    JSON, PAUSE, RETRY, accepted, at, by_status, hex, json, number, post, quoted, slow, token_of, unix,
};
use super::{AccessToken, Adapter, ProviderAnswer, Wake};
use crate::hub::Verdict;

const BASE: &str = "https://api.tpns.tencent.com";

const ACCESS_ID: HeaderName = HeaderName::from_static("accessid");
const TIMESTAMP: HeaderName = HeaderName::from_static("timestamp");
const SIGN: HeaderName = HeaderName::from_static("sign");

/// The longest time for which messages are kept: three days.
const TTL_MAX: u64 = 3 * 24 * 3600;

/// One app.
pub struct Tpns {
    access_id: String,
    key: hmac::Key,
    /// `product`, or `dev` for Apple's sandbox.
    environment: &'static str,
    send_url: String,
}

/// Shows no key.
impl std::fmt::Debug for Tpns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tpns").field("send_url", &self.send_url).finish_non_exhaustive()
    }
}

impl Tpns {
    /// `base` replaces the provider's URL, as in other regions.
    pub fn new(access_id: String, secret: &str, sandbox: bool, base: Option<&str>) -> Self {
        let base = base.unwrap_or(BASE).trim_end_matches('/');
        Self {
            access_id,
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
            environment: if sandbox { "dev" } else { "product" },
            send_url: format!("{base}/v3/push/app"),
        }
    }

    /// The signature is the base64 of hexadecimal text, not of the bytes.
    fn signature(&self, timestamp: &str, body: &str) -> String {
        let signed = [timestamp, &self.access_id, body].concat();
        STANDARD.encode(hex(hmac::sign(&self.key, signed.as_bytes()).as_ref()))
    }
}

impl Adapter for Tpns {
    fn request(
        &self,
        wake: Wake<'_>,
        _: Option<&AccessToken>,
        now: SystemTime,
    ) -> Result<Request<Bytes>, Verdict> {
        let body = json!({
            "audience_type": "token",
            "token_list": [token_of(wake.credential)?],
            "message_type": "message",
            "message": {"title": "pollgate", "content": json!({"pollgate": wake.id}).to_string()},
            "environment": self.environment,
            "expire_time": wake.ttl.as_secs().min(TTL_MAX),
        });
        let (body, timestamp) = (body.to_string(), unix(now).to_string());
        let sign = self.signature(&timestamp, &body);
        let fields = [(ACCESS_ID, self.access_id.as_str()), (TIMESTAMP, &timestamp), (SIGN, &sign)];
        post(&self.send_url, JSON, &fields, body)
    }

    fn verdict(&self, answer: ProviderAnswer<'_>, now: SystemTime) -> Verdict {
        let body = json(answer);
        if answer.status != StatusCode::OK && at(&body, "/ret_code").is_null() {
            return by_status(answer, now);
        }
        match number(at(&body, "/ret_code")) {
            Some(0) => accepted(at(&body, "/push_id")),
            Some(1_008_006 | 1_008_029 | 10_110_008) => Verdict::Gone { since: None },
            Some(1_008_003 | 1_010_001) => Verdict::config(quoted(answer)),
            Some(1_008_028) => slow(answer, PAUSE, now),
            // The wake has been sent before.
            Some(10_010_018) => Verdict::Ok { id: None },
            Some(_) => Verdict::bad(quoted(answer)),
            None => Verdict::Retry { after: RETRY },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::answers::testing::{body_of, judged, sent};
    use super::*;

    fn tpns() -> Tpns {
        Tpns::new("1500001048".to_owned(), "s3cret", false, None)
    }

    #[test]
    fn a_wake_is_signed_over_hexadecimal_text() {
        let request = sent(&tpns(), "tok", None);
        assert_eq!(request.uri(), "https://api.tpns.tencent.com/v3/push/app");
        let expected = json!({
            "audience_type": "token", "token_list": ["tok"], "message_type": "message",
            "message": {"title": "pollgate", "content": r#"{"pollgate":"00112233aabbccdd"}"#},
            "environment": "product", "expire_time": 60,
        });
        assert_eq!(body_of(&request), expected);
        let field = |name: &str| request.headers()[name].to_str().unwrap();
        assert_eq!([field("accessid"), field("timestamp")], ["1500001048", "1795910400"]);
        let hexadecimal = STANDARD.decode(field("sign")).unwrap();
        assert_eq!(hexadecimal.len(), 64);
        assert!(hexadecimal.iter().all(u8::is_ascii_hexdigit));
        // printf '15660064861500001048{}' | openssl dgst -sha256 -hmac s3cret -r | cut -c 1-64 | tr -d '\n' | base64 -w 0
        assert_eq!(
            tpns().signature("1566006486", "{}"),
            "MWJiY2U3OWZkYTAyZGZkNDA0ODExZmUyM2ZkMjU5MTM5ODVlN2Y0NmI5NDI3NTc4MTI0NDBlYTgyOTUyMDg0Yw=="
        );
        assert!(!format!("{:?}", tpns()).contains("key"));
    }

    #[test]
    fn each_code_has_its_verdict() {
        let app = tpns();
        for (code, word) in [
            (0, "ok"),
            (1_008_001, "bad"),
            (1_008_002, "bad"),
            (1_008_003, "config"),
            (1_008_006, "gone"),
            (1_008_029, "gone"),
            (1_008_007, "bad"),
            (1_008_028, "slow"),
            (1_010_001, "config"),
            (10_010_005, "bad"),
            (10_010_018, "ok"),
            (10_110_008, "gone"),
        ] {
            let body = json!({"seq": 1, "push_id": "7", "ret_code": code, "err_msg": "m"}).to_string();
            assert_eq!(judged(&app, 200, &[], &body).as_str(), word, "{code}");
        }
        assert_eq!(
            judged(&app, 200, &[], r#"{"ret_code":0,"push_id":"7"}"#),
            Verdict::Ok { id: Some("7".into()) }
        );
        assert_eq!(judged(&app, 500, &[], "").as_str(), "retry");
    }
}
