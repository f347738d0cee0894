//! WebSocket: one envelope per frame, on other servers one message per frame.

use futures_util::StreamExt;
use hyper::Uri;
use tokio_websockets::ClientBuilder;

use crate::client::Client;
use crate::dialects::LiveForm;
use crate::dialects::durable_streams::offset_of_envelope;
use crate::strategies::Heartbeat;
use crate::wire::WireError;

/// Follows the stream until the server closes. The library answers pings.
pub(super) async fn read(client: &mut Client, heartbeat: Heartbeat) -> Result<(), WireError> {
    let dialect = client.dialect()?;
    let target = dialect.live(&client.stream, client.offset.as_deref(), LiveForm::WebSocket, heartbeat);
    let uri: Uri =
        format!("ws://{}{target}", client.target.address).parse().map_err(hyper::http::Error::from)?;
    client.meter.request();
    let (mut socket, _answer) =
        ClientBuilder::from_uri(uri).connect_on(client.open(client.target.address).await?).await?;
    client.started().await;
    while let Some(message) = socket.next().await {
        let message = message?;
        let payload = message.as_payload();
        client.receive(payload);
        client.offset = offset_of_envelope(payload).or(client.offset.take());
    }
    Ok(())
}
