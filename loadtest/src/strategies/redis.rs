//! A stream of Redis: `XREAD BLOCK`, a command that the server holds until a message or the end of the hold, followed by the next at once.

use std::convert::Infallible;
use std::time::Duration;

use crate::client::{Client, PATIENCE};
use crate::wire::{RedisConnection, WireError};

/// Id before the first entry of every stream.
const BEGINNING: &str = "0";

/// Reads until an error. The offset is the id of the last entry.
pub(super) async fn read(client: &mut Client, hold: Duration) -> Result<Infallible, WireError> {
    let connection =
        RedisConnection::over(client.open(client.target.address).await?, hold + PATIENCE).await?;
    client.started().await;
    loop {
        client.meter.request();
        let after = client.offset.as_deref().unwrap_or(BEGINNING);
        let entries = connection.read(&client.stream, after, hold).await?;
        for (id, message) in &entries {
            client.receive(message);
            client.offset = Some(id.clone());
        }
        if entries.is_empty() {
            client.meter.empty_answer();
        }
    }
}
