//! MQTT: a QoS 1 subscription in a clean session.

use std::convert::Infallible;

use crate::client::Client;
use crate::strategies::Heartbeat;
use crate::wire::{Mqtt, WireError};

/// Follows the topic of the client's stream until an error. The session is clean, so messages published between two sessions
/// are lost.
pub(super) async fn read(client: &mut Client, heartbeat: Heartbeat) -> Result<Infallible, WireError> {
    let address = client.target.mqtt.ok_or_else(|| WireError::Mqtt("no address".to_owned()))?;
    client.meter.request();
    let name = format!("{}-{}", client.stream, client.number);
    let mut session = Mqtt::open(client.open(address).await?, &name, heartbeat).await?;
    session.subscribe(&client.stream).await?;
    client.started().await;
    loop {
        let message = session.next().await?;
        client.receive(message.payload().as_slice());
    }
}
