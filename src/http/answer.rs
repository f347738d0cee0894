//! What many answers have in common: the fields of a read, caching, security.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, CONTENT_TYPE, ETAG,
    HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Response, StatusCode};

use super::bare;
use super::body::{Body, FRAME_BYTES_MAX};
use super::fields::{self, *};
use crate::hub::Batch;
use crate::stream::{Cursor, Offset};

/// How long shared caches may keep what lies before the tail: it never changes (protocol, section 10.1).
const FRESH: Duration = Duration::from_secs(60);

/// Fields of an answer with messages: as many as a map of its second smallest size holds.
const FIELDS: usize = 12;

/// The longest entity tag: three numbers of 16 digits, quotes and separators.
const ENTITY_TAG_BYTES_MAX: usize = 54;

/// Whether caches may keep an answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keep {
    May,
    MustNot,
}

/// Fields against sniffing and for readers of other origins (protocol, section 12.7).
pub(super) fn secure(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CORP, HeaderValue::from_static("cross-origin"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
}

/// An answer that nobody may cache, with the security fields.
pub(super) fn uncached(status: StatusCode) -> Response<Body> {
    let mut answer = bare(status, Body::empty());
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    secure(answer.headers_mut());
    answer
}

/// 200 with a batch: its messages and its cursor. The caller adds what its form needs.
pub(super) fn messages(batch: Batch, keep: Keep) -> Response<Body> {
    let mut headers = HeaderMap::with_capacity(FIELDS);
    headers.insert(CONTENT_TYPE, content_type(&batch));
    position(&mut headers, &batch);
    match keep {
        Keep::May => caching(&mut headers, &batch),
        Keep::MustNot => {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }
    secure(&mut headers);
    let mut answer = bare(StatusCode::OK, messages_body(batch));
    *answer.headers_mut() = headers;
    answer
}

/// The type of nearly all streams needs no copy.
fn content_type(batch: &Batch) -> HeaderValue {
    match batch.content_type.as_str() {
        "application/json" => HeaderValue::from_static("application/json"),
        other => fields::value(other),
    }
}

/// Where a reader is: the next offset, whether it is up to date, whether anything will follow.
pub(super) fn position(headers: &mut HeaderMap, batch: &Batch) {
    headers.insert(STREAM_NEXT_OFFSET, fields::offset_value(batch.next));
    if batch.up_to_date {
        headers.insert(STREAM_UP_TO_DATE, TRUE);
    }
    if batch.closed {
        headers.insert(STREAM_CLOSED, TRUE);
    }
}

pub(super) fn cursor(headers: &mut HeaderMap, cursor: Cursor) {
    headers.insert(STREAM_CURSOR, HeaderValue::from(cursor.0));
}

/// The entity tag of a batch. It changes with the log's life, its stretch, and closing.
pub(super) fn entity_tag(batch: &Batch) -> String {
    let mut tag = String::with_capacity(ENTITY_TAG_BYTES_MAX);
    tag.push('"');
    for (index, number) in
        [batch.epoch.0, batch.start.position.0, batch.next.position.0].into_iter().enumerate()
    {
        tag.push_str(if index == 0 { "" } else { ":" });
        push_hex(&mut tag, number);
    }
    tag.push_str(if batch.closed { ":c\"" } else { "\"" });
    tag
}

/// Hexadecimal without leading zeros. By hand, since the formatter showed in the profile of the short poll.
fn push_hex(text: &mut String, number: u64) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        let nibble = (number >> (4 * digit) & 0xf) as u32;
        text.extend(char::from_digit(nibble, 16));
    }
}

/// Entity tag and freshness of an answer that may be cached.
///
/// Messages never change, so they may be kept. "Nothing new" must be asked again each time, or a short poll
/// through a cache would see a message a minute late.
pub(super) fn caching(headers: &mut HeaderMap, batch: &Batch) {
    headers.insert(ETAG, fields::value(&entity_tag(batch)));
    let fresh = batch.lives_for.map_or(FRESH, |left| left.min(FRESH));
    let control = if batch.is_empty() {
        HeaderValue::from_static("no-cache")
    } else if fresh == FRESH {
        HeaderValue::from_static("public, max-age=60, stale-while-revalidate=300")
    } else {
        fields::value(&format!("public, max-age={}", fresh.as_secs()))
    };
    headers.insert(CACHE_CONTROL, control);
}

/// Whether `If-None-Match` names this tag (RFC 9110, section 13.1.2: weak comparison).
pub(super) fn matches(if_none_match: &str, tag: &str) -> bool {
    let same = |candidate: &str| candidate.trim().trim_start_matches("W/") == tag;
    if_none_match.trim() == "*" || if_none_match.split(',').any(same)
}

/// The messages as a body: a JSON array, or bytes. Small ones in one piece, large ones as the log has them.
fn messages_body(batch: Batch) -> Body {
    let json = batch.content_type.is_json();
    let pieces = batch.pieces;
    if !json && pieces.len() <= 1 {
        return Body::full(pieces.into_iter().next().unwrap_or_default());
    }
    let size = pieces.iter().map(|piece| piece.len() + usize::from(json)).sum::<usize>() + 2;
    if size > FRAME_BYTES_MAX {
        return Body::pieces(if json { as_array(pieces) } else { pieces });
    }
    Body::full(joined(&pieces, json))
}

/// The capacity is the exact size, so that the bytes need no second allocation to be shared.
fn joined(pieces: &[Bytes], json: bool) -> Bytes {
    if json && pieces.is_empty() {
        return Bytes::from_static(b"[]");
    }
    let around = if json { pieces.len() + 1 } else { 0 };
    let size = pieces.iter().map(Bytes::len).sum::<usize>() + around;
    let mut joined = BytesMut::with_capacity(size);
    if json {
        joined.put_u8(b'[');
    }
    for (index, piece) in pieces.iter().enumerate() {
        if json && index > 0 {
            joined.put_u8(b',');
        }
        joined.put_slice(piece);
    }
    if json {
        joined.put_u8(b']');
    }
    joined.freeze()
}

fn as_array(pieces: Vec<Bytes>) -> Vec<Bytes> {
    let mut array = Vec::with_capacity(2 * pieces.len() + 1);
    for (index, piece) in pieces.into_iter().enumerate() {
        array.push(Bytes::from_static(if index == 0 { b"[" } else { b"," }));
        array.push(piece);
    }
    array.push(Bytes::from_static(b"]"));
    array
}

/// An answer to an append or a creation: where the tail is now.
pub(super) fn tail(status: StatusCode, tail: Offset, closed: bool) -> Response<Body> {
    let mut answer = uncached(status);
    let headers = answer.headers_mut();
    headers.insert(STREAM_NEXT_OFFSET, fields::offset_value(tail));
    if closed {
        headers.insert(STREAM_CLOSED, TRUE);
    }
    answer
}
