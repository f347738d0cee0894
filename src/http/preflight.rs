//! OPTIONS: lets browsers of other origins in, and remember it for a day (Fetch standard, CORS preflight).

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE, ALLOW, HeaderValue,
};
use hyper::{Response, StatusCode};

use super::answer;
use super::conn::Body;

/// What a stream understands.
pub(super) const METHODS: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";

/// Named one by one, since `*` does not cover `Authorization`.
const HEADERS: &str = "accept, authorization, cache-control, client-id, content-type, if-none-match, \
    last-event-id, prefer, producer-epoch, producer-id, producer-seq, stream-closed, stream-expires-at, \
    stream-fork-offset, stream-fork-sub-offset, stream-forked-from, stream-max-age, stream-max-bytes, \
    stream-max-messages, stream-seq, stream-ttl";

/// Allows `methods` to pages of any origin.
pub(super) fn allow(methods: &'static str) -> Response<Body> {
    let mut answer: Response<Body> = answer::uncached(StatusCode::NO_CONTENT);
    let headers = answer.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(methods));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    answer
}
