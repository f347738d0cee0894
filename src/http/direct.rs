//! Requests that are answered without hyper: what is asked most, if it came whole. A head is read by the parser that hyper
//! has too, and whatever is unusual about it is left to hyper, so that there is one judge of what is HTTP.

use std::sync::Arc;

use bytes::Bytes;
use httparse::{EMPTY_HEADER, Header, Request, Status};
use hyper::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderName, TRANSFER_ENCODING, UPGRADE};

use super::error::Error;
use super::fields::{Fields, whole_number};
use super::form::Form;
use super::query::{Parameters, Query};
use super::request::{Read, post};
use super::routes::{OnStream, Operation, STREAMS, stream_name};
use super::upload::Upload;
use super::{Gateway, Link, Prepared};

/// No request that is answered so is longer, its body included.
pub const DIRECT_BYTES_MAX: usize = 4 * 1024;

/// What a connection sent.
pub enum Heard {
    /// A request, and how many bytes it took.
    Request(Prepared, usize),
    /// Something for hyper.
    Other,
}

/// The part of a target that hyper's parser takes and that has one meaning (RFC 3986, section 3.3 and 3.4).
const TARGET: &[u8] = b"-._~!$&'()*+,;=:@/?%";

/// What makes a request one for hyper.
const UNUSUAL: [HeaderName; 3] = [TRANSFER_ENCODING, EXPECT, UPGRADE];

impl Gateway {
    /// Reads the request at the beginning of `bytes`: a short or long poll, or an append, over HTTP/1.1 on a connection that
    /// stays open.
    pub fn hear(&self, bytes: &[u8], link: &Arc<Link>) -> Heard {
        // More fields than that are as many as hyper has room for, or too many.
        let mut fields = [EMPTY_HEADER; 32];
        let mut request = Request::new(&mut fields);
        let Ok(Status::Complete(head_bytes)) = request.parse(bytes) else { return Heard::Other };
        let (head, behind) = bytes.split_at(head_bytes.min(bytes.len()));
        let Some((target, body)) = usual(&request, behind) else { return Heard::Other };
        let limits = &self.limits;
        if head.len() > limits.head_bytes_max
            || target.len() > limits.target_bytes_max
            || request.headers.len() > limits.headers_max
        {
            return Heard::Other;
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let (form, operation) = match request.method {
            Some("GET") => match self.read_directly(path, query, request.headers) {
                Some(read) => read,
                None => return Heard::Other,
            },
            _ => (Form::Append, append(path, query, request.headers, body)),
        };
        Heard::Request(self.prepared(form, operation, link.clone()), head_bytes + body.len())
    }

    /// `None`: the form is one that hyper begins.
    fn read_directly(
        &self,
        path: &str,
        query: Option<&str>,
        fields: &[Header<'_>],
    ) -> Option<(Form, Result<Operation, Error>)> {
        let read = |query: &Query<'_>| {
            Read::plain(Some(stream_name(path)?), query, fields, &self.limits, self.holds)
                .map(Operation::Read)
        };
        match Query::parse(query) {
            Ok(query) => match query.get("live") {
                None | Some("long-poll") => Some((Form::ShortPoll, read(&query))),
                Some(_) => None,
            },
            Err(error) => Some((Form::ShortPoll, Err(error))),
        }
    }
}

/// The target of a request that is nothing special, and its body.
fn usual<'a>(request: &Request<'_, 'a>, behind: &'a [u8]) -> Option<(&'a str, &'a [u8])> {
    let fields: &[Header<'_>] = request.headers;
    let target = request.path.filter(|target| target.starts_with(STREAMS))?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || TARGET.contains(&byte);
    let stays = fields.values(&CONNECTION).all(|option| option.eq_ignore_ascii_case(b"keep-alive"));
    let unusual = UNUSUAL.iter().any(|name| fields.values(name).next().is_some());
    if request.version != Some(1) || unusual || !stays || !target.bytes().all(is_plain) {
        return None;
    }
    let mut lengths = fields.values(&CONTENT_LENGTH);
    match (request.method, lengths.next(), lengths.next()) {
        (Some("GET"), None, None) => Some((target, &[])),
        (Some("POST"), Some(length), None) => {
            let length = whole_number(std::str::from_utf8(length).ok()?)?;
            Some((target, behind.get(..usize::try_from(length).ok()?)?))
        }
        _ => None,
    }
}

fn append(path: &str, query: Option<&str>, fields: &[Header<'_>], body: &[u8]) -> Result<Operation, Error> {
    let (name, append) = (stream_name(path)?, post(query, fields)?);
    // The one copy of it: what the log keeps.
    Ok(Operation::OnStream(
        name,
        OnStream::Append(Box::new(append), Upload::Here(Bytes::copy_from_slice(body))),
    ))
}
