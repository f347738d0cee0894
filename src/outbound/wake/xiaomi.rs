//! Xiaomi Mi Push: a form with the secret of the app. Errors come with status 200.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::header::AUTHORIZATION;
use hyper::{Request, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::answers::{
    FORM, PAUSE, RETRY, accepted, at, by_status, form, json, number, post, quoted, retry, slow, token_of,
    unix,
};
use super::{AccessToken, Adapter, ProviderAnswer, Wake};
use crate::hub::Verdict;

const BASE: &str = "https://api.xmpush.xiaomi.com";

/// The longest time for which messages of the public channel are kept.
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// China is eight hours ahead of UTC all year; quotas end at its midnight.
const CHINA_AHEAD: u64 = 8 * 3600;
const DAY: u64 = 24 * 3600;

/// One app.
#[derive(Debug)]
pub struct Xiaomi {
    secret: Secret,
    package: String,
    channel: Option<String>,
    send_url: String,
}

/// The value of `Authorization`.
struct Secret(String);

/// Shows no secret.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Xiaomi {
    /// `package` is the name of the Android app, `channel` the id of a private channel. `base` replaces the provider's URL, as
    /// outside of China.
    pub fn new(secret: &str, package: String, channel: Option<String>, base: Option<&str>) -> Self {
        let base = base.unwrap_or(BASE).trim_end_matches('/');
        Self {
            secret: Secret(format!("key={secret}")),
            package,
            channel,
            send_url: format!("{base}/v3/message/regid"),
        }
    }
}

impl Adapter for Xiaomi {
    fn request(
        &self,
        wake: Wake<'_>,
        _: Option<&AccessToken>,
        _: SystemTime,
    ) -> Result<Request<Bytes>, Verdict> {
        // The payload is encoded once more than the form.
        let payload =
            utf8_percent_encode(&format!("{{\"pollgate\":\"{}\"}}", wake.id), NON_ALPHANUMERIC).to_string();
        let ttl = wake.ttl.min(TTL_MAX).as_millis().to_string();
        let mut fields = vec![
            ("registration_id", token_of(wake.credential)?),
            ("payload", &payload),
            ("restricted_package_name", &self.package),
            ("pass_through", "1"),
            ("time_to_live", &ttl),
            ("notify_id", "1"),
            ("extra.jobkey", wake.id),
        ];
        fields.extend(self.channel.as_deref().map(|channel| ("extra.channel_id", channel)));
        post(&self.send_url, FORM, &[(AUTHORIZATION, &self.secret.0)], form(&fields))
    }

    fn verdict(&self, answer: ProviderAnswer<'_>, now: SystemTime) -> Verdict {
        let body = json(answer);
        if answer.status != StatusCode::OK && at(&body, "/code").is_null() {
            return by_status(answer, now);
        }
        match number(at(&body, "/code")) {
            Some(0) => accepted(at(&body, "/data/id")),
            Some(10_001..=10_003) => retry(answer, RETRY, now),
            Some(10_027) => slow(answer, PAUSE, now),
            Some(10_034) => Verdict::Slow { until: next_day_in_china(now) },
            Some(20_301 | 65_003) => Verdict::Gone { since: None },
            Some(
                10_016 | 10_017 | 10_031 | 21_301 | 21_305 | 22_000 | 22_006 | 22_007 | 22_022 | 26_004
                | 27_001,
            ) => Verdict::config(quoted(answer)),
            Some(_) => Verdict::bad(quoted(answer)),
            None => Verdict::Retry { after: RETRY },
        }
    }
}

fn next_day_in_china(now: SystemTime) -> SystemTime {
    now + Duration::from_secs(DAY - (unix(now) + CHINA_AHEAD) % DAY)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::answers::testing::{judged, sent, the_time};
    use super::*;

    fn xiaomi(channel: Option<&str>) -> Xiaomi {
        Xiaomi::new("s3cret", "org.example".to_owned(), channel.map(str::to_owned), None)
    }

    #[test]
    fn a_wake_is_a_form_with_a_payload_that_is_encoded_twice() {
        let request = sent(&xiaomi(None), "reg+1", None);
        assert_eq!(request.uri(), "https://api.xmpush.xiaomi.com/v3/message/regid");
        assert_eq!(request.headers()["authorization"], "key=s3cret");
        let expected = "registration_id=reg%2B1&payload=%257B%2522pollgate%2522%253A%252200112233aabbccdd%2522%257D\
                        &restricted_package_name=org.example&pass_through=1&time_to_live=60000&notify_id=1\
                        &extra.jobkey=00112233aabbccdd";
        assert_eq!(std::str::from_utf8(request.body()).unwrap(), expected);
        let of_channel = sent(&xiaomi(Some("7")), "r", None);
        assert!(std::str::from_utf8(of_channel.body()).unwrap().ends_with("&extra.channel_id=7"));
        assert!(!format!("{:?}", xiaomi(None)).contains("s3cret"));
    }

    #[test]
    fn each_code_has_its_verdict() {
        let app = xiaomi(None);
        for (code, word) in [
            (0, "ok"),
            (10_001, "retry"),
            (10_002, "retry"),
            (10_003, "retry"),
            (10_008, "bad"),
            (10_016, "config"),
            (10_017, "config"),
            (10_027, "slow"),
            (10_029, "bad"),
            (10_031, "config"),
            (10_034, "slow"),
            (20_301, "gone"),
            (21_301, "config"),
            (21_305, "config"),
            (22_000, "config"),
            (22_006, "config"),
            (22_007, "config"),
            (22_022, "config"),
            (26_004, "config"),
            (27_001, "config"),
            (65_003, "gone"),
            (65_009, "bad"),
        ] {
            let body = json!({"result": "x", "code": code, "data": {"id": "i"}, "reason": "r"}).to_string();
            assert_eq!(judged(&app, 200, &[], &body).as_str(), word, "{code}");
        }
        assert_eq!(judged(&app, 502, &[], "<html>").as_str(), "retry");
        // The test's time is midnight UTC: eight in the morning in China.
        let until = the_time() + Duration::from_secs(16 * 3600);
        assert_eq!(judged(&app, 200, &[], r#"{"code":10034}"#), Verdict::Slow { until });
    }
}
