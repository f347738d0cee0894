//! Origins are polled by one gateway at a time, for the readers of all, and by another one when that gateway is killed or stopped.

use crate::server::Engine;
use crate::world::{Answer, Gateway, Origin, Request, delete, get, head, post, put, until};

const FEED: &str = "/v1/stream/feed";

/// The metric of requests that found new content.
const NEW: &str =
    "pollgate_outbound_requests_total{purpose=\"origin\",destination=\"127.0.0.1\",outcome=\"new\"}";

/// Two gateways whose end takes long if they have clients.
async fn pair(engine: &Engine) -> [Gateway; 2] {
    let arguments =
        ["--poll-origins", "--outbound-allow", "127.0.0.1", "--limit", "drain_spread=60s", "--drain", "60s"];
    [engine.gateway_with("one", &arguments).await, engine.gateway_with("other", &arguments).await]
}

/// The creation of a JSON stream that is polled each second.
fn creation(origin: &Origin) -> Request {
    put(FEED)
        .header("content-type", "application/json")
        .header("stream-origin", origin.url())
        .header("stream-origin-interval", "1")
}

fn long_poll(offset: &str) -> Request {
    get(format!("{FEED}?offset={offset}&live=long-poll&timeout=55"))
}

async fn content(gateway: &Gateway) -> String {
    gateway.send(get(format!("{FEED}?offset=-1"))).await.expect(200).text()
}

fn is_ok(answer: &Answer) -> bool {
    answer.header("stream-origin-status").starts_with("state=ok")
}

#[tokio::test]
async fn a_stream_with_an_origin_is_the_same_at_each_gateway() {
    let (engine, origin) = (Engine::volatile().await, Origin::start("1").await);
    let [one, other] = pair(&engine).await;
    one.send(creation(&origin)).await.expect(201);
    // The news may be on their way.
    other.send(post(FEED).json("7")).await.expect(409);
    other.send(put(FEED).json("")).await.expect(409);
    other.send(post("/v1/stream/feed?create=1").json("7")).await.expect(409);
    let described = other.send(head(FEED)).await.expect(200);
    assert_eq!(described.header("stream-origin"), origin.url());
    assert_eq!(other.send(creation(&origin)).await.expect(200).header("stream-origin-interval"), "1");
    other.send(creation(&origin).header("stream-origin-poll", "always")).await.expect(409);

    // A reader of the other gateway makes the first one poll, and both know the outcome.
    let first = other.send(long_poll("-1")).await.expect(200);
    assert_eq!(first.text(), "[1]");
    until("the state is known", async || is_ok(&other.send(head(FEED)).await)).await;
    assert!(is_ok(&one.send(head(FEED)).await));
    origin.has("2");
    let [at_one, at_other] =
        [&one, &other].map(|gateway| gateway.send(long_poll(first.next_offset().as_str())));
    let (at_one, at_other) = tokio::join!(at_one, at_other);
    assert_eq!([at_one.expect(200).text(), at_other.expect(200).text()], ["[2]", "[2]"]);
    let polls = async |gateway: &Gateway| gateway.metric(NEW).await;
    until("both polls are counted", async || polls(&one).await == 2.0).await;
    assert_eq!(polls(&other).await, 0.0);

    // What ends at one gateway has ended at all, and a later stream of the name has no origin.
    other.send(delete(FEED)).await.expect(204);
    one.send(put(FEED).json("[3]")).await.expect(201);
    other.send(post(FEED).json("4")).await.expect(204);
    assert_eq!(one.send(head(FEED)).await.expect(200).header("stream-origin"), "");
    let none = async || one.metric("pollgate_origins").await + other.metric("pollgate_origins").await == 0.0;
    until("no gateway has the origin", none).await;
    assert_eq!(content(&one).await, "[3,4]");
    let keys = || engine.ask::<Vec<String>>("KEYS *origin/*");
    until("nothing of the origin is stored", async || keys().is_empty()).await;
}

#[tokio::test]
async fn an_origin_whose_gateway_is_killed_is_polled_by_another_one_which_appends_nothing_twice() {
    let (engine, origin) = (Engine::volatile().await, Origin::start(r#"[{"id":1},{"id":2}]"#).await);
    let [one, other] = pair(&engine).await;
    one.send(creation(&origin).header("stream-origin-key", "id")).await.expect(201);
    let first = other.send(long_poll("-1")).await.expect(200);
    one.kill().await;
    origin.has(r#"[{"id":1},{"id":2},{"id":3}]"#);
    let second = other.send(long_poll(&first.next_offset())).await.expect(200);
    assert_eq!(second.text(), r#"[{"id":3}]"#);
    assert_eq!(content(&other).await, r#"[{"id":1},{"id":2},{"id":3}]"#);
}

#[tokio::test]
async fn a_gateway_that_was_stopped_and_goes_on_appends_nothing_that_another_one_has_appended() {
    let (engine, origin) = (Engine::volatile().await, Origin::start("1").await);
    let [stopped, other] = pair(&engine).await;
    stopped.send(creation(&origin).header("stream-origin-poll", "always")).await.expect(201);
    let first = other.send(long_poll("-1")).await.expect(200);
    stopped.signal("STOP");
    origin.has("2");
    let second = other.send(long_poll(&first.next_offset())).await.expect(200);
    assert_eq!(second.text(), "[2]");
    stopped.signal("CONT");
    origin.until_asked(2).await;
    origin.has("3");
    let third = stopped.send(long_poll(&second.next_offset())).await.expect(200);
    assert_eq!(third.text(), "[3]");
    origin.until_asked(2).await;
    assert_eq!([content(&stopped).await, content(&other).await], ["[1,2,3]", "[1,2,3]"]);
}

#[tokio::test]
async fn a_gateway_that_ends_leaves_its_origins_to_others_before_its_last_client_has_gone() {
    let (engine, origin) = (Engine::volatile().await, Origin::start("1").await);
    let [ending, other] = pair(&engine).await;
    ending.send(creation(&origin)).await.expect(201);
    let first = other.send(long_poll("-1")).await.expect(200);
    let _client = ending.connect().await.events(format!("{FEED}?offset=now&live=sse")).await;
    ending.signal("TERM");
    origin.has("2");
    let second = other.send(long_poll(&first.next_offset())).await.expect(200);
    assert_eq!(second.text(), "[2]");
    // The news may be told before the append is answered.
    until("the poll is counted", async || other.metric(NEW).await == 1.0).await;
    ending.ask_admin("/ready").await.expect(503);
}
