//! Huawei Push Kit, in three versions of its interface, and Honor, which has copied the first one. Errors come with status 200.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HeaderName};
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use super::answers::{
    FORM, JSON, RETRY, accepted, at, by_status, form, json, number, oauth_token, post, quoted, retry,
    token_end, token_of, unix,
};
use super::jwt::ProviderKey;
use super::{AccessToken, Adapter, ProviderAnswer, Wake};
use crate::hub::Verdict;

const BASE: &str = "https://push-api.cloud.huawei.com";
const TOKEN_URL: &str = "https://oauth-login.cloud.huawei.com/oauth2/v3/token";
const HONOR_BASE: &str = "https://push-api.cloud.honor.com";
const HONOR_TOKEN_URL: &str = "https://hnoauth-login.cloud.honor.com/oauth2/v3/token";

const PUSH_TYPE: HeaderName = HeaderName::from_static("push-type");

/// Background messages.
const BACKGROUND: &str = "6";

/// The longest life of a signed token of version 3.
const ASSERTION_LIFE: Duration = Duration::from_secs(3600);

/// The longest time for which messages are kept: 15 days.
const TTL_MAX: u64 = 15 * 24 * 3600;

/// Which interface, and how the gateway identifies itself.
#[derive(Debug)]
pub enum HuaweiVersion {
    /// Android and HarmonyOS up to 4: `/v1/{id}` with the client id, or `/v2/{id}` with the project id.
    Secret { version: u8, client_id: String, client_secret: String },
    /// HarmonyOS from 5 on: a service account signs tokens itself, with PS256 or, where that is refused, with RS256.
    Account { key: Box<ProviderKey>, key_id: String, sub_account: String, pss: bool },
}

/// One app.
#[derive(Debug)]
pub struct Huawei {
    version: HuaweiVersion,
    token_url: String,
    send_url: String,
}

impl Huawei {
    /// `id` is the client id of version 1, the app id of Honor, and the project id of others. `base` and `token_url` replace the
    /// provider's.
    pub fn new(
        version: HuaweiVersion,
        id: &str,
        honor: bool,
        base: Option<&str>,
        token_url: Option<&str>,
    ) -> Self {
        let (own_base, own_token_url) = if honor { (HONOR_BASE, HONOR_TOKEN_URL) } else { (BASE, TOKEN_URL) };
        let base = base.unwrap_or(own_base).trim_end_matches('/');
        let number = match &version {
            HuaweiVersion::Secret { version, .. } => *version,
            HuaweiVersion::Account { .. } => 3,
        };
        Self {
            send_url: format!("{base}/v{number}/{id}/messages:send"),
            token_url: token_url.unwrap_or(own_token_url).to_owned(),
            version,
        }
    }

    fn bearer(&self, access: Option<&AccessToken>, now: SystemTime) -> Result<String, Verdict> {
        match &self.version {
            HuaweiVersion::Secret { .. } => {
                Ok(format!("Bearer {}", access.map_or("", |access| &access.value)))
            }
            HuaweiVersion::Account { key, key_id, sub_account, pss } => {
                let claims = json!({
                    "iss": sub_account,
                    "aud": self.token_url,
                    "iat": unix(now),
                    "exp": unix(token_end(now, ASSERTION_LIFE)),
                });
                Ok(format!("Bearer {}", key.token(json!({"kid": key_id, "typ": "JWT"}), &claims, *pss)?))
            }
        }
    }
}

impl Adapter for Huawei {
    fn token_request(&self, _: SystemTime) -> Option<Result<Request<Bytes>, Verdict>> {
        let HuaweiVersion::Secret { client_id, client_secret, .. } = &self.version else { return None };
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("client_secret", client_secret),
        ];
        Some(post(&self.token_url, FORM, &[], form(&fields)))
    }

    fn token(&self, answer: ProviderAnswer<'_>, now: SystemTime) -> Result<AccessToken, Verdict> {
        oauth_token(answer, now)
    }

    fn rejects_token(&self, answer: ProviderAnswer<'_>) -> bool {
        let code = number(at(&json(answer), "/code"));
        let has_token = matches!(self.version, HuaweiVersion::Secret { .. });
        has_token && matches!(code, Some(80_200_001 | 80_200_003 | 80_200_005 | 80_600_003))
    }

    fn request(
        &self,
        wake: Wake<'_>,
        access: Option<&AccessToken>,
        now: SystemTime,
    ) -> Result<Request<Bytes>, Verdict> {
        let (token, ttl) = (token_of(wake.credential)?, wake.ttl.as_secs().min(TTL_MAX));
        let bearer = self.bearer(access, now)?;
        let data = json!({"pollgate": wake.id}).to_string();
        match &self.version {
            HuaweiVersion::Secret { .. } => {
                let android = json!({"urgency": "HIGH", "ttl": format!("{ttl}s"), "collapse_key": 1});
                let message = json!({"data": data, "android": android, "token": [token]});
                let body = json!({"validate_only": false, "message": message});
                post(&self.send_url, JSON, &[(AUTHORIZATION, &bearer)], body.to_string())
            }
            HuaweiVersion::Account { .. } => {
                let body = json!({
                    "payload": {"extraData": data},
                    "target": {"token": [token]},
                    "pushOptions": {"ttl": ttl},
                });
                let fields = [(AUTHORIZATION, bearer.as_str()), (PUSH_TYPE, BACKGROUND)];
                post(&self.send_url, JSON, &fields, body.to_string())
            }
        }
    }

    fn verdict(&self, answer: ProviderAnswer<'_>, now: SystemTime) -> Verdict {
        let body = json(answer);
        if answer.status != StatusCode::OK && at(&body, "/code").is_null() {
            return by_status(answer, now);
        }
        match number(at(&body, "/code")) {
            Some(80_000_000 | 200) => accepted(at(&body, "/requestId")),
            Some(80_100_000) if names_illegal_tokens(&body) => Verdict::Gone { since: None },
            // Also a token of another version; the gate against mass deletion finds out.
            Some(80_300_007) => Verdict::Gone { since: None },
            Some(80_200_001 | 80_200_003 | 80_200_005 | 80_600_003 | 80_300_002 | 80_300_011) => {
                Verdict::config(quoted(answer))
            }
            Some(81_000_001) => retry(answer, RETRY, now),
            Some(_) => Verdict::bad(quoted(answer)),
            None => Verdict::Retry { after: RETRY },
        }
    }
}

/// Whether the message, which is a text with JSON, lists invalid tokens. There was one token to list.
fn names_illegal_tokens(body: &Value) -> bool {
    let text = at(body, "/msg").as_str().unwrap_or_default();
    let message: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    at(&message, "/illegal_tokens").as_array().is_some_and(|tokens| !tokens.is_empty())
}

#[cfg(test)]
mod tests {
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, VerificationAlgorithm};

    use super::super::answers::testing::{body_of, judged, sent, the_time, token_in};
    use super::super::jwt::tests::{RSA, key, opened};
    use super::*;

    fn by_secret(version: u8, honor: bool) -> Huawei {
        let [client_id, client_secret] = ["100", "secret&1"].map(str::to_owned);
        Huawei::new(HuaweiVersion::Secret { version, client_id, client_secret }, "100", honor, None, None)
    }

    fn by_account(pss: bool) -> Huawei {
        let [key_id, sub_account] = ["k", "s"].map(str::to_owned);
        Huawei::new(
            HuaweiVersion::Account { key: Box::new(key(RSA)), key_id, sub_account, pss },
            "200",
            false,
            None,
            None,
        )
    }

    #[test]
    fn versions_1_and_2_get_an_access_token_for_their_secret() {
        for (app, url, send_url) in [
            (by_secret(1, false), TOKEN_URL, "https://push-api.cloud.huawei.com/v1/100/messages:send"),
            (by_secret(2, false), TOKEN_URL, "https://push-api.cloud.huawei.com/v2/100/messages:send"),
            (by_secret(1, true), HONOR_TOKEN_URL, "https://push-api.cloud.honor.com/v1/100/messages:send"),
        ] {
            let request = app.token_request(the_time()).unwrap().unwrap();
            assert_eq!(request.uri(), url);
            assert_eq!(
                request.body().as_ref(),
                b"grant_type=client_credentials&client_id=100&client_secret=secret%261"
            );
            let token = token_in(&app, 200, r#"{"access_token":"t","expires_in":3600}"#).unwrap();
            let request = sent(&app, "tok", Some(&token.value));
            assert_eq!(request.uri(), send_url);
            assert_eq!(request.headers()["authorization"], "Bearer t");
            let expected = json!({"validate_only": false, "message": {
                "data": r#"{"pollgate":"00112233aabbccdd"}"#,
                "android": {"urgency": "HIGH", "ttl": "60s", "collapse_key": 1},
                "token": ["tok"],
            }});
            assert_eq!(body_of(&request), expected);
        }
    }

    #[test]
    fn version_3_signs_its_own_token() {
        for (pss, algorithm) in [
            (true, &RSA_PSS_2048_8192_SHA256 as &dyn VerificationAlgorithm),
            (false, &RSA_PKCS1_2048_8192_SHA256),
        ] {
            let app = by_account(pss);
            assert!(app.token_request(the_time()).is_none());
            let request = sent(&app, "tok", None);
            assert_eq!(request.uri(), "https://push-api.cloud.huawei.com/v3/200/messages:send");
            assert_eq!(request.headers()["push-type"], "6");
            let expected = json!({
                "payload": {"extraData": r#"{"pollgate":"00112233aabbccdd"}"#},
                "target": {"token": ["tok"]},
                "pushOptions": {"ttl": 60},
            });
            assert_eq!(body_of(&request), expected);
            let field = request.headers()["authorization"].to_str().unwrap();
            let (_, claims) = opened(field.strip_prefix("Bearer ").unwrap(), &key(RSA), algorithm);
            let now = unix(the_time());
            assert_eq!(claims, json!({"iss": "s", "aud": TOKEN_URL, "iat": now, "exp": now + 3540}));
        }
    }

    #[test]
    fn each_code_has_its_verdict_although_all_come_with_status_200() {
        let app = by_secret(1, false);
        for (code, word) in [
            (80_000_000, "ok"),
            (80_100_000, "bad"),
            (80_300_007, "gone"),
            (80_100_001, "bad"),
            (80_100_003, "bad"),
            (80_100_004, "bad"),
            (80_100_013, "bad"),
            (80_100_016, "bad"),
            (80_100_017, "bad"),
            (80_300_008, "bad"),
            (80_300_010, "bad"),
            (80_300_011, "config"),
            (80_200_001, "config"),
            (80_200_003, "config"),
            (80_200_005, "config"),
            (80_600_003, "config"),
            (80_300_002, "config"),
            (81_000_001, "retry"),
        ] {
            let body = json!({"code": code.to_string(), "msg": "m", "requestId": "r"}).to_string();
            assert_eq!(judged(&app, 200, &[], &body).as_str(), word, "{code}");
        }
        let some =
            json!({"code": "80100000", "msg": r#"{"success":0,"failure":1,"illegal_tokens":["tok"]}"#});
        assert_eq!(judged(&app, 200, &[], &some.to_string()), Verdict::Gone { since: None });
        for (status, word) in
            [(500, "retry"), (502, "retry"), (503, "retry"), (404, "config"), (200, "retry")]
        {
            assert_eq!(judged(&app, status, &[], "<html>").as_str(), word, "{status}");
        }
    }

    #[test]
    fn a_refused_access_token_is_replaced() {
        let headers = hyper::HeaderMap::new();
        let rejects = |app: &Huawei, code: u32| {
            let body = json!({"code": code.to_string()}).to_string();
            app.rejects_token(ProviderAnswer {
                status: StatusCode::OK,
                headers: &headers,
                body: body.as_bytes(),
            })
        };
        for code in [80_200_001, 80_200_003, 80_200_005, 80_600_003] {
            assert!(rejects(&by_secret(1, false), code), "{code}");
            assert!(!rejects(&by_account(true), code), "{code}");
        }
        assert!(!rejects(&by_secret(1, false), 80_000_000));
    }
}
