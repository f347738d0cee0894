//! Frames that no decent client sends: each is closed with the code that RFC 6455 has for it, costs little, and
//! nobody else notices.

mod breaches;
mod floods;

use crate::world::{Form, Gateway, Kind, Publisher, Reader, WebSocket};

const MEMORY_BYTES_MAX: u64 = 8 * 1024 * 1024;

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
/// The first frame of a text that goes on in others, those in between, and the last one.
const TEXT_BEGINS: u8 = 0x01;
const GOES_ON: u8 = 0x00;
const ENDS: u8 = 0x80;

/// A text stream with readers in every form, whom hostile clients must not touch.
struct Ground {
    gateway: Gateway,
    publisher: Publisher,
    readers: Vec<Reader>,
    memory_before: u64,
}

impl Ground {
    async fn start(arguments: &[&str]) -> Self {
        let gateway = Gateway::start(arguments).await;
        let publisher = Publisher::create(&gateway, "s", Kind::Text).await;
        let mut readers = Vec::new();
        for form in Form::ALL {
            let mut reader = Reader::open(&publisher.place, form, "-1").await.unwrap();
            reader.expect(b"").await;
            readers.push(reader);
        }
        let memory_before = gateway.memory_bytes();
        Self { gateway, publisher, readers, memory_before }
    }

    /// A hostile client that has been let in.
    async fn socket(&self) -> WebSocket {
        let target = format!("{}?live=websocket&offset=now", self.publisher.place.path);
        let mut socket = WebSocket::open(self.gateway.address, &target).await.unwrap();
        assert_eq!(socket.json().await.unwrap()["data"], serde_json::json!([]));
        socket
    }

    #[track_caller]
    fn memory_is_flat(&self, when: &str) {
        let raised = self.gateway.memory_bytes().saturating_sub(self.memory_before);
        assert!(raised < MEMORY_BYTES_MAX, "{when}: {raised} bytes more");
    }

    /// Each reader is where it was, and gets the next message and nothing else.
    async fn is_untouched(&mut self) {
        self.publisher.append("untouched").await;
        for reader in &mut self.readers {
            reader.expect(b"untouched").await;
        }
    }
}
