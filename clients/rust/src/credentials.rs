//! Header fields that the user adds to each request: fixed ones, and a bearer token that can be replaced.

use std::fmt;
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    TRANSFER_ENCODING, UPGRADE,
};
use parking_lot::Mutex;

use crate::error::BuildError;

/// Fields that the client sets itself, besides those that begin with one of [`OWN_PREFIXES`].
const OWN: [HeaderName; 6] = [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, UPGRADE];

const OWN_PREFIXES: [&str; 3] = ["sec-websocket-", "producer-", "stream-"];

/// A bearer token (RFC 6750), sent with each request as `Authorization: Bearer ...`.
///
/// Clones share one value, so keep a clone to [replace](Self::replace) the token while clients use it. `Debug` does not
/// show the value.
#[derive(Clone)]
pub struct Token(Arc<Mutex<Current>>);

struct Current {
    authorization: HeaderValue,
    version: u64,
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
        let authorization = authorization(token)?;
        Ok(Self(Arc::new(Mutex::new(Current { authorization, version: 0 }))))
    }

    /// Replaces the token. Requests from now on carry the new one. Connections that are open stay open; a request that
    /// is refused with 401 or 403 because it still carried the old token is repeated.
    ///
    /// # Errors
    /// The text is empty or contains other characters than visible ASCII. The old token stays in use.
    pub fn replace(&self, token: &str) -> Result<(), InvalidToken> {
        let authorization = authorization(token)?;
        let mut current = self.0.lock();
        *current = Current { authorization, version: current.version + 1 };
        Ok(())
    }
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
            headers.insert(AUTHORIZATION, token.0.lock().authorization.clone());
        }
    }

    /// Changes with each replacement of the token.
    pub(crate) fn version(&self) -> u64 {
        self.token.as_ref().map_or(0, |token| token.0.lock().version)
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
