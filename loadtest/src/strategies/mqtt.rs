//! MQTT: a subscription with quality of service 1 in a clean session.

use std::convert::Infallible;

use crate::client::Client;
use crate::strategies::Heartbeat;
use crate::wire::{Mqtt, WireError};

/// Follows the topic of the client's stream until something breaks. What is published between two sessions is
/// lost, as the session is a clean one.
pub(super) async fn read(client: &mut Client, heartbeat: Heartbeat) -> Result<Infallible, WireError> {
    let address = client.target.mqtt.ok_or_else(|| WireError::Mqtt("no address".to_owned()))?;
    client.meter.request();
    let name = format!("{}-{}", client.stream, client.number);
    let mut session = Mqtt::open(client.open(address).await?, &name, heartbeat).await?;
    session.subscribe(&client.stream).await?;
    client.started().await;
    loop {
        let message = session.next().await?;
        client.take(message.payload().as_slice());
    }
}
