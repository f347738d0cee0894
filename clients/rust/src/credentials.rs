//! Header fields that the user adds to each request: fixed ones, and a bearer token that can be replaced or is fetched.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::HeaderMap;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    TRANSFER_ENCODING, UPGRADE,
};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

use crate::error::BuildError;
use crate::refusal::Refusal;

/// Fields that the client sets itself, besides those that begin with one of [`OWN_PREFIXES`].
const OWN: [HeaderName; 6] = [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, UPGRADE];

const OWN_PREFIXES: [&str; 3] = ["sec-websocket-", "producer-", "stream-"];

/// A token is fetched again this long before its end, or at half of its life if that is later.
const RENEWAL_MARGIN: Duration = Duration::from_secs(30);

/// A bearer token (RFC 6750), sent with each request as `Authorization: Bearer ...`.
///
/// Clones share one value, so keep a clone to [replace](Self::replace) the token while clients use it. `Debug` does not
/// show the value.
#[derive(Clone)]
pub struct Token(Arc<SharedToken>);

struct SharedToken {
    current: Mutex<Current>,
    /// The user's function for tokens.
    fetch: Option<Fetch>,
    /// Held by the task that fetches a token; others wait for it.
    fetching: tokio::sync::Mutex<()>,
}

type Fetch = Box<dyn Fn() -> Fetching + Send + Sync>;
type Fetching = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

struct Current {
    /// `None`: no token has been fetched yet.
    authorization: Option<HeaderValue>,
    version: u64,
    /// When to fetch another token. `None`: when this one is refused.
    fetch_at: Option<Instant>,
}

/// The text cannot be a token: it is empty or contains other characters than visible ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token consists of visible ASCII characters")]
pub struct InvalidToken;

impl Token {
    /// Creates a token.
    ///
    /// # Errors
    /// The text is empty or contains other characters than visible ASCII.
    pub fn new(token: &str) -> Result<Self, InvalidToken> {
        let authorization = Some(authorization(token)?);
        let current = Mutex::new(Current { authorization, version: 0, fetch_at: None });
        Ok(Self(Arc::new(SharedToken { current, fetch: None, fetching: Default::default() })))
    }

    /// Creates a token that is fetched by a function: before the first request, shortly before the end of the last token if that
    /// is a JSON Web Token with `iat` and `exp`, and when a request is refused with 401. An open WebSocket is sent the next token. If
    /// that is refused too, or the function fails, the subscription or the publish that needs it ends with a [`Refusal`].
    pub fn fetched_by<F, T, E>(fetch: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, E>> + Send + 'static,
        E: fmt::Display,
    {
        let fetch: Fetch = Box::new(move || {
            let fetching = fetch();
            Box::pin(async { fetching.await.map_err(|error| error.to_string()) })
        });
        let current = Mutex::new(Current { authorization: None, version: 0, fetch_at: None });
        Self(Arc::new(SharedToken { current, fetch: Some(fetch), fetching: Default::default() }))
    }

    /// Replaces the token. Requests from now on carry the new one. Connections that are open stay open; a request that
    /// is refused with 401 or 403 because it still carried the old token is repeated.
    ///
    /// # Errors
    /// The text is empty or contains other characters than visible ASCII. The old token stays in use.
    pub fn replace(&self, token: &str) -> Result<(), InvalidToken> {
        self.0.set(token)
    }
}

impl SharedToken {
    fn set(&self, token: &str) -> Result<(), InvalidToken> {
        let authorization = Some(authorization(token)?);
        let life = life(token).map(|life| life - (life / 2).min(RENEWAL_MARGIN));
        let fetch_at = life.and_then(|life| Instant::now().checked_add(life));
        let mut current = self.current.lock();
        *current = Current { authorization, version: current.version + 1, fetch_at };
        Ok(())
    }

    fn is_due(&self) -> bool {
        let current = self.current.lock();
        current.authorization.is_none() || current.fetch_at.is_some_and(|at| at <= Instant::now())
    }

    /// Fetches a token if one is due.
    async fn ready(&self) -> Result<(), String> {
        let Some(fetch) = &self.fetch else { return Ok(()) };
        if !self.is_due() {
            return Ok(());
        }
        let _turn = self.fetching.lock().await;
        // Another task may have fetched it meanwhile.
        if !self.is_due() {
            return Ok(());
        }
        let token = fetch().await?;
        self.set(&token).map_err(|error| error.to_string())
    }
}

/// How long a JSON Web Token (RFC 7519) is good for after its issue. The clock of this machine is not asked, as it may be wrong.
fn life(token: &str) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Times {
        iat: f64,
        exp: f64,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let Times { iat, exp } = serde_json::from_slice(&claims).ok()?;
    Duration::try_from_secs_f64(exp - iat).ok()
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

fn authorization(token: &str) -> Result<HeaderValue, InvalidToken> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(InvalidToken);
    }
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| InvalidToken)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The fields that each request carries besides its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credentials {
    /// All of them sensitive, so that `Debug` does not show their values.
    headers: HeaderMap,
    token: Option<Token>,
}

impl Credentials {
    /// Adds a field; several may have one name.
    pub(crate) fn add(&mut self, name: &str, value: &str) -> Result<(), BuildError> {
        let malformed = || BuildError::Header(name.to_owned());
        let parsed: HeaderName = name.parse().map_err(|_| malformed())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| malformed())?;
        if OWN.contains(&parsed) || OWN_PREFIXES.iter().any(|prefix| parsed.as_str().starts_with(prefix)) {
            return Err(malformed());
        }
        value.set_sensitive(true);
        self.headers.append(parsed, value);
        Ok(())
    }

    pub(crate) fn set_token(&mut self, token: Token) {
        self.token = Some(token);
    }

    /// Adds the fields to those of a request. The token takes the place of an `Authorization` among them.
    pub(crate) fn put_into(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        if let Some(token) = &self.token {
            let authorization = token.0.current.lock().authorization.clone();
            authorization.into_iter().for_each(|value| drop(headers.insert(AUTHORIZATION, value)));
        }
    }

    /// Fetches a token if one is due. Called before each request.
    pub(crate) async fn ready(&self) -> Result<(), Refusal> {
        let Some(token) = &self.token else { return Ok(()) };
        token.0.ready().await.map_err(Refusal::without_token)
    }

    /// Records that the gateway refused the token with this version. Returns whether another token can be fetched.
    pub(crate) fn refused(&self, version: u64) -> bool {
        let Some(Token(token)) = self.token.as_ref().filter(|token| token.0.fetch.is_some()) else {
            return false;
        };
        let mut current = token.current.lock();
        if current.version == version {
            current.fetch_at = Some(Instant::now());
        }
        true
    }

    /// When a connection that has the token of a version needs another one. `None`: never, since no function brings tokens or the end
    /// of this one is unknown.
    pub(crate) fn renewal_at(&self, version: u64) -> Option<Instant> {
        let Token(token) = self.token.as_ref().filter(|token| token.0.fetch.is_some())?;
        let current = token.current.lock();
        if current.version == version { current.fetch_at } else { Some(Instant::now()) }
    }

    /// The token and its version.
    pub(crate) fn token(&self) -> (Option<String>, u64) {
        let Some(Token(token)) = &self.token else { return (None, 0) };
        let current = token.current.lock();
        let text = current.authorization.as_ref().and_then(|value| value.to_str().ok());
        (text.and_then(|text| text.strip_prefix("Bearer ")).map(str::to_owned), current.version)
    }

    /// Changes with each replacement of the token.
    pub(crate) fn version(&self) -> u64 {
        self.token.as_ref().map_or(0, |token| token.0.current.lock().version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_replaced_is_the_one_that_is_sent() {
        let token = Token::new("old").unwrap();
        let mut credentials = Credentials::default();
        credentials.add("authorization", "Basic other").unwrap();
        credentials.add("x-tenant", "a").unwrap();
        credentials.set_token(token.clone());
        for (version, expected) in ["Bearer old", "Bearer new"].into_iter().enumerate() {
            let mut headers = HeaderMap::new();
            credentials.put_into(&mut headers);
            assert_eq!(headers.get_all(AUTHORIZATION).iter().collect::<Vec<_>>(), [expected]);
            assert_eq!(headers.get("x-tenant").unwrap(), "a");
            assert_eq!(credentials.version(), version as u64);
            token.replace("new").unwrap();
        }
    }

    fn jwt(claims: &str) -> String {
        format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims))
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_fetched_when_there_is_none_before_its_end_and_when_it_is_refused() {
        let count = Arc::new(Mutex::new(0));
        let fetched = count.clone();
        let mut credentials = Credentials::default();
        credentials.set_token(Token::fetched_by(move || {
            *fetched.lock() += 1;
            async { Ok::<_, String>(jwt(r#"{"iat":1000,"exp":1100}"#)) }
        }));
        for (after, expected) in [(0, 1), (69, 1), (1, 2), (69, 2)] {
            tokio::time::advance(Duration::from_secs(after)).await;
            credentials.ready().await.unwrap();
            assert_eq!(*count.lock(), expected);
        }
        // That of an earlier one says nothing about this one.
        assert!(credentials.refused(1));
        credentials.ready().await.unwrap();
        assert_eq!(*count.lock(), 2);
        assert!(credentials.refused(2));
        tokio::join!(async { credentials.ready().await.unwrap() }, async {
            credentials.ready().await.unwrap()
        });
        assert_eq!(*count.lock(), 3);
    }

    #[tokio::test]
    async fn a_function_that_fails_refuses_and_a_fixed_token_is_not_fetched() {
        let mut credentials = Credentials::default();
        credentials.set_token(Token::fetched_by(async || Err::<String, _>("logged out")));
        let refusal = credentials.ready().await.unwrap_err();
        assert_eq!((refusal.status, &*refusal.kind), (401, "no-token"));
        assert!(refusal.detail.contains("logged out"));
        credentials.set_token(Token::fetched_by(async || Ok::<_, String>("a b".to_owned())));
        assert!(credentials.ready().await.is_err());
        credentials.set_token(Token::new("fixed").unwrap());
        assert!(credentials.ready().await.is_ok() && !credentials.refused(0));
    }

    #[test]
    fn the_life_of_a_token_is_read_from_it() {
        assert_eq!(life(&jwt(r#"{"iat":10,"exp":70,"sub":"a"}"#)), Some(Duration::from_secs(60)));
        for token in ["opaque", "a.b.c", &jwt("{}"), &jwt(r#"{"exp":70}"#), &jwt(r#"{"iat":70,"exp":10}"#)] {
            assert_eq!(life(token), None, "{token}");
        }
    }

    #[test]
    fn no_value_is_shown() {
        let mut credentials = Credentials::default();
        credentials.add("x-key", "secret").unwrap();
        credentials.set_token(Token::new("secret").unwrap());
        let shown = format!("{credentials:?}");
        assert!(shown.contains("x-key") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn malformed_fields_and_those_of_the_client_are_refused() {
        let mut credentials = Credentials::default();
        for (name, value) in [("a b", "c"), ("a", "b\r\nc: d"), ("Host", "a"), ("Producer-Id", "a")] {
            assert_eq!(credentials.add(name, value), Err(BuildError::Header(name.to_owned())));
        }
        for token in ["", "a b", "a\n", "ä"] {
            assert_eq!(Token::new(token).map(drop), Err(InvalidToken), "{token:?}");
        }
    }
}
