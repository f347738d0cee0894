//! [`Publisher`]: creates a stream and publishes to it on one connection.

use bytes::Bytes;

use super::client::{Connection, delete, post, put};
use super::kind::Kind;
use super::process::Gateway;
use super::reader::Place;

/// An existing stream and a connection to publish on.
pub struct Publisher {
    pub place: Place,
    connection: Connection,
}

impl Publisher {
    /// Creates a stream.
    pub async fn create(gateway: &Gateway, name: &str, kind: Kind) -> Self {
        Self::create_keeping(gateway, name, kind, None).await
    }

    /// Creates a stream, with `Stream-Max-Messages` if `messages` is set.
    pub async fn create_keeping(gateway: &Gateway, name: &str, kind: Kind, messages: Option<u64>) -> Self {
        let place = Place { address: gateway.address, path: format!("/v1/stream/{name}"), kind };
        let mut connection = gateway.connect().await;
        let mut create = put(&place.path).header("content-type", kind.content_type());
        if let Some(messages) = messages {
            create = create.header("stream-max-messages", messages);
        }
        connection.send(create).await.expect(201);
        Self { place, connection }
    }

    /// Appends and returns the offset after it.
    pub async fn append(&mut self, body: impl Into<Bytes>) -> String {
        let append = post(&self.place.path).header("content-type", self.place.kind.content_type());
        self.connection.send(append.body(body)).await.expect(204).next_offset()
    }

    /// Closes the stream and returns its last offset.
    pub async fn close(&mut self) -> String {
        let close = post(&self.place.path).header("stream-closed", "true");
        self.connection.send(close).await.expect(204).next_offset()
    }

    /// Deletes the stream.
    pub async fn delete(&mut self) {
        self.connection.send(delete(&self.place.path)).await.expect(204);
    }
}
