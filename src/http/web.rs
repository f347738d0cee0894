//! GET and HEAD of a file: the page and the JavaScript client.

use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::conn::Body;
use super::error::Error;
use super::{answer, bare, fields};
use crate::web::File;

/// What a file understands.
const METHODS: &str = "GET, HEAD";

/// A file that is asked for.
#[derive(Debug)]
pub(super) struct GetFile {
    file: &'static File,
    if_none_match: Option<String>,
}

impl GetFile {
    pub(super) fn parse(file: &'static File, head: &Parts) -> Result<Self, Error> {
        if head.method != Method::GET && head.method != Method::HEAD {
            return Err(Error::MethodNotAllowed { allowed: METHODS });
        }
        let if_none_match = fields::text(&head.headers, &IF_NONE_MATCH)?.map(str::to_owned);
        Ok(Self { file, if_none_match })
    }

    /// The file, or 304. It is asked for each time, so that page and client always fit the gateway.
    pub(super) fn answer(self) -> Response<Body> {
        let Self { file, if_none_match } = self;
        let known = if_none_match.is_some_and(|tags| answer::matches(&tags, &file.tag));
        let mut answer = match known {
            true => bare(StatusCode::NOT_MODIFIED, Body::empty()),
            false => bare(StatusCode::OK, Body::full(file.text.into())),
        };
        let headers = answer.headers_mut();
        headers.insert(ETAG, fields::value(&file.tag));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.content_type));
        if let Some(policy) = file.policy {
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        }
        answer::secure(headers);
        answer
    }
}
