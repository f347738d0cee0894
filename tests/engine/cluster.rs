//! A cluster: its nodes share the streams, and slots move while they are used.

use std::time::Duration;

use futures_util::future::join_all;
use mqtt_protocol_core::mqtt::packet::SessionExpiryInterval;
use serde_json::json;
use tokio::time::Instant;

use crate::deployment::Cluster;
use crate::server::follows_news;
use crate::world::mqtt::{Hello, Mqtt};
use crate::world::{Gateway, get, post, put, until};

/// How long requests wait for keys that are on their way.
const MOVE_TIMEOUT: Duration = Duration::from_secs(5);

fn stream(number: usize) -> String {
    format!("/v1/stream/s{number}")
}

/// The key of the partition of stream `s0`; found by its metadata.
fn partition(cluster: &Cluster, name: &str) -> String {
    let suffix = format!("meta:{name}");
    let keys = cluster.nodes.iter().flat_map(|node| node.ask::<Vec<String>>("KEYS pollgate:*"));
    let key = keys.into_iter().find(|key| key.ends_with(&suffix)).expect("the stream exists");
    key.strip_suffix(&suffix).unwrap().to_owned()
}

async fn is_answered(reader: &Gateway, writer: &Gateway, target: &str, body: &str) {
    let mut connection = reader.connect().await;
    let poll = connection.send(get(format!("{target}?offset=now&live=long-poll&timeout=55")));
    let append = async {
        until("the poll is held", async || reader.metric("pollgate_held_polls").await > 0.0).await;
        let appended = async || writer.connect().await.send(post(target).json(body)).await.status == 204;
        until("it is appended", appended).await;
    };
    let (answer, ()) = tokio::join!(poll, append);
    assert_eq!(answer.expect(200).text(), format!("[{body}]"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_on_all_nodes_and_slots_move_while_polls_are_held() {
    let cluster = Cluster::start(3, 0).await;
    let (one, other) = (cluster.gateway("one").await, cluster.gateway("other").await);
    let mut connection = one.connect().await;
    for number in 0..30 {
        connection.send(put(stream(number)).json("[0]")).await.expect(201);
    }
    assert!(cluster.nodes.iter().all(|node| node.ask::<u64>("DBSIZE") > 10), "each node has streams");
    // The list is merged from all nodes.
    let listed = one.ask_admin("/streams?prefix=s").await.expect(200);
    assert_eq!(listed.text().matches("\"stream\":").count(), 30, "{}", listed.text());
    for number in 0..30 {
        let answer = other.connect().await.send(get(stream(number))).await;
        assert_eq!(answer.expect(200).json(), json!([0]));
    }
    is_answered(&other, &one, &stream(0), "1").await;
    let partition = partition(&cluster, "s0");
    let mut connection = other.connect().await;
    let poll = connection.send(get("/v1/stream/s0?offset=now&live=long-poll&timeout=55"));
    let move_and_append = async {
        until("the poll is held", async || other.metric("pollgate_held_polls").await > 0.0).await;
        let (before, _) = cluster.owner(&partition);
        cluster.move_slot(&partition).await;
        until("the slot has moved", async || cluster.owner(&partition).0 != before).await;
        let appended = async || one.connect().await.send(post("/v1/stream/s0").json("2")).await.status == 204;
        until("it is appended", appended).await;
    };
    let (answer, ()) = tokio::join!(poll, move_and_append);
    assert_eq!(answer.expect(200).json(), json!([2]));
    follows_news(&other).await;
    is_answered(&other, &one, &stream(0), "3").await;
    assert_eq!(other.send(get(stream(0))).await.expect(200).json(), json!([0, 1, 2, 3]));
    assert!(other.metric("pollgate_engine_news_healed_total{kind=\"moved\"}").await > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_keys_are_on_their_way_is_neither_missing_nor_begun_anew() {
    let cluster = Cluster::start(2, 0).await;
    let gateway = cluster.gateway("one").await;
    gateway.send(put(stream(0)).json("[1]")).await.expect(201);
    let partition = partition(&cluster, "s0");
    let (from, slot) = cluster.owner(&partition);
    let to = 1 - from;
    cluster.begin_move(slot, from, to);
    // Only the metadata has moved.
    cluster.move_key(&format!("{partition}meta:s0"), from, to);
    let requests = [get(stream(0)), post(stream(0)).json("2"), put(stream(0)).json("")];
    let refused = requests.map(async |request| gateway.connect().await.send(request).await.expect(503));
    let since = Instant::now();
    for refused in join_all(refused).await {
        assert_eq!(refused.problem(), "store-unreachable");
    }
    assert!(since.elapsed() >= MOVE_TIMEOUT);
    let redirected = async || gateway.metric("pollgate_engine_redirections_total").await;
    let (mut connection, before) = (gateway.connect().await, redirected().await);
    let append = connection.send(post(stream(0)).json("2"));
    let finish = async {
        until("the append waits", async || redirected().await > before).await;
        cluster.finish_move(slot, from, to).await;
    };
    let (appended, ()) = tokio::join!(append, finish);
    appended.expect(204);
    assert_eq!(gateway.send(get(stream(0))).await.expect(200).json(), json!([1, 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_over_for_a_primary_that_was_killed() {
    let mut cluster = Cluster::of_six().await;
    let (one, other) = (cluster.gateway("one").await, cluster.gateway("other").await);
    one.send(put(stream(0)).json("[0]")).await.expect(201);
    let (owner, _) = cluster.owner(&partition(&cluster, "s0"));
    cluster.is_replicated().await;
    cluster.nodes[owner].kill();
    let appended = async || one.connect().await.send(post(stream(0)).json("1")).await.status == 204;
    until("a replica has taken over", appended).await;
    follows_news(&other).await;
    is_answered(&other, &one, &stream(0), "2").await;
    assert_eq!(other.send(get(stream(0))).await.expect(200).json(), json!([0, 1, 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_expires_while_the_server_of_another_one_is_away() {
    let mut cluster = Cluster::start(3, 0).await;
    for node in &cluster.nodes {
        let _done: String = node.ask("CONFIG SET cluster-require-full-coverage no");
    }
    let gateway = cluster.gateway("one").await;
    let of_all = cluster.owner("pollgate:{gateways}:runs").0;
    let away = (of_all + 1) % 3;
    let mut clients: [Vec<Mqtt>; 3] = std::array::from_fn(|_| Vec::new());
    for number in 0.. {
        let (id, expiry) = (format!("phone-{number}"), SessionExpiryInterval::new(1).unwrap());
        let hello = Hello { clean: false, ..Hello::new(&id) }.with(expiry);
        let client = Mqtt::connect(gateway.mqtt, &hello).await;
        let key = format!("KEYS pollgate:*session:{id}");
        let node = (0..3).find(|node| !cluster.nodes[*node].ask::<Vec<String>>(&key).is_empty());
        clients[node.expect("the session is stored")].push(client);
        if clients.iter().all(|clients| !clients.is_empty()) {
            break;
        }
    }
    cluster.nodes[away].kill();
    drop(std::mem::take(&mut clients[away]));
    drop(clients);
    let is_over =
        |node: usize| cluster.nodes[node].ask::<Vec<String>>("KEYS pollgate:*session:phone-*").is_empty();
    until("the other sessions have expired", async || (0..3).all(|node| node == away || is_over(node))).await;
}
