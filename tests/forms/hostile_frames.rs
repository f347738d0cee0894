//! Frames of hostile clients: the WebSocket is closed with the code of RFC 6455, at a small cost, and other clients are not
//! affected.

mod breaches;
mod floods;

use crate::world::{Form, Gateway, Kind, Publisher, Reader, WebSocket};

const MEMORY_BYTES_MAX: u64 = 8 * 1024 * 1024;

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
/// The first, a middle and the last frame of a fragmented text.
const TEXT_BEGINS: u8 = 0x01;
const GOES_ON: u8 = 0x00;
const ENDS: u8 = 0x80;

/// A text stream with readers in every form, which hostile clients must not affect.
struct Fixture {
    gateway: Gateway,
    publisher: Publisher,
    readers: Vec<Reader>,
    memory_before: u64,
}

impl Fixture {
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

    /// A hostile client after its handshake.
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

    /// Checks that each reader is still connected, and receives the next message and nothing else.
    async fn is_untouched(&mut self) {
        self.publisher.append("untouched").await;
        for reader in &mut self.readers {
            reader.expect(b"untouched").await;
        }
    }
}
