//! [`ResponseBytes`]: an HTTP/1 response as bytes (RFC 9112).

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fmt::{self, Write};
use std::ops::Deref;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use httpdate::HttpDate;
use hyper::body::Body as _;
use hyper::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderName, TRANSFER_ENCODING};
use hyper::{Response, StatusCode};

use super::body::{Body, FRAME_BYTES_MAX};
use super::response::{Answer, FixedFields, Framing, Head};
use crate::access_log::AccessEntry;
use crate::hub::{SharedBatch, Variant};
use crate::stream::Batch;

/// Initial capacity of a response head: a small response needs no second allocation.
const HEAD_BYTES: usize = 640;

/// Largest buffer of a response that its thread keeps for the next one.
const SPARE_BYTES_MAX: usize = 4096;

thread_local! {
    /// The buffer of the last response that this thread has written whole.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A body up to this size is written together with its head: copying it costs less than a second piece in the kernel.
const JOINED_BYTES_MAX: usize = 1024;

/// Largest batch whose encoded response is shared between readers. Even with brackets, and a comma after each byte, its body
/// fits into one frame.
const SHARED_BYTES_MAX: usize = FRAME_BYTES_MAX / 2 - 1;

/// An HTTP/1 response as bytes.
pub(super) struct ResponseBytes {
    status: StatusCode,
    framing: Framing,
    text: Text,
}

enum Text {
    /// The status line and the fields added so far, and the body.
    Begun(Vec<u8>, Body),
    /// The whole response, whose bytes other readers may share.
    Whole(Bytes),
}

/// A response that is ready to be written.
pub(super) struct Outgoing {
    /// The head, and a small body. Most responses consist only of this.
    pub(super) first: FirstBytes,
    /// The body that is written after `first`.
    pub(super) rest: Option<Body>,
    /// Whether the rest is sent in chunks (RFC 9112, section 7.1).
    pub(super) chunked: bool,
    /// Whether the connection closes after the response.
    pub(super) closes: bool,
}

/// The first bytes of a response that is ready to be written.
pub(super) enum FirstBytes {
    /// Bytes of this response alone.
    Own(Vec<u8>),
    /// Bytes that other readers may share.
    Shared(Bytes),
}

impl FirstBytes {
    /// Keeps the buffer of a response that is written for the next one.
    pub(super) fn recycle(self) {
        if let Self::Own(mut bytes) = self
            && bytes.capacity() <= SPARE_BYTES_MAX
        {
            bytes.clear();
            SPARE.set(bytes);
        }
    }
}

impl Deref for FirstBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl From<FirstBytes> for Bytes {
    fn from(first: FirstBytes) -> Self {
        match first {
            FirstBytes::Own(bytes) => bytes.into(),
            FirstBytes::Shared(bytes) => bytes,
        }
    }
}

impl ResponseBytes {
    /// Closes the connection after the response. A response whose bytes are shared does not announce it.
    pub(super) fn close(&mut self) {
        if self.framing.keep_alive {
            self.framing.keep_alive = false;
            if let Text::Begun(head, _) = &mut self.text {
                field(head, &CONNECTION, b"close");
            }
        }
    }

    /// Completes the response for writing, with the length of its body (RFC 9112, section 6).
    pub(super) fn into_outgoing(self) -> Outgoing {
        self.outgoing(JOINED_BYTES_MAX)
    }

    /// Returns the whole response, whose body must have at most `FRAME_BYTES_MAX` bytes.
    fn into_bytes(self) -> Bytes {
        self.outgoing(FRAME_BYTES_MAX).first.into()
    }

    /// Joins a body of at most `joined_bytes_max` bytes with the head.
    fn outgoing(mut self, joined_bytes_max: usize) -> Outgoing {
        if let Text::Begun(_, body) = &self.text
            && body.size_hint().exact().is_none()
            && self.framing.http10
        {
            // The end of the connection is the end of the body.
            self.close();
        }
        let Framing { http10, without_body, keep_alive } = self.framing;
        let closes = !keep_alive;
        let (mut head, body) = match self.text {
            Text::Whole(first) => {
                return Outgoing { first: FirstBytes::Shared(first), rest: None, chunked: false, closes };
            }
            Text::Begun(head, body) => (head, body),
        };
        let status = self.status;
        if status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
        {
            head.extend_from_slice(b"\r\n");
            return Outgoing { first: FirstBytes::Own(head), rest: None, chunked: false, closes };
        }
        let length = body.size_hint().exact();
        match length {
            // A HEAD of something whose GET has a body, of a length that is not known here.
            Some(0) if without_body => {}
            Some(length) => field(&mut head, &CONTENT_LENGTH, itoa::Buffer::new().format(length).as_bytes()),
            None if http10 => {}
            None => field(&mut head, &TRANSFER_ENCODING, b"chunked"),
        }
        head.extend_from_slice(b"\r\n");
        if without_body {
            return Outgoing { first: FirstBytes::Own(head), rest: None, chunked: false, closes };
        }
        let rest = match body.into_small(joined_bytes_max) {
            Ok(small) => {
                head.extend_from_slice(&small);
                None
            }
            Err(body) => Some(body),
        };
        Outgoing { first: FirstBytes::Own(head), rest, chunked: length.is_none() && !http10, closes }
    }
}

impl Head for ResponseBytes {
    fn put(&mut self, name: HeaderName, value: &[u8]) {
        if let Text::Begun(head, _) = &mut self.text {
            field(head, &name, value);
        }
    }

    fn put_static(&mut self, name: HeaderName, value: &'static str) {
        self.put(name, value.as_bytes());
    }

    fn put_fixed<const COUNT: usize>(&mut self, fields: &'static FixedFields<COUNT>) {
        if let Text::Begun(head, _) = &mut self.text {
            head.extend_from_slice(fields.lines.as_bytes());
        }
    }
}

impl Answer for ResponseBytes {
    fn begin(status: StatusCode) -> Self {
        let mut head = SPARE.take();
        head.reserve(HEAD_BYTES);
        match status {
            StatusCode::OK => head.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
            StatusCode::NO_CONTENT => head.extend_from_slice(b"HTTP/1.1 204 No Content\r\n"),
            status => {
                head.extend_from_slice(b"HTTP/1.1 ");
                head.extend_from_slice(status.as_str().as_bytes());
                head.push(b' ');
                head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
                head.extend_from_slice(b"\r\n");
            }
        }
        Self { status, framing: Framing::PERSISTENT, text: Text::Begun(head, Body::empty()) }
    }

    fn status(&self) -> StatusCode {
        self.status
    }

    fn set_body(&mut self, new: Body) {
        if let Text::Begun(_, body) = &mut self.text {
            *body = new;
        }
    }

    fn frame(&mut self, framing: Framing, now: SystemTime) {
        let switches = self.status == StatusCode::SWITCHING_PROTOCOLS;
        self.framing = Framing { keep_alive: true, ..framing };
        if !framing.keep_alive && !switches {
            self.close();
        } else if framing.http10 {
            self.put_static(CONNECTION, "keep-alive");
        }
        date(self, now);
    }

    fn add(&mut self, name: HeaderName, value: &[u8]) {
        let Text::Whole(bytes) = &self.text else { return self.put(name, value) };
        let after_status = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
        let (status, rest) = bytes.split_at(after_status);
        let mut copy = Vec::with_capacity(bytes.len() + name.as_str().len() + value.len() + 4);
        copy.extend_from_slice(status);
        field(&mut copy, &name, value);
        copy.extend_from_slice(rest);
        self.text = Text::Whole(copy.into());
    }

    fn log(&mut self, mut entry: AccessEntry) {
        match &mut self.text {
            Text::Begun(_, body) if !self.framing.without_body => body.log(entry),
            Text::Begun(..) => {}
            Text::Whole(bytes) => {
                let head = memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |end| end + 4);
                entry.add_bytes(bytes.len() - head);
            }
        }
    }

    fn shared(
        batch: &SharedBatch,
        variant: Variant,
        now: SystemTime,
        write: impl Fn(&Batch) -> Self,
        complete: impl Fn(&mut Self),
    ) -> Self {
        if batch.len() > SHARED_BYTES_MAX {
            return write(batch);
        }
        let bytes = batch.encoded(variant, |batch| {
            let mut response = write(batch);
            complete(&mut response);
            date(&mut response, now);
            response.into_bytes()
        });
        let status = if batch.is_empty() { StatusCode::NO_CONTENT } else { StatusCode::OK };
        Self { status, framing: Framing::PERSISTENT, text: Text::Whole(bytes) }
    }
}

impl From<Response<Body>> for ResponseBytes {
    fn from(response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        let mut bytes = Self::begin(head.status);
        for (name, value) in &head.headers {
            bytes.put(name.clone(), value.as_bytes());
        }
        bytes.set_body(body);
        bytes
    }
}

/// Adds the `Date` field (RFC 9110, section 6.6.1).
fn date(response: &mut ResponseBytes, now: SystemTime) {
    if let Text::Begun(head, _) = &mut response.text {
        head.extend_from_slice(&date_line(now));
    }
}

fn field(head: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    let name = name.as_str();
    head.reserve(name.len() + value.len() + 4);
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// `date: Sun, 06 Nov 1994 08:49:37 GMT` and the end of the line.
const DATE_BYTES: usize = 37;

/// The last second of the year 9999. An HTTP date has four digits for the year, and `HttpDate` panics at a later one.
const DATE_SECONDS_MAX: u64 = 253_402_300_799;

thread_local! {
    /// The last second that this thread formatted, and its line.
    static LAST_DATE: Cell<(Duration, [u8; DATE_BYTES])> = const { Cell::new((Duration::MAX, [0; DATE_BYTES])) };
}

/// Returns the `Date` field of a response at `now`. Each thread formats it once per second.
fn date_line(now: SystemTime) -> [u8; DATE_BYTES] {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let second = Duration::from_secs(since.as_secs().min(DATE_SECONDS_MAX));
    let (last, text) = LAST_DATE.get();
    if last == second {
        return text;
    }
    let mut text = DateText { bytes: [b' '; DATE_BYTES], written: 0 };
    // An HTTP date has 29 bytes, so the line has exactly `DATE_BYTES`.
    let _written = write!(text, "{DATE}: {}\r\n", HttpDate::from(SystemTime::UNIX_EPOCH + second));
    LAST_DATE.set((second, text.bytes));
    text.bytes
}

struct DateText {
    bytes: [u8; DATE_BYTES],
    written: usize,
}

impl Write for DateText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.written + text.len();
        self.bytes.get_mut(self.written..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.written = end;
        Ok(())
    }
}
