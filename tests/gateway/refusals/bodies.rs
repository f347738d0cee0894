//! Request bodies that are not valid appends, or too large.

use super::{AT_ONCE, Fixture, JSON, TEXT};
use crate::world::{Answer, post, put};

const BODY_BYTES_MAX: usize = 1024 * 1024;

fn announced(length: impl ToString) -> String {
    format!(
        "POST {TEXT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
        length.to_string()
    )
}

fn chunked() -> String {
    format!(
        "POST {TEXT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
    )
}

/// The response to a client that reads only after it has sent the whole body.
async fn answer_to(fixture: &Fixture, head: &str, body: &[u8]) -> Answer {
    let request = [head.as_bytes(), body].concat();
    let answer = fixture.gateway.connect_raw().await.exchange(request).await;
    answer.expect("an answer, not a reset").expect("an answer, not the end")
}

#[tokio::test]
async fn an_append_without_messages_is_refused() {
    let fixture = Fixture::start().await;
    fixture.refuses(post(TEXT).text(""), 400, "empty").await;
    for body in ["", "[]", " [ ] "] {
        fixture.refuses(post(JSON).json(body), 400, "empty").await;
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn an_append_of_another_type_or_of_none_is_refused() {
    let fixture = Fixture::start().await;
    fixture.refuses(post(TEXT).body("x"), 400, "content-type").await;
    fixture.refuses(post(TEXT).header("content-type", "").body("x"), 400, "content-type").await;
    for wrong in ["text", "/", "text/", "/plain", "text plain/x", "text/plain/x", "text/plain; x=\u{e9}"] {
        fixture.refuses(post(TEXT).header("content-type", wrong).body("x"), 400, "content-type").await;
        fixture.refuses(put("/v1/stream/new").header("content-type", wrong), 400, "content-type").await;
    }
    for other in ["application/json", "text/html", "application/octet-stream"] {
        let append = post(TEXT).header("content-type", other).body("1");
        fixture.refuses(append, 409, "content-type-mismatch").await;
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn a_body_with_invalid_json_is_refused_as_a_whole() {
    let fixture = Fixture::start().await;
    let bodies: [&[u8]; 14] = [
        b"{",
        b"[1,]",
        b"tru",
        b"nan",
        b"1 2",
        b"[1][2]",
        b"'a'",
        b"\"\n\"",
        b"\"\0\"",
        b"\xef\xbb\xbf1",
        b"\"\xff\"",
        b"[1,2,{\"a\":}]",
        b"\"\\ud800",
        b" ",
    ];
    for body in bodies {
        let append = post(JSON).header("content-type", "application/json").body(body);
        fixture.refuses(append.clone(), 400, "json").await;
        fixture
            .refuses(put("/v1/stream/new").header("content-type", "application/json").body(body), 400, "json")
            .await;
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn json_may_nest_64_levels_and_no_more() {
    let fixture = Fixture::start().await;
    let nested = |levels| "[".repeat(levels) + &"]".repeat(levels);
    fixture.gateway.send(put("/v1/stream/deep").json(nested(64))).await.expect(201);
    let objects = r#"{"a":"#.repeat(65) + "1" + &"}".repeat(65);
    for body in [nested(65), objects, nested(500_000), "[".repeat(1_000_000), "[{\"\":".repeat(200_000)] {
        fixture.refuses(post(JSON).json(&body), 400, "json-depth").await;
    }
    fixture.gateway.send(crate::world::delete("/v1/stream/deep")).await.expect(204);
    fixture.is_untouched().await;
}

#[tokio::test]
async fn a_body_with_a_content_encoding_is_refused() {
    let fixture = Fixture::start().await;
    for coding in ["gzip", "br", "deflate", "identity, gzip", "x"] {
        let append = post(TEXT).text("x").header("content-encoding", coding);
        let answer = fixture.refuses(append, 415, "content-encoding").await;
        assert_eq!(answer.header("accept-encoding"), "identity");
        let create = put("/v1/stream/new").text("x").header("content-encoding", coding);
        fixture.refuses(create, 415, "content-encoding").await;
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_answered_even_to_a_client_that_sends_all_of_it_first() {
    let fixture = Fixture::start().await;
    for size in [BODY_BYTES_MAX + 1, 2 * BODY_BYTES_MAX, 10 * BODY_BYTES_MAX, 40 * BODY_BYTES_MAX] {
        let body = vec![b'x'; size];
        let answer = answer_to(&fixture, &announced(size), &body).await.expect(413);
        assert_eq!(answer.problem(), "body-too-large");
        let chunk = [format!("{size:x}\r\n").as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
        let answer = answer_to(&fixture, &chunked(), &chunk).await.expect(413);
        assert_eq!(answer.problem(), "body-too-large");
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn a_request_that_is_refused_for_its_head_is_answered_while_its_body_still_comes() {
    let fixture = Fixture::start().await;
    let size = 10 * BODY_BYTES_MAX;
    for (field, status) in [("content-encoding: gzip", 415), ("stream-ttl: x", 400), ("content-type: x", 400)]
    {
        let head = format!(
            "PUT /v1/stream/new HTTP/1.1\r\nhost: localhost\r\n{field}\r\ncontent-length: {size}\r\n\r\n"
        );
        let answer = answer_to(&fixture, &head, &vec![b'x'; size]).await.expect(status);
        assert!(!answer.problem().is_empty());
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn an_absurd_length_is_refused_before_any_of_the_body_comes() {
    let fixture = Fixture::start().await;
    for length in [17 << 20, 1 << 40, 1 << 63, u64::MAX - 2, u64::MAX - 1, u64::MAX] {
        let answer = fixture.refuses_bytes(&[announced(length).as_bytes()]).await.expect("an answer");
        assert!(matches!(answer.status.as_u16(), 413 | 400 | 431), "{length}: {answer:?}");
    }
    for length in
        ["18446744073709551616", "99999999999999999999999", "-1", "+5", "0x5", "5 5", "5, 6", "five", ""]
    {
        fixture.refuses_bytes(&[announced(length).as_bytes(), b"hello"]).await;
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn a_chunk_of_absurd_size_is_refused_and_an_incomplete_one_is_not_stored() {
    let fixture = Fixture::start().await;
    let chunks = ["fffffffffffffffff\r\n", "-1\r\n", "5;\n", "xyz\r\n", "5\r\nhelloXX0\r\n\r\n", "\r\n"];
    for chunk in chunks {
        fixture.refuses_bytes(&[chunked().as_bytes(), chunk.as_bytes()]).await;
    }
    for begun in ["7fffffffffffffff\r\nhello", "8000000000000000\r\nhello", "5\r\nhello\r\n", "5\r\nhel", ""]
    {
        let mut raw = fixture.gateway.connect_raw().await;
        raw.send(chunked() + begun).await.unwrap();
        raw.finish().await;
        let closed = raw.closed().await;
        assert!(closed.is_below(AT_ONCE), "{begun:?} after {closed:?}");
    }
    fixture.is_untouched().await;
}
