//! The dashboard at the admin listener: what it is told, and who may drain and publish.

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::world::mqtt::{Hello, Mqtt};
use crate::world::{Connection, Events, Gateway, PATIENCE, Raw, WebSocket, get, post, put, until};

/// Reads the events of a view of the admin listener.
async fn events(gateway: &Gateway, path: &str) -> Events {
    Connection::open(gateway.admin).await.events(path).await
}

/// Returns the JSON of the next event.
async fn shown(events: &mut Events) -> Value {
    let event = events.next().await.expect("an event");
    assert_eq!(event.name, "message", "{event:?}");
    serde_json::from_str(&event.data).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_is_told_of_readers_by_their_form() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/a").json("[1,2]")).await.expect(201);
    let mut held = Vec::new();
    for path in ["long-poll&timeout=50&client=phone", "sse", "ndjson"] {
        let mut connection = gateway.connect_raw().await;
        connection.get(&format!("/v1/stream/a?offset=now&live={path}")).await.unwrap();
        held.push(connection);
    }
    let _socket = WebSocket::open(gateway.address, "/v1/stream/a?offset=now&live=websocket").await.unwrap();
    let mut device = Mqtt::connect(gateway.mqtt, &Hello::new("device")).await;
    device.subscribe("a", 1).await;

    let mut streams = events(&gateway, "/streams?live=sse&limit=10").await;
    let by_form = json!({"longPoll": 1, "sse": 1, "ndjson": 1, "websocket": 1, "subscriptions": 1});
    loop {
        let event = shown(&mut streams).await;
        let stream = &event["streams"][0];
        if stream["readersByForm"] == by_form {
            assert_eq!((&stream["readers"], &stream["messages"]), (&json!(5), &json!(2)));
            break;
        }
    }
    let mut overview = events(&gateway, "/overview?live=sse").await;
    let first = shown(&mut overview).await;
    assert_eq!((&first["state"], &first["counts"]["heldPolls"]), (&json!("ready"), &json!(1)));
    let open = |event: &Value, form: &str| {
        let forms = event["totals"]["forms"].as_array().unwrap().clone();
        forms.into_iter().find(|one| one["form"] == form).unwrap()["open"].clone()
    };
    for form in ["long-poll", "sse", "ndjson", "websocket", "mqtt"] {
        assert_eq!(open(&first, form), 1, "{form}");
    }
    drop(held);
    gateway.send(post("/v1/stream/a").json("3")).await.expect(204);
    loop {
        let event = shown(&mut overview).await;
        let has_none = |form: &&str| open(&event, form) == 0;
        if ["long-poll", "sse", "ndjson"].iter().all(has_none) && event["totals"]["messagesIn"] == 3 {
            break;
        }
    }

    let found = gateway.ask_admin("/clients?contains=evi").await.expect(200).json();
    assert_eq!(found[0]["client"], "device");
    assert_eq!(found.as_array().unwrap().len(), 1);
    for query in ["?limit=0", "?limit=10001", "?prefix=a", "?live=ndjson"] {
        gateway.ask_admin(&format!("/clients{query}")).await.expect(400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_messages_of_a_stream_are_shown_as_text_in_pages_and_published() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/json").json("[0,1,2,3,4]")).await.expect(201);
    let page = async |query: &str| gateway.ask_admin(&format!("/messages?{query}")).await;
    let texts = |page: &Value| -> Vec<String> {
        let messages = page["messages"].as_array().unwrap();
        messages.iter().map(|message| message["text"].as_str().unwrap().to_owned()).collect()
    };
    let last = page("stream=json&limit=2").await.expect(200).json();
    assert_eq!(texts(&last), ["3", "4"]);
    let earlier =
        page(&format!("stream=json&limit=2&before={}", last["before"].as_str().unwrap())).await.json();
    assert_eq!(texts(&earlier), ["1", "2"]);
    let first =
        page(&format!("stream=json&limit=2&before={}", earlier["before"].as_str().unwrap())).await.json();
    assert_eq!((texts(&first), &first["before"]), (vec!["0".to_owned()], &Value::Null));

    let create = put("/v1/stream/bytes").header("content-type", "application/octet-stream");
    gateway.send(create.header("stream-ttl", 60).body("first")).await.expect(201);
    let long = [vec![0xff], vec![b'x'; 5000]].concat();
    let append = post("/v1/stream/bytes").header("content-type", "application/octet-stream");
    gateway.send(append.body(long)).await.expect(204);
    let both = page("stream=bytes").await.expect(200).json();
    assert_eq!(
        (&both["messages"][0]["text"], &both["messages"][0]["isUtf8"]),
        (&json!("first"), &json!(true))
    );
    let second = &both["messages"][1];
    assert_eq!(
        (&second["bytes"], &second["isWhole"], &second["isUtf8"]),
        (&json!(5001), &json!(false), &json!(false))
    );
    assert_eq!(second["text"].as_str().unwrap().chars().count(), 4096);
    let one = page("stream=bytes&limit=1").await.json();
    let before = one["before"].as_str().unwrap();
    assert_eq!(texts(&page(&format!("stream=bytes&before={before}")).await.json()), ["first"]);

    for query in ["", "stream=", "stream=json&limit=101", "stream=json&before=1", "stream=json&prefix=a"] {
        page(query).await.expect(400);
    }
    page("stream=nothing").await.expect(404);

    let publish = async |stream: &str, body: &str| {
        let request = post(format!("/messages?stream={stream}")).body(body.to_owned());
        Connection::open(gateway.admin).await.send(request).await
    };
    let mut live = events(&gateway, "/messages?stream=json&limit=2&live=sse").await;
    assert_eq!(texts(&shown(&mut live).await), ["3", "4"]);
    publish("json", r#"{"n":5}"#).await.expect(204);
    while texts(&shown(&mut live).await) != ["4", r#"{"n":5}"#] {}
    publish("json", "no json").await.expect(400);
    publish("json", &"1".repeat(65_537)).await.expect(413);
    publish("nothing", "1").await.expect(404);
    publish("$auth/revocations", r#"[{"sub":"anna"}]"#).await.expect(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_of_another_origin_drains_or_publishes_and_an_operator_does() {
    let mut gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/a").json("[]")).await.expect(201);
    for path in ["/drain", "/messages?stream=a"] {
        for origin in ["https://evil.example", "null", &format!("http://{}", gateway.address)] {
            let form = post(path).header("content-type", "text/plain").header("origin", origin).body("1");
            Connection::open(gateway.admin).await.send(form).await.expect(403);
        }
        let without =
            post(path).header("sec-fetch-site", "cross-site").header("sec-fetch-mode", "navigate").body("1");
        Connection::open(gateway.admin).await.send(without).await.expect(403);
        let mut rebound = Raw::open(gateway.admin).await;
        rebound
            .send(format!("POST {path} HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 1\r\n\r\n1"))
            .await
            .unwrap();
        assert_eq!(rebound.whole_answer().await.unwrap().status, 421);
    }
    gateway.ask_admin("/drain").await.expect(405);
    assert_eq!(gateway.ask_admin("/ready").await.text(), "ready\n");
    assert_eq!(gateway.ask_admin("/streams").await.json()["streams"][0]["messages"], 0);

    let mut overview = events(&gateway, "/overview?live=sse").await;
    assert_eq!(shown(&mut overview).await["state"], "ready");
    let own = post("/drain").header("origin", format!("http://{}", gateway.admin));
    Connection::open(gateway.admin).await.send(own).await.expect(202);
    while shown(&mut overview).await["state"] != "draining" {}
    assert!(timeout(PATIENCE, gateway.ended(PATIENCE)).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_live_views_is_bounded() {
    let gateway = Gateway::start(&[]).await;
    let mut open = Vec::new();
    for _ in 0..48 {
        let mut viewer = events(&gateway, "/overview?live=sse").await;
        shown(&mut viewer).await;
        open.push(viewer);
    }
    let refused = gateway.ask_admin("/overview?live=sse").await.expect(503);
    assert!(!refused.header("retry-after").is_empty());
    open.pop();
    until("a place is free", async || {
        let mut viewer = Connection::open(gateway.admin).await;
        viewer.begin(get("/overview?live=sse")).await.unwrap().0 == 200
    })
    .await;
}
