//! Header fields and bodies that many responses share: position, caching, security.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, ETAG, VARY, X_CONTENT_TYPE_OPTIONS};

use super::fields::*;
use crate::http::conn::{Answer, Body, FRAME_BYTES_MAX, FixedFields, Head, fixed_fields};
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

static SECURE_MESSAGES: FixedFields<2> = fixed_fields! {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox",
};

/// Adds the fields of [`secure`], and a policy for messages, which any publisher may have written: a browser that shows them as
/// a document runs none of their scripts (CSP level 3, `sandbox`).
pub(in crate::http) fn secure_messages(head: &mut impl Head) {
    head.put_fixed(&SECURE_MESSAGES);
}

static UNCACHED: FixedFields<2> = fixed_fields! {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
};

/// Begins a response that no cache may keep, with the security fields.
pub(in crate::http) fn uncached<A: Answer>(status: StatusCode) -> A {
    let mut answer = A::begin(status);
    answer.put_fixed(&UNCACHED);
    answer
}

static JSON: FixedFields<1> = fixed_fields! { "content-type": "application/json" };

/// A 200 response with the messages of a batch and the position after them. The caller adds the fields of its delivery form.
pub(in crate::http) fn messages<A: Answer>(batch: &Batch, keep: Caching, audience: Audience) -> A {
    let mut answer = A::begin(StatusCode::OK);
    match batch.content_type.as_str() {
        // The type of nearly all streams is added without a copy.
        "application/json" => answer.put_fixed(&JSON),
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

static UP_TO_DATE: FixedFields<1> = fixed_fields! { "stream-up-to-date": "true" };

/// Adds the position of the reader: the next offset, whether it is up to date, and whether the stream is closed.
pub(in crate::http) fn position(head: &mut impl Head, batch: &Batch) {
    head.put(STREAM_NEXT_OFFSET, &batch.next.to_text());
    if batch.up_to_date {
        head.put_fixed(&UP_TO_DATE);
    }
    if batch.closed {
        head.put_static(STREAM_CLOSED, "true");
    }
}

/// Adds the cache cursor.
pub(in crate::http) fn cursor(head: &mut impl Head, cursor: CacheCursor) {
    head.put(STREAM_CURSOR, itoa::Buffer::new().format(cursor.0).as_bytes());
}

/// The entity tag of a response.
pub(in crate::http) struct EntityTag {
    text: [u8; ENTITY_TAG_BYTES_MAX],
    length: usize,
}

impl EntityTag {
    /// The entity tag of a batch. It depends on the epoch, the range of positions, and whether the stream is closed.
    pub(in crate::http) fn of(batch: &Batch) -> Self {
        let mut tag = Self { text: [0; ENTITY_TAG_BYTES_MAX], length: 0 };
        for (before, number) in
            [(b'"', batch.epoch.0), (b':', batch.start.position.0), (b':', batch.next.position.0)]
        {
            tag.push([before]);
            tag.push_hex(number);
        }
        if batch.closed {
            tag.push(*b":c");
        }
        tag.push([b'"']);
        tag
    }

    /// Appends bytes for which there is room.
    fn push<const COUNT: usize>(&mut self, bytes: [u8; COUNT]) {
        if let Some(room) = self.text.get_mut(self.length..).and_then(<[u8]>::first_chunk_mut) {
            *room = bytes;
            self.length += COUNT;
        }
    }

    /// Appends a number in hexadecimal without leading zeros. The formatter showed in the profile of the short poll.
    fn push_hex(&mut self, number: u64) {
        let digits = hex(number);
        let zeros = (number.leading_zeros() / 4).min(u64::BITS / 4 - 1);
        // All digits are copied, since copies of a fixed length are faster; what follows overwrites those behind the number.
        self.push((u128::from_be_bytes(digits) << (u8::BITS * zeros)).to_be_bytes());
        self.length -= zeros as usize;
    }

    /// The tag with its quotes.
    pub(in crate::http) fn as_bytes(&self) -> &[u8] {
        self.text.get(..self.length).unwrap_or_default()
    }
}

static NO_CACHE: FixedFields<1> = fixed_fields! { "cache-control": "no-cache" };
static FRESH_FOR_A_MINUTE: FixedFields<1> =
    fixed_fields! { "cache-control": "public, max-age=60, stale-while-revalidate=300" };

/// Adds the entity tag and the freshness of a response. A response without messages ends at the tail.
pub(in crate::http) fn caching(head: &mut impl Head, batch: &Batch, keep: Caching, audience: Audience) {
    if audience != Audience::All {
        head.put_static(VARY, VARY_BY_CREDENTIALS);
    }
    if audience == Audience::Private {
        head.put(ETAG, EntityTag::of(batch).as_bytes());
        return head.put_static(CACHE_CONTROL, "private, no-store");
    }
    let keeps = match keep {
        Caching::Pages => !batch.up_to_date,
        Caching::Messages => !batch.is_empty(),
        Caching::Revalidated => false,
        Caching::MustNot => return head.put_static(CACHE_CONTROL, "no-store"),
    };
    head.put(ETAG, EntityTag::of(batch).as_bytes());
    let fresh = batch.lives_for.map_or(FRESH, |left| left.min(FRESH));
    if !keeps {
        head.put_fixed(&NO_CACHE);
    } else if fresh == FRESH {
        head.put_fixed(&FRESH_FOR_A_MINUTE);
    } else {
        head.put(CACHE_CONTROL, format!("public, max-age={}", fresh.as_secs()).as_bytes());
    }
}

/// Whether `If-None-Match` names this tag (RFC 9110, section 13.1.2: weak comparison).
pub(in crate::http) fn matches(if_none_match: &str, tag: &[u8]) -> bool {
    let same = |candidate: &str| candidate.trim().trim_start_matches("W/").as_bytes() == tag;
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
