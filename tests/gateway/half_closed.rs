//! A client that shuts down its sending side after its requests gets the response to each, also to a long poll.

use crate::world::{Gateway, put};

/// A connection option without meaning, which sends a request to hyper instead of the fast path.
const FOR_HYPER: &str = "Connection: keep-alive, x\r\n";

fn requests() -> Vec<(&'static str, String)> {
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let json = "Host: localhost\r\nContent-Type: application/json\r\n";
    vec![
        ("200", get("/v1/stream/s")),
        ("200", get("/v1/streams?stream=s")),
        ("200", get("/pollgate.js")),
        ("200", format!("HEAD /v1/stream/s HTTP/1.1\r\n{json}\r\n")),
        ("200", format!("PUT /v1/stream/s HTTP/1.1\r\n{json}Content-Length: 0\r\n\r\n")),
        ("204", format!("POST /v1/stream/s HTTP/1.1\r\n{json}Content-Length: 1\r\n\r\n1")),
        (
            "204",
            format!(
                "POST /v1/stream/s HTTP/1.1\r\n{json}Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n"
            ),
        ),
        ("200", get("/v1/stream/s?offset=-1&live=long-poll")),
        ("204", get("/v1/stream/s?offset=now&live=long-poll&timeout=55")),
        ("200", get("/v1/streams?stream=s&live=long-poll&timeout=55")),
        ("200", get("/v1/stream/s?offset=-1&live=sse")),
        ("200", get("/v1/stream/s?offset=now&live=ndjson")),
        ("200", get("/v1/streams?stream=s&live=sse")),
    ]
}

fn statuses(answers: &str) -> Vec<&str> {
    let heads = answers.split("HTTP/1.1 ").skip(1);
    heads.map(|head| head.split(' ').next().expect("a status")).collect()
}

#[tokio::test]
async fn every_request_is_answered_whole_and_at_once() {
    for trace in ["warn", "debug"] {
        let gateway = Gateway::start_with(&[], &[("RUST_LOG", trace)]).await;
        gateway.send(put("/v1/stream/s").json("[0]")).await.expect(201);
        for (status, request) in requests() {
            for request in [request.clone(), request.replacen("\r\n", &format!("\r\n{FOR_HYPER}"), 1)] {
                let mut client = gateway.connect_raw().await;
                client.send(&request).await.unwrap();
                client.finish().await;
                let answer = client.rest().await;
                assert_eq!(statuses(&answer), [status], "{request}: {answer}");
                let is_whole =
                    !answer.contains("transfer-encoding: chunked") || answer.ends_with("0\r\n\r\n");
                assert!(is_whole, "{request}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_shuts_down_while_it_waits_gets_the_responses_to_its_later_requests() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("[0]")).await.expect(201);
    for fields in ["", FOR_HYPER] {
        let poll = "GET /v1/stream/s?offset=now&live=long-poll&timeout=55 HTTP/1.1\r\nHost: localhost\r\n";
        let mut client = gateway.connect_raw().await;
        client.send(format!("{poll}{fields}\r\n")).await.unwrap();
        gateway.until_held(1).await;
        client.send(format!("{poll}{fields}\r\n")).await.unwrap();
        client.get("/v1/stream/s").await.unwrap();
        client.finish().await;
        let answers = client.rest().await;
        assert_eq!(statuses(&answers), ["204", "204", "200"], "{answers}");
        assert!(answers.contains("stream-next-offset: ") && answers.ends_with("[0]"), "{answers}");
        gateway.until_held(0).await;
    }
}
