//! WebSocket: one envelope per frame, on other servers one message per frame.

use futures_util::StreamExt;

use crate::client::Client;
use crate::dialects::LiveForm;
use crate::dialects::durable_streams::offset_of_envelope;
use crate::strategies::Heartbeat;
use crate::wire::WireError;

/// Follows the stream until the server closes. The library answers pings.
pub(super) async fn read(client: &mut Client, heartbeat: Heartbeat) -> Result<(), WireError> {
    let dialect = client.dialect()?;
    let target = dialect.live(&client.stream, client.offset.as_deref(), LiveForm::WebSocket, heartbeat);
    let (mut socket, _connection) = client.web_socket(&target).await?;
    client.started().await;
    while let Some(message) = socket.next().await {
        let message = message?;
        let payload = message.as_payload();
        client.receive(payload);
        client.offset = offset_of_envelope(payload).or(client.offset.take());
    }
    Ok(())
}
