//! A publisher that keeps its session over connections, as MQTT requires (version 5, section 4.4).

use std::collections::VecDeque;

use tokio::sync::watch;

use super::durable_gateway::Home;
use crate::world::mqtt::{Hello, Mqtt, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, ack_bytes, publish_bytes};

/// Maximum number of messages in flight.
const WINDOW: usize = 8;

/// The last message.
pub(super) const LAST: &str = "-1";

/// Publishes 0, 1, 2... on a topic, with one QoS.
pub(super) struct Publisher {
    pub(super) hello: Hello,
    pub(super) topic: String,
    pub(super) qos: u8,
    /// Minimum number of messages before the last one.
    pub(super) at_least: u32,
}

/// A message that is not completely acknowledged.
struct InFlight {
    id: u16,
    text: String,
    /// The gateway has acknowledged its reception (PUBREC).
    released: bool,
}

impl Publisher {
    /// Publishes until it is told to stop, and then the last message. Returns the number of acknowledged messages before the
    /// last one.
    pub(super) async fn run(self, mut home: Home, stop: watch::Receiver<bool>) -> u32 {
        let mut in_flight: VecDeque<InFlight> = VecDeque::new();
        let (mut count, mut is_last_sent, mut is_known) = (0, false, false);
        loop {
            let mut client = home.connect(&self.hello).await;
            assert!(!is_known || client.connack.0, "the session of {} is lost", self.hello.id);
            is_known = true;
            let again: Vec<u8> = in_flight.iter().flat_map(|message| self.bytes(message, true)).collect();
            let mut is_there = client.try_send(&again).await.is_ok();
            while is_there {
                while is_there && in_flight.len() < WINDOW && !is_last_sent {
                    is_last_sent = *stop.borrow() && count >= self.at_least;
                    let text = if is_last_sent { LAST.to_owned() } else { count.to_string() };
                    in_flight.push_back(InFlight { id: (count % 50_000) as u16 + 1, text, released: false });
                    count += 1;
                    is_there =
                        client.try_send(&self.bytes(&in_flight[in_flight.len() - 1], false)).await.is_ok();
                }
                if in_flight.is_empty() {
                    return count - 1;
                }
                is_there = is_there && self.receive_acknowledgement(&mut client, &mut in_flight).await;
            }
        }
    }

    fn bytes(&self, message: &InFlight, again: bool) -> Vec<u8> {
        if message.released {
            return ack_bytes(PUBREL, message.id).to_vec();
        }
        let payload = message.text.as_bytes();
        let flags = (again, false);
        publish_bytes(self.hello.version, &self.topic, payload, self.qos, message.id, flags, Vec::new())
    }

    /// Receives an acknowledgement. Returns false if the connection has ended.
    async fn receive_acknowledgement(&self, client: &mut Mqtt, in_flight: &mut VecDeque<InFlight>) -> bool {
        let Some(packet) = client.receive().await else { return false };
        let Packet::Ack(kind, id, reason) = packet else { panic!("{packet:?}") };
        let at = in_flight.iter().position(|message| message.id == id).expect("an id of ours");
        match (kind, self.qos) {
            (PUBACK, 1) if reason == 0 => {
                in_flight.remove(at);
                true
            }
            (PUBREC, 2) if reason == 0 => {
                in_flight[at].released = true;
                client.try_send(&ack_bytes(PUBREL, id)).await.is_ok()
            }
            // If the first response was lost, the gateway has already forgotten the id.
            (PUBCOMP, 2) if in_flight[at].released => {
                in_flight.remove(at);
                true
            }
            _ => panic!("{packet:?}"),
        }
    }
}
