//! A connection with a held poll is reduced to a socket and a waiter (parked), which is invisible to its client.

use std::collections::BTreeMap;

use crate::world::{Answer, Gateway, Raw, get, post, put};

const STREAM: &str = "/v1/stream/s";
const POLL: &str = "/v1/stream/s?offset=now&live=long-poll&timeout=55";

async fn gateway() -> Gateway {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put(STREAM).json("")).await.expect(201);
    gateway
}

/// A connection whose poll is held.
async fn parked(gateway: &Gateway, poll: &str) -> Raw {
    let mut connection = gateway.connect_raw().await;
    connection.get(poll).await.expect("open");
    gateway.until_held(1).await;
    connection
}

/// Publishes, and returns the response to the held poll.
async fn publish(gateway: &Gateway, connection: &mut Raw, json: &str) -> Answer {
    gateway.send(post(STREAM).json(json)).await.expect(204);
    connection.whole_answer().await.expect("open").expect(200)
}

/// The header fields of a response by name, without those that contain a time.
fn fields(answer: &Answer) -> BTreeMap<&str, &str> {
    let fields = answer.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII")));
    fields.filter(|(name, _)| !["date", "stream-cursor"].contains(name)).collect()
}

#[tokio::test]
async fn the_response_to_a_held_poll_looks_like_an_immediate_one() {
    let gateway = gateway().await;
    let start = gateway.send(get(STREAM)).await.expect(200).next_offset();
    let target = format!("{STREAM}?offset={start}&live=long-poll&timeout=55");
    let mut waited = parked(&gateway, &target).await;
    let waited = publish(&gateway, &mut waited, "[1,2]").await;
    let at_once = gateway.send(get(target)).await.expect(200);
    assert_eq!((fields(&waited), &waited.body), (fields(&at_once), &at_once.body));
    assert!(waited.header("date").ends_with(" GMT"), "{:?}", waited.header("date"));

    let mut ended = gateway.connect_raw().await;
    ended.get("/v1/stream/s?offset=now&live=long-poll&timeout=1").await.expect("open");
    let ended = ended.whole_answer().await.expect("open").expect(204);
    let at_once = gateway.send(get("/v1/stream/s?offset=now&live=long-poll&timeout=0")).await.expect(204);
    assert_eq!(
        fields(&ended).into_iter().filter(|(name, _)| *name != "preference-applied").collect::<Vec<_>>(),
        fields(&at_once).into_iter().filter(|(name, _)| *name != "preference-applied").collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn the_connection_accepts_any_request_after_a_held_poll() {
    let gateway = gateway().await;
    let mut connection = parked(&gateway, POLL).await;
    for round in 0..50 {
        assert_eq!(publish(&gateway, &mut connection, &round.to_string()).await.text(), format!("[{round}]"));
        connection.get("/v1/stream/s?offset=now").await.expect("open");
        connection.whole_answer().await.expect("open").expect(200);
        connection.post(STREAM, "true").await.expect("open");
        connection.whole_answer().await.expect("open").expect(204);
        connection.get(POLL).await.expect("open");
        gateway.until_held(1).await;
    }
}

#[tokio::test]
async fn a_pipelined_request_is_answered_after_the_held_poll() {
    let gateway = gateway().await;
    let next = "GET /v1/stream/s HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // The early request arrives with the poll, while it is held, or in pieces of which the last one arrives after the response.
    let mut together = gateway.connect_raw().await;
    together.send(format!("GET {POLL} HTTP/1.1\r\nHost: localhost\r\n\r\n{next}")).await.expect("open");
    gateway.until_held(1).await;
    assert_eq!(publish(&gateway, &mut together, "1").await.text(), "[1]");
    assert_eq!(together.whole_answer().await.expect("open").text(), "[1]");

    let mut early = parked(&gateway, POLL).await;
    early.send_in_pieces(&[&next.as_bytes()[..9], &next.as_bytes()[9..]]).await.expect("open");
    assert_eq!(publish(&gateway, &mut early, "2").await.text(), "[2]");
    assert_eq!(early.whole_answer().await.expect("open").text(), "[1,2]");

    let mut in_halves = parked(&gateway, POLL).await;
    in_halves.send(&next[..9]).await.expect("open");
    assert_eq!(publish(&gateway, &mut in_halves, "3").await.text(), "[3]");
    in_halves.send(&next[9..]).await.expect("open");
    assert_eq!(in_halves.whole_answer().await.expect("open").text(), "[1,2,3]");
}

#[tokio::test]
async fn many_pipelined_requests_are_answered_in_order() {
    let gateway = gateway().await;
    let mut connection = parked(&gateway, POLL).await;
    // More bytes than the gateway reads ahead, so that some stay in the kernel.
    let early = "GET /v1/stream/s HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200);
    connection.send(early).await.expect("open");
    publish(&gateway, &mut connection, "1").await;
    for _ in 0..200 {
        assert_eq!(connection.whole_answer().await.expect("open").text(), "[1]");
    }
}

#[tokio::test]
async fn the_body_of_a_poll_is_not_parsed_as_a_request() {
    let hidden = "DELETE /v1/stream/s HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let head = format!("GET {POLL} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", hidden.len());
    for comes_with_the_head in [true, false] {
        let gateway = gateway().await;
        let mut connection = gateway.connect_raw().await;
        connection
            .send(if comes_with_the_head { format!("{head}{hidden}") } else { head.clone() })
            .await
            .expect("open");
        gateway.until_held(1).await;
        if !comes_with_the_head {
            connection.send(hidden).await.expect("open");
        }
        publish(&gateway, &mut connection, "1").await;
        // After the response the connection may continue or close; the request inside the body is never executed.
        if connection.get(STREAM).await.is_ok()
            && let Ok(Some(answer)) = connection.answer().await
        {
            assert_eq!(answer.expect(200).text(), "[1]");
        }
        assert_eq!(gateway.send(get(STREAM)).await.expect(200).text(), "[1]");
    }
}

#[tokio::test]
async fn a_connection_that_asks_to_close_is_closed_after_the_response() {
    let gateway = gateway().await;
    for (version, field) in [("1.1", "Connection: close\r\n"), ("1.0", "")] {
        let mut connection = gateway.connect_raw().await;
        connection
            .send(format!("GET {POLL} HTTP/{version}\r\nHost: localhost\r\n{field}\r\n"))
            .await
            .expect("open");
        gateway.until_held(1).await;
        publish(&gateway, &mut connection, "1").await;
        connection.end().await.expect("an end without a reset");
    }
}

#[tokio::test]
async fn a_poll_of_many_streams_waits_as_one_of_a_single_stream_does() {
    let gateway = gateway().await;
    let ask = |resume: &str| {
        let body = format!(r#"{{"stream":["s"],"live":"long-poll","timeout":55{resume}}}"#);
        let head = "POST /v1/streams HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let mut connection = gateway.connect_raw().await;
    connection.send(ask("")).await.expect("open");
    let mut envelope = connection.whole_answer().await.expect("open").json();
    for round in 0..3 {
        let resume = format!(r#","resume":{}"#, envelope["resume"]);
        connection.send(ask(&resume)).await.expect("open");
        gateway.until_held(1).await;
        envelope = publish(&gateway, &mut connection, &round.to_string()).await.json();
        assert_eq!(envelope["batches"][0]["data"], serde_json::json!([round]));
    }
}

#[tokio::test]
async fn a_large_answer_to_a_parked_poll_arrives_whole_however_slowly_it_is_read() {
    let gateway = gateway().await;
    let mut connection = Raw::open_narrow(gateway.address).await;
    connection.get(POLL).await.expect("open");
    gateway.until_held(1).await;
    let large = format!("\"{}\"", "x".repeat(900_000));
    let answer = publish(&gateway, &mut connection, &large).await;
    assert_eq!(answer.text(), format!("[{large}]"));
    connection.get(POLL).await.expect("open");
    gateway.until_held(1).await;
}
