//! NATS over WebSocket: a subscription to the subject of the stream.

use futures_util::{SinkExt, StreamExt};
use hyper::Uri;
use tokio_websockets::{ClientBuilder, Message};

use crate::client::Client;
use crate::wire::{NatsOperation, NatsOperations, WireError, nats};

/// Follows the subject of the client's stream until the server closes. What is published between two connections is lost.
pub(super) async fn read(client: &mut Client) -> Result<(), WireError> {
    let uri: Uri = format!("ws://{}/", client.target.address).parse().map_err(hyper::http::Error::from)?;
    client.meter.request();
    let (mut socket, _answer) =
        ClientBuilder::from_uri(uri).connect_on(client.open(client.target.address).await?).await?;
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
