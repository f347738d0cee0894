//! NATS over WebSocket: a subscription to the subject of the stream.

use futures_util::{SinkExt, StreamExt};
use tokio_websockets::Message;

use crate::client::Client;
use crate::wire::{NatsOperation, NatsOperations, WireError, nats};

/// Follows the subject of the client's stream until the server closes. What is published between two connections is lost.
pub(super) async fn read(client: &mut Client) -> Result<(), WireError> {
    let (mut socket, _connection) = client.web_socket("/").await?;
    let opening = [nats::CONNECT, &nats::subscribe(&client.stream), nats::PING].concat();
    socket.send(Message::binary(opening)).await?;
    let mut operations = NatsOperations::default();
    while let Some(frame) = socket.next().await {
        operations.read(frame?.as_payload())?;
        while let Some(operation) = operations.next()? {
            match operation {
                NatsOperation::Info => {}
                NatsOperation::Ping => socket.send(Message::binary(nats::PONG)).await?,
                NatsOperation::Pong => drop(client.started().await),
                NatsOperation::Message(message) => drop(client.receive(&message)),
            }
        }
    }
    Ok(())
}
