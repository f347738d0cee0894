//! An edge, `--upstream`: it serves the streams of its parent, with the parent's offsets, and forwards what changes them.

use serde_json::json;
use tempfile::TempDir;

use crate::authorization::Protected;
use crate::world::mqtt::{Hello, Mqtt};
use crate::world::{
    Answer, Form, Gateway, Kind, Place, Reader, Request, delete, get, head, post, put, reserved_port, until,
};

/// The open WebSockets of readers, which an edge uses unless something on the path breaks them.
const LIVE: &str = "pollgate_live_connections{form=\"websocket\"}";

/// A parent in memory and its edge.
async fn pair() -> [Gateway; 2] {
    let parent = Gateway::start(&[]).await;
    let edge = edge_of(&parent).await;
    [parent, edge]
}

async fn edge_of(parent: &Gateway) -> Gateway {
    Gateway::start(&["--upstream", &format!("http://{}", parent.address)]).await
}

fn numbers(numbers: std::ops::Range<u64>) -> serde_json::Value {
    numbers.collect()
}

/// Sends a poll that is held, does `act` while it is held, and returns the response.
async fn held(gateway: &Gateway, target: &str, act: impl Future<Output = ()>) -> Answer {
    let mut connection = gateway.connect().await;
    let poll = connection.send(get(target));
    let act = async {
        gateway.until_held(1).await;
        act.await;
    };
    tokio::join!(poll, act).0
}

#[tokio::test]
async fn each_form_reads_history_and_news_of_each_kind_of_stream_through_two_edges() {
    let [parent, edge] = pair().await;
    let far = edge_of(&edge).await;
    for kind in Kind::ALL {
        let path = format!("/v1/stream/{kind:?}");
        let place = Place { address: far.address, path: path.clone(), kind };
        let of_kind = |request: Request, data: &'static str| {
            request.header("content-type", kind.content_type()).body(data)
        };
        parent.send(of_kind(put(&path), "1")).await.expect(201);
        parent.send(of_kind(post(&path), "2")).await.expect(204);
        let history = [kind.log(b"1"), kind.log(b"2")].concat();
        let mut readers = Vec::new();
        for form in Form::ALL {
            let mut reader = Reader::open(&place, form, "-1").await.unwrap();
            reader.expect(&history).await;
            readers.push(reader);
        }
        parent.send(of_kind(post(&path), "3")).await.expect(204);
        far.send(of_kind(post(&path), "4")).await.expect(204);
        parent.send(post(&path).header("stream-closed", "true")).await.expect(204);
        for mut reader in readers {
            let rest = reader.rest().await.unwrap();
            assert_eq!(rest, [kind.log(b"3"), kind.log(b"4")].concat(), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn an_edge_answers_as_its_parent_does() {
    let [parent, edge] = pair().await;
    let producer = |request: Request, epoch: u64, sequence: u64| {
        request.header("producer-id", "p").header("producer-epoch", epoch).header("producer-seq", sequence)
    };
    let path = |name: &str| format!("/v1/stream/{name}");
    let requests = |name: &str| {
        let path = path(name);
        let append = || post(&path).json("[1,[2]]");
        vec![
            get(&path),
            head(&path),
            append(),
            delete(&path),
            put(&path).json("[0]").header("stream-ttl", 3600).header("stream-max-messages", 100),
            put(&path).json("").header("stream-ttl", 3600).header("stream-max-messages", 100),
            put(&path).text(""),
            head(&path),
            append(),
            append().header("stream-seq", "b"),
            append().header("stream-seq", "a"),
            post(&path).text("x"),
            post(&path).json("[]"),
            post(&path).json("{"),
            producer(append(), 1, 0),
            producer(append(), 1, 0),
            producer(append(), 1, 5),
            producer(append(), 0, 1),
            producer(append(), 2, 1),
            get(format!("{path}?offset=-1")),
            get(format!("{path}?offset=now")),
            get(format!("{path}?offset=0000000000000001_0000000000000001")),
            put(format!("{path}-fork"))
                .header("stream-forked-from", &path)
                .header("stream-fork-sub-offset", 1),
            get(format!("{path}-fork")),
            put(format!("{path}-fork2")).header("stream-forked-from", "/v1/stream/none"),
            producer(post(&path).json("9").header("stream-closed", "true"), 1, 1),
            producer(post(&path).json("9").header("stream-closed", "true"), 1, 1),
            append(),
            post(&path).header("stream-closed", "true"),
            get(format!("{path}?offset=now&live=long-poll")),
            delete(&path),
            get(&path),
            put(&path).json(""),
            delete(format!("{path}-fork")),
            post(format!("{path}-new?create=1")).json("1"),
            head(format!("{path}-new")),
        ]
    };
    for (number, (direct, through)) in
        requests("same/%C3%A9/1").into_iter().zip(requests("same/%C3%A9/2")).enumerate()
    {
        let (direct, through) = (parent.send(direct).await, edge.send(through).await);
        let told = |answer: &Answer| {
            let names = answer.headers.keys().map(|name| name.as_str().to_owned());
            let names = names.filter(|name| name != "date");
            let positions = ["stream-next-offset", "stream-earliest-offset"];
            let values: Vec<_> = names
                .map(|name| {
                    let value = answer.header(&name).replace("/2", "/1");
                    // Epochs and entity tags are each stream's own.
                    let value = match () {
                        () if positions.contains(&&*name) => value.split('_').nth(1).unwrap().to_owned(),
                        () if ["etag", "stream-cursor", "location", "content-length"].contains(&&*name) => {
                            String::new()
                        }
                        () => value,
                    };
                    (name, value)
                })
                .collect();
            let is_problem =
                answer.header("content-type") == "application/problem+json" && !answer.body.is_empty();
            let body = if is_problem { answer.json()["type"].to_string() } else { answer.text() };
            let mut values = values;
            values.sort();
            (answer.status, values, body)
        };
        assert_eq!(told(&direct), told(&through), "request {number}");
    }
}

#[tokio::test]
async fn an_offset_of_the_edge_goes_on_at_the_parent_and_back() {
    let gateways = pair().await;
    let [parent, edge] = &gateways;
    parent.send(put("/v1/stream/s").json("")).await.expect(201);
    let (mut offset, mut read) = ("-1".to_owned(), Vec::new());
    for number in 0..40 {
        gateways[number % 2].send(post("/v1/stream/s").json(number.to_string())).await.expect(204);
        let answer =
            gateways[number / 2 % 2].send(get(format!("/v1/stream/s?offset={offset}&live=long-poll"))).await;
        let answer = answer.expect(200);
        offset = answer.next_offset();
        read.extend(answer.json().as_array().unwrap().iter().map(|number| number.as_u64().unwrap()));
    }
    assert_eq!(read, (0..40).collect::<Vec<_>>());
    assert!(edge.metric("pollgate_upstream_reads_from_memory_total").await > 0.0);
}

#[tokio::test]
async fn a_thousand_readers_of_an_edge_are_one_reader_of_its_parent_and_history_is_read_once() {
    let [parent, edge] = pair().await;
    parent.send(put("/v1/stream/hot").json(numbers(0..500))).await.expect(201);
    let start = parent.send(get("/v1/stream/hot?offset=-1")).await.next_offset();
    let mut polls = Vec::new();
    for _ in 0..1000 {
        let mut connection = edge.connect().await;
        let target = format!("/v1/stream/hot?offset={start}&live=long-poll&timeout=50");
        polls.push(tokio::spawn(async move { connection.send(get(target)).await }));
    }
    edge.until_held(1000).await;
    assert_eq!(parent.metric("pollgate_watched_streams").await, 1.0);
    assert_eq!(parent.metric(LIVE).await, 1.0);
    assert_eq!(edge.metric("pollgate_upstream_subscriptions").await, 1.0);
    parent.send(post("/v1/stream/hot").json("500")).await.expect(204);
    for poll in polls {
        assert_eq!(poll.await.unwrap().expect(200).json(), json!([500]));
    }
    // A page each for all who read it at once.
    let before = edge.metric("pollgate_upstream_requests_total{operation=\"read\"}").await;
    for _ in 0..20 {
        let page = edge.send(get("/v1/stream/hot?offset=-1")).await.expect(200);
        assert_eq!(page.json(), numbers(0..501));
    }
    let after = edge.metric("pollgate_upstream_requests_total{operation=\"read\"}").await;
    assert!(after - before < 20.0, "{before} to {after}");
    // Nobody reads any more.
    until("the stream is followed no longer", async || {
        parent.metric("pollgate_watched_streams").await == 0.0
    })
    .await;
    assert_eq!(edge.metric("pollgate_upstream_followed_streams").await, 0.0);
    assert_eq!(edge.metric("pollgate_upstream_kept_bytes").await, 0.0);
}

#[tokio::test]
async fn many_streams_share_one_connection_to_the_parent() {
    let [parent, edge] = pair().await;
    let connections = parent.metric("pollgate_connections").await;
    let mut polls = Vec::new();
    for number in 0..50 {
        let path = format!("/v1/stream/many/{number}");
        parent.send(put(&path).json("")).await.expect(201);
        let mut connection = edge.connect().await;
        polls.push(tokio::spawn(async move {
            connection.send(get(format!("{path}?offset=now&live=long-poll&timeout=50"))).await
        }));
    }
    edge.until_held(50).await;
    until("all are watched", async || parent.metric("pollgate_watched_streams").await == 50.0).await;
    assert_eq!(edge.metric("pollgate_upstream_subscriptions").await, 1.0);
    assert_eq!(parent.metric(LIVE).await, 1.0);
    assert!(parent.metric("pollgate_connections").await <= connections + 20.0);
    for number in 0..50 {
        parent.send(post(format!("/v1/stream/many/{number}")).json(number.to_string())).await.expect(204);
    }
    for (number, poll) in polls.into_iter().enumerate() {
        assert_eq!(poll.await.unwrap().expect(200).json(), json!([number]));
    }
}

#[tokio::test]
async fn deletion_and_recreation_reach_held_polls_of_the_edge() {
    let [parent, edge] = pair().await;
    parent.send(put("/v1/stream/s").json("[1]")).await.expect(201);
    let old = edge.send(get("/v1/stream/s")).await.expect(200).next_offset();
    let target = format!("/v1/stream/s?offset={old}&live=long-poll&timeout=50");
    let ended = held(&edge, &target, async {
        parent.send(delete("/v1/stream/s")).await.expect(204);
    });
    ended.await.expect(404);
    parent.send(put("/v1/stream/s").json("[2]")).await.expect(201);
    assert_eq!(edge.send(get("/v1/stream/s")).await.expect(200).json(), json!([2]));
    let gap = edge.send(get(format!("/v1/stream/s?offset={old}"))).await.expect(410);
    assert_eq!(gap.header("stream-gap"), "reason=epoch");
}

#[tokio::test]
async fn a_gap_is_told_as_at_the_parent() {
    let [parent, edge] = pair().await;
    let retentions = [
        (Kind::Json, "stream-max-messages", 2),
        (Kind::Json, "stream-max-bytes", 2),
        (Kind::Text, "stream-max-messages", 2),
        (Kind::Text, "stream-max-bytes", 2),
    ];
    for (number, (kind, limit, max)) in retentions.into_iter().enumerate() {
        let path = format!("/v1/stream/{number}");
        let of_kind = |request: Request| request.header("content-type", kind.content_type());
        parent.send(of_kind(put(&path)).header(limit, max).body("0")).await.expect(201);
        let start = edge.send(get(&path)).await.expect(200).next_offset();
        let mut next = start.clone();
        // The edge gets each message when it is appended.
        for value in ["1", "2", "3", "4", "5"] {
            parent.send(of_kind(post(&path)).body(value)).await.expect(204);
            let poll = get(format!("{path}?offset={next}&live=long-poll"));
            next = edge.send(poll).await.expect(200).next_offset();
        }
        let ask = || get(format!("{path}?offset={start}"));
        let direct = parent.send(ask()).await.expect(410);
        until("the edge tells the gap", async || edge.send(ask()).await.status == 410).await;
        let through = edge.send(ask()).await;
        for name in ["stream-gap", "stream-earliest-offset"] {
            assert_eq!(through.header(name), direct.header(name), "{kind:?} {limit}");
        }
    }
}

#[tokio::test]
async fn names_that_a_client_makes_up_take_no_room_of_streams_that_exist() {
    let parent = Gateway::start(&[]).await;
    let upstream = format!("http://{}", parent.address);
    let edge = Gateway::start(&["--upstream", &upstream, "--limit", "upstream_streams_max=2"]).await;
    parent.send(put("/v1/stream/s").json("[1]")).await.expect(201);
    for number in 0..5 {
        edge.send(get(format!("/v1/stream/none/{number}"))).await.expect(404);
        edge.send(get(format!("/v1/stream/none/{number}?offset=-1&live=long-poll"))).await.expect(404);
    }
    edge.send(get("/v1/stream/s")).await.expect(200);
}

/// A parent on disk, on one port over its lives.
async fn parent_on_disk(directory: &TempDir, listen: &str) -> Gateway {
    Gateway::start(&["--store", directory.path().to_str().unwrap(), "--sync", "never", "--listen", listen])
        .await
}

#[tokio::test]
async fn held_polls_stay_held_while_the_parent_is_away_and_nothing_is_lost_or_doubled_when_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", reserved_port());
    let mut parent = parent_on_disk(&directory, &listen).await;
    let edge = edge_of(&parent).await;
    parent.send(put("/v1/stream/s").json("[0]")).await.expect(201);
    let mut offset = edge.send(get("/v1/stream/s")).await.expect(200).next_offset();
    let mut read = vec![0];
    for life in 1..4 {
        let target = format!("/v1/stream/s?offset={offset}&live=long-poll&timeout=50");
        let answer = held(&edge, &target, async {
            std::mem::replace(&mut parent, Gateway::start(&[]).await).kill().await;
            // What is known is read on, what is not is not made up.
            let known = edge.send(get(format!("/v1/stream/s?offset={offset}"))).await.expect(200);
            assert_eq!((known.json(), known.next_offset()), (json!([]), offset.clone()));
            let refused = edge.send(post("/v1/stream/s").json("7")).await.expect(503);
            assert_eq!(refused.problem(), "store-unreachable");
            let ready = edge.ask_admin("/ready").await.expect(200).text();
            assert!(ready.contains("upstream gateway cannot be reached"), "{ready}");
            edge.until_held(1).await;
            parent = parent_on_disk(&directory, &listen).await;
            parent.send(post("/v1/stream/s").json(life.to_string())).await.expect(204);
        });
        let answer = answer.await.expect(200);
        offset = answer.next_offset();
        read.extend(answer.json().as_array().unwrap().iter().map(|number| number.as_u64().unwrap()));
        until("it is ready", async || edge.ask_admin("/ready").await.text() == "ready\n").await;
    }
    assert_eq!(read, [0, 1, 2, 3]);
    // A new edge continues at the offsets of the old one.
    edge.kill().await;
    let edge = edge_of(&parent).await;
    parent.send(post("/v1/stream/s").json("4")).await.expect(204);
    let rest = edge.send(get(format!("/v1/stream/s?offset={offset}"))).await.expect(200);
    assert_eq!(rest.json(), json!([4]));
    assert_eq!(edge.send(get("/v1/stream/s?offset=-1")).await.expect(200).json(), numbers(0..5));
}

#[tokio::test]
async fn readers_are_told_when_a_parent_has_lost_its_streams() {
    let listen = format!("127.0.0.1:{}", reserved_port());
    let parent = Gateway::start(&["--listen", &listen]).await;
    let edge = edge_of(&parent).await;
    parent.send(put("/v1/stream/s").json("[1,2,3]")).await.expect(201);
    let offset = edge.send(get("/v1/stream/s")).await.expect(200).next_offset();
    let target = format!("/v1/stream/s?offset={offset}&live=long-poll&timeout=50");
    let answer = held(&edge, &target, async {
        parent.kill().await;
        let parent = Gateway::start(&["--listen", &listen]).await;
        parent.send(put("/v1/stream/s").json("[4]")).await.expect(201);
        until("nothing is held", async || edge.metric("pollgate_held_polls").await == 0.0).await;
        assert_eq!(edge.send(get("/v1/stream/s")).await.expect(200).json(), json!([4]));
    });
    assert_eq!(answer.await.expect(410).header("stream-gap"), "reason=epoch");
}

#[tokio::test]
async fn mqtt_clients_of_an_edge_publish_and_subscribe() {
    let [parent, edge] = pair().await;
    let mut subscriber = Mqtt::connect(edge.mqtt, &Hello::new("reader")).await;
    assert_eq!(subscriber.subscribe("room/a", 1).await, 1);
    let mut publisher = Mqtt::connect(edge.mqtt, &Hello::new("writer")).await;
    for number in 0..20 {
        match number % 2 {
            0 => drop(
                parent.send(post("/v1/stream/room/a?create=1").text(number.to_string())).await.expect(204),
            ),
            _ => assert_eq!(publisher.publish("room/a", number.to_string(), 1).await, 0),
        }
        let message = subscriber.take().await;
        assert_eq!(String::from_utf8_lossy(&message.payload), number.to_string());
    }
}

#[tokio::test]
async fn a_wildcard_at_an_edge_of_an_edge_gets_what_comes_to_streams_that_nobody_else_reads() {
    let [parent, edge] = pair().await;
    let far = edge_of(&edge).await;
    let publish = async |room: &str, text: &str| {
        let append = post(format!("/v1/stream/room/{room}?create=1")).text(text.to_owned());
        parent.send(append).await.expect(204);
    };
    publish("old", "before").await;
    let mut subscriber = Mqtt::connect(far.mqtt, &Hello::new("reader")).await;
    assert_eq!(subscriber.subscribe("room/+", 1).await, 1);
    let mut all = Mqtt::connect(far.mqtt, &Hello::new("all")).await;
    assert_eq!(all.subscribe("#", 1).await, 1);
    for (room, text) in [("old", "1"), ("new", "2"), ("old", "3"), ("newer", "4")] {
        publish(room, text).await;
        for subscriber in [&mut subscriber, &mut all] {
            let message = subscriber.take().await;
            assert_eq!(
                (message.topic, message.payload.as_slice()),
                (format!("room/{room}"), text.as_bytes())
            );
        }
    }
    publish("other/below", "5").await;
    assert_eq!(all.take().await.payload, b"5");
    publish("new", "6").await;
    assert_eq!(subscriber.take().await.payload, b"6");
    // Nobody follows them any more when the subscribers have gone.
    drop((subscriber, all));
    for gateway in [&far, &edge] {
        let followed = async || gateway.metric("pollgate_upstream_followed_streams").await == 0.0;
        until("nothing is followed", followed).await;
    }
}

#[tokio::test]
async fn names_are_listed_page_by_page_and_only_those_that_the_client_may_read() {
    let protected = Protected::start("").await;
    let bearer = |grants: &[&str]| format!("Bearer {}", protected.token(grants));
    let writer = bearer(&["--append", "#", "--create", "#"]);
    for number in 0..300 {
        let create = put(format!("/v1/stream/many/{number:03}")).header("authorization", &writer);
        protected.gateway.send(create).await.expect(201);
    }
    let listed = async |token: Option<&str>, prefix: &str| {
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let request = get(format!("/v1/names?prefix={prefix}{after}"));
            let request = match token {
                Some(token) => request.header("authorization", token),
                None => request,
            };
            let page = protected.gateway.send(request).await.expect(200).json();
            let found = page["streams"].as_array().unwrap().iter();
            names.extend(found.map(|found| found["stream"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return names,
            }
        }
    };
    let reader = bearer(&["--read", "news"]);
    assert_eq!(listed(Some(&reader), "").await, ["news"]);
    assert_eq!(listed(None, "").await, [""; 0]);
    let all = listed(Some(&bearer(&["--read", "#"])), "many/").await;
    assert_eq!((all.len(), all[0].as_str(), all[299].as_str()), (300, "many/000", "many/299"));
}

#[tokio::test]
async fn an_edge_checks_its_readers_and_uses_its_own_token_at_the_parent() {
    let protected = Protected::start("").await;
    let parent = &protected.gateway;
    let token_file = protected.folder.path().join("edge-token");
    std::fs::write(&token_file, protected.token(&["--read", "news"])).unwrap();
    let upstream = format!("http://{}", parent.address);
    let open = [["--upstream", &upstream], ["--upstream-token-file", token_file.to_str().unwrap()]];
    let edge = Gateway::start(open.as_flattened()).await;
    assert_eq!(edge.send(get("/v1/stream/news")).await.expect(200).json(), json!([1]));
    // What the parent does not let the edge do is no fault of the edge's client.
    assert_eq!(edge.send(post("/v1/stream/news").json("2")).await.expect(502).problem(), "upstream-refused");
    assert_eq!(edge.send(get("/v1/stream/other")).await.expect(502).problem(), "upstream-refused");
    let auth = protected.folder.path().join("auth.toml");
    let edge = Gateway::start(&[open.as_flattened(), &["--auth", auth.to_str().unwrap()]].concat()).await;
    edge.send(get("/v1/stream/news")).await.expect(401);
    let reader = format!("Bearer {}", protected.token(&["--read", "news"]));
    edge.send(get("/v1/stream/news").header("authorization", &reader)).await.expect(200);
    // A new token in the file counts soon.
    std::fs::write(&token_file, protected.token(&["--read", "#", "--append", "#"])).unwrap();
    let owner = format!("Bearer {}", protected.token(&["--append", "#"]));
    until("the edge may append", async || {
        let append = post("/v1/stream/news").json("2").header("authorization", &owner);
        edge.send(append).await.status == 204
    })
    .await;
}

#[tokio::test]
async fn an_edge_follows_and_keeps_no_more_than_its_limits() {
    let parent = Gateway::start(&[]).await;
    let upstream = format!("http://{}", parent.address);
    let limits = ["upstream_streams_max=3", "upstream_bytes_max=20000", "upstream_stream_bytes_max=10000"];
    let limits = limits.map(|limit| ["--limit", limit]);
    let edge = Gateway::start(&[&["--upstream", &upstream], limits.as_flattened()].concat()).await;
    let body: Vec<_> = (0..500).map(|number| format!("{number}{}", "x".repeat(100))).collect();
    let path = |number: u64| format!("/v1/stream/{number}");
    for number in 0..3 {
        parent.send(put(path(number)).json(json!(body))).await.expect(201);
        let read = edge.send(get(path(number))).await.expect(200);
        assert_eq!(read.json(), json!(body));
        let kept = edge.metric("pollgate_upstream_kept_bytes").await;
        assert!(kept <= 20_000.0, "{kept}");
    }
    parent.send(put(path(3)).json("[1]")).await.expect(201);
    edge.send(get(path(3))).await.expect(503);
    let room = async || edge.send(get(path(3))).await.status == 200;
    until("others are followed no longer", room).await;
}
