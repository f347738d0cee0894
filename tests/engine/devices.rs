//! Devices are registered and read at any gateway, and one of them wakes each.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::Engine;
use crate::world::provider::Provider;
use crate::world::{Gateway, delete, get, post, put, until};

/// Two gateways that wake devices over one provider.
struct Phones {
    gateways: [Gateway; 2],
    provider: Provider,
    _files: TempDir,
    _engine: Engine,
}

impl Phones {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// Two gateways with additional arguments.
    async fn with(arguments: &[&str]) -> Self {
        let (engine, provider, files) =
            (Engine::volatile().await, Provider::start().await, tempfile::tempdir().unwrap());
        let (secret, config) = (files.path().join("secret"), files.path().join("pollgate.toml"));
        std::fs::write(&secret, "a secret of the webhook").unwrap();
        let app = format!(
            "[[wake]]\nname = \"push\"\nkind = \"webhook\"\nkey_file = {secret:?}\nurl = \"http://{}/\"\nmin_interval = \"0s\"\n",
            provider.address
        );
        std::fs::write(&config, app).unwrap();
        let arguments = [&["--config", config.to_str().unwrap()], arguments].concat();
        let gateways =
            [engine.gateway_with("one", &arguments).await, engine.gateway_with("other", &arguments).await];
        gateways[0].send(put("/v1/stream/news").json("")).await.expect(201);
        Self { gateways, provider, _files: files, _engine: engine }
    }

    async fn register(&self, gateway: usize) -> u16 {
        self.register_as("phone", gateway).await
    }

    async fn register_as(&self, device: &str, gateway: usize) -> u16 {
        let registration =
            json!({"streams": {"news": null}, "channels": [{"app": "push", "credential": "t"}]});
        self.gateways[gateway]
            .send(put(format!("/v1/devices/{device}")).json(registration.to_string()))
            .await
            .status
            .as_u16()
    }

    async fn append(&self, gateway: usize) {
        self.gateways[gateway].send(post("/v1/stream/news").json("1")).await.expect(204);
    }

    /// Reads everything at a gateway and confirms that, until the device is there: a gateway that cannot take it over, because the engine or
    /// the other gateway does not answer in time, leaves that to the next poll.
    async fn poll(&self, gateway: usize) {
        let read = |offset: &str| get(format!("/v1/stream/news?offset={offset}&client=phone"));
        let is_here = async || {
            let news = self.gateways[gateway].send(read("-1")).await.expect(200);
            self.gateways[gateway].send(read(&news.next_offset())).await.expect(200);
            self.devices(gateway, "asleep").await == 1.0
        };
        until("the device is at the gateway of its poll", is_here).await;
    }

    async fn devices(&self, gateway: usize, state: &str) -> f64 {
        self.gateways[gateway].metric(&format!("pollgate_devices{{state=\"{state}\"}}")).await
    }

    /// Waits for a wake, and until its gateway knows that it was accepted.
    async fn is_woken(&mut self) {
        assert_eq!(self.provider.next().await.json()["device"], "phone");
    }

    async fn view(&self, gateway: usize) -> Value {
        self.gateways[gateway].send(get("/v1/devices/phone")).await.expect(200).json()
    }
}

#[tokio::test]
async fn a_device_that_polls_anywhere_is_woken_once_for_each_message_it_has_not_read() {
    let mut phones = Phones::new().await;
    assert_eq!(phones.register(0).await, 201);
    assert_eq!(phones.register(1).await, 200, "the other gateway knows the device");
    for round in 0..6 {
        phones.append(round % 2).await;
        phones.is_woken().await;
        phones.poll((round / 2) % 2).await;
    }
    assert!(phones.provider.try_next().is_none(), "a device was woken twice");
    for gateway in [0, 1, 0] {
        let view = phones.view(gateway).await;
        assert_eq!((&view["pending"], &view["wake"]), (&json!(false), &Value::Null));
    }
}

#[tokio::test]
async fn a_device_that_reads_live_at_another_gateway_is_not_woken() {
    let mut phones = Phones::new().await;
    phones.register(0).await;
    let is_known = async || phones.gateways[1].send(get("/v1/devices/phone")).await.status == 200;
    until("the other gateway knows the device", is_known).await;
    phones.view(0).await;
    let mut connection = phones.gateways[1].connect().await;
    let live = connection.begin(get("/v1/stream/news?offset=now&live=sse&client=phone")).await.unwrap();
    until("the device is connected", async || phones.devices(1, "connected").await == 1.0).await;
    phones.append(0).await;
    let suppressed = r#"pollgate_wakes_suppressed_total{reason="connected"}"#;
    until("the wake is suppressed", async || phones.gateways[1].metric(suppressed).await >= 1.0).await;
    assert!(phones.provider.try_next().is_none());
    drop((live, connection));
    phones.is_woken().await;
}

#[tokio::test]
async fn a_device_of_a_gateway_that_is_stopped_is_woken_by_another_one_and_only_by_that() {
    let mut phones = Phones::new().await;
    phones.register(0).await;
    phones.gateways[0].signal("STOP");
    phones.append(1).await;
    phones.is_woken().await;
    // The stopped gateway finds the message, too, but the engine refuses that it notes a wake.
    phones.gateways[0].signal("CONT");
    until("it has no device any more", async || {
        phones.devices(0, "asleep").await
            + phones.devices(0, "pending").await
            + phones.devices(0, "woken").await
            == 0.0
    })
    .await;
    phones.poll(0).await;
    assert!(phones.provider.try_next().is_none(), "the device was woken twice");
}

#[tokio::test]
async fn devices_that_were_deleted_at_one_gateway_take_no_room_at_the_other() {
    let phones = Phones::with(&["--limit", "devices_max=1"]).await;
    for number in 0..20 {
        let device = format!("old-{number}");
        assert_eq!(phones.register_as(&device, 0).await, 201);
        phones.gateways[0].send(delete(format!("/v1/devices/{device}"))).await.expect(204);
    }
    until("there is room", async || phones.register(1).await == 201).await;
}
