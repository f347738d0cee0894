//! Three kinds of registered devices: those that read every stream that a filter matches, those that read over MQTT, and those whose
//! token was revoked.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::authorization::{Protected, pollgate};
use crate::revocation::part;
use crate::wakes::{config, start, webhook};
use crate::world::mqtt::{Hello, Mqtt};
use crate::world::provider::Provider;
use crate::world::{Gateway, Request, delete, get, post, put, until};

/// The first channel of each device.
fn channels() -> Value {
    json!([{"app": "push", "credential": "token"}])
}

fn of_filters(device: &str, filters: &[&str]) -> Request {
    put(format!("/v1/devices/{device}")).json(json!({"filters": filters, "channels": channels()}))
}

async fn append(gateway: &Gateway, stream: &str) {
    gateway.send(post(format!("/v1/stream/{stream}?create=1")).json("1")).await.expect(204);
}

/// Waits until the gateway knows whether the device has something to read.
async fn until_pending(gateway: &Gateway, device: &str, is_pending: bool) {
    until("the device is pending, or not", async || {
        gateway.send(get(format!("/v1/devices/{device}"))).await.expect(200).json()["pending"] == is_pending
    })
    .await;
}

/// Waits until devices know of all appends so far, which they are told of in their order: the wake of a device that reads another stream,
/// which is appended to now, says so.
async fn until_devices_know_appends(gateway: &Gateway, provider: &mut Provider) {
    let tablet = json!({"streams": {"other": null}, "channels": channels()});
    gateway.send(put("/v1/devices/tablet").json(tablet)).await.expect(201);
    append(gateway, "other").await;
    assert_eq!(provider.next().await.json()["device"], "tablet");
    gateway.send(delete("/v1/devices/tablet")).await.expect(204);
}

#[tokio::test]
async fn a_device_is_woken_by_each_stream_that_its_filter_matches_also_after_a_restart() {
    let (folder, mut provider) = (tempfile::tempdir().unwrap(), Provider::start().await);
    let arguments = config(folder.path(), &webhook("push", &provider));
    let store = folder.path().join("store");
    let on_disk = ["--store", store.to_str().unwrap(), "--sync", "never"];
    let gateway = start(&arguments, &on_disk).await;
    append(&gateway, "news/old").await;
    let made = gateway.send(of_filters("phone", &["news/#"])).await.expect(201).json();
    assert_eq!((&made["filters"], &made["pending"]), (&json!(["news/#"]), &json!(false)), "{made}");
    until_devices_know_appends(&gateway, &mut provider).await;
    until_pending(&gateway, "phone", false).await;
    append(&gateway, "news/a/b").await;
    let wake = provider.next().await.json();
    assert_eq!(wake["device"], "phone");
    assert!(!wake.to_string().contains("news"), "a wake tells nothing of streams");
    append(&gateway, "news/c").await;
    until_devices_know_appends(&gateway, &mut provider).await;
    // A poll of one of them says that the device is awake.
    gateway.send(get("/v1/stream/news/c?offset=-1&client=phone")).await.expect(200);
    until_pending(&gateway, "phone", false).await;
    assert_eq!(gateway.metric(r#"pollgate_wake_polls_total{provider="webhook"}"#).await, 1.0);
    // A registration stores the device at once.
    gateway.send(of_filters("phone", &["news/#"])).await.expect(200);
    gateway.kill().await;

    let gateway = start(&arguments, &on_disk).await;
    until_pending(&gateway, "phone", false).await;
    append(&gateway, "news/old").await;
    assert_eq!(provider.next().await.json()["device"], "phone");
    gateway.kill().await;
    // The wake is still outstanding, and may be sent again.
    let gateway = start(&arguments, &on_disk).await;
    until_pending(&gateway, "phone", true).await;
}

#[tokio::test]
async fn filters_that_a_token_does_not_grant_and_malformed_ones_are_refused() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), Provider::start().await);
    let arguments = config(folder.path(), &webhook("push", &provider));
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let world = Protected::start_with("", &arguments, &[]).await;
    let token = world.token(&["--read", "news/#", "--subject", "anna"]);
    let filters =
        [("news/#", 201), ("news/+", 201), ("news/+/x/#", 201), ("#", 403), ("+/x", 403), ("other/#", 403)];
    for (number, (filter, status)) in filters.into_iter().enumerate() {
        let answer = world.send(Some(&token), of_filters(&format!("phone{number}"), &[filter])).await;
        assert_eq!(answer.status, status, "{filter}: {answer:?}");
    }
    let many: Vec<_> = (0..17).map(|number| format!("news/{number}/#")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let long = format!("news/{}/#", "x".repeat(510));
    for filters in [&["news/a"][..], &["news/a#"], &[""], &["$SYS/#"], &[&long], &many, &[]] {
        let answer = world.send(Some(&token), of_filters("phone", filters)).await.expect(400);
        assert_eq!(answer.problem(), "device", "{filters:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_device_that_has_read_over_mqtt_is_not_woken_for_that_again() {
    let (folder, mut provider) = (tempfile::tempdir().unwrap(), Provider::start().await);
    let gateway = start(&config(folder.path(), &webhook("push", &provider)), &[]).await;
    gateway.send(put("/v1/stream/jobs").json("")).await.expect(201);
    let body = json!({"streams": {"jobs": null}, "filters": ["news/+"], "channels": channels()});
    gateway.send(put("/v1/devices/phone").json(body)).await.expect(201);
    let hello = Hello::lasting("phone");
    let mut phone = Mqtt::connect(gateway.mqtt, &hello).await;
    for filter in ["jobs", "news/+"] {
        assert_eq!(phone.subscribe(filter, 1).await, 1);
    }
    append(&gateway, "jobs").await;
    assert_eq!(phone.take().await.topic, "jobs");
    phone.ping().await;
    phone.disconnect(0).await;
    gateway.until_mqtt_clients(0).await;
    until_pending(&gateway, "phone", false).await;
    // It is woken for what comes later, and has it as soon as it connects.
    append(&gateway, "news/a").await;
    assert_eq!(provider.next().await.json()["device"], "phone");
    let mut phone = Mqtt::connect(gateway.mqtt, &hello).await;
    assert_eq!(phone.take().await.topic, "news/a");
    // What it gets while it is connected is no reason to wake it after that.
    append(&gateway, "news/b").await;
    assert_eq!(phone.take().await.topic, "news/b");
    phone.ping().await;
    until_pending(&gateway, "phone", true).await;
    phone.disconnect(0).await;
    gateway.until_mqtt_clients(0).await;
    until_pending(&gateway, "phone", false).await;
    // Nor does a connection that breaks count as having read what it was sent.
    let mut phone = Mqtt::connect(gateway.mqtt, &hello).await;
    append(&gateway, "news/b").await;
    assert_eq!(phone.message().await.topic, "news/b");
    drop(phone);
    gateway.until_mqtt_clients(0).await;
    assert_eq!(provider.next().await.json()["device"], "phone");
    let mut phone = Mqtt::connect(gateway.mqtt, &hello).await;
    until_pending(&gateway, "phone", false).await;
    assert_eq!(phone.take().await.topic, "news/b");
    // A message that it has not acknowledged is something to come for.
    append(&gateway, "jobs").await;
    assert_eq!(phone.message().await.topic, "jobs");
    drop(phone);
    gateway.until_mqtt_clients(0).await;
    until_pending(&gateway, "phone", true).await;
    assert_eq!(provider.next().await.json()["device"], "phone");
}

/// Starts a gateway that checks tokens, wakes devices, and stores.
async fn protected(folder: &TempDir, provider: &Provider) -> (Protected, Vec<String>) {
    let mut arguments = config(folder.path(), &webhook("push", provider));
    let store = folder.path().join("store").to_str().unwrap().to_owned();
    arguments.extend(["--store".to_owned(), store]);
    let texts: Vec<_> = arguments.iter().map(String::as_str).collect();
    (Protected::start_with("", &texts, &[]).await, arguments)
}

#[tokio::test]
async fn a_revocation_removes_the_devices_that_were_registered_with_its_tokens() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), Provider::start().await);
    let (world, arguments) = protected(&folder, &provider).await;
    let of =
        |subject: &str| world.token(&["--read", "news", "--read", "devices/removed", "--subject", subject]);
    let (anna, ben, carl) = (of("anna"), of("ben"), of("carl"));
    let register =
        || put("/v1/devices/phone").json(json!({"streams": {"news": null}, "channels": channels()}));
    for token in [&anna, &ben, &carl] {
        world.send(Some(token), register()).await.expect(201);
    }
    let asleep = r#"pollgate_devices{state="asleep"}"#;
    assert_eq!(world.gateway.metric(asleep).await, 3.0);
    for (revocation, left) in [(json!({"jti": part(&anna, 1)["jti"]}), 2.0), (json!({"sub": "ben"}), 1.0)] {
        world.revoke(&revocation).await.expect(200);
        until("its device is gone", async || world.gateway.metric(asleep).await == left).await;
    }
    world.send(Some(&carl), get("/v1/devices/phone")).await.expect(200);
    until("the application is told", async || {
        let removed = world.send(Some(&carl), get("/v1/stream/devices/removed")).await;
        let reasons = |removed: &Value| {
            removed.as_array().map(|all| all.iter().filter(|one| one["reason"] == "revoked").count())
        };
        removed.status == 200 && reasons(&removed.json()) == Some(2)
    })
    .await;

    // A key that was replaced is not revoked: phones that sleep cannot register again.
    let next = world.folder.path().join("next");
    pollgate(&["keygen", next.to_str().unwrap()]);
    std::fs::rename(next, world.key()).unwrap();
    until("the key is replaced", async || {
        world.send(Some(&carl), get("/v1/stream/news")).await.status == 401
    })
    .await;
    let later = world.token(&["--read", "news", "--subject", "anna"]);
    world.send(Some(&later), register()).await.expect(201);
    let kid = part(&later, 0)["kid"].clone();
    let Protected { gateway, folder: keys } = world;
    gateway.kill().await;
    let auth = keys.path().join("auth.toml");
    let texts = arguments.iter().map(String::as_str);
    let texts: Vec<_> = ["--auth", auth.to_str().unwrap()].into_iter().chain(texts).collect();
    let world = Protected { gateway: Gateway::start(&texts).await, folder: keys };
    until("both are loaded", async || world.gateway.metric(asleep).await == 2.0).await;
    world.revoke(&json!({"kid": kid})).await.expect(200);
    until("the device of the key is gone", async || world.gateway.metric(asleep).await == 1.0).await;
}
