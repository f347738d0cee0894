//! A subscriber that keeps its session over connections, and takes a message of quality 2 once.

use std::collections::{BTreeMap, HashSet};

use super::lasting::Home;
use super::publisher::LAST;
use crate::world::mqtt::{Hello, Message, Mqtt, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, ack_bytes};

/// Has subscribed before.
pub(super) struct Subscriber {
    pub(super) hello: Hello,
    /// The topics that it waits for the last message of.
    pub(super) topics: usize,
}

/// What it was sent, by topic, as an application sees it.
pub(super) type Taken = BTreeMap<String, Vec<String>>;

impl Subscriber {
    /// Takes messages until it has the last one of each topic.
    pub(super) async fn run(self, mut home: Home) -> Taken {
        let (mut taken, mut unreleased) = (Taken::new(), HashSet::new());
        let is_over = |texts: &Vec<String>| texts.last().is_some_and(|text| text == LAST);
        while taken.values().filter(|texts| is_over(texts)).count() < self.topics {
            let mut client = home.connect(&self.hello).await;
            assert!(client.connack.0, "the session of {} is lost", self.hello.id);
            while taken.values().filter(|texts| is_over(texts)).count() < self.topics {
                let Some(packet) = client.receive().await else { break };
                if !take(&mut client, packet, &mut taken, &mut unreleased).await {
                    break;
                }
            }
        }
        taken
    }
}

/// Takes a packet and answers it. Whether the gateway is still there.
async fn take(client: &mut Mqtt, packet: Packet, taken: &mut Taken, unreleased: &mut HashSet<u16>) -> bool {
    let answer = match packet {
        Packet::Publish(message) => {
            let Message { topic, payload, quality, id, duplicate, .. } = *message;
            let is_new = quality < 2 || unreleased.insert(id);
            assert!(is_new || duplicate, "{topic}: message {id} comes again and does not say so");
            if is_new {
                taken.entry(topic).or_default().push(String::from_utf8(payload).expect("a number"));
            }
            ack_bytes(if quality == 2 { PUBREC } else { PUBACK }, id)
        }
        Packet::Ack(PUBREL, id, _) => {
            unreleased.remove(&id);
            ack_bytes(PUBCOMP, id)
        }
        other => panic!("{other:?}"),
    };
    client.try_send(&answer).await.is_ok()
}
