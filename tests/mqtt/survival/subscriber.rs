//! A subscriber that keeps its session over connections, and accepts each QoS 2 message once.

use std::collections::{BTreeMap, HashSet};

use super::durable_gateway::Home;
use super::publisher::LAST;
use crate::world::mqtt::{Hello, Message, Mqtt, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, ack_bytes};

/// Has subscribed before.
pub(super) struct Subscriber {
    pub(super) hello: Hello,
    /// Topics whose last message has not arrived yet.
    pub(super) topics: usize,
}

/// Received messages by topic, as an application sees them.
pub(super) type Received = BTreeMap<String, Vec<String>>;

impl Subscriber {
    /// Receives messages until it has the last one of each topic.
    pub(super) async fn run(self, mut home: Home) -> Received {
        let (mut received, mut unreleased) = (Received::new(), HashSet::new());
        let is_over = |texts: &Vec<String>| texts.last().is_some_and(|text| text == LAST);
        while received.values().filter(|texts| is_over(texts)).count() < self.topics {
            let mut client = home.connect(&self.hello).await;
            assert!(client.connack.0, "the session of {} is lost", self.hello.id);
            while received.values().filter(|texts| is_over(texts)).count() < self.topics {
                let Some(packet) = client.receive().await else { break };
                if !receive_packet(&mut client, packet, &mut received, &mut unreleased).await {
                    break;
                }
            }
        }
        received
    }
}

/// Receives a packet and acknowledges it. Returns false if the connection has ended.
async fn receive_packet(
    client: &mut Mqtt,
    packet: Packet,
    received: &mut Received,
    unreleased: &mut HashSet<u16>,
) -> bool {
    let answer = match packet {
        Packet::Publish(message) => {
            let Message { topic, payload, qos, id, duplicate, .. } = *message;
            let is_new = qos < 2 || unreleased.insert(id);
            assert!(is_new || duplicate, "{topic}: message {id} comes again and does not say so");
            if is_new {
                received.entry(topic).or_default().push(String::from_utf8(payload).expect("a number"));
            }
            ack_bytes(if qos == 2 { PUBREC } else { PUBACK }, id)
        }
        Packet::Ack(PUBREL, id, _) => {
            unreleased.remove(&id);
            ack_bytes(PUBCOMP, id)
        }
        other => panic!("{other:?}"),
    };
    client.try_send(&answer).await.is_ok()
}
