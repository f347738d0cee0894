//! `POST /v1/cookie`: puts the token of the request into the cookie of the gateway, which pages of the gateway's own site then use
//! for every form without a header field. `DELETE` clears it.
//!
//! Only a response from the gateway's own host can set a cookie with this prefix. Scripts cannot read it (`HttpOnly`).

use hyper::header::{AUTHORIZATION, HeaderValue, SET_COOKIE};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::answer;
use super::credentials::Rights;
use super::error::Error;
use super::fields;
use crate::auth::Unauthorized;
use crate::http::conn::Body;

/// The path of the cookie, on a gateway that checks credentials.
pub(super) const COOKIE_PATH: &str = "/v1/cookie";

pub(super) const COOKIE_METHODS: &str = "POST, DELETE, OPTIONS";

/// The attributes of the cookie, besides its value and `Max-Age`. Browsers send it only to this host, and not with requests of
/// pages of other sites.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Strict";

/// The longest token in a cookie, in bytes: browsers ignore a cookie of more than 4096 bytes with its name (RFC 6265bis, section 5.7).
const TOKEN_BYTES_MAX: usize = 4000;

/// A request to set or to clear the cookie.
#[derive(Debug)]
pub(in crate::http) enum CookieRequest {
    Set {
        token: Box<str>,
        /// For how many seconds the token is valid, once it is verified.
        life: u64,
    },
    Clear,
}

impl CookieRequest {
    /// Whether a request clears the cookie. This needs no credentials, since those in the cookie may have ended.
    pub(super) fn is_clear(head: &Parts) -> bool {
        head.method == Method::DELETE && head.uri.path() == COOKIE_PATH
    }

    /// Parses the request. The token has to be in the field `Authorization`, which no page of another site can make a browser send.
    pub(super) fn parse(head: &Parts) -> Result<Self, Error> {
        if Self::is_clear(head) {
            return Ok(Self::Clear);
        }
        let value = fields::text(&head.headers, &AUTHORIZATION)?;
        // The scheme was checked with the token.
        let token = value.and_then(|value| value.split_once(' ')).map(|(_, token)| token.trim());
        let token = token.ok_or(Error::Unauthorized(Unauthorized::Missing))?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Error::field(&AUTHORIZATION, "must have a token of at most 4000 bytes for a cookie"));
        }
        Ok(Self::Set { token: token.into(), life: 0 })
    }

    /// Bounds the life of the cookie by that of the token.
    pub(super) fn admitted(self, rights: &Rights) -> Result<Self, Error> {
        match self {
            Self::Set { token, .. } => {
                rights.check_subject()?;
                let life = rights.left().map_or(0, |left| left.as_secs());
                Ok(Self::Set { token, life })
            }
            Self::Clear => Ok(Self::Clear),
        }
    }

    pub(in crate::http) fn answer(&self) -> Response<Body> {
        let cookie = match self {
            Self::Set { token, life } => format!("__Host-pollgate={token}; Max-Age={life}; {ATTRIBUTES}"),
            Self::Clear => format!("__Host-pollgate=; Max-Age=0; {ATTRIBUTES}"),
        };
        let mut answer: Response<Body> = answer::uncached(StatusCode::NO_CONTENT);
        if let Ok(mut cookie) = HeaderValue::try_from(cookie) {
            cookie.set_sensitive(true);
            answer.headers_mut().insert(SET_COOKIE, cookie);
        }
        answer
    }
}
