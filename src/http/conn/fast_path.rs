//! The fast path: parses short polls and long polls, of one stream or many, and small appends that arrive whole, without hyper.
//!
//! httparse, which hyper uses too, parses the head. A request with anything unusual is left to hyper, so that one parser
//! decides what is HTTP (docs/design/http1.md). hyper also gets each request that the access policy refuses.

use std::mem::MaybeUninit;

use bytes::Bytes;
use httparse::{Request, Status};
use hyper::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderName, TRANSFER_ENCODING, UPGRADE};
use hyper::{Method, Version};

use super::response::Framing;
use super::state::ConnectionState;
use crate::auth::Unauthorized;
use crate::http::api::error::Error;
use crate::http::api::fields::{Fields, ParsedFields, whole_number};
use crate::http::api::form::Form;
use crate::http::api::gateway::Gateway;
use crate::http::api::handlers::post;
use crate::http::api::operation::{GatewayRequest, OnStream, Operation};
use crate::http::api::subscriptions::is_reserved;
use crate::http::api::target::{Parameter, Parameters, Query, STREAMS, STREAMS_PATH, stream_of_path};
use crate::http::read::request::Read;

/// The outcome of parsing the bytes of a client.
pub(super) enum Parsed {
    /// A request, and its length in bytes.
    Request(GatewayRequest, usize),
    /// Bytes that hyper has to parse.
    Other,
}

/// A request with one of these header fields is parsed by hyper.
const UNUSUAL: [HeaderName; 3] = [TRANSFER_ENCODING, EXPECT, UPGRADE];

/// Room for header fields. A request with more is parsed by hyper.
const FIELDS_MAX: usize = 32;

impl Gateway {
    /// Parses the request at the beginning of `bytes`: a short or long poll, or an append, over HTTP/1.1 on a connection that
    /// stays open.
    pub(super) fn try_parse(&self, bytes: &[u8], state: &ConnectionState) -> Parsed {
        let mut room = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut request = Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(bytes, &mut room);
        let Ok(Status::Complete(head_bytes)) = parsed else { return Parsed::Other };
        let (head, behind) = bytes.split_at(head_bytes.min(bytes.len()));
        let fields = ParsedFields::new(request.headers);
        let Some((target, body)) = usual(&request, &fields, behind) else { return Parsed::Other };
        let limits = &self.limits;
        if head.len() > limits.head_bytes_max
            || target.len() > limits.target_bytes_max
            || request.headers.len() > limits.headers_max
        {
            return Parsed::Other;
        }
        let (path, query) = split_target(target);
        let method = if request.method == Some("GET") { Method::GET } else { Method::POST };
        // hyper parses the request again, and the check that follows logs the refusal and answers it.
        let Ok(origin) = self.access.check(Version::HTTP_11, &method, None, &fields) else {
            return Parsed::Other;
        };
        let (form, operation, has_unknown) = match request.method {
            Some("GET") => match self.parse_read(path, query, &fields) {
                Some(read) => read,
                None => return Parsed::Other,
            },
            _ => (Form::Append, self.parse_append(path, query, &fields, body), query.is_some()),
        };
        let is_safe = method == Method::GET;
        let source = state.source(&fields);
        let rights = self.authenticate(query, &fields, is_safe, source);
        let known = rights.as_ref().ok().and_then(Option::as_ref);
        let (who, tenant) = (self.audited(known), self.tenant_of(known));
        let operation = rights.and_then(|rights| match rights {
            Some(rights) => rights.admit(operation?),
            None => operation,
        });
        if matches!(operation, Err(Error::Unauthorized(Unauthorized::Ticket))) {
            return Parsed::Other;
        }
        let mut request = GatewayRequest::new(form, Framing::PERSISTENT, origin, operation);
        request.log.of_tenant(tenant);
        request.came_from(source);
        if has_unknown || self.access_log.is_some() || self.audit_log.is_some() {
            self.note(&mut request, source, who, method.as_str(), target, query);
        }
        Parsed::Request(request, head_bytes + body.len())
    }

    /// Parses a short or long poll, and tells whether its query may have unknown parameters. `None`: another delivery form,
    /// which is left to hyper.
    fn parse_read(
        &self,
        path: &str,
        query: Option<&str>,
        fields: &ParsedFields<'_>,
    ) -> Option<(Form, Result<Operation, Error>, bool)> {
        // `None`: the query names the streams.
        let stream = || if path == STREAMS_PATH { Ok(None) } else { stream_of_path(path).map(Some) };
        let read = |query: &Query<'_>| {
            Ok(Operation::Read(Read::plain(stream()?, query, fields, &self.limits, self.holds)?))
        };
        match Query::parse(query) {
            Ok(query) => match query.get(Parameter::Live) {
                None | Some("long-poll") => Some((Form::ShortPoll, read(&query), query.has_unknown())),
                Some(_) => None,
            },
            // As in the other parser, an invalid name takes precedence.
            Err(error) => {
                let refused = stream().and_then(|_| Err(error.into()));
                Some((Form::ShortPoll, refused, true))
            }
        }
    }

    fn parse_append(
        &self,
        path: &str,
        query: Option<&str>,
        fields: &ParsedFields<'_>,
        body: &[u8],
    ) -> Result<Operation, Error> {
        let (name, mut append) = (stream_of_path(path)?, Box::new(post(query, fields)?));
        if body.len() > self.limits.body_bytes_max {
            return Err(Error::BodyTooLarge { max: self.limits.body_bytes_max });
        }
        // The only copy of the body; the log stores it.
        append.set_body(Bytes::copy_from_slice(body), self.limits.json_depth_max)?;
        append.trace = self.trace_of(fields);
        Ok(Operation::OnStream(name, OnStream::Append(append)))
    }
}

/// For each byte, whether hyper's parser accepts it in a target, and it has one meaning there (RFC 3986, sections 3.3 and 3.4).
static PLAIN: [bool; 256] = {
    let (mut plain, mut byte) = ([false; 256], 0_u8);
    let mut rest = plain.as_mut_slice();
    while let [is_plain, behind @ ..] = rest {
        *is_plain = matches!(byte,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*'
            | b'+' | b',' | b';' | b'=' | b':' | b'@' | b'/' | b'?' | b'%');
        (rest, byte) = (behind, byte.wrapping_add(1));
    }
    plain
};

/// Whether all bytes of a target are [`PLAIN`]. Eight are looked up between two branches, as each byte of each request is.
fn is_plain(target: &str) -> bool {
    let look_up = |byte: &u8| PLAIN.get(usize::from(*byte)).copied().unwrap_or_default();
    let are_plain = |bytes: &[u8]| bytes.iter().fold(true, |plain, byte| plain & look_up(byte));
    let (eights, rest) = target.as_bytes().as_chunks::<8>();
    eights.iter().all(|eight| are_plain(eight)) && are_plain(rest)
}

/// Splits a target into its path and its query.
fn split_target(target: &str) -> (&str, Option<&str>) {
    let path_bytes = memchr::memchr(b'?', target.as_bytes()).unwrap_or(target.len());
    (target.get(..path_bytes).unwrap_or_default(), target.get(path_bytes + 1..))
}

/// Returns the target and the body of a request, if nothing about the request is unusual.
fn usual<'a>(
    request: &Request<'_, 'a>,
    fields: &ParsedFields<'_>,
    behind: &'a [u8],
) -> Option<(&'a str, &'a [u8])> {
    let target = request.path?;
    let is_of_stream = target.starts_with(STREAMS) && !is_reserved(target);
    if !is_of_stream && split_target(target).0 != STREAMS_PATH {
        return None;
    }
    let stays = fields.values(&CONNECTION).all(|option| option.eq_ignore_ascii_case(b"keep-alive"));
    let unusual = UNUSUAL.iter().any(|name| fields.values(name).next().is_some());
    if request.version != Some(1) || unusual || !stays || !is_plain(target) {
        return None;
    }
    let mut lengths = fields.values(&CONTENT_LENGTH);
    match (request.method, lengths.next(), lengths.next()) {
        (Some("GET"), None, None) => Some((target, &[])),
        // That of many streams is a read.
        (Some("POST"), Some(length), None) if is_of_stream => {
            let length = whole_number(length)?;
            Some((target, behind.get(..usize::try_from(length).ok()?)?))
        }
        _ => None,
    }
}
