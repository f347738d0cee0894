//! The store on disk for operators: check, export, import, and directories that cannot be opened.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::world::mqtt::{Hello, Mqtt};
use crate::world::{Connection, Gateway, Raw, delete, get, head, post, put, until};

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs `pollgate store` with the given standard input.
fn store(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pollgate"))
        .arg("store")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails early does not read its input.
    let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The content of the streams of these tests, as readers get it.
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
async fn writes_are_counted_under_each_sync_policy() {
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
    assert_eq!((code, lines.lines().count()), (Some(0), 13), "{lines}{told}");
    assert!(lines.ends_with("{\"end\":true,\"streams\":5,\"messages\":7}\n"), "{lines}");
    let (code, _, told) = said(&store(&["import", text(there.path())], &lines));
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("imported 5 streams and 7 messages"), "{told}");
    let (_, again, _) = said(&store(&["export", text(there.path())], ""));
    assert_eq!(again, lines, "an export of the import is the same");
    let (code, _, told) = said(&store(&["import", text(there.path())], &lines));
    assert_eq!(code, Some(1));
    assert!(told.contains("line 1: the stream exists already; nothing was imported"), "{told}");

    let gateway = Gateway::start(&["--store", text(there.path())]).await;
    assert_eq!(found(&gateway).await, before);
    let mut mqtt = Mqtt::connect(gateway.mqtt, &Hello::new("subscriber")).await;
    mqtt.subscribe("rooms/+", 1).await;
    assert_eq!(mqtt.take().await.payload, &b"kept"[..]);
}

/// Progress is shown on a terminal, which `script` provides; nothing but the result is written to a pipe.
#[tokio::test]
async fn long_commands_show_their_progress_on_a_terminal_only() {
    let (directory, files) = (self::directory(), self::directory());
    let gateway = Gateway::start(&["--store", text(directory.path())]).await;
    gateway.send(put("/v1/stream/values").json("[1,2]")).await.expect(201);
    gateway.kill().await;
    let (place, made, there) =
        (text(directory.path()), files.path().join("made"), files.path().join("there"));
    for (words, shown, result) in [
        (vec!["export", place, text(&made)], "exporting", "exported 1 streams and 2 messages"),
        (vec!["import", text(&there), text(&made)], "importing", "imported 1 streams and 2 messages"),
        (vec!["check", place], "reading the store", "all records are whole"),
    ] {
        let command = format!("{} store {}", env!("CARGO_BIN_EXE_pollgate"), words.join(" "));
        let on_terminal = Command::new("script").args(["-qec", &command, "/dev/null"]).output().unwrap();
        let (code, seen, _) = said(&on_terminal);
        assert_eq!(code, Some(0), "{seen}");
        assert!(seen.contains(shown) && seen.contains(result), "{seen:?}");
        if words[0] == "export" {
            std::fs::remove_file(&made).unwrap();
            let (_, _, told) = said(&store(&words, ""));
            assert_eq!(told, format!("{result}\n"));
        }
    }
}

#[tokio::test]
async fn an_invalid_line_of_an_export_is_refused_with_its_number() {
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
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "a store was created");
}

#[test]
fn a_directory_with_other_files_does_not_become_a_store() {
    let directory = directory();
    let missing = directory.path().join("missing");
    std::fs::write(directory.path().join("notes.txt"), "mine").unwrap();
    for (path, words) in [(directory.path(), "it is no store"), (&missing, "no such directory")] {
        for command in ["check", "export"] {
            let (code, out, error) = said(&store(&[command, text(path)], ""));
            assert_eq!((code, out.as_str(), error.lines().count()), (Some(1), "", 1), "{command}: {error}");
            assert!(error.contains(words) && error.contains(text(path)), "{command}: {error}");
        }
    }
    let files: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["notes.txt"]);
}

#[tokio::test]
async fn an_export_that_was_cut_off_anywhere_is_refused_whole() {
    let (here, there) = (directory(), directory());
    let gateway = Gateway::start(&["--store", text(here.path())]).await;
    for stream in ["a", "b"] {
        gateway.send(post(format!("/v1/stream/{stream}?create=1")).json("[1,2,3]")).await.expect(204);
    }
    gateway.kill().await;
    let file = there.path().join("export.ndjson");
    let (code, _, told) = said(&store(&["export", text(here.path()), text(&file)], ""));
    assert_eq!((code, told.as_str()), (Some(0), "exported 2 streams and 6 messages\n"));
    let (code, _, told) = said(&store(&["export", text(here.path()), text(&file)], ""));
    assert_eq!(code, Some(1), "a file is not overwritten: {told}");
    assert!(told.contains(text(&file)), "{told}");
    let whole = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = whole.split_inclusive('\n').collect();
    let without_one = [&lines[..3], &lines[4..]].concat().concat();
    let after_end = format!("{whole}{}", lines[0]);
    let new = there.path().join("new");
    for (export, words) in [
        (lines[..5].concat(), "no line says that it is complete"),
        (lines[..5].concat()[..whole.len() / 3].to_owned(), "line "),
        (String::new(), "no line says that it is complete"),
        (without_one, "lines are missing"),
        (after_end, "a line after the end"),
    ] {
        std::fs::write(&file, &export).unwrap();
        for (from_file, input) in [(true, ""), (false, export.as_str())] {
            let mut arguments = vec!["import", text(&new)];
            arguments.extend(from_file.then_some(text(&file)));
            let (code, _, error) = said(&store(&arguments, input));
            assert_eq!((code, error.lines().count()), (Some(1), 1), "{export:?}: {error}");
            assert!(error.contains(words), "{export:?}: {error}");
            assert!(!new.exists(), "{export:?} left a store");
        }
    }
    let (code, _, told) = said(&store(&["import", text(&new)], &whole));
    assert_eq!((code, told.as_str()), (Some(0), "imported 2 streams and 6 messages\n"));
    // One of the two exists, so the other one is not imported either.
    let other = lines[..4].concat().replace("\"stream\":\"a\"", "\"stream\":\"c\"") + &lines[4..].concat();
    let (code, _, error) = said(&store(&["import", text(&new)], &other));
    assert!(code == Some(1) && error.contains("line 5: the stream exists already"), "{error}");
    let (_, checked, _) = said(&store(&["check", text(&new)], ""));
    assert!(checked.contains("2 streams, 6 messages"), "{checked}");
}

/// Appends as a producer, and checks the status.
async fn produce(gateway: &Gateway, stream: &str, epoch: u64, sequence: u64, status: u16) {
    let append = post(format!("/v1/stream/{stream}"))
        .header("Producer-Id", "machine")
        .header("Producer-Epoch", epoch)
        .header("Producer-Seq", sequence);
    gateway.send(append.json(sequence.to_string())).await.expect(status);
}

#[tokio::test]
async fn an_import_keeps_the_producers_and_forks_of_the_export() {
    let (here, there) = (directory(), directory());
    let gateway = Gateway::start(&["--store", text(here.path())]).await;
    let fork = async |source: &str, name: &str, offset: &str| {
        let fork = put(format!("/v1/stream/{name}"))
            .header("Stream-Forked-From", format!("/v1/stream/{source}"))
            .header("Stream-Fork-Offset", offset);
        gateway.send(fork.json("")).await.expect(201);
    };
    gateway.send(put("/v1/stream/z-source").json("[10,11,12]")).await.expect(201);
    let middle = gateway.send(get("/v1/stream/z-source?offset=-1")).await.expect(200).next_offset();
    gateway.send(post("/v1/stream/z-source").json("13")).await.expect(204);
    fork("z-source", "a-fork", &middle).await;
    gateway.send(post("/v1/stream/a-fork").json("[20,21]")).await.expect(204);
    let end = gateway.send(get("/v1/stream/a-fork?offset=-1")).await.expect(200).next_offset();
    fork("a-fork", "b-fork", &end).await;
    gateway.send(post("/v1/stream/b-fork").json("30")).await.expect(204);
    for sequence in 0..3 {
        produce(&gateway, "z-source", 7, sequence, 200).await;
    }
    gateway.send(put("/v1/stream/closed").json("")).await.expect(201);
    let closing = || {
        let closing =
            post("/v1/stream/closed").header("Producer-Id", "machine").header("Producer-Epoch", "1");
        closing.header("Producer-Seq", "0").header("Stream-Closed", "true").json("5")
    };
    gateway.send(closing()).await.expect(200);
    let sequenced = |sequence: &str| post("/v1/stream/b-fork").header("Stream-Seq", sequence).json("31");
    gateway.send(sequenced("m")).await.expect(204);
    let read = async |gateway: &Gateway| {
        let mut read = Vec::new();
        for stream in ["z-source", "a-fork", "b-fork", "closed"] {
            read.push(gateway.send(get(format!("/v1/stream/{stream}?offset=-1"))).await.expect(200).text());
        }
        read
    };
    let before = read(&gateway).await;
    assert_eq!(before[2], "[10,11,12,20,21,30,31]");
    // The export of the running gateway equals that of the stopped one.
    let live = gateway.ask_admin("/export").await.expect(200);
    assert_eq!(live.header("content-type"), "application/x-ndjson");
    gateway.kill().await;
    let (code, export, told) = said(&store(&["export", text(here.path())], ""));
    assert_eq!((code, told.as_str()), (Some(0), "exported 4 streams and 12 messages\n"), "{export}");
    assert_eq!(live.text(), export);

    let (code, _, told) = said(&store(&["import", text(there.path())], &export));
    assert_eq!(code, Some(0), "{told}");
    let gateway = Gateway::start(&["--store", text(there.path())]).await;
    assert_eq!(read(&gateway).await, before);
    for (epoch, sequence, status) in [(7, 2, 204), (7, 4, 409), (6, 0, 403), (7, 3, 200)] {
        produce(&gateway, "z-source", epoch, sequence, status).await;
    }
    gateway.send(closing()).await.expect(204);
    gateway.send(sequenced("l")).await.expect(409);
    // The name of a deleted source stays reserved while it has forks.
    gateway.send(delete("/v1/stream/z-source")).await.expect(204);
    gateway.send(get("/v1/stream/z-source")).await.expect(410);
    assert_eq!(gateway.send(get("/v1/stream/a-fork?offset=-1")).await.expect(200).text(), before[1]);
    gateway.kill().await;
    let (_, again, _) = said(&store(&["export", text(there.path())], ""));
    // Without its source, a fork is imported as an ordinary stream with all messages.
    assert!(again.contains("{\"end\":true,\"streams\":3,\"messages\":8}"), "{again}");
}

#[tokio::test]
async fn the_export_of_a_running_gateway_has_what_was_acknowledged_before_it() {
    let gateway = Gateway::start(&[]).await;
    let large = "x".repeat(100_000);
    for n in 0..30 {
        let target = format!("/v1/stream/s{}?create=1", n % 3);
        gateway.send(post(target).json(format!("[\"{large}\",{n}]"))).await.expect(204);
    }
    let export = gateway.ask_admin("/export").await.expect(200).text();
    assert!(export.len() > 3_000_000 && export.lines().count() == 3 + 60 + 1, "{}", export.len());
    assert_eq!(export.lines().last(), Some("{\"end\":true,\"streams\":3,\"messages\":60}"));
    // Only one export runs at a time, and a page of another site gets none.
    let admin = Connection::open(gateway.admin).await;
    let foreign = get("/export").header("Origin", "https://evil.example");
    admin.again().await.send(foreign).await.expect(403);
    let mut rebound = Raw::open(gateway.admin).await;
    rebound.send("GET /export HTTP/1.1\r\nHost: evil.example\r\n\r\n").await.unwrap();
    assert_eq!(rebound.whole_answer().await.unwrap().status, 421);
    assert!(admin.again().await.send(head("/export")).await.expect(200).body.is_empty());
    let mut slow = admin.again().await;
    let (status, _, body) = slow.begin(get("/export")).await.unwrap();
    assert_eq!(status.as_u16(), 200);
    admin.again().await.send(get("/export")).await.expect(503);
    drop((body, slow));
    until("the next one may run", async || gateway.ask_admin("/export").await.status == 200).await;
}

#[tokio::test]
async fn the_bytes_in_use_count_retained_messages_only() {
    let directory = directory();
    let gateway = Gateway::start(&["--store", text(directory.path())]).await;
    let live = async || gateway.metric("pollgate_store_live_bytes").await;
    let message = format!("\"{}\"", "x".repeat(99_998));
    for _ in 0..10 {
        gateway.send(post("/v1/stream/s?create=1").json(&*message)).await.expect(204);
    }
    until("all are counted", async || live().await >= 1_000_000.0).await;
    assert!(live().await < 1_010_000.0, "{}", live().await);
    assert!(gateway.metric("pollgate_store_size_bytes").await >= live().await);
    gateway.send(delete("/v1/stream/s")).await.expect(204);
    until("nothing is in use", async || live().await < 10_000.0).await;
}

/// Damages the stored append that contains `word`.
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
    assert_eq!((code, lines.lines().count()), (Some(0), 7), "{lines}{told}");
}

/// `CATCH_UP_MIB` sets the size; the default is four times the cache of the newest messages.
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
    // The first read is a warm-up.
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
