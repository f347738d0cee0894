//! OPTIONS: the methods of a resource, and the CORS preflight of a page (Fetch standard).

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, HeaderValue, ORIGIN,
};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use super::answer;
use super::fields::{self, ALLOW_PRIVATE_NETWORK, REQUEST_PRIVATE_NETWORK, TRUE};
use crate::http::conn::Body;

/// The fields that each page may send, besides those that its preflight names. `*` covers those that a proxy before the gateway
/// wants, such as an API key, but not `Authorization`, and older browsers do not know it.
const HEADERS: &str = "*, accept, authorization, cache-control, client-id, content-type, if-none-match, \
    last-event-id, prefer, producer-epoch, producer-id, producer-seq, stream-closed, stream-expires-at, \
    stream-fork-offset, stream-fork-sub-offset, stream-forked-from, stream-max-age, stream-max-bytes, \
    stream-max-messages, stream-origin, stream-origin-interval, stream-origin-key, stream-origin-poll, stream-seq, stream-ttl";

/// A request with the method OPTIONS.
#[derive(Debug)]
pub(in crate::http) struct Options {
    methods: &'static str,
    /// `None`: it does not come from a page.
    preflight: Option<Preflight>,
}

/// The preflight of a page, whose origin is already admitted.
#[derive(Debug)]
struct Preflight {
    /// The fields that the page may send.
    headers: HeaderValue,
    /// The page is on a public address and the gateway on a private one (Private Network Access).
    private_network: bool,
}

impl Options {
    /// Parses the request for a resource with these `methods`.
    pub(in crate::http) fn parse(methods: &'static str, head: &Parts) -> Self {
        let is_page = head.headers.contains_key(ORIGIN);
        Self { methods, preflight: is_page.then(|| Preflight::parse(head)) }
    }

    /// Returns the response. A browser may use that to a preflight for a day.
    pub(in crate::http) fn answer(self) -> Response<Body> {
        let mut answer: Response<Body> = answer::uncached(StatusCode::NO_CONTENT);
        let headers = answer.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static(self.methods));
        if let Some(Preflight { headers: allowed, private_network }) = self.preflight {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(self.methods));
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
            if private_network {
                headers.insert(ALLOW_PRIVATE_NETWORK, TRUE);
            }
        }
        answer
    }
}

impl Preflight {
    /// Each field that the page names is allowed, because monitoring and frameworks add fields of their own.
    fn parse(head: &Parts) -> Self {
        let named = fields::list(&head.headers, &ACCESS_CONTROL_REQUEST_HEADERS).filter(|list| is_list(list));
        let headers = named.and_then(|list| HeaderValue::try_from(format!("{HEADERS}, {list}")).ok());
        Self {
            headers: headers.unwrap_or_else(|| HeaderValue::from_static(HEADERS)),
            private_network: head.headers.get(REQUEST_PRIVATE_NETWORK) == Some(&TRUE),
        }
    }
}

/// Whether a text is a list of names of header fields.
fn is_list(text: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_token);
    text.split(',').map(str::trim).all(is_name)
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn allowed(origin: Option<&str>, requested: &[&str]) -> Option<String> {
        let mut request = Request::builder();
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        for line in requested {
            request = request.header(ACCESS_CONTROL_REQUEST_HEADERS, *line);
        }
        let head = request.body(()).unwrap().into_parts().0;
        let answer = Options::parse("GET", &head).answer();
        answer.headers().get(ACCESS_CONTROL_ALLOW_HEADERS).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_page_may_send_the_fields_that_it_names() {
        let page = Some("https://app.example");
        for (requested, expected) in [
            (&["traceparent"][..], ", traceparent"),
            (&["baggage, sentry-trace,X-Own"], ", baggage, sentry-trace,X-Own"),
            (&["traceparent", "tracestate"], ", traceparent,tracestate"),
            (&[], ""),
            (&["a b"], ""),
            (&["a,,b"], ""),
            (&["\"a\""], ""),
        ] {
            assert_eq!(allowed(page, requested), Some(format!("{HEADERS}{expected}")), "{requested:?}");
        }
        assert_eq!(allowed(None, &["traceparent"]), None);
    }
}
