//! Changes are told to the gateways that have readers of the stream, and to no others.

use futures_util::future::join_all;
use serde_json::json;

use crate::server::Engine;
use crate::world::mqtt::{Hello, Mqtt};
use crate::world::{Gateway, PATIENCE, Request, get, post, put, until};

fn held_poll(stream: &str, offset: &str) -> Request {
    get(format!("/v1/stream/{stream}?offset={offset}&live=long-poll&timeout=50"))
}

/// How many news a gateway has got.
async fn news(gateway: &Gateway) -> f64 {
    gateway.metric("pollgate_engine_news_total").await
}

async fn holds(gateway: &Gateway, polls: usize) {
    until("all are held", async || gateway.metric("pollgate_held_polls").await == polls as f64).await;
}

/// How often the engine was told to publish something.
fn published(engine: &Engine) -> usize {
    engine.calls("spublish")
}

#[tokio::test]
async fn a_change_is_told_to_the_gateways_with_readers_and_to_no_others() {
    let engine = Engine::volatile().await;
    let [one, other, wild] =
        [engine.gateway("one").await, engine.gateway("other").await, engine.gateway("wild").await];
    for stream in ["room/a", "room/b"] {
        one.send(put(format!("/v1/stream/{stream}")).json("")).await.expect(201);
    }
    let before = published(&engine);
    other.send(post("/v1/stream/room/a").json("1")).await.expect(204);
    assert_eq!(published(&engine) - before, 0, "nobody reads the stream");

    let tail = one.send(get("/v1/stream/room/a?offset=now")).await.expect(200).next_offset();
    let mut connection = one.connect().await;
    let poll = connection.send(held_poll("room/a", &tail));
    let append = async {
        holds(&one, 1).await;
        let before = (news(&one).await, news(&other).await, news(&wild).await);
        other.send(post("/v1/stream/room/b").json("1")).await.expect(204);
        other.send(post("/v1/stream/room/a").json("2")).await.expect(204);
        before
    };
    let (answer, before) = tokio::join!(poll, append);
    assert_eq!(answer.expect(200).json(), json!([2]));
    let after = (news(&one).await, news(&other).await, news(&wild).await);
    assert_eq!(after, (before.0 + 1.0, before.1, before.2));

    // A subscriber by wildcard gets all changes, those of a stream that is new, too.
    let mut subscriber = Mqtt::connect(wild.mqtt, &Hello::new("reader")).await;
    assert_eq!(subscriber.subscribe("room/#", 0).await, 0);
    for stream in ["room/a", "room/b", "room/c"] {
        other.send(post(format!("/v1/stream/{stream}?create=1")).json("3")).await.expect(204);
        assert_eq!(subscriber.take().await.topic, stream);
    }
    assert_eq!(news(&other).await, before.1);
}

#[tokio::test]
async fn a_message_that_is_appended_while_its_reader_begins_to_wait_wakes_it() {
    const STREAMS: usize = 300;
    let engine = Engine::volatile().await;
    let (one, other) = (engine.gateway("one").await, engine.gateway("other").await);
    let create = async |number| {
        let created = one.connect().await.send(put(format!("/v1/stream/s{number}")).json("")).await;
        created.expect(201).next_offset()
    };
    let tails = join_all((0..STREAMS).map(create)).await;
    let read = async |(number, tail): (usize, &String)| {
        let (mut reader, mut publisher) = (one.connect().await, other.connect().await);
        let poll = reader.send(held_poll(&format!("s{number}"), tail));
        let append = publisher.send(post(format!("/v1/stream/s{number}")).json(number.to_string()));
        let (answer, appended) = tokio::join!(tokio::time::timeout(PATIENCE, poll), append);
        appended.expect(204);
        assert_eq!(answer.expect("the poll is answered").expect(200).json(), json!([number]));
    };
    join_all(tails.iter().enumerate().map(read)).await;
}

#[tokio::test]
async fn a_message_is_delivered_though_the_engine_refused_to_tell_of_it() {
    let engine = Engine::volatile().await;
    let (one, other) = (engine.gateway("one").await, engine.gateway("other").await);
    let tail = one.send(put("/v1/stream/s").json("")).await.expect(201).next_offset();
    engine.command("ACL SETUSER default -ssubscribe");
    let mut connection = one.connect().await;
    let poll = connection.send(held_poll("s", &tail));
    let append = async {
        // It has read the stream before the gateway hears of it.
        holds(&one, 1).await;
        other.send(post("/v1/stream/s").json("1")).await.expect(204);
        engine.command("ACL SETUSER default +ssubscribe");
    };
    let (answer, ()) = tokio::join!(poll, append);
    assert_eq!(answer.expect(200).json(), json!([1]));
}

/// Gateways of earlier versions hear all changes of a partition on one channel, with their messages, or still earlier without. Gateways of all
/// versions use the engine during a rolling upgrade.
#[tokio::test]
async fn gateways_of_earlier_versions_hear_of_changes_and_are_heard() {
    let engine = Engine::volatile().await;
    let (one, other) = (engine.gateway("one").await, engine.gateway("other").await);
    let tail = one.send(put("/v1/stream/s").json("")).await.expect(201).next_offset();
    let [meta]: [String; 1] = engine.ask::<Vec<String>>("KEYS pollgate:*meta:s").try_into().unwrap();
    let (partition, epoch) =
        (meta.strip_suffix("meta:s").unwrap().to_owned(), tail.split('_').next().unwrap().to_owned());
    let record = "*1\r\n*2\r\n$3\r\n0-1\r\n";
    for (version, (channels, told)) in [
        (vec!["news"], format!("{epoch}\n0\n1\n\ns")),
        (vec!["news", "moves"], format!("0\n{epoch}\n2\n3\n\ns\n{}", record.replace("0-1", "0-3"))),
    ]
    .into_iter()
    .enumerate()
    {
        let heard_on = format!("{partition}{}", channels.last().unwrap());
        let client = redis::Client::open(engine.url()).unwrap();
        let mut earlier = client.get_connection().unwrap();
        for channel in &channels {
            redis::cmd("SSUBSCRIBE").arg(format!("{partition}{channel}")).exec(&mut earlier).unwrap();
        }
        earlier.set_read_timeout(Some(PATIENCE)).unwrap();
        let tail = other.send(post("/v1/stream/s").json("1")).await.expect(204).next_offset();
        let message = tokio::task::spawn_blocking(move || {
            redis::from_redis_value::<Vec<String>>(earlier.recv_response().unwrap()).unwrap()
        });
        let [kind, channel, message] = message.await.unwrap().try_into().unwrap();
        assert_eq!((&*kind, &channel), ("smessage", &heard_on));
        assert!(message.starts_with(&told), "{message:?} is not {told:?}");

        // An earlier version appends, and says so in its own words.
        let (at, mut connection) = (2 * version + 1, one.connect().await);
        let poll = connection.send(held_poll("s", &tail));
        let append = async {
            holds(&one, 1).await;
            let log = format!("{partition}log:s 0-{} d 3 h j:1:1800000000000 x \u{1}\0\0\0", at + 1);
            engine.ask::<String>(&format!("XADD {log}"));
            let count = at + 1;
            engine.ask::<u32>(&format!("HSET {meta} tail {count} messages {count} bytes {count}"));
            let earliest = if channels.len() == 1 { "" } else { "0\n" };
            let end = if channels.len() == 1 { "" } else { "\n" };
            engine.ask::<u32>(&format!("SPUBLISH {heard_on} {earliest}{epoch}\n{at}\n{count}\n\ns{end}"));
        };
        let (answer, ()) = tokio::join!(poll, append);
        assert_eq!(answer.expect(200).json(), json!([3]));
    }
}
