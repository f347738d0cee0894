//! A publisher that keeps its session over connections, as MQTT wants it (version 5, section 4.4).

use std::collections::VecDeque;

use tokio::sync::watch;

use super::lasting::Home;
use crate::world::mqtt::{Hello, Mqtt, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, ack_bytes, publish_bytes};

/// Messages on their way at once.
const WINDOW: usize = 8;

/// The last message.
pub(super) const LAST: &str = "-1";

/// Publishes 0, 1, 2... on a topic, at one quality.
pub(super) struct Publisher {
    pub(super) hello: Hello,
    pub(super) topic: String,
    pub(super) quality: u8,
    /// Messages before the last one.
    pub(super) at_least: u32,
}

/// A message that is not acknowledged to its end.
struct Underway {
    id: u16,
    text: String,
    /// The gateway has said that it has it.
    released: bool,
}

impl Publisher {
    /// Publishes until it is told to stop, and then the last message. Returns how many came before that, all of them
    /// acknowledged.
    pub(super) async fn run(self, mut home: Home, stop: watch::Receiver<bool>) -> u32 {
        let mut underway: VecDeque<Underway> = VecDeque::new();
        let (mut count, mut is_last_sent, mut is_known) = (0, false, false);
        loop {
            let mut client = home.connect(&self.hello).await;
            assert!(!is_known || client.connack.0, "the session of {} is lost", self.hello.id);
            is_known = true;
            let again: Vec<u8> = underway.iter().flat_map(|message| self.bytes(message, true)).collect();
            let mut is_there = client.try_send(&again).await.is_ok();
            while is_there {
                while is_there && underway.len() < WINDOW && !is_last_sent {
                    is_last_sent = *stop.borrow() && count >= self.at_least;
                    let text = if is_last_sent { LAST.to_owned() } else { count.to_string() };
                    underway.push_back(Underway { id: (count % 50_000) as u16 + 1, text, released: false });
                    count += 1;
                    is_there =
                        client.try_send(&self.bytes(&underway[underway.len() - 1], false)).await.is_ok();
                }
                if underway.is_empty() {
                    return count - 1;
                }
                is_there = is_there && self.take(&mut client, &mut underway).await;
            }
        }
    }

    fn bytes(&self, message: &Underway, again: bool) -> Vec<u8> {
        if message.released {
            return ack_bytes(PUBREL, message.id).to_vec();
        }
        let payload = message.text.as_bytes();
        let flags = (again, false);
        publish_bytes(self.hello.version, &self.topic, payload, self.quality, message.id, flags, Vec::new())
    }

    /// Takes an acknowledgement. Whether the gateway is still there.
    async fn take(&self, client: &mut Mqtt, underway: &mut VecDeque<Underway>) -> bool {
        let Some(packet) = client.receive().await else { return false };
        let Packet::Ack(kind, id, reason) = packet else { panic!("{packet:?}") };
        let at = underway.iter().position(|message| message.id == id).expect("an id of ours");
        match (kind, self.quality) {
            (PUBACK, 1) if reason == 0 => {
                underway.remove(at);
                true
            }
            (PUBREC, 2) if reason == 0 => {
                underway[at].released = true;
                client.try_send(&ack_bytes(PUBREL, id)).await.is_ok()
            }
            // It has forgotten the id already if its first answer was lost.
            (PUBCOMP, 2) if underway[at].released => {
                underway.remove(at);
                true
            }
            _ => panic!("{packet:?}"),
        }
    }
}
