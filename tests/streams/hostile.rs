//! Malicious requests for many streams: each is refused with a reason, and none harms the gateway.

use super::ask::{Ask, Envelope};
use crate::world::{Gateway, delete, get, head, options, post, put};

const MUTATIONS: usize = 3_000;

fn streams(count: usize) -> Ask {
    Ask::of((0..count).map(|n| format!("s/{n}")))
}

#[tokio::test]
async fn a_thousand_streams_are_taken_and_no_more() {
    let gateway = Gateway::start(&[]).await;
    let answer = gateway.send(streams(1000).request()).await;
    assert_eq!(Envelope::of(&answer).batches.len(), 1000);
    let refused = gateway.send(streams(1001).request()).await.expect(400);
    assert_eq!(refused.problem(), "too-many-streams");
    assert!(refused.text().contains("1000") && refused.text().contains("streams_per_request_max"));
    let few = Gateway::start(&["--limit", "streams_per_request_max=2"]).await;
    few.send(get("/v1/streams?stream=a&stream=b")).await.expect(200);
    few.send(get("/v1/streams?stream=a&stream=b&stream=c")).await.expect(400);
}

#[tokio::test]
async fn each_wrong_value_is_named() {
    let gateway = Gateway::start(&[]).await;
    for (query, status, kind) in [
        ("", 400, "malformed"),
        ("?stream=", 400, "stream-name"),
        ("?stream=a//b", 400, "stream-name"),
        ("?stream=a/../b", 400, "stream-name"),
        ("?stream=a%0ab", 400, "stream-name"),
        ("?stream=%ff", 400, "malformed"),
        ("?stream=__ds/x", 501, "reserved"),
        ("?stream=a&stream=a", 400, "same-stream"),
        ("?stream=a&resume=", 400, "resume"),
        ("?stream=a&resume=AQ==", 400, "resume"),
        ("?stream=a&resume=0", 400, "resume"),
        ("?stream=a&resume=AQ..AQ", 400, "resume"),
        ("?stream=a&resume=Ag", 400, "resume"),
        ("?stream=a&from=latest", 400, "malformed"),
        ("?stream=a&stream=b&from=31e1cc947a056239_000000000000000c", 400, "malformed"),
        ("?stream=a&from=earliest&from=earliest", 400, "malformed"),
        ("?stream=a&live=mqtt", 400, "malformed"),
        ("?stream=a&live=long-poll&timeout=-1", 400, "malformed"),
        ("?stream=a&live=long-poll&client=%20", 400, "client-id"),
        ("?stream=a&live=sse&heartbeat=x", 400, "malformed"),
        ("?stream=a&live=websocket", 426, "upgrade-required"),
    ] {
        let answer = gateway.send(get(format!("/v1/streams{query}"))).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (status, kind), "{query}");
    }
    let deep = format!(r#"{{"stream":["a"],"x":{}{}}}"#, "[".repeat(65), "]".repeat(65));
    let large = vec![b' '; 1024 * 1024 + 1];
    for (body, status, kind) in [
        (b"".to_vec(), 400, "json"),
        (b"{".to_vec(), 400, "json"),
        (b"null".to_vec(), 400, "json"),
        (b"{}".to_vec(), 400, "malformed"),
        (br#"{"stream":[]}"#.to_vec(), 400, "malformed"),
        (br#"{"stream":"a"}"#.to_vec(), 400, "json"),
        (br#"{"stream":[1]}"#.to_vec(), 400, "json"),
        (br#"{"stream":["a"],"stream":["b"]}"#.to_vec(), 400, "json"),
        (br#"{"stream":["a"],"timeout":1.5}"#.to_vec(), 400, "json"),
        (br#"{"stream":["a"],"timeout":-1}"#.to_vec(), 400, "json"),
        (br#"{"stream":["a"],"live":"websocket"}"#.to_vec(), 400, "malformed"),
        (br#"{"stream":["a\u0000"]}"#.to_vec(), 400, "stream-name"),
        (br#"{"stream":["a"],"resume":"a b"}"#.to_vec(), 400, "resume"),
        (deep.into_bytes(), 400, "json-depth"),
        (large, 413, "body-too-large"),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer =
            gateway.send(post("/v1/streams").header("content-type", "application/json").body(body)).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (status, kind), "{shown}");
    }
    // Unknown fields are ignored, as in a query.
    gateway.send(post("/v1/streams").json(r#"{"stream":["a"],"x":[[1]],"timeout":null}"#)).await.expect(200);
    for request in [post("/v1/streams").text("{}"), post("/v1/streams").body("{}")] {
        assert_eq!(gateway.send(request).await.expect(415).problem(), "not-json");
    }
    let coded = post("/v1/streams").header("content-encoding", "gzip").json("{}");
    assert_eq!(gateway.send(coded).await.expect(415).problem(), "content-encoding");
    for request in [put("/v1/streams"), delete("/v1/streams")] {
        assert_eq!(gateway.send(request).await.expect(405).header("allow"), "GET, HEAD, POST, OPTIONS");
    }
    gateway.send(head("/v1/streams")).await.expect(400);
    gateway.send(head("/v1/streams?stream=a")).await.expect(200);
    let own = format!("http://{}", gateway.address);
    let preflight = gateway.send(options("/v1/streams").header("origin", own)).await.expect(204);
    assert_eq!(preflight.header("access-control-allow-methods"), "GET, HEAD, POST, OPTIONS");
    assert!(preflight.header("access-control-allow-headers").contains("content-type"));
}

#[tokio::test]
async fn an_altered_resume_token_is_refused_or_read_as_another_valid_one() {
    let gateway = Gateway::start(&[]).await;
    let mut connection = gateway.connect().await;
    for n in 0..8 {
        let create = put(format!("/v1/stream/s/{n}")).header("stream-max-messages", 2);
        connection.send(create.json("[1,2,3]")).await.expect(201);
    }
    let close = post("/v1/stream/s/7").header("stream-closed", "true");
    connection.send(close).await.expect(204);
    let ask = streams(10).earliest();
    let good = ask.poll(&mut connection).await.resume.unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let (mut taken, mut gaps) = (0, 0);
    for _ in 0..MUTATIONS {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..random.usize(1..=3) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => drop(bytes.remove(at)),
                1 => bytes.insert(at, b'.'),
                2 => bytes.truncate(at.max(1)),
                _ => bytes[at] = *random.choice(b"AZaz09-_.=+/ \"\\").unwrap(),
            }
            bytes = if bytes.is_empty() { b"A".to_vec() } else { bytes };
        }
        let text = String::from_utf8(bytes).unwrap();
        let answer = connection.send(ask.clone().behind(&text).request()).await;
        if answer.status == 200 {
            let envelope = Envelope::of(&answer);
            taken += 1;
            gaps += envelope.batches.iter().filter(|news| news.gap.is_some()).count();
            // If the token is valid, its reader reaches the tail.
            let again = ask.clone().behind(&envelope.resume.unwrap()).poll(&mut connection).await;
            assert!(again.batches.is_empty() && again.up_to_date, "{text}: {again:?}");
        } else {
            assert_eq!(answer.expect(400).problem(), "resume", "{text}");
        }
    }
    println!("{MUTATIONS} resume tokens that were changed: {taken} taken, {gaps} gaps told");
    assert!(taken > 100 && taken < MUTATIONS && gaps > 0, "{taken} {gaps}");
}

#[tokio::test]
async fn a_list_of_a_hundred_thousand_names_costs_little() {
    let gateway = Gateway::start(&[]).await;
    let names = vec!["\"a\""; 250_000].join(",");
    let body = format!(r#"{{"stream":[{names}]}}"#);
    assert!(body.len() < 1024 * 1024);
    gateway.send(post("/v1/streams").json("{}")).await.expect(400);
    let before = gateway.memory_bytes();
    for _ in 0..5 {
        gateway.send(post("/v1/streams").json(&body)).await.expect(400);
    }
    let more = gateway.memory_bytes().saturating_sub(before);
    assert!(more <= 8 * 1024 * 1024, "{more} bytes more");
}
