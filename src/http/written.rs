//! Where an answer is written: into a response for hyper, or as bytes that go to the socket as they are. Each handler says
//! its fields once, for both.

use std::time::SystemTime;

use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::Body as _;
use hyper::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{HeaderMap, Response, StatusCode};

use super::body::{Body, FRAME_BYTES_MAX};
use crate::hub::{Shared, Variant};
use crate::stream::Batch;

/// What a small answer has room for without a second allocation.
const HEAD_BYTES: usize = 640;

/// A body that is no longer than this goes with the head: copying it costs less than the kernel takes for a second
/// piece.
const JOINED_BYTES_MAX: usize = 1024;

/// The most of messages that is written once for many. With brackets, and a comma behind each byte, they are one frame.
const SHARED_BYTES_MAX: usize = FRAME_BYTES_MAX / 2 - 1;

/// Fields of an answer with messages: as many as a map of its second smallest size holds.
const FIELDS: usize = 12;

/// Takes header fields. None is put twice.
pub(super) trait Head {
    /// A value without control characters.
    fn put(&mut self, name: HeaderName, value: &[u8]);

    /// The same, known beforehand.
    fn put_static(&mut self, name: HeaderName, value: &'static str);
}

/// An answer in the making.
pub(super) trait Answer: Head + From<Response<Body>> {
    /// Whether nobody else says when it was made (RFC 9110, section 6.6.1).
    const NEEDS_DATE: bool;

    /// One without fields or body.
    fn begin(status: StatusCode) -> Self;

    /// Its status.
    fn status(&self) -> StatusCode;

    /// Gives it its body.
    fn set_body(&mut self, body: Body);

    /// The answer with a batch that others may be sent too, as `write` makes it at `now`: made once in each variant if
    /// that saves something.
    fn shared(batch: &Shared, variant: Variant, now: SystemTime, write: impl Fn(&Batch) -> Self) -> Self;
}

impl Head for HeaderMap {
    fn put(&mut self, name: HeaderName, value: &[u8]) {
        let value = HeaderValue::from_bytes(value);
        self.insert(name, value.unwrap_or_else(|_| HeaderValue::from_static("")));
    }

    fn put_static(&mut self, name: HeaderName, value: &'static str) {
        self.insert(name, HeaderValue::from_static(value));
    }
}

impl Head for Response<Body> {
    fn put(&mut self, name: HeaderName, value: &[u8]) {
        self.headers_mut().put(name, value);
    }

    fn put_static(&mut self, name: HeaderName, value: &'static str) {
        self.headers_mut().put_static(name, value);
    }
}

impl Answer for Response<Body> {
    const NEEDS_DATE: bool = false;

    fn begin(status: StatusCode) -> Self {
        let mut answer = super::bare(status, Body::empty());
        *answer.headers_mut() = HeaderMap::with_capacity(FIELDS);
        answer
    }

    fn status(&self) -> StatusCode {
        Response::status(self)
    }

    fn set_body(&mut self, body: Body) {
        *self.body_mut() = body;
    }

    fn shared(batch: &Shared, _: Variant, _: SystemTime, write: impl Fn(&Batch) -> Self) -> Self {
        write(batch)
    }
}

/// An answer over HTTP/1.1 as bytes (RFC 9112).
pub struct Written {
    status: StatusCode,
    closes: bool,
    text: Text,
}

enum Text {
    /// Status line and fields so far, and what follows them.
    Begun(BytesMut, Body),
    /// All of it, which others may be sent too.
    Whole(Bytes),
}

/// An answer that is ready to go out.
pub struct Outgoing {
    /// What goes first, and for most answers all of it.
    pub first: Bytes,
    /// The rest of the body.
    pub rest: Option<Body>,
    /// Whether the rest goes in chunks (RFC 9112, section 7.1).
    pub chunked: bool,
    /// Whether the connection ends behind it.
    pub closes: bool,
}

impl Written {
    /// Says that the connection ends behind it, unless others are sent the same.
    pub fn close(&mut self) {
        if !self.closes && matches!(self.text, Text::Begun(..)) {
            self.put_static(CONNECTION, "close");
        }
    }

    /// What is sent of it, with the length of its body (RFC 9112, section 6).
    pub fn into_outgoing(self) -> Outgoing {
        self.outgoing(JOINED_BYTES_MAX)
    }

    /// All of it, if its body is no longer than what is shared.
    fn into_bytes(self) -> Bytes {
        self.outgoing(FRAME_BYTES_MAX).first
    }

    /// A body of so many bytes goes first, with the head.
    fn outgoing(self, joined_bytes_max: usize) -> Outgoing {
        let closes = self.closes;
        let (mut head, body) = match self.text {
            Text::Whole(first) => return Outgoing { first, rest: None, chunked: false, closes },
            Text::Begun(head, body) => (head, body),
        };
        if self.status == StatusCode::NO_CONTENT || self.status == StatusCode::NOT_MODIFIED {
            head.put_slice(b"\r\n");
            return Outgoing { first: head.freeze(), rest: None, chunked: false, closes };
        }
        let length = body.size_hint().exact();
        match length {
            Some(length) => field(&mut head, &CONTENT_LENGTH, decimal(length, &mut [0; DECIMALS])),
            None => field(&mut head, &TRANSFER_ENCODING, b"chunked"),
        }
        head.put_slice(b"\r\n");
        let rest = match body.into_small(joined_bytes_max) {
            Ok(small) => {
                head.put_slice(&small);
                None
            }
            Err(body) => Some(body),
        };
        Outgoing { first: head.freeze(), rest, chunked: length.is_none(), closes }
    }
}

impl Head for Written {
    fn put(&mut self, name: HeaderName, value: &[u8]) {
        self.closes |= name == CONNECTION && value == b"close";
        if let Text::Begun(head, _) = &mut self.text {
            field(head, &name, value);
        }
    }

    fn put_static(&mut self, name: HeaderName, value: &'static str) {
        self.put(name, value.as_bytes());
    }
}

impl Answer for Written {
    const NEEDS_DATE: bool = true;

    fn begin(status: StatusCode) -> Self {
        let mut head = BytesMut::with_capacity(HEAD_BYTES);
        head.put_slice(b"HTTP/1.1 ");
        head.put_slice(status.as_str().as_bytes());
        head.put_u8(b' ');
        head.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
        head.put_slice(b"\r\n");
        Self { status, closes: false, text: Text::Begun(head, Body::empty()) }
    }

    fn status(&self) -> StatusCode {
        self.status
    }

    fn set_body(&mut self, new: Body) {
        if let Text::Begun(_, body) = &mut self.text {
            *body = new;
        }
    }

    fn shared(batch: &Shared, variant: Variant, now: SystemTime, write: impl Fn(&Batch) -> Self) -> Self {
        if batch.len() > SHARED_BYTES_MAX {
            return write(batch);
        }
        let bytes = batch.made(variant, |batch| {
            let mut written = write(batch);
            date(&mut written, now);
            written.into_bytes()
        });
        let status = if batch.is_empty() { StatusCode::NO_CONTENT } else { StatusCode::OK };
        Self { status, closes: false, text: Text::Whole(bytes) }
    }
}

impl From<Response<Body>> for Written {
    fn from(answer: Response<Body>) -> Self {
        let (head, body) = answer.into_parts();
        let mut written = Self::begin(head.status);
        for (name, value) in &head.headers {
            written.put(name.clone(), value.as_bytes());
        }
        written.set_body(body);
        written
    }
}

/// Puts the date into an answer.
pub(super) fn date(answer: &mut impl Head, now: SystemTime) {
    answer.put(DATE, &super::date::text(now));
}

fn field(head: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    head.reserve(name.as_str().len() + value.len() + 4);
    head.put_slice(name.as_str().as_bytes());
    head.put_slice(b": ");
    head.put_slice(value);
    head.put_slice(b"\r\n");
}

/// Decimal digits of the greatest number.
pub(super) const DECIMALS: usize = 20;

/// A number as text, in `digits`.
pub(super) fn decimal(mut number: u64, digits: &mut [u8; DECIMALS]) -> &[u8] {
    let mut begin = DECIMALS;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        begin -= 1;
        if number == 0 {
            break;
        }
    }
    digits.get(begin..).unwrap_or_default()
}
