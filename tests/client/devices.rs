//! A device that sleeps: it registers itself, is woken, and what it reads says so.

use pollgate_client::{Device, Form, Item, RequestError, Start};
use serde_json::{Value, json};

use crate::reading::{client, only};
use crate::world::provider::Provider;
use crate::world::{Gateway, get, post, put, until};

/// Starts a gateway that wakes devices by requests to `provider`.
async fn start(provider: &Provider, folder: &std::path::Path) -> Gateway {
    let (secret, config) = (folder.join("secret"), folder.join("pollgate.toml"));
    std::fs::write(&secret, "a secret of the webhook").unwrap();
    let url = format!("http://{}/wake", provider.address);
    let app = format!(
        "name = \"push\"\nkind = \"webhook\"\nkey_file = {secret:?}\nurl = \"{url}\"\nmin_interval = \"0s\""
    );
    std::fs::write(&config, format!("[[wake]]\n{app}\n")).unwrap();
    Gateway::start(&["--config", config.to_str().unwrap()]).await
}

#[tokio::test]
async fn a_registered_device_is_woken_and_its_subscription_confirms_that() {
    for form in Form::ALL {
        let (folder, mut provider) = (tempfile::tempdir().unwrap(), Provider::start().await);
        let gateway = start(&provider, folder.path()).await;
        gateway.send(put("/v1/stream/news").json("")).await.expect(201);
        let (client, _) = client(gateway.address, only(form));
        let device = Device::new("phone/1").stream("news").channel("push", "token");
        client.register_device(device).await.unwrap();
        gateway.send(post("/v1/stream/news").json("1")).await.expect(204);
        assert_eq!(provider.next().await.json()["credential"], "token", "{form:?}");

        let mut subscription = client.subscribe(["news"], Start::earliest().as_device("phone/1"));
        let Some(Item::Message(message)) = subscription.next().await else { panic!("no message") };
        assert_eq!(message.data.bytes(), b"1");
        until("the wake is confirmed", async || {
            gateway.metric(r#"pollgate_wake_polls_total{provider="webhook"}"#).await == 1.0
        })
        .await;
        drop(subscription);

        client.unregister_device("phone/1").await.unwrap();
        gateway.send(get("/v1/devices/phone%2F1")).await.expect(404);
        assert_eq!(client.unregister_device("phone/1").await, Ok(()), "it is not known any more");
    }
}

#[tokio::test]
async fn a_refused_registration_is_told() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), Provider::start().await);
    let gateway = start(&provider, folder.path()).await;
    let (client, _) = client(gateway.address, only(Form::LongPoll));
    let refused = client.register_device(Device::new("phone").stream("news").channel("pigeon", "t")).await;
    let Err(RequestError::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.status, 400, "{refusal}");
}

#[tokio::test]
async fn the_registration_has_what_the_device_says() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), Provider::start().await);
    let gateway = start(&provider, folder.path()).await;
    let next = gateway.send(put("/v1/stream/news").json("[1,2]")).await.expect(201).next_offset();
    let (client, _) = client(gateway.address, only(Form::LongPoll));
    let device = Device::new("phone").stream_at("news", next.parse().unwrap()).stream("later");
    client.register_device(device.channel("push", "token")).await.unwrap();
    let known = gateway.send(get("/v1/devices/phone")).await.expect(200).json();
    assert_eq!((&known["streams"]["news"], &known["pending"]), (&json!(next), &json!(false)));
    assert_ne!(known["streams"]["later"], Value::Null);
}
