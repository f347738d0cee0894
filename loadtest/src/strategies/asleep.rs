//! A phone that sleeps: it has no connection to the gateway, is woken by push or SMS, and polls.

use std::convert::Infallible;

use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request};
use serde_json::json;
use tokio::time::Instant;

use crate::client::Client;
use crate::providers::{APP, Channel, Provider};
use crate::wire::{WireError, accepted};

/// Registers the phone as a device, and polls each time that it is woken, until an error.
///
/// After a wake the phone opens a connection, polls until nothing is new, and closes it. The last of these polls tells the
/// gateway that the messages before it have arrived.
pub(super) async fn read(client: &mut Client, provider: Provider) -> Result<Infallible, WireError> {
    let target = client.target.providers.ok_or_else(|| WireError::Wakes("no provider".to_owned()))?;
    let address = provider.address_of(client.number);
    let mut channel = Channel::attach(client.open(target.phone_side).await?, &address).await?;
    let device = format!("phone-{}", client.number);
    register(client, &device, &provider.credential(&target, client.number)).await?;
    client.started().await;
    loop {
        channel.wake().await?;
        let woken = Instant::now();
        let mut connection = client.connect().await?;
        let mut is_first = true;
        while client.poll_as(&mut connection, &device).await? {
            if std::mem::take(&mut is_first) {
                client.woken(woken);
            }
        }
    }
}

async fn register(
    client: &mut Client,
    device: &str,
    credential: &serde_json::Value,
) -> Result<(), WireError> {
    let offset = client.offset.as_deref().unwrap_or("-1");
    let registration = json!({
        "streams": {&client.stream: offset},
        "channels": [{"app": APP, "credential": credential}],
    });
    let request = Request::builder().method(Method::PUT).uri(format!("/v1/devices/{device}"));
    let request = request.header(CONTENT_TYPE, "application/json").body(registration.to_string().into());
    let request = client.counted_request(request)?;
    accepted(&client.connect().await?.exchange(request).await?)
}
