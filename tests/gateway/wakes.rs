//! Sleeping devices: an append causes a push, the device polls, and the metrics contain the time between the two.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::agreement::{ECDH_P256, EphemeralPrivateKey};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use serde_json::{Value, json};

use crate::world::provider::Provider;
use crate::world::{Gateway, delete, get, post, put, until};

const SECRET: &str = "a secret of the webhook";

/// Writes a configuration with apps, and returns the arguments that use it.
pub(crate) fn config(folder: &Path, apps: &str) -> Vec<String> {
    let file = folder.join("pollgate.toml");
    std::fs::write(folder.join("secret"), SECRET).unwrap();
    std::fs::write(&file, apps.replace("FOLDER", folder.to_str().unwrap())).unwrap();
    vec!["--config".to_owned(), file.to_str().unwrap().to_owned()]
}

pub(crate) fn webhook(name: &str, provider: &Provider) -> String {
    format!(
        "[[wake]]\nname = \"{name}\"\nkind = \"webhook\"\nkey_file = \"FOLDER/secret\"\nurl = \"http://{}/{name}\"\nmin_interval = \"0s\"\n",
        provider.address
    )
}

pub(crate) async fn start(arguments: &[String], more: &[&str]) -> Gateway {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Gateway::start(&arguments).await
}

fn registration(channels: &Value) -> Value {
    json!({"streams": {"news": null}, "channels": channels})
}

async fn device(gateway: &Gateway) -> Value {
    gateway.send(get("/v1/devices/phone")).await.expect(200).json()
}

#[tokio::test]
async fn an_append_wakes_a_device_once_and_its_poll_confirms_that() {
    let (folder, mut provider) = (tempfile::tempdir().unwrap(), Provider::start().await);
    let gateway = start(&config(folder.path(), &webhook("push", &provider)), &[]).await;
    gateway.send(put("/v1/stream/news").json("[0]")).await.expect(201);
    let channels = json!([{"app": "push", "credential": "token-1"}]);
    let put_device = || put("/v1/devices/phone").json(registration(&channels));
    let made = gateway.send(put_device()).await.expect(201).json();
    assert_eq!((&made["pending"], &made["wake"]), (&json!(false), &Value::Null));
    assert!(!made.to_string().contains("token-1"), "no answer has the credential: {made}");
    gateway.send(put_device()).await.expect(200);

    gateway.send(post("/v1/stream/news").json("1")).await.expect(204);
    let wake = provider.next().await;
    assert_eq!((wake.path.as_str(), &wake.json()["credential"]), ("/push", &json!("token-1")));
    assert!(!wake.json().to_string().contains("news"), "a wake tells nothing of streams");
    until("the wake is accepted", async || {
        gateway.metric(r#"pollgate_wakes_total{provider="webhook",verdict="ok"}"#).await == 1.0
    })
    .await;
    gateway.send(post("/v1/stream/news").json("2")).await.expect(204);
    assert_eq!(device(&gateway).await["wake"]["app"], "push");
    assert_eq!(gateway.metric(r#"pollgate_devices{state="woken"}"#).await, 1.0);

    // The phone reads from its offset, and polls once more to confirm.
    let offset = device(&gateway).await["streams"]["news"].as_str().unwrap().to_owned();
    let poll = |offset: &str| get(format!("/v1/stream/news?offset={offset}&client=phone"));
    let news = gateway.send(poll(&offset)).await.expect(200);
    assert_eq!(news.text(), "[1,2]");
    gateway.send(poll(&news.next_offset())).await.expect(200);
    assert_eq!(gateway.metric(r#"pollgate_wake_polls_total{provider="webhook"}"#).await, 1.0);
    assert_eq!(gateway.metric(r#"pollgate_wake_to_poll_seconds_count{provider="webhook"}"#).await, 1.0);
    let known = device(&gateway).await;
    assert_eq!((&known["pending"], &known["wake"]), (&json!(false), &Value::Null));
    assert!(provider.try_next().is_none(), "one wake for two appends");

    gateway.send(delete("/v1/devices/phone")).await.expect(204);
    gateway.send(get("/v1/devices/phone")).await.expect(404);
    assert_eq!(gateway.metric(r#"pollgate_devices{state="asleep"}"#).await, 0.0);
}

#[tokio::test]
async fn a_device_that_reads_live_is_not_woken() {
    let (folder, mut provider) = (tempfile::tempdir().unwrap(), Provider::start().await);
    let gateway = start(&config(folder.path(), &webhook("push", &provider)), &[]).await;
    gateway.send(put("/v1/stream/news").json("")).await.expect(201);
    let channels = json!([{"app": "push", "credential": "t"}]);
    gateway.send(put("/v1/devices/phone").json(registration(&channels))).await.expect(201);
    let mut connection = gateway.connect().await;
    let live = connection.begin(get("/v1/stream/news?offset=now&live=sse&client=phone")).await.unwrap();
    until("the device is connected", async || {
        gateway.metric(r#"pollgate_devices{state="connected"}"#).await == 1.0
    })
    .await;
    gateway.send(post("/v1/stream/news").json("1")).await.expect(204);
    let suppressed = r#"pollgate_wakes_suppressed_total{reason="connected"}"#;
    until("the wake is suppressed", async || gateway.metric(suppressed).await >= 1.0).await;
    assert!(provider.try_next().is_none());
    drop((live, connection));
    assert_eq!(provider.next().await.json()["device"], "phone");
}

#[tokio::test]
async fn the_next_channel_is_tried_if_a_provider_refuses() {
    let (folder, mut provider) = (tempfile::tempdir().unwrap(), Provider::start().await);
    let apps = [webhook("push", &provider), webhook("vendor", &provider)].concat();
    let gateway = start(&config(folder.path(), &apps), &[]).await;
    let offered = gateway.send(get("/v1/devices")).await.expect(200).json();
    assert_eq!(offered["apps"][1], json!({"app": "vendor", "provider": "webhook", "credential": "token"}));
    let channels = json!([{"app": "push", "credential": "a"}, {"app": "vendor", "credential": "b"}]);
    gateway.send(put("/v1/devices/phone").json(registration(&channels))).await.expect(201);
    provider.answer(&[410]);
    gateway.send(post("/v1/stream/news?create=1").json("1")).await.expect(204);
    assert_eq!([provider.next().await.path, provider.next().await.path], ["/push", "/vendor"]);
    until("the answers are noted", async || device(&gateway).await["channels"][1]["last_ok"] != Value::Null)
        .await;
    let known = device(&gateway).await;
    assert_eq!(
        (&known["channels"][0]["state"], &known["channels"][1]["state"]),
        (&json!("gone"), &json!("active"))
    );
    for (target, status) in [("/v1/devices/phone/wake", 202), ("/v1/devices/other/wake", 404)] {
        gateway.send(post(target)).await.expect(status);
    }
}

#[tokio::test]
async fn a_wake_survives_a_kill_and_is_still_the_only_one() {
    let (folder, mut provider) = (tempfile::tempdir().unwrap(), Provider::start().await);
    let arguments = config(folder.path(), &webhook("push", &provider));
    let store = folder.path().join("store");
    let on_disk = ["--store", store.to_str().unwrap(), "--sync", "never"];
    let gateway = start(&arguments, &on_disk).await;
    gateway.send(put("/v1/stream/news").json("")).await.expect(201);
    let channels = json!([{"app": "push", "credential": "t"}]);
    gateway.send(put("/v1/devices/phone").json(registration(&channels))).await.expect(201);
    gateway.send(post("/v1/stream/news").json("1")).await.expect(204);
    let first = provider.next().await.json()["wake"].clone();
    gateway.kill().await;

    let gateway = start(&arguments, &on_disk).await;
    let known = device(&gateway).await;
    assert_eq!((&known["pending"], &known["wake"]["app"]), (&json!(true), &json!("push")));
    // If the gateway was killed before it recorded the provider's response, it sends the same wake again.
    gateway.send(post("/v1/stream/news").json("2")).await.expect(204);
    until("the device is known", async || gateway.metric(r#"pollgate_devices{state="woken"}"#).await == 1.0)
        .await;
    while let Some(again) = provider.try_next() {
        assert_eq!(again.json()["wake"], first);
    }
    let offset = known["streams"]["news"].as_str().unwrap();
    let poll = get(format!("/v1/stream/news?offset={offset}&client=phone"));
    assert_eq!(gateway.send(poll).await.expect(200).text(), "[1,2]");
}

#[tokio::test]
async fn web_push_reaches_the_url_of_the_device_only_if_its_address_is_allowed() {
    let (folder, mut provider) = (tempfile::tempdir().unwrap(), Provider::start().await);
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(key.as_ref())
    );
    std::fs::write(folder.path().join("vapid.pem"), pem).unwrap();
    let app = "[[wake]]\nname = \"web\"\nkind = \"web-push\"\nkey_file = \"FOLDER/vapid.pem\"\ncontact = \"mailto:ops@gate.example\"\n";
    let arguments = config(folder.path(), app);
    let subscription =
        EphemeralPrivateKey::generate(&ECDH_P256, &random).unwrap().compute_public_key().unwrap();
    let keys =
        json!({"p256dh": URL_SAFE_NO_PAD.encode(subscription), "auth": URL_SAFE_NO_PAD.encode([7; 16])});
    let here = format!("http://{}/wpush/1", provider.address);
    // All clients of this gateway are on this machine, and can reach its addresses anyway.
    for (endpoint, verdict) in [("https://10.0.0.1/wpush/1", "bad"), (here.as_str(), "ok")] {
        let channels = json!([{"app": "web", "credential": {"endpoint": endpoint, "keys": keys}}]);
        let gateway = start(&arguments, &[]).await;
        gateway.send(put("/v1/devices/phone").json(registration(&channels))).await.expect(201);
        gateway.send(post("/v1/stream/news?create=1").json("1")).await.expect(204);
        let metric = format!(r#"pollgate_wakes_total{{provider="web-push",verdict="{verdict}"}}"#);
        until("the wake has a verdict", async || gateway.metric(&metric).await >= 1.0).await;
        let Some(push) = provider.try_next() else {
            assert_eq!(verdict, "bad");
            continue;
        };
        assert_eq!((verdict, push.path.as_str()), ("ok", "/wpush/1"));
        assert_eq!([push.header("content-encoding"), push.header("urgency")], ["aes128gcm", "high"]);
        let (token, public) =
            push.header("authorization").strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap();
        assert_eq!(gateway.send(get("/v1/devices")).await.json()["apps"][0]["public_key"], public);
        let (message, signature) = token.rsplit_once('.').unwrap();
        let decode = |text| URL_SAFE_NO_PAD.decode(text).unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, decode(public));
        public.verify(message.as_bytes(), &decode(signature)).unwrap();
    }
}

#[tokio::test]
async fn registrations_that_cannot_work_are_refused() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), Provider::start().await);
    let gateway =
        start(&config(folder.path(), &webhook("push", &provider)), &["--limit", "devices_max=2"]).await;
    let channel = json!({"app": "push", "credential": "t"});
    for (body, problem) in [
        (json!({"streams": {}, "channels": [channel]}), "device"),
        (json!({"streams": {"a": null}, "channels": []}), "device"),
        (json!({"streams": {"a": null}, "channels": [{"app": "other", "credential": "t"}]}), "device"),
        (json!({"streams": {"a": null}, "channels": [{"app": "push", "credential": ""}]}), "device"),
        (json!({"streams": {"a": null}, "channels": vec![channel.clone(); 9]}), "device"),
        (json!({"streams": {"a": "x"}, "channels": [channel]}), "offset"),
        (json!({"streams": {"a": null}, "channels": [channel], "expires_in": 0}), "device"),
    ] {
        let refused = gateway.send(put("/v1/devices/phone").json(&body)).await.expect(400);
        assert_eq!(refused.problem(), problem, "{body}");
    }
    let registration = registration(&json!([channel]));
    gateway.send(put("/v1/devices/phone").text(registration.to_string())).await.expect(415);
    for (id, status) in [("one", 201), ("one", 200), ("two", 507)] {
        // One client may have half of the devices.
        gateway.send(put(format!("/v1/devices/{id}")).json(&registration)).await.expect(status);
    }
    for (request, status) in [
        (post("/v1/devices/one"), 405),
        (get("/v1/devices/one/wake"), 405),
        (put("/v1/devices"), 405),
        (get("/v1/devices/a%20b"), 400),
        (get("/v1/devices/one/other"), 404),
        (delete("/v1/devices/two"), 404),
    ] {
        gateway.send(request).await.expect(status);
    }
}
