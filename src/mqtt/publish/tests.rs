//! Tests how many store operations a publish takes, and its outcome, and that a failed read is repeated.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::yield_now;
use tokio::time::Instant;

use super::*;
use crate::clock::{Clock, in_time};
use crate::hub::{Creation, Hub};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::mqtt::Peer;
use crate::store::CountedMemory;
use crate::stream::Principal;

fn name(text: &str) -> StreamName {
    StreamName::parse(text).unwrap()
}

fn publication(payload: &'static str, content_type: Option<&str>) -> Publication {
    let properties =
        MessageProperties { content_type: content_type.map(Into::into), ..MessageProperties::default() };
    let payload = payload.into();
    Publication {
        payload,
        qos: QoS::AtLeastOnce,
        retain: false,
        properties,
        principal: Principal::GATEWAY,
        may_create: true,
        stored_with_it: None,
    }
}

#[tokio::test]
async fn a_publish_is_one_store_operation() {
    let (store, limits) = (Arc::new(CountedMemory::default()), Arc::new(Limits::default()));
    let (metrics, clock) = (Arc::new(Metrics::new()), Clock::start());
    let hub = Arc::new(Hub::new(store.clone(), limits.clone(), metrics.clone(), clock));
    for (stream, content_type) in [("json", "application/json"), ("text", "text/plain")] {
        let content_type = ContentType::parse(content_type).ok();
        hub.create(&name(stream), Creation { content_type, ..Creation::default() }).await.unwrap();
    }
    let broker = Broker::new(hub.clone(), limits, &metrics, clock);
    for (stream, payload, offered, outcome, tail) in [
        ("json", "[1, 2]", None, Ok(()), 2),
        ("json", "{", None, Err(Refusal::lasting(Reason::PayloadFormatInvalid)), 2),
        ("json", "[]", None, Err(Refusal::lasting(Reason::PayloadFormatInvalid)), 2),
        ("text", "{", Some("application/json"), Ok(()), 1),
        ("missing", "{", Some("application/json"), Err(Refusal::lasting(Reason::PayloadFormatInvalid)), 0),
        ("missing", "[1, 2, 3]", Some("application/json"), Ok(()), 3),
        ("missing", "4", None, Ok(()), 4),
        ("octets", "[1, 2, 3]", None, Ok(()), 9),
    ] {
        let before = store.calls.load(Ordering::Relaxed);
        let published = broker.append("ada", &name(stream), publication(payload, offered)).await;
        let operations = store.calls.load(Ordering::Relaxed) - before;
        assert_eq!((published.map(drop), operations), (outcome, 1), "{payload} to {stream}");
        let now = hub.describe(&name(stream)).await.map_or(0, |described| described.tail.position.0);
        assert_eq!(now, tail, "{payload} to {stream}");
    }
}

/// A client that sends and receives bytes.
struct Client(DuplexStream);

impl Client {
    async fn send(&mut self, packet: &[u8]) {
        self.0.write_all(packet).await.unwrap();
    }

    async fn receives(&mut self, packet: &[u8]) {
        let mut received = vec![0; packet.len()];
        in_time("a packet", self.0.read_exact(&mut received)).await.unwrap();
        assert_eq!(received, packet);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_could_not_be_read_is_read_again_without_another_message() {
    let (store, limits) = (Arc::new(CountedMemory::default()), Arc::new(Limits::default()));
    let (metrics, clock) = (Arc::new(Metrics::new()), Clock::start());
    let hub = Arc::new(Hub::new(store.clone(), limits.clone(), metrics.clone(), clock));
    let broker = Arc::new(Broker::new(hub, limits, &metrics, clock));
    let (client, server) = duplex(4096);
    let peer = Peer { principal: Principal(1), grants: None, address: None };
    tokio::spawn(broker.clone().serve(server, peer, false));
    let mut client = Client(client);
    client.send(b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01c").await;
    client.receives(b"\x20\x02\0\0").await;
    client.send(b"\x82\x06\0\x01\0\x01a\0").await;
    client.receives(b"\x90\x03\0\x01\0").await;
    store.fails_to_read.store(true, Ordering::Relaxed);
    let before = store.calls.load(Ordering::Relaxed);
    broker.append("ada", &name("a"), publication("x", None)).await.unwrap();
    // The append, and a read of the connection that fails.
    while store.calls.load(Ordering::Relaxed) < before + 2 {
        yield_now().await;
    }
    store.fails_to_read.store(false, Ordering::Relaxed);
    let since = Instant::now();
    client.receives(b"\x30\x04\0\x01ax").await;
    assert!(since.elapsed() <= Duration::from_secs(1), "{:?}", since.elapsed());
}
