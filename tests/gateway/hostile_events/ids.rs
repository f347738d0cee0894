//! Hostile stream names and client ids: none can inject header fields or events.

use serde_json::Value;

use crate::world::{Gateway, get, post, put};

/// Percent-encoded, since a request target cannot contain a line break.
const IDS: [&str; 8] = [
    "%0d%0aevent:%20control%0d%0a",
    "%0a",
    "%0d",
    "a%00b",
    "%0aid:%207",
    "%0adata:%20x%0a%0a",
    "%c2%85",
    "%ff",
];

#[tokio::test]
async fn a_client_id_with_control_characters_is_refused() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").text("x")).await.expect(201);
    for id in IDS {
        let target = format!("/v1/stream/s?offset=now&live=long-poll&timeout=0&client={id}");
        let answer = gateway.send(get(target)).await.expect(400);
        assert!(matches!(answer.problem().as_str(), "client-id" | "malformed"), "{id}: {answer:?}");
        assert_eq!(answer.header("event"), "");
    }
    let clients = gateway.ask_admin("/clients").await.expect(200);
    assert!(!clients.text().contains("control"), "{clients:?}");
}

#[tokio::test]
async fn names_that_look_like_events_name_their_stream_and_nothing_else() {
    let gateway = Gateway::start(&[]).await;
    for name in [
        "data:%20x",
        "event:%20control",
        "id:7",
        "retry:1",
        ":",
        "%20",
        "%ef%bb%bf",
        "%22%5c%7b%7d",
        "%e2%80%a8",
    ] {
        let stream = format!("/v1/stream/{name}");
        let created = gateway.send(put(&stream).json(r#"["one"]"#)).await.expect(201);
        assert!(created.header("location").ends_with(&stream), "{created:?}");
        let mut events = gateway.connect().await.events(format!("{stream}?offset=-1&live=sse")).await;
        let data: Value = serde_json::from_str(&events.data().await).unwrap();
        assert_eq!(data, serde_json::json!(["one"]));
        let offset = events.control().await["streamNextOffset"].as_str().unwrap().to_owned();
        gateway.send(post(&stream).header("stream-closed", "true")).await.expect(204);
        assert_eq!(events.control().await["streamClosed"], true);
        assert_eq!(events.next().await, None, "no event more");
        let rest = gateway.send(get(format!("{stream}?offset={offset}"))).await.expect(200);
        assert_eq!(rest.text(), "[]");
    }
}

#[tokio::test]
async fn client_ids_that_look_like_events_name_their_client_and_nothing_else() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").text("x")).await.expect(201);
    let ids = ["data:x", "event:control", ":", "\"\\{}", "'%22};--", "../s"];
    for (index, id) in ids.into_iter().enumerate() {
        let poll = get("/v1/stream/s?offset=now&live=long-poll").header("client-id", id);
        let mut connection = gateway.connect().await;
        tokio::spawn(async move { connection.send(poll).await });
        gateway.until_held(index + 1).await;
    }
    let clients = gateway.ask_admin("/clients").await.expect(200).json();
    let mut listed: Vec<_> =
        clients.as_array().unwrap().iter().map(|client| client["client"].as_str().unwrap()).collect();
    listed.sort_unstable();
    let mut ids = ids;
    ids.sort_unstable();
    assert_eq!(listed, ids);
}
