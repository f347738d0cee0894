//! Hostile clients: their connections end in time and with a reason, and other clients are not affected.

use std::time::Duration;

use mqtt_protocol_core::mqtt::packet::MaximumPacketSize;

use crate::world::mqtt::{Hello, Mqtt, Packet, publish_bytes};
use crate::world::{Gateway, Stopwatch, until};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_client_must_send_its_connect_in_time() {
    let gateway = Gateway::start(&["--limit", "mqtt_connect_timeout=1s"]).await;
    for said in [&b""[..], &[0x10], &Hello::new("slow").bytes()[..10]] {
        let mut client = Mqtt::open(gateway.mqtt, 5).await;
        let since = Stopwatch::start();
        client.send(said).await;
        assert_eq!(client.receive().await, None, "{said:?}");
        assert!(since.took().is_below(Duration::from_secs(2)), "{said:?}: {:?}", since.took());
    }
}

#[tokio::test]
async fn an_invalid_connect_is_refused_in_a_form_that_the_client_may_understand() {
    let gateway = Gateway::start(&[]).await;
    let hello = Hello::new("client").bytes();
    let changed = |at: usize, byte: u8| {
        let mut bytes = hello.clone();
        bytes[at] = byte;
        bytes
    };
    let old = [&b"\x10\x13\0\x06MQIsdp\x03\x02\0\x3c\0\x05hello"[..]].concat();
    let authenticated = [&b"\x10\x16\0\x04MQTT\x05\x02\0\x3c\x08\x15\0\x05SCRAM\0\x01x"[..]].concat();
    let nameless = Hello { version: 4, clean: false, ..Hello::new("") }.bytes();
    for (bytes, version, answer) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 5, None),
        (vec![0xc0, 0], 5, None),
        (publish_bytes(5, "a", b"x", 0, 0, (false, false), Vec::new()), 5, None),
        (changed(9, hello[9] | 1), 5, None),
        (changed(9, hello[9] | 0x18), 5, None),
        (changed(9, hello[9] | 0x1c), 5, None),
        (changed(0, 0x11), 5, None),
        (old, 4, Some(1)),
        (changed(8, 6), 4, Some(1)),
        (authenticated, 5, Some(0x8c)),
        (nameless, 4, Some(2)),
        (Hello::new(&"x".repeat(1025)).bytes(), 5, Some(0x85)),
        (Hello::new("a\u{7}b").bytes(), 5, None),
        (Hello { will: Some(("a/#".into(), String::new(), Vec::new())), ..Hello::new("w") }.bytes(), 5, None),
        // A client whose maximum packet size is below that of its CONNACK is disconnected instead of waiting.
        (Hello::new("w").with(MaximumPacketSize::new(10).unwrap()).bytes(), 5, Some(0x95)),
        (Hello::new("w").with(MaximumPacketSize::new(4).unwrap()).bytes(), 5, None),
    ] {
        let mut client = Mqtt::open(gateway.mqtt, version).await;
        client.send(&bytes).await;
        match (client.receive().await, answer) {
            (None, None) => continue,
            (Some(Packet::Connack { present: false, code, .. }), Some(expected)) if code == expected => {}
            (other, _) => panic!("{bytes:?}: {other:?}"),
        }
        assert_eq!(client.receive().await, None);
    }
    let mut assigned = Mqtt::connect(gateway.mqtt, &Hello::new("")).await;
    assert!(assigned.connack.2.iter().any(|property| property.id() as u8 == 0x12));
    assigned.ping().await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_and_costs_its_window() {
    let gateway =
        Gateway::start(&["--limit", "write_timeout=1s", "--limit", "mqtt_packet_bytes_max=65536"]).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    publisher.publish("a", vec![1; 60_000], 1).await;
    let before = gateway.memory_bytes();
    let mut deaf = Vec::new();
    for index in 0..50 {
        let mut reader = Mqtt::connect(gateway.mqtt, &Hello::new(&format!("deaf-{index}"))).await;
        reader.subscribe("a", 0).await;
        deaf.push(reader);
    }
    // Far more than the socket buffers hold.
    for _ in 0..200 {
        publisher.publish("a", vec![1; 60_000], 1).await;
    }
    let log = 200 * 60_000;
    let used = gateway.memory_bytes().saturating_sub(before + log);
    gateway.until_mqtt_clients(1).await;
    println!("50 readers that do not read cost {} bytes each, the log aside", used / 50);
    assert!(used < 50 * 256 * 1024, "{used}");
    publisher.ping().await;
}

#[tokio::test]
async fn a_flood_of_mutated_packets_is_survived_without_growth() {
    const CONNECTIONS: usize = 3000;
    let gateway = Gateway::start(&["--limit", "connections_per_second_max=100000"]).await;
    let mut healthy = Mqtt::connect(gateway.mqtt, &Hello::new("healthy")).await;
    healthy.subscribe("health", 1).await;
    let mut random = fastrand::Rng::with_seed(11);
    let mut flood = async |count: usize| {
        for _ in 0..count {
            // Each with an id assigned by the gateway, since takeovers of one id are delayed.
            let mut client = Mqtt::connect(gateway.mqtt, &Hello::new("")).await;
            for _ in 0..10 {
                let mut bytes =
                    publish_bytes(5, "health", b"x", random.u8(..3), 1, (false, false), Vec::new());
                bytes.extend_from_slice(&[0x82, 7, 0, 1, 0, 0, 1, b'#', 0]);
                for _ in 0..random.usize(1..5) {
                    let at = random.usize(..bytes.len());
                    bytes[at] = random.u8(..);
                }
                if client.try_send(&bytes).await.is_err() {
                    break;
                }
            }
        }
    };
    flood(CONNECTIONS / 3).await;
    let warm = gateway.memory_bytes();
    flood(CONNECTIONS).await;
    gateway.until_mqtt_clients(1).await;
    until("the memory is back", async || gateway.memory_bytes() < warm + 8 * MIB).await;
    healthy.ping().await;
}

#[tokio::test]
async fn an_append_is_as_large_as_one_over_http_may_be() {
    let gateway = Gateway::start(&["--limit", "body_bytes_max=100"]).await;
    let mut client = Mqtt::connect(gateway.mqtt, &Hello::new("client")).await;
    assert_eq!(client.publish("a", [7; 100], 1).await, 0);
    assert_eq!(client.publish("a", [7; 101], 1).await, 0x97);
}
