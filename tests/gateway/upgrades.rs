//! Upgrades: a gateway serves what an earlier one has stored, as that one has served it.
//!
//! `tests/store/fixtures/gateway-format-N` is the store of a gateway that wrote format N of the log, without the zeros behind its last record, and
//! `answers.json` what that gateway answered. `WRITE_FIXTURE=1` writes that of the present format, which is allowed only until a version
//! with it is released. `tests/store/fixture.rs` has each kind of record.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use mqtt_protocol_core::mqtt::packet::{Property, SessionExpiryInterval};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::wakes::{config, start, webhook};
use crate::world::mqtt::{Hello, Mqtt, PUBACK};
use crate::world::provider::Provider;
use crate::world::{Answer, Gateway, PATIENCE, delete, get, head, post, put, send_signal};

/// The formats of the log with a fixture.
const FORMATS: [u32; 1] = [3];

const STREAMS: [&str; 7] = ["values", "lines", "bytes", "closed", "fork", "rooms/1", "bounded"];

const SUBSCRIPTION: &str = "/v1/stream/__ds/subscriptions/jobs";

/// Header fields that describe a stream and its offsets.
const FIELDS: [&str; 7] = [
    "content-type",
    "stream-next-offset",
    "stream-earliest-offset",
    "stream-closed",
    "stream-expires-at",
    "stream-max-messages",
    "stream-max-bytes",
];

fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/store/fixtures/gateway-format-{format}"))
}

/// A client whose session lasts as long as the gateway allows.
fn ada() -> Hello {
    let expiry = SessionExpiryInterval::new(u32::MAX).unwrap();
    Hello { clean: false, ..Hello::new("ada") }.with(Property::from(expiry))
}

/// Stores something of each kind.
async fn fill(gateway: &Gateway) {
    gateway.send(put("/v1/stream/values").json(r#"[1,null,{"a": "b"}]"#)).await.expect(201);
    gateway
        .send(put("/v1/stream/lines").header("stream-expires-at", "2099-01-01T00:00:00Z").text("ä\nb"))
        .await
        .expect(201);
    gateway.send(put("/v1/stream/bytes").body(vec![0u8, 255])).await.expect(201);
    gateway.send(put("/v1/stream/closed").header("stream-closed", "true").json("[7]")).await.expect(201);
    let fork = put("/v1/stream/fork").header("stream-forked-from", "/v1/stream/values");
    gateway.send(fork).await.expect(201);
    gateway.send(post("/v1/stream/fork").json("[\"own\"]")).await.expect(204);
    gateway
        .send(put("/v1/stream/bounded").header("stream-max-messages", 2).json("[1,2,3]"))
        .await
        .expect(201);
    gateway.send(put("/v1/stream/deleted").json("[1]")).await.expect(201);
    gateway.send(delete("/v1/stream/deleted")).await.expect(204);
    for sequence in 0..2 {
        gateway.send(produced(sequence)).await.expect(200);
    }
    let mut subscriber = Mqtt::connect(gateway.mqtt, &ada()).await;
    assert_eq!(subscriber.subscribe("rooms/+", 1).await, 1);
    subscriber.disconnect(0).await;
    let mut publisher = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    publisher.publish_with("rooms/1", b"kept", 1, true, Vec::new()).await;
    publisher.publish("rooms/1", b"", 1).await;
    publisher.publish("rooms/1", b"missed", 2).await;
    let device = json!({"streams": {"values": null}, "channels": [{"app": "push", "credential": "token-1"}]});
    gateway.send(put("/v1/devices/phone").json(device)).await.expect(201);
    gateway.send(put("/v1/stream/wakes").json("[]")).await.expect(201);
    let pull = json!({"type": "pull-wake", "pattern": "values", "wake_stream": "wakes"});
    gateway.send(put(SUBSCRIPTION).json(pull)).await.expect(201);
}

/// An append of a producer, to the stream `values`.
fn produced(sequence: u64) -> crate::world::Request {
    let append = post("/v1/stream/values").header("producer-id", "p").header("producer-epoch", 0);
    append.header("producer-seq", sequence).json(format!("[\"p{sequence}\"]"))
}

/// What the gateway tells about everything that [`fill`] has stored.
async fn answers(gateway: &Gateway) -> Value {
    let mut answers = serde_json::Map::new();
    let shown = |answer: &Answer| {
        let fields = FIELDS.iter().map(|field| (*field, answer.header(field)));
        let fields: serde_json::Map<_, _> = fields
            .filter(|(_, value)| !value.is_empty())
            .map(|(field, value)| (field.to_owned(), value.into()))
            .collect();
        json!({"status": answer.status.as_u16(), "fields": fields, "body": format!("{:?}", answer.body)})
    };
    for stream in STREAMS.into_iter().chain(["deleted", "wakes"]) {
        let path = format!("/v1/stream/{stream}");
        answers.insert(format!("GET {stream}"), shown(&gateway.send(get(format!("{path}?offset=-1"))).await));
        answers.insert(format!("HEAD {stream}"), shown(&gateway.send(head(path)).await));
    }
    for path in ["/v1/devices/phone", SUBSCRIPTION] {
        let mut told = gateway.send(get(path)).await.expect(200).json();
        // As a time of day it follows the clock, which the copy of a fixture sets.
        told.as_object_mut().unwrap().remove("expires_at");
        answers.insert(format!("GET {path}"), told);
    }
    Value::Object(answers)
}

/// Copies a fixture, as if the gateway that wrote it had ended just now.
fn copy_of(format: u32, to: &Path) {
    std::fs::set_permissions(to, Permissions::from_mode(0o700)).unwrap();
    for file in std::fs::read_dir(fixture(format)).unwrap().map(|file| file.unwrap()) {
        let copy = to.join(file.file_name());
        std::fs::copy(file.path(), &copy).unwrap();
        std::fs::set_permissions(copy, Permissions::from_mode(0o600)).unwrap();
    }
    let clock = to.join("clock");
    let mut reading: Value = serde_json::from_slice(&std::fs::read(&clock).unwrap()).unwrap();
    reading["wall"] = Timestamp::now().as_millisecond().into();
    reading["boot"] = Value::Null;
    std::fs::write(&clock, reading.to_string()).unwrap();
}

async fn write() {
    let (folder, store, provider) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Provider::start().await);
    let place = store.path().to_str().unwrap();
    let arguments = config(folder.path(), &webhook("push", &provider));
    let mut gateway = start(&arguments, &["--store", place]).await;
    fill(&gateway).await;
    let told = answers(&gateway).await;
    send_signal(gateway.id(), Signal::TERM);
    gateway.ended(PATIENCE).await;
    let log = std::fs::read(store.path().join("0000000001.log")).unwrap();
    let to = fixture(u32::from_le_bytes(log[8..12].try_into().unwrap()));
    std::fs::create_dir_all(&to).unwrap();
    let used = log.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    std::fs::write(to.join("0000000001.log"), &log[..used.next_multiple_of(4096)]).unwrap();
    std::fs::copy(store.path().join("clock"), to.join("clock")).unwrap();
    std::fs::write(to.join("answers.json"), serde_json::to_string_pretty(&told).unwrap()).unwrap();
}

#[tokio::test]
async fn a_gateway_serves_what_an_earlier_one_has_stored() {
    if std::env::var_os("WRITE_FIXTURE").is_some() {
        write().await;
    }
    for format in FORMATS {
        serve(format).await;
    }
}

async fn serve(format: u32) {
    let (folder, store, provider) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Provider::start().await);
    copy_of(format, store.path());
    let place = store.path().to_str().unwrap();
    let gateway = start(&config(folder.path(), &webhook("push", &provider)), &["--store", place]).await;
    let told: Value =
        serde_json::from_slice(&std::fs::read(fixture(format).join("answers.json")).unwrap()).unwrap();
    let now = answers(&gateway).await;
    for (request, answer) in told.as_object().unwrap() {
        assert_eq!(&now[request], answer, "format {format}: {request}");
    }
    let mut ada = Mqtt::connect(gateway.mqtt, &ada()).await;
    assert!(ada.connack.0, "format {format}: the session is present");
    for expected in ["kept", "", "missed"] {
        let message = ada.message().await;
        assert_eq!((&*message.topic, &*message.payload), ("rooms/1", expected.as_bytes()), "format {format}");
        ada.acknowledge(PUBACK, message.id).await;
    }
    let mut new = Mqtt::connect(gateway.mqtt, &Hello::new("new")).await;
    new.subscribe("rooms/+", 0).await;
    let retained = new.message().await;
    assert_eq!((&*retained.payload, retained.retain), (&b"kept"[..], true), "format {format}");
    // The producer goes on where it was.
    let tail = gateway.send(produced(1)).await.expect(204).next_offset();
    assert_eq!(tail, told["GET values"]["fields"]["stream-next-offset"]);
    gateway.send(produced(3)).await.expect(409);
    gateway.send(produced(2)).await.expect(200);
    assert!(gateway.send(get(format!("/v1/stream/values?offset={tail}"))).await.text().contains("p2"));
}

#[tokio::test]
async fn a_store_of_a_later_format_is_refused_in_one_sentence() {
    let store = tempfile::tempdir().unwrap();
    let latest = FORMATS[FORMATS.len() - 1];
    copy_of(latest, store.path());
    let log = store.path().join("0000000001.log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[8..12].copy_from_slice(&(latest + 1).to_le_bytes());
    let sum = crc32c::crc32c(&bytes[..16]).to_le_bytes();
    bytes[16..20].copy_from_slice(&sum);
    std::fs::write(&log, &bytes).unwrap();
    let place = store.path().to_str().unwrap();
    for words in [
        vec!["--store", place, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--mqtt", "off"],
        vec!["store", "check", place],
    ] {
        let ended = Command::new(env!("CARGO_BIN_EXE_pollgate")).args(words).output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), told.lines().count()), (Some(1), 1), "{told}");
        assert!(
            told.contains(&format!("format {}", latest + 1)) && told.contains("install the version"),
            "{told}"
        );
    }
    assert_eq!(std::fs::read(&log).unwrap(), bytes, "nothing was changed");
}
