//! [`RawAnswer`]: a complete response, parsed only as far as needed to find its end.

use bytes::Bytes;
use httparse::{EMPTY_HEADER, Header, Status, parse_chunk_size, parse_headers};
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::{Response, StatusCode};

use super::WireError;

/// Maximum header fields; more are an error.
const FIELDS_MAX: usize = 32;

/// A response whose header fields are parsed later.
#[derive(Debug)]
pub struct RawAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its body, without the chunked coding.
    pub body: Vec<u8>,
    head: Vec<u8>,
}

/// The length of a body.
enum Length {
    Known(usize),
    Chunks,
}

impl RawAnswer {
    /// Parses one response; `None` if it is incomplete. Bytes after it are an error.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let mut fields = [EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Response::new(&mut fields);
        let Status::Complete(length) = head.parse(bytes)? else { return Ok(None) };
        let status = StatusCode::from_u16(head.code.unwrap_or_default()).map_err(hyper::http::Error::from)?;
        let (head_bytes, rest) = bytes.split_at(length);
        let body = match Length::of(status, head.headers)? {
            Length::Known(length) => {
                rest.split_at_checked(length).map(|(body, surplus)| (body.to_vec(), surplus))
            }
            Length::Chunks => unchunked(rest)?,
        };
        match body {
            None => Ok(None),
            Some((body, [])) => Ok(Some(Self { status, body, head: head_bytes.to_vec() })),
            Some(_) => Err(WireError::Surplus),
        }
    }

    /// Parses the header fields and returns the whole response.
    pub fn response(self) -> Result<Response<Bytes>, WireError> {
        let mut fields = [EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Response::new(&mut fields);
        head.parse(&self.head)?;
        let response = Response::builder().status(self.status);
        let all =
            head.headers.iter().fold(response, |response, field| response.header(field.name, field.value));
        Ok(all.body(self.body.into())?)
    }
}

impl Length {
    /// Determines the length as in RFC 9112, section 6.3. A body that ends with the connection is an error, since no response
    /// can follow it.
    fn of(status: StatusCode, fields: &[Header<'_>]) -> Result<Self, WireError> {
        let value = |name: &str| {
            let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(field.value).ok()
        };
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            Ok(Self::Known(0))
        } else if let Some(coding) = value(TRANSFER_ENCODING.as_str()) {
            coding.eq_ignore_ascii_case("chunked").then_some(Self::Chunks).ok_or(WireError::Endless)
        } else {
            let length = value(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
            length.map(Self::Known).ok_or(WireError::Endless)
        }
    }
}

/// A body and the bytes after it; `None` if it is incomplete.
type Split<'a> = Option<(Vec<u8>, &'a [u8])>;

/// Decodes a chunked body.
fn unchunked(mut rest: &[u8]) -> Result<Split<'_>, WireError> {
    let mut body = Vec::new();
    loop {
        let size = parse_chunk_size(rest).map_err(|_| WireError::Endless)?;
        let Status::Complete((begin, size)) = size else { return Ok(None) };
        let size = usize::try_from(size).map_err(|_| WireError::Endless)?;
        let (_, chunk) = rest.split_at(begin);
        if size == 0 {
            let mut trailers = [EMPTY_HEADER; FIELDS_MAX];
            let Status::Complete((length, _)) = parse_headers(chunk, &mut trailers)? else { return Ok(None) };
            return Ok(Some((body, chunk.split_at(length).1)));
        }
        let Some((data, behind)) = chunk.split_at_checked(size) else { return Ok(None) };
        let Some((line_end, next)) = behind.split_at_checked(2) else { return Ok(None) };
        if line_end != b"\r\n" {
            return Err(WireError::Endless);
        }
        body.extend_from_slice(data);
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_KNOWN_LENGTH: &str = "HTTP/1.1 200 OK\r\nStream-Next-Offset: 7\r\ncontent-length: 4\r\n\r\n[17]";
    const IN_CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nStream-Next-Offset: 7\r\n\r\n\
                             1\r\n[\r\n3;x=y\r\n17]\r\n0\r\nTrailer: 1\r\n\r\n";
    const WITHOUT: &str = "HTTP/1.1 304 Not Modified\r\nStream-Next-Offset: 7\r\nContent-Length: 4\r\n\r\n";

    #[test]
    fn an_answer_is_complete_with_its_last_byte_and_not_before() {
        for (text, body) in [(OF_KNOWN_LENGTH, "[17]"), (IN_CHUNKS, "[17]"), (WITHOUT, "")] {
            for length in 0..text.len() {
                assert!(
                    RawAnswer::parse(&text.as_bytes()[..length]).unwrap().is_none(),
                    "{length} of {text}"
                );
            }
            let whole = RawAnswer::parse(text.as_bytes()).unwrap().expect(text);
            assert_eq!(whole.body, body.as_bytes());
            let (status, response) = (whole.status, whole.response().unwrap());
            assert_eq!((response.status(), &response.body()[..]), (status, body.as_bytes()));
            assert_eq!(response.headers()["stream-next-offset"], "7");
        }
    }

    #[test]
    fn anything_but_one_valid_answer_is_refused() {
        let twice = OF_KNOWN_LENGTH.repeat(2);
        assert!(matches!(RawAnswer::parse(twice.as_bytes()), Err(WireError::Surplus)));
        for (text, why) in [
            ("HTTP/1.1 200 OK\r\n\r\n", "without an end"),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "without an end"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "without an end"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[]]\r\n", "without an end"),
            ("SSH-2.0-OpenSSH\r\n", "HTTP"),
        ] {
            let refused = RawAnswer::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
