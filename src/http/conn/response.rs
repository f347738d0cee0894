//! Builds responses: a handler sets status, fields and body through [`Answer`], which becomes a hyper response (HTTP/2) or the
//! bytes of an HTTP/1 response (RFC 9112).

use std::time::SystemTime;

use hyper::body::Body as _;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, VARY};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};

use super::body::Body;
use crate::access_log::AccessEntry;
use crate::hub::{SharedBatch, Variant};
use crate::stream::Batch;

/// Initial capacity for the header fields of a response with messages; the second smallest capacity of a header map.
const FIELDS: usize = 12;

/// A response head. Each header field is added at most once.
pub(in crate::http) trait Head {
    /// Adds a field whose value has no control characters.
    fn put(&mut self, name: HeaderName, value: &[u8]);

    /// Adds a field whose value is known at compile time.
    fn put_static(&mut self, name: HeaderName, value: &'static str);

    /// Adds fields that never change.
    fn put_fixed<const COUNT: usize>(&mut self, fields: &'static FixedFields<COUNT>);
}

/// Header fields that never change; see [`fixed_fields`]. Frequent responses have them, over HTTP/1 as one text.
#[derive(Debug)]
pub(in crate::http) struct FixedFields<const COUNT: usize> {
    /// The fields as lines of an HTTP/1 head.
    pub(in crate::http) lines: &'static str,
    pub(in crate::http) fields: [(HeaderName, &'static str); COUNT],
}

/// [`FixedFields`] of names and values.
macro_rules! fixed_fields {
    ($($name:literal: $value:literal),+ $(,)?) => {
        $crate::http::conn::FixedFields {
            lines: concat!($($name, ": ", $value, "\r\n"),+),
            fields: [$((hyper::header::HeaderName::from_static($name), $value)),+],
        }
    };
}

pub(in crate::http) use fixed_fields;

/// A response under construction.
pub(in crate::http) trait Answer: Head + From<Response<Body>> + Send {
    /// A response without fields or body.
    fn begin(status: StatusCode) -> Self;

    /// The status.
    fn status(&self) -> StatusCode;

    /// Sets the body.
    fn set_body(&mut self, body: Body);

    /// Adds the fields that depend on the request's framing, and `Date` unless hyper adds it.
    fn frame(&mut self, framing: Framing, now: SystemTime);

    /// Adds a field to a complete response. If other readers share its bytes, they are copied.
    fn add(&mut self, name: HeaderName, value: &[u8]);

    /// Counts the bytes of the body in the entry of the request.
    fn log(&mut self, entry: AccessEntry);

    /// Returns the response to a batch that other readers may get too, as `write` encodes it. Over HTTP/1 a small batch is
    /// encoded once per variant, and all readers share the bytes. They include the fields that `complete` adds; no field can be
    /// added to them later.
    fn shared(
        batch: &SharedBatch,
        variant: Variant,
        now: SystemTime,
        write: impl Fn(&Batch) -> Self,
        complete: impl Fn(&mut Self),
    ) -> Self;
}

/// The properties of an HTTP/1 request that decide how its response is framed (RFC 9112, sections 6.3 and 9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) struct Framing {
    /// The client speaks HTTP/1.0: it does not know chunked bodies, and expects the connection to close by default.
    pub(in crate::http) http10: bool,
    /// The request is a HEAD, whose response has no body.
    pub(in crate::http) without_body: bool,
    /// Whether another request may follow on the connection.
    pub(in crate::http) keep_alive: bool,
}

impl Framing {
    /// A request of the fast path: HTTP/1.1 on a connection that stays open.
    pub(super) const PERSISTENT: Self = Self { http10: false, without_body: false, keep_alive: true };

    /// Returns the framing of the response to `request`.
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let options = request.headers().get_all(CONNECTION).iter();
        let options = options.filter_map(|option| option.to_str().ok()).flat_map(|list| list.split(','));
        let (mut close, mut stay) = (false, false);
        for option in options.map(str::trim) {
            close |= option.eq_ignore_ascii_case("close");
            stay |= option.eq_ignore_ascii_case("keep-alive");
        }
        let http10 = request.version() < Version::HTTP_11;
        let keep_alive = !close && (stay || !http10);
        Self { http10, without_body: request.method() == Method::HEAD, keep_alive }
    }
}

impl Head for HeaderMap {
    fn put(&mut self, name: HeaderName, value: &[u8]) {
        let value = HeaderValue::from_bytes(value);
        self.insert(name, value.unwrap_or_else(|_| HeaderValue::from_static("")));
    }

    fn put_static(&mut self, name: HeaderName, value: &'static str) {
        let value = HeaderValue::from_static(value);
        // A list, to which several parts of the gateway contribute.
        if name == VARY {
            self.append(name, value);
        } else {
            self.insert(name, value);
        }
    }

    fn put_fixed<const COUNT: usize>(&mut self, fields: &'static FixedFields<COUNT>) {
        for (name, value) in &fields.fields {
            self.put_static(name.clone(), value);
        }
    }
}

impl Head for Response<Body> {
    fn put(&mut self, name: HeaderName, value: &[u8]) {
        self.headers_mut().put(name, value);
    }

    fn put_static(&mut self, name: HeaderName, value: &'static str) {
        self.headers_mut().put_static(name, value);
    }

    fn put_fixed<const COUNT: usize>(&mut self, fields: &'static FixedFields<COUNT>) {
        self.headers_mut().put_fixed(fields);
    }
}

impl Answer for Response<Body> {
    fn begin(status: StatusCode) -> Self {
        let mut answer = bare(status, Body::empty());
        *answer.headers_mut() = HeaderMap::with_capacity(FIELDS);
        answer
    }

    fn status(&self) -> StatusCode {
        Response::status(self)
    }

    fn set_body(&mut self, body: Body) {
        *self.body_mut() = body;
    }

    // HTTP/2 frames responses itself, and hyper adds `Date`. But hyper sends the body of a response to HEAD.
    fn frame(&mut self, framing: Framing, _: SystemTime) {
        if framing.without_body {
            let body = std::mem::replace(self.body_mut(), Body::empty());
            if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
                self.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
    }

    fn add(&mut self, name: HeaderName, value: &[u8]) {
        self.put(name, value);
    }

    fn log(&mut self, entry: AccessEntry) {
        self.body_mut().log(entry);
    }

    fn shared(
        batch: &SharedBatch,
        _: Variant,
        _: SystemTime,
        write: impl Fn(&Batch) -> Self,
        _: impl Fn(&mut Self),
    ) -> Self {
        write(batch)
    }
}

/// A response with a status and a body, and no fields yet.
pub(in crate::http) fn bare(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
