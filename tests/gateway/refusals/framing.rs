//! Request heads that are too large, ambiguous, or not HTTP.

use super::{Fixture, TEXT};
use crate::world::{Answer, get, put};

/// Requests with two lengths, which a gateway and a proxy in front of it could frame differently (request smuggling).
const TWO_LENGTHS: [&str; 4] = [
    "content-length: 4\r\ntransfer-encoding: chunked",
    "transfer-encoding: chunked\r\ncontent-length: 4",
    "Transfer-Encoding: chunked\r\nx: y\r\nCONTENT-LENGTH: 4",
    "content-length: 30\r\nTRANSFER-ENCODING: Chunked",
];

fn append(fields: &str) -> String {
    format!(
        "POST {TEXT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n{fields}\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    )
}

#[tokio::test]
async fn two_lengths_are_refused_in_any_order_and_wherever_the_packets_are_cut() {
    let fixture = Fixture::start().await;
    for fields in TWO_LENGTHS {
        let request = append(fields);
        for cut in (0..request.len()).step_by(11) {
            let (before, behind) = request.split_at(cut);
            let answer = fixture.refuses_bytes(&[before.as_bytes(), behind.as_bytes()]).await;
            assert_eq!(answer.expect("an answer").expect(400).problem(), "ambiguous-length");
        }
        let bytes: Vec<_> = request.as_bytes().chunks(1).collect();
        let answer = fixture.refuses_bytes(&bytes).await;
        assert_eq!(answer.expect("an answer").expect(400).problem(), "ambiguous-length");
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn two_lengths_are_refused_behind_any_other_request_wherever_the_packets_are_cut() {
    let fixture = Fixture::start().await;
    let poll = format!("GET {TEXT} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let preflight = format!("OPTIONS {TEXT} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let held = format!("GET {TEXT}?offset=now&live=long-poll&timeout=1 HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let two = |fields: &str| format!("POST {TEXT} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n\r\nx");
    for (smuggled, problem) in [
        (append("content-length: 4\r\ntransfer-encoding: chunked"), "ambiguous-length"),
        (append("transfer-encoding: chunked\r\ncontent-length: 4"), "ambiguous-length"),
        // hyper's own refusal has no body.
        (two("content-length: 1\r\ncontent-length: 40"), ""),
        (two("content-length: 40\r\ncontent-length: 1"), ""),
        (two("content-length: 1, 40"), ""),
    ] {
        let first = fixture.refuses_bytes(&[smuggled.as_bytes()]).await.expect("an answer").expect(400);
        assert_eq!(problem_of(&first), problem, "{smuggled}");
        // After a held poll, one kind is enough, since each takes a second.
        let is_first = smuggled == append("content-length: 4\r\ntransfer-encoding: chunked");
        let others = [(&preflight, 204, 23), (&poll, 200, 23), (&held, 204, smuggled.len() / 2)];
        for (before, status, step) in others.into_iter().take(if is_first { 3 } else { 2 }) {
            for cut in (0..smuggled.len()).step_by(step) {
                let (begun, rest) = smuggled.split_at(cut);
                let mut raw = fixture.gateway.connect_raw().await;
                raw.send_in_pieces(&[format!("{before}{begun}").as_bytes()]).await.unwrap();
                // The connection may already be closed by the refusal.
                let _ = raw.send(format!("{rest}{poll}")).await;
                raw.answer().await.unwrap().unwrap().expect(status);
                let refusal = raw.answer().await.unwrap().unwrap().expect(400);
                assert_eq!((problem_of(&refusal).as_str(), refusal.header("connection")), (problem, "close"));
                assert!(raw.answer().await.unwrap().is_none(), "nothing follows");
            }
        }
    }
    fixture.is_untouched().await;
}

/// The problem type of a refusal, if it has a body.
fn problem_of(answer: &Answer) -> String {
    if answer.body.is_empty() { String::new() } else { answer.problem() }
}

#[tokio::test]
async fn a_chunked_request_is_accepted_after_any_other_request() {
    let fixture = Fixture::start().await;
    let poll = format!("GET {TEXT} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let preflight = format!("OPTIONS {TEXT} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let held = format!("GET {TEXT}?offset=now&live=long-poll&timeout=1 HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let chunked = append("transfer-encoding: chunked");
    for (first, status) in [(&preflight, 204), (&poll, 200), (&held, 204)] {
        let step = if first == &held { chunked.len() / 2 } else { 13 };
        for cut in (0..chunked.len()).step_by(step) {
            let (begun, rest) = chunked.split_at(cut);
            let mut raw = fixture.gateway.connect_raw().await;
            raw.send_in_pieces(&[format!("{first}{begun}").as_bytes()]).await.unwrap();
            raw.send(format!("{rest}{poll}")).await.unwrap();
            raw.answer().await.unwrap().unwrap().expect(status);
            raw.answer().await.unwrap().unwrap().expect(204);
            raw.answer().await.unwrap().unwrap().expect(200);
        }
    }
}

#[tokio::test]
async fn contradictory_lengths_and_unknown_transfer_codings_are_refused() {
    let fixture = Fixture::start().await;
    for fields in [
        "content-length: 5\r\ncontent-length: 6",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding : chunked",
        "transfer-encoding: \x0bchunked",
        "content-length : 5",
        "content-length: 5\r\n content-length: 6",
        "transfer-encoding:\r\n chunked",
        "transfer-encoding\r\n: chunked",
    ] {
        fixture.refuses_bytes(&[append(fields).as_bytes()]).await;
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn too_many_or_too_large_fields_are_answered_431() {
    let fixture = Fixture::start().await;
    let head = |fields: &str| format!("PUT /v1/stream/new HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n");
    let one_too_many = head(&"a: b\r\n".repeat(64));
    let a_great_many = head(&(0..100_000).map(|n| format!("field-{n}: {n}\r\n")).collect::<String>());
    let too_large = head(&format!("a: {}\r\n", "b".repeat(17 * 1024)));
    let endless = format!("PUT /v1/stream/new HTTP/1.1\r\n{}", "a".repeat(1024 * 1024));
    for request in [one_too_many, a_great_many, too_large, endless] {
        fixture.refuses_bytes(&[request.as_bytes()]).await.expect("an answer").expect(431);
    }
    let most = head(&"a: b\r\n".repeat(63)).replace("/new", "/text").replace("PUT", "GET");
    let answer = fixture.gateway.connect_raw().await.exchange(most).await;
    answer.unwrap().unwrap().expect(200);
    fixture.is_untouched().await;
}

#[tokio::test]
async fn a_target_over_8_kib_is_answered_414() {
    let fixture = Fixture::start().await;
    let target = |size: usize| format!("{TEXT}?x={}", "y".repeat(size - TEXT.len() - 3));
    fixture.gateway.send(get(target(8192))).await.expect(200);
    fixture.refuses(get(target(8193)), 414, "target-too-long").await;
    fixture.refuses(put(target(12 * 1024)), 414, "target-too-long").await;
    for size in [20 * 1024, 70 * 1024, 1024 * 1024] {
        let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", target(size));
        let answer = fixture.refuses_bytes(&[request.as_bytes()]).await.expect("an answer");
        assert!(matches!(answer.status.as_u16(), 414 | 431), "{answer:?}");
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn garbage_gets_a_bare_status_or_the_end_of_the_connection() {
    let fixture = Fixture::start().await;
    let mut random = fastrand::Rng::with_seed(1);
    let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(4096).collect();
    let garbage: [&[u8]; 11] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1 extra\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n: no name\r\n\r\n",
        b"GET / HTTP/1.1\r\na\0b: c\r\n\r\n",
        &noise,
    ];
    for bytes in garbage {
        fixture.refuses_bytes(&[bytes]).await;
    }
    fixture.is_untouched().await;
}

#[tokio::test]
async fn garbage_behind_the_preface_of_http2_ends_the_connection() {
    let fixture = Fixture::start().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut random = fastrand::Rng::with_seed(2);
    for _ in 0..20 {
        let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(64 * 1024).collect();
        let mut raw = fixture.gateway.connect_raw().await;
        // The gateway may close the connection while the client still sends.
        let _ = raw.send([&preface[..], &noise].concat()).await;
        assert!(raw.closed().await.is_below(super::AT_ONCE));
    }
    fixture.is_untouched().await;
}
