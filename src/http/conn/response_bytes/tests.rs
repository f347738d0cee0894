//! Framing, and whether a connection stays open.

use hyper::header::VARY;
use hyper::{Request, Version};

use super::*;
use crate::http::conn::{bare, fixed_fields};

const HTTP10: Framing = Framing { http10: true, without_body: false, keep_alive: false };
const HEAD: Framing = Framing { without_body: true, ..Framing::PERSISTENT };

fn framed(framing: Framing, body: Body) -> Outgoing {
    let mut response = ResponseBytes::begin(StatusCode::OK);
    response.set_body(body);
    response.frame(framing, SystemTime::UNIX_EPOCH);
    response.into_outgoing()
}

fn text(outgoing: &Outgoing) -> String {
    String::from_utf8(outgoing.first.to_vec()).unwrap().replace("\r\n", "|")
}

fn endless() -> Body {
    Body::live(Box::pin(tokio_stream::pending()))
}

#[test]
fn a_body_of_unknown_length_is_chunked_or_ends_with_the_connection() {
    let chunked = framed(Framing::PERSISTENT, endless());
    assert_eq!(
        text(&chunked),
        "HTTP/1.1 200 OK|date: Thu, 01 Jan 1970 00:00:00 GMT|transfer-encoding: chunked||"
    );
    assert_eq!((chunked.chunked, chunked.closes, chunked.rest.is_some()), (true, false, true));
    let to_the_end = framed(Framing { keep_alive: true, ..HTTP10 }, endless());
    assert!(text(&to_the_end).contains("connection: close|"), "{}", text(&to_the_end));
    assert!(!text(&to_the_end).contains("transfer-encoding"), "{}", text(&to_the_end));
    assert_eq!((to_the_end.chunked, to_the_end.closes), (false, true));
}

#[test]
fn a_response_to_head_says_the_length_of_a_body_that_it_does_not_have() {
    let full = || Body::full(Bytes::from_static(b"abc"));
    assert!(text(&framed(HEAD, full())).ends_with("content-length: 3||"));
    assert!(!text(&framed(HEAD, Body::empty())).contains("content-length"));
    assert!(text(&framed(Framing::PERSISTENT, full())).ends_with("content-length: 3||abc"));
}

#[test]
fn the_end_of_the_connection_is_said_once() {
    let mut response = ResponseBytes::begin(StatusCode::NO_CONTENT);
    response.frame(HTTP10, SystemTime::UNIX_EPOCH);
    response.close();
    let outgoing = response.into_outgoing();
    assert_eq!((text(&outgoing).matches("connection: close").count(), outgoing.closes), (1, true));
}

#[test]
fn a_request_says_whether_the_connection_stays() {
    for (version, options, keep_alive) in [
        (Version::HTTP_11, "", true),
        (Version::HTTP_11, "close", false),
        (Version::HTTP_11, "te, Close", false),
        (Version::HTTP_11, "keep-alive, close", false),
        (Version::HTTP_10, "", false),
        (Version::HTTP_10, "Keep-Alive", true),
    ] {
        let request = Request::builder().version(version).header(CONNECTION, options).body(()).unwrap();
        assert_eq!(Framing::of(&request).keep_alive, keep_alive, "{version:?} {options}");
    }
}

#[test]
fn each_second_has_its_own_text() {
    for (seconds, expected) in
        [(784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"), (784_111_778, "Sun, 06 Nov 1994 08:49:38 GMT")]
    {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 999);
        for _ in 0..2 {
            assert_eq!(date_line(now), *format!("date: {expected}\r\n").as_bytes());
        }
    }
}

#[test]
fn a_clock_before_1970_or_after_9999_has_a_date_too() {
    let day = Duration::from_secs(24 * 3600);
    for (now, expected) in [
        (SystemTime::UNIX_EPOCH - day, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (SystemTime::UNIX_EPOCH + 4_000_000 * day, "Fri, 31 Dec 9999 23:59:59 GMT"),
    ] {
        assert_eq!(date_line(now), *format!("date: {expected}\r\n").as_bytes());
    }
}

#[test]
fn fixed_fields_are_the_same_over_both_protocols() {
    static FIXED: FixedFields<2> =
        fixed_fields! { "cache-control": "no-store", "x-content-type-options": "nosniff" };
    let (mut bytes, mut response) =
        (ResponseBytes::begin(StatusCode::OK), bare(StatusCode::OK, Body::empty()));
    bytes.put_fixed(&FIXED);
    response.put_fixed(&FIXED);
    assert_eq!(bytes.into_bytes(), ResponseBytes::from(response).into_bytes());
}

#[test]
fn the_buffer_of_a_written_response_is_used_again() {
    let response = |fields: usize| {
        let mut response = ResponseBytes::begin(StatusCode::NO_CONTENT);
        (0..fields).for_each(|_| response.put_static(VARY, "origin"));
        response.into_outgoing().first
    };
    let first = response(1);
    let (place, text) = (first.as_ptr(), first.to_vec());
    first.recycle();
    let second = response(1);
    assert_eq!((second.as_ptr(), &*second), (place, &*text));
    response(SPARE_BYTES_MAX).recycle();
    assert_eq!(SPARE.take().capacity(), 0);
}

#[test]
fn a_response_may_vary_by_several_fields_on_both_paths() {
    let mut response = bare(StatusCode::OK, Body::empty());
    for name in ["authorization", "origin"] {
        response.put_static(VARY, name);
    }
    assert_eq!(response.headers().get_all(VARY).iter().collect::<Vec<_>>(), ["authorization", "origin"]);
}
