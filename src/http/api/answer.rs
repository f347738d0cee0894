//! Header fields and bodies that many responses share: position, caching, security.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, VARY,
    X_CONTENT_TYPE_OPTIONS,
};

use super::fields::*;
use crate::http::conn::{Answer, Body, FRAME_BYTES_MAX, Head};
use crate::stream::{Batch, CacheCursor, Offset, hex};

/// How long shared caches may keep messages before the tail, which never change (protocol, section 10.1).
const FRESH: Duration = Duration::from_secs(60);

/// The longest entity tag: three numbers of 16 digits, quotes and separators.
const ENTITY_TAG_BYTES_MAX: usize = 54;

/// The fields with credentials, on which the responses of a gateway depend that checks them.
pub(in crate::http) const VARY_BY_CREDENTIALS: &str = "authorization, cookie";

/// How caches may use a response with messages.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) enum Caching {
    /// Caches may keep messages for a minute. A response that ends at the tail must be revalidated, since a message may follow.
    Pages,
    /// As [`Pages`](Self::Pages), also for a response that ends at the tail: the next long poll of its client starts after it.
    Messages,
    /// Caches must revalidate the response each time.
    Revalidated,
    /// Caches must not keep the response.
    MustNot,
}

/// Which clients get the same response to the same request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::http) enum Audience {
    /// All clients: the gateway checks no credentials.
    #[default]
    All,
    /// All clients without a token. A client with a token may belong to a tenant, in which this name is a different stream.
    Public,
    /// Clients with the token. A shared cache must not store the response; the client may revalidate its own copy by the entity tag.
    Private,
}

/// Adds the field against content sniffing (protocol, section 12.7). The fields for pages of other origins are added when the
/// response is finished.
pub(in crate::http) fn secure(head: &mut impl Head) {
    head.put_static(X_CONTENT_TYPE_OPTIONS, "nosniff");
}

/// Adds the fields of [`secure`], and a policy for messages, which any publisher may have written: a browser that shows them as
/// a document runs none of their scripts (CSP level 3, `sandbox`).
pub(in crate::http) fn secure_messages(head: &mut impl Head) {
    secure(head);
    head.put_static(CONTENT_SECURITY_POLICY, "sandbox");
}

/// Begins a response that no cache may keep, with the security fields.
pub(in crate::http) fn uncached<A: Answer>(status: StatusCode) -> A {
    let mut answer = A::begin(status);
    answer.put_static(CACHE_CONTROL, "no-store");
    secure(&mut answer);
    answer
}

/// A 200 response with the messages of a batch and the position after them. The caller adds the fields of its delivery form.
pub(in crate::http) fn messages<A: Answer>(batch: &Batch, keep: Caching, audience: Audience) -> A {
    let mut answer = A::begin(StatusCode::OK);
    match batch.content_type.as_str() {
        // The type of nearly all streams is added without a copy.
        "application/json" => answer.put_static(CONTENT_TYPE, "application/json"),
        other => {
            answer.put(CONTENT_TYPE, other.as_bytes());
            if !batch.content_type.is_inert() {
                answer.put_static(CONTENT_DISPOSITION, "attachment");
            }
        }
    }
    position(&mut answer, batch);
    caching(&mut answer, batch, keep, audience);
    secure_messages(&mut answer);
    answer.set_body(messages_body(batch));
    answer
}

/// Adds the position of the reader: the next offset, whether it is up to date, and whether the stream is closed.
pub(in crate::http) fn position(head: &mut impl Head, batch: &Batch) {
    head.put(STREAM_NEXT_OFFSET, &batch.next.to_text());
    if batch.up_to_date {
        head.put_static(STREAM_UP_TO_DATE, "true");
    }
    if batch.closed {
        head.put_static(STREAM_CLOSED, "true");
    }
}

/// Adds the cache cursor.
pub(in crate::http) fn cursor(head: &mut impl Head, cursor: CacheCursor) {
    head.put(STREAM_CURSOR, itoa::Buffer::new().format(cursor.0).as_bytes());
}

/// Returns the entity tag of a batch. It depends on the epoch, the range of positions, and whether the stream is closed.
pub(in crate::http) fn entity_tag(batch: &Batch) -> String {
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

/// Appends a number in hexadecimal without leading zeros. The formatter showed in the profile of the short poll.
fn push_hex(text: &mut String, number: u64) {
    let digits = hex(number);
    let zeros = (number.leading_zeros() as usize / 4).min(digits.len() - 1);
    let digits = digits.get(zeros..).and_then(|digits| std::str::from_utf8(digits).ok());
    text.push_str(digits.unwrap_or_default());
}

/// Adds the entity tag and the freshness of a response. A response without messages ends at the tail.
pub(in crate::http) fn caching(head: &mut impl Head, batch: &Batch, keep: Caching, audience: Audience) {
    if audience != Audience::All {
        head.put_static(VARY, VARY_BY_CREDENTIALS);
    }
    if audience == Audience::Private {
        head.put(ETAG, entity_tag(batch).as_bytes());
        return head.put_static(CACHE_CONTROL, "private, no-store");
    }
    let keeps = match keep {
        Caching::Pages => !batch.up_to_date,
        Caching::Messages => !batch.is_empty(),
        Caching::Revalidated => false,
        Caching::MustNot => return head.put_static(CACHE_CONTROL, "no-store"),
    };
    head.put(ETAG, entity_tag(batch).as_bytes());
    let fresh = batch.lives_for.map_or(FRESH, |left| left.min(FRESH));
    if !keeps {
        head.put_static(CACHE_CONTROL, "no-cache");
    } else if fresh == FRESH {
        head.put_static(CACHE_CONTROL, "public, max-age=60, stale-while-revalidate=300");
    } else {
        head.put(CACHE_CONTROL, format!("public, max-age={}", fresh.as_secs()).as_bytes());
    }
}

/// Whether `If-None-Match` names this tag (RFC 9110, section 13.1.2: weak comparison).
pub(in crate::http) fn matches(if_none_match: &str, tag: &str) -> bool {
    let same = |candidate: &str| candidate.trim().trim_start_matches("W/") == tag;
    if_none_match.trim() == "*" || if_none_match.split(',').any(same)
}

/// Returns the messages as a body: a JSON array, or their bytes. A small body is one piece; a large one shares the pieces of
/// the log.
fn messages_body(batch: &Batch) -> Body {
    let json = batch.content_type.is_json();
    let pieces = &batch.pieces;
    if !json && pieces.len() <= 1 {
        return Body::full(pieces.first().cloned().unwrap_or_default());
    }
    let size = pieces.iter().map(|piece| piece.len() + usize::from(json)).sum::<usize>() + 2;
    if size > FRAME_BYTES_MAX {
        return Body::pieces(if json { as_array(pieces) } else { pieces.clone() });
    }
    Body::full(joined(pieces, json))
}

/// Joins pieces. The capacity is the exact size, so that the bytes can be shared without a second allocation.
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

fn as_array(pieces: &[Bytes]) -> Vec<Bytes> {
    let mut array = Vec::with_capacity(2 * pieces.len() + 1);
    for (index, piece) in pieces.iter().enumerate() {
        array.push(Bytes::from_static(if index == 0 { b"[" } else { b"," }));
        array.push(piece.clone());
    }
    array.push(Bytes::from_static(b"]"));
    array
}

/// Begins a response that tells the tail of a stream: to an append, a creation or a HEAD.
pub(in crate::http) fn tail<A: Answer>(status: StatusCode, tail: Offset, closed: bool) -> A {
    let mut answer: A = uncached(status);
    answer.put(STREAM_NEXT_OFFSET, &tail.to_text());
    if closed {
        answer.put_static(STREAM_CLOSED, "true");
    }
    answer
}
