//! MQTT and HTTP readers of the same streams, with publishers of both protocols and random disconnects: each reader gets all
//! messages in the order of the log, exactly once with offsets and QoS 2, at least once with QoS 1.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::world::mqtt::{Hello, Mqtt, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, publish_bytes};
use crate::world::{Connection, Form, Gateway, Kind, PATIENCE, Place, Reader, get, post, put};

const STREAMS: usize = 4;
const READERS: u64 = 50;
const PUBLISHERS: u64 = 4;
const MESSAGES_EACH: usize = 300;
const MESSAGES: usize = PUBLISHERS as usize * 2 * MESSAGES_EACH;
/// Maximum time until a disconnect.
const CUT_WITHIN: Duration = Duration::from_millis(400);

fn stream(index: usize) -> String {
    format!("shared/{index}")
}

/// The messages of each stream that a reader has received, in order.
type Received = HashMap<String, Vec<String>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_and_http_readers_see_the_same_log() {
    // These readers reconnect more often than the default limits for takeovers allow without delay.
    let undelayed = ["--limit", "connections_per_second_max=100000", "--limit", "takeover_delay=0s"];
    let gateway = Gateway::start(&undelayed).await;
    for index in 0..STREAMS {
        gateway.send(put(format!("/v1/stream/{}", stream(index))).json("")).await.expect(201);
    }
    let cuts = Arc::new(AtomicUsize::new(0));
    let since = Instant::now();
    let (mut mqtt_readers, mut http_readers) = (JoinSet::new(), JoinSet::new());
    for seed in 0..READERS {
        let qos = 1 + (seed % 2) as u8;
        let mut first = Mqtt::connect(gateway.mqtt, &hello(seed)).await;
        assert_eq!(first.subscribe("shared/+", qos).await, qos);
        mqtt_readers.spawn(read_by_mqtt(gateway.mqtt, seed, first, cuts.clone()));
        http_readers.spawn(read_by_http(gateway.address, seed, cuts.clone()));
    }
    let mut publishers = JoinSet::new();
    for seed in 0..PUBLISHERS {
        publishers.spawn(publish_by_mqtt(gateway.mqtt, seed, cuts.clone()));
        publishers.spawn(publish_by_http(gateway.address, seed));
    }
    publishers.join_all().await;
    let published = since.elapsed();

    let mut logs = Received::new();
    let mut total = 0;
    for index in 0..STREAMS {
        let log = gateway.send(get(format!("/v1/stream/{}", stream(index)))).await.expect(200);
        let log: Vec<String> = serde_json::from_slice(&log.body).unwrap();
        total += log.len();
        logs.insert(stream(index), log);
    }
    assert_eq!(total, MESSAGES, "qos 2 publishes once, however often its connection is cut");
    let mut doubled = 0;
    for (qos, seen) in mqtt_readers.join_all().await {
        for (name, log) in &logs {
            let mut once = seen[name].clone();
            if qos == 1 {
                // Redelivered after a disconnect, in the original order.
                let mut known = HashSet::new();
                once.retain(|message| known.insert(message.clone()));
                doubled += seen[name].len() - once.len();
            }
            assert_eq!(&once, log, "qos {qos}, {name}");
        }
    }
    for (name, seen) in http_readers.join_all().await {
        assert_eq!(seen, logs[&name], "{name}");
    }
    let cuts = cuts.load(Ordering::Relaxed);
    println!(
        "{READERS} MQTT and {READERS} HTTP readers, {} publishers, {MESSAGES} messages in {published:.1?}, {cuts} cuts: \
         all in order, none lost; {doubled} came again at qos 1, none at qos 2 and behind offsets",
        2 * PUBLISHERS
    );
    assert!(cuts > 5 * READERS as usize, "only {cuts} cuts");
}

fn hello(seed: u64) -> Hello {
    let version = if seed % 4 < 2 { 5 } else { 4 };
    Hello { version, ..Hello::lasting(&format!("reader-{seed}")) }
}

async fn read_by_mqtt(address: SocketAddr, seed: u64, first: Mqtt, cuts: Arc<AtomicUsize>) -> (u8, Received) {
    let qos = 1 + (seed % 2) as u8;
    let mut random = Rng::with_seed(seed);
    let (mut seen, mut distinct) = (Received::new(), HashSet::new());
    let mut connected = Some(first);
    // QoS 2 messages that were received and not released yet, which the client has to remember.
    let mut unreleased = HashSet::new();
    while distinct.len() < MESSAGES {
        let mut client = match connected.take() {
            Some(client) => client,
            None => Mqtt::connect(address, &hello(seed)).await,
        };
        let until = Instant::now() + CUT_WITHIN.mul_f64(random.f64());
        loop {
            let Ok(packet) = timeout(until.saturating_duration_since(Instant::now()), client.receive()).await
            else {
                break;
            };
            match packet.expect("no end before its time") {
                Packet::Publish(message) => {
                    let text: String = serde_json::from_slice(&message.payload).unwrap();
                    if qos == 1 || unreleased.insert(message.id) {
                        distinct.insert(text.clone());
                        seen.entry(message.topic).or_default().push(text);
                    }
                    client.acknowledge(if qos == 1 { PUBACK } else { PUBREC }, message.id).await;
                }
                Packet::Ack(PUBREL, id, _) => {
                    unreleased.remove(&id);
                    client.acknowledge(PUBCOMP, id).await;
                }
                other => panic!("{other:?}"),
            }
            if distinct.len() == MESSAGES {
                break;
            }
        }
        cuts.fetch_add(1, Ordering::Relaxed);
    }
    (qos, seen)
}

/// Reads one stream in changing forms, with random disconnects.
async fn read_by_http(address: SocketAddr, seed: u64, cuts: Arc<AtomicUsize>) -> (String, Vec<String>) {
    let name = stream(seed as usize % STREAMS);
    let place = Place { address, path: format!("/v1/stream/{name}"), kind: Kind::Json };
    let mut random = Rng::with_seed(1000 + seed);
    let (mut offset, mut seen) = ("-1".to_owned(), Vec::new());
    let each = MESSAGES / STREAMS;
    while seen.len() < each {
        let form = random.choice(Form::ALL).unwrap();
        let until = Instant::now() + CUT_WITHIN.mul_f64(random.f64());
        let read = async {
            let mut reader = Reader::open(&place, form, &offset).await.unwrap();
            while seen.len() < each {
                let batch = reader.next().await.unwrap().expect("the stream stays open");
                for line in batch.data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    seen.push(serde_json::from_slice::<String>(line).unwrap());
                }
                offset = batch.next;
            }
        };
        if timeout(until.saturating_duration_since(Instant::now()), read).await.is_err() {
            cuts.fetch_add(1, Ordering::Relaxed);
        }
    }
    (name, seen)
}

/// Publishes with QoS 2 over connections that break, and repeats each message until it is acknowledged.
async fn publish_by_mqtt(address: SocketAddr, seed: u64, cuts: Arc<AtomicUsize>) {
    let hello = Hello::lasting(&format!("publisher-{seed}"));
    let mut random = Rng::with_seed(2000 + seed);
    let mut client = Mqtt::connect(address, &hello).await;
    for number in 0..MESSAGES_EACH {
        let topic = stream(number % STREAMS);
        let payload = format!("\"mqtt-{seed}-{number}\"");
        let (mut sent, mut received) = (false, false);
        loop {
            let attempt = async {
                if !received {
                    let bytes = publish_bytes(5, &topic, payload.as_bytes(), 2, 1, (sent, false), Vec::new());
                    sent = true;
                    client.send(&bytes).await;
                    assert_eq!(client.receive_ack(PUBREC, 1).await, 0);
                    received = true;
                }
                client.acknowledge(PUBREL, 1).await;
                client.receive_ack(PUBCOMP, 1).await;
            };
            // Most disconnects are in the middle of the handshake.
            let patience =
                if random.u8(..4) == 0 { Duration::from_micros(random.u64(..900)) } else { PATIENCE };
            if timeout(patience, attempt).await.is_ok() {
                break;
            }
            cuts.fetch_add(1, Ordering::Relaxed);
            client = Mqtt::connect(address, &hello).await;
        }
        sleep(Duration::from_millis(random.u64(..4))).await;
    }
}

async fn publish_by_http(address: SocketAddr, seed: u64) {
    let mut random = Rng::with_seed(3000 + seed);
    let mut connection = Connection::open(address).await;
    for number in 0..MESSAGES_EACH {
        let append = post(format!("/v1/stream/{}", stream(number % STREAMS)));
        connection.send(append.json(format!("\"http-{seed}-{number}\""))).await.expect(204);
        sleep(Duration::from_millis(random.u64(..4))).await;
    }
}
