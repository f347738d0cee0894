//! Server-sent events and NDJSON: one response that does not end.

use http_body_util::BodyExt;
use hyper::StatusCode;

use crate::client::Client;
use crate::dialects::durable_streams::offset_of_envelope;
use crate::dialects::{HttpDialect, LiveForm};
use crate::strategies::Heartbeat;
use crate::wire::{Events, WireError};

/// Follows the stream until the server ends the response.
pub(super) async fn read(client: &mut Client, form: LiveForm, heartbeat: Heartbeat) -> Result<(), WireError> {
    let mut connection = client.connect().await?;
    let dialect = client.dialect()?;
    let request =
        client.counted_request(dialect.follow(&client.stream, client.offset.as_deref(), form, heartbeat))?;
    let mut answer = connection.send(request).await?;
    if answer.status() != StatusCode::OK {
        return Err(WireError::Status(answer.status()));
    }
    client.started().await;
    let mut units = match form {
        LiveForm::Sse => Units::Events(Events::default()),
        LiveForm::Ndjson | LiveForm::WebSocket => Units::Lines(Vec::new()),
    };
    while let Some(frame) = answer.frame().await {
        if let Ok(bytes) = frame?.into_data() {
            units.read(&bytes, client, dialect);
        }
    }
    Ok(())
}

/// Splits bytes into events or lines.
enum Units {
    Events(Events),
    Lines(Vec<u8>),
}

impl Units {
    /// Records the messages of each complete event or line, and the offset after it.
    fn read(&mut self, bytes: &[u8], client: &mut Client, dialect: &dyn HttpDialect) {
        match self {
            Self::Events(events) => {
                events.read(bytes);
                for event in events {
                    client.receive(event.data.as_bytes());
                    client.offset = dialect.offset_of_event(&event).or(client.offset.take());
                }
            }
            Self::Lines(rest) => {
                rest.extend_from_slice(bytes);
                while let Some(end) = memchr::memchr(b'\n', rest) {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    client.receive(&line);
                    client.offset = offset_of_envelope(&line).or(client.offset.take());
                }
            }
        }
    }
}
