//! The store on disk as an operator meets it: check, export, import, and a directory that cannot be opened.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::world::mqtt::{Hello, Mqtt};
use crate::world::{Gateway, get, post, put};

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs `pollgate store`, with something on its standard input.
fn store(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pollgate"))
        .arg("store")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that fails early does not read it.
    let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// What readers find in the streams of these tests.
async fn found(gateway: &Gateway) -> Vec<(u16, String, String)> {
    let mut found = Vec::new();
    for stream in ["values", "lines", "bytes", "closed"] {
        let answer = gateway.send(get(format!("/v1/stream/{stream}?offset=-1"))).await;
        found.push((
            answer.status.as_u16(),
            answer.header("content-type").to_owned(),
            format!("{:?} {}", answer.body, answer.says_close()),
        ));
    }
    found
}

#[tokio::test]
async fn what_is_written_is_counted_whenever_it_is_synced() {
    for sync in ["always", "interval:1h", "never"] {
        let directory = directory();
        let gateway = Gateway::start(&["--store", text(directory.path()), "--sync", sync]).await;
        let before = gateway.metric("pollgate_store_written_bytes_total").await;
        gateway
            .send(post("/v1/stream/s?create=1").json(format!("\"{}\"", "x".repeat(10_000))))
            .await
            .expect(204);
        let written = gateway.metric("pollgate_store_written_bytes_total").await - before;
        assert!((10_000.0..20_000.0).contains(&written), "{sync}: {written}");
        assert_eq!(gateway.metric("pollgate_store_group_changes_sum").await, 1.0, "{sync}");
    }
}

#[tokio::test]
async fn an_export_makes_the_same_streams_elsewhere() {
    let (here, there) = (directory(), directory());
    let gateway = Gateway::start(&["--store", text(here.path())]).await;
    gateway.send(post("/v1/stream/values?create=1").json(r#"[1,null,{"a": "b"}]"#)).await.expect(204);
    gateway.send(put("/v1/stream/lines").header("Content-Type", "text/plain").body("ä\nb")).await.expect(201);
    let bytes = put("/v1/stream/bytes").header("Stream-Max-Messages", 2).body(vec![0u8, 255]);
    gateway.send(bytes).await.expect(201);
    let closed = put("/v1/stream/closed").header("Stream-Closed", "true").json("[7]");
    gateway.send(closed).await.expect(201);
    let mut mqtt = Mqtt::connect(gateway.mqtt, &Hello::new("publisher")).await;
    mqtt.publish_with("rooms/1", b"kept", 1, true, Vec::new()).await;
    let before = found(&gateway).await;
    for (metric, least) in [
        ("pollgate_store_sync_seconds_count", 5.0),
        ("pollgate_store_group_changes_sum", 5.0),
        ("pollgate_store_written_bytes_total", 100.0),
        ("pollgate_store_reads_from_memory_total", 4.0),
        ("pollgate_store_opened_seconds", f64::MIN_POSITIVE),
    ] {
        let value = gateway.metric(metric).await;
        assert!(value >= least, "{metric} {value}");
    }

    let (code, _, error) = said(&store(&["export", text(here.path())], ""));
    assert_eq!((code, error.lines().count()), (Some(1), 1), "{error}");
    assert!(error.contains("in use"), "{error}");
    gateway.kill().await;

    let (code, checked, _) = said(&store(&["check", text(here.path())], ""));
    assert_eq!(code, Some(0), "{checked}");
    assert!(
        checked.contains("5 streams, 7 messages") && checked.contains("all records are whole"),
        "{checked}"
    );
    let (code, lines, told) = said(&store(&["export", text(here.path())], ""));
    assert_eq!((code, lines.lines().count()), (Some(0), 12), "{lines}{told}");
    let (code, _, told) = said(&store(&["import", text(there.path())], &lines));
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("imported 5 streams, 7 messages"), "{told}");
    let (_, again, _) = said(&store(&["export", text(there.path())], ""));
    assert_eq!(again, lines, "an export of the import is the same");
    let (code, _, told) = said(&store(&["import", text(there.path())], &lines));
    assert_eq!(code, Some(1));
    assert!(told.contains("line 1: the stream exists already"), "{told}");

    let gateway = Gateway::start(&["--store", text(there.path())]).await;
    assert_eq!(found(&gateway).await, before);
    let mut mqtt = Mqtt::connect(gateway.mqtt, &Hello::new("subscriber")).await;
    mqtt.subscribe("rooms/+", 1).await;
    assert_eq!(mqtt.take().await.payload, &b"kept"[..]);
}

#[tokio::test]
async fn a_line_that_is_no_export_is_refused_with_its_number() {
    let directory = directory();
    let stream = r#"{"stream":"s","contentType":"application/json"}"#;
    for (lines, words) in [
        (r#"{"at":"2026-01-01T00:00:00Z","json":1}"#.to_owned(), "line 1: a message without a stream"),
        (format!("{stream}\n{{"), "line 2: not a line of an export"),
        (
            format!("{}\n{{\"at\":\"2026-01-01T00:00:00Z\"}}", stream.replace("\"s\"", "\"t\"")),
            "line 2: the content",
        ),
        (stream.replace("\"s\"", "\"a//b\""), "line 1: a stream name"),
        (stream.replace("application/json", "json"), "line 1: a content type"),
    ] {
        let (code, _, error) = said(&store(&["import", text(directory.path())], &lines));
        assert_eq!(code, Some(1), "{lines}");
        assert!(error.contains(words), "{error}");
    }
}

/// Alters the content of the append that has `word`.
fn damage(directory: &Path, word: &str) {
    let log = directory.join("0000000001.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let at = bytes.windows(word.len()).position(|window| window == word.as_bytes()).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&log, bytes).unwrap();
}

#[tokio::test]
async fn damage_is_told_and_has_to_be_accepted_once() {
    let directory = directory();
    let arguments = ["--store", text(directory.path())];
    let gateway = Gateway::start(&arguments).await;
    for word in ["zero", "one", "two", "three"] {
        gateway.send(post("/v1/stream/s?create=1").json(format!("{word:?}"))).await.expect(204);
    }
    gateway.send(post("/v1/stream/other?create=1").json("5")).await.expect(204);
    assert_eq!(gateway.ask_admin("/ready").await.text(), "ready\n");
    gateway.kill().await;
    damage(directory.path(), "two");

    let (code, checked, _) = said(&store(&["check", text(directory.path())], ""));
    assert_eq!(code, Some(1), "{checked}");
    assert!(checked.contains("damaged: 0000000001.log, "), "{checked}");
    assert!(checked.contains("lost: s: at most 1 messages from "), "{checked}");
    assert!(Gateway::start_under(&[], &arguments).await.is_err_and(|status| !status.success()));
    let (code, _, error) = said(&store(&["export", text(directory.path())], ""));
    assert_eq!((code, error.lines().count()), (Some(1), 1), "{error}");
    assert!(error.contains("lost: s: at most 1") && error.contains("--accept-damage"), "{error}");
    let accepting = [&arguments[..], &["--accept-damage"]].concat();
    for arguments in [&accepting[..], &arguments] {
        let gateway = Gateway::start(arguments).await;
        let before = gateway.send(get("/v1/stream/s?offset=-1")).await.expect(200);
        assert_eq!(before.text(), r#"["zero","one"]"#);
        let hole = before.next_offset();
        for live in ["", "&live=long-poll", "&live=sse"] {
            let gap = gateway.send(get(format!("/v1/stream/s?offset={hole}{live}"))).await.expect(410);
            assert_eq!(gap.header("stream-gap"), "reason=damaged; missed=1");
            let next = gap.header("stream-earliest-offset");
            let behind = gateway.send(get(format!("/v1/stream/s?offset={next}"))).await.expect(200);
            assert_eq!(behind.text(), r#"["three"]"#);
        }
        assert_eq!(gateway.send(get("/v1/stream/other?offset=-1")).await.text(), "[5]");
        let ready = gateway.ask_admin("/ready").await.expect(200);
        assert!(ready.text().contains("damaged"), "{ready:?}");
        assert!(gateway.metric("pollgate_store_damaged_bytes").await > 10.0);
        gateway.kill().await;
    }
    let (code, lines, told) = said(&store(&["export", text(directory.path())], ""));
    assert_eq!((code, lines.lines().count()), (Some(0), 6), "{lines}{told}");
}

/// `CATCH_UP_MIB=1024` reads so much; the default is four times what is kept in memory of the newest messages.
#[tokio::test]
async fn a_reader_that_catches_up_from_the_beginning_costs_no_memory() {
    let mebibytes = std::env::var("CATCH_UP_MIB").map_or(256, |count| count.parse().unwrap());
    let directory = directory();
    let arguments = ["--store", text(directory.path()), "--sync", "never"];
    let gateway = Gateway::start(&arguments).await;
    let mut publisher = gateway.connect().await;
    for n in 0..mebibytes {
        let message = vec![b'a' + (n % 26) as u8; 1 << 20];
        let target = "/v1/stream/large?create=1";
        publisher.send(post(target).header("Content-Type", "text/plain").body(message)).await.expect(204);
    }
    drop(publisher);
    gateway.kill().await;
    let gateway = Gateway::start(&arguments).await;
    let mut reader = gateway.connect().await;
    let (mut offset, mut read, mut most) = ("-1".to_owned(), 0, 0);
    // The first read warms up.
    let mut before = None;
    loop {
        let answer = reader.send(get(format!("/v1/stream/large?offset={offset}"))).await.expect(200);
        let expected = b'a' + (read / (1 << 20) % 26) as u8;
        assert!(answer.body.iter().all(|byte| *byte == expected), "at {read}");
        read += answer.body.len();
        offset = answer.next_offset();
        let memory = gateway.memory_bytes();
        most = most.max(memory.saturating_sub(*before.get_or_insert(memory)));
        if answer.header("stream-up-to-date") == "true" {
            break;
        }
    }
    assert_eq!(read, mebibytes << 20);
    println!("{mebibytes} MiB read from disk: {} KiB more memory at the most", most >> 10);
    assert!(most < 16 << 20, "{most} bytes");
}
