//! Observability for operators: metrics, readiness, the log.

use crate::world::{Connection, Gateway, Raw, get, post, put, until};

#[tokio::test]
async fn metrics_count_requests_messages_holds_and_waiters() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("[1,2]")).await.expect(201);
    gateway.send(get("/v1/stream/s")).await.expect(200);
    gateway.send(get("/v1/stream/none")).await.expect(404);
    let mut connection = gateway.connect().await;
    let poll =
        tokio::spawn(async move { connection.send(get("/v1/stream/s?live=long-poll&offset=now")).await });
    gateway.until_held(1).await;
    assert_eq!(gateway.metric("pollgate_watched_streams").await, 1.0);
    gateway.send(post("/v1/stream/s").json("3")).await.expect(204);
    poll.await.unwrap().expect(200);

    for (metric, value) in [
        ("pollgate_requests_total{form=\"create\",status=\"201\"}", 1.0),
        ("pollgate_requests_total{form=\"short-poll\",status=\"200\"}", 1.0),
        ("pollgate_requests_total{form=\"short-poll\",status=\"404\"}", 1.0),
        ("pollgate_requests_total{form=\"long-poll\",status=\"200\"}", 1.0),
        ("pollgate_requests_total{form=\"append\",status=\"204\"}", 1.0),
        ("pollgate_messages_total{kind=\"in\"}", 3.0),
        ("pollgate_messages_total{kind=\"out\"}", 3.0),
        ("pollgate_message_bytes_total{kind=\"in\"}", 4.0),
        ("pollgate_hold_seconds_count", 1.0),
        ("pollgate_publish_to_answer_seconds_count", 1.0),
        ("pollgate_held_polls", 0.0),
        ("pollgate_waiters", 0.0),
        ("pollgate_streams", 1.0),
    ] {
        assert_eq!(gateway.metric(metric).await, value, "{metric}");
    }
    let latency = gateway.metric("pollgate_publish_to_answer_seconds_sum").await;
    assert!(latency > 0.0 && latency < 1.0, "{latency}");
    assert!(gateway.metric("pollgate_connections").await >= 1.0);
}

#[tokio::test]
async fn each_metric_has_a_help_and_the_process_and_its_version_are_among_them() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(get("/v1/stream/s?live=long-poll&offset=-1")).await.expect(404);
    let text = gateway.ask_admin("/metrics").await.expect(200).text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for name in types {
        let help = format!("# HELP {name} ");
        let help = text.lines().find_map(|line| line.strip_prefix(&help)).unwrap_or_else(|| panic!("{name}"));
        assert!(help.len() > 10 && help.ends_with('.') && !help.ends_with(".."), "{name}: {help}");
    }
    assert!(
        text.contains(&format!("pollgate_build_info{{version=\"{}\",", env!("CARGO_PKG_VERSION"))),
        "{text}"
    );
    assert!(text.contains("{form=\"long-poll\",status=\"404\"} 1\n"), "{text}");
    for (metric, least, most) in [
        ("process_cpu_seconds_total", 0.001, 60.0),
        ("process_resident_memory_bytes", 1e6, 1e10),
        ("process_virtual_memory_bytes", 1e6, 1e14),
        ("process_threads", 2.0, 1e4),
        ("process_open_fds", 8.0, 1e4),
        ("process_max_fds", 8.0, 1e10),
        ("process_start_time_seconds", 1.7e9, 1e10),
    ] {
        let value = gateway.metric(metric).await;
        assert!((least..=most).contains(&value), "{metric} {value}");
    }
}

#[tokio::test]
async fn an_unknown_parameter_is_named_in_a_warning() {
    let gateway = Gateway::start(&[]).await;
    let warning = async |request| gateway.send(request).await.header("stream-warning").to_owned();
    assert_eq!(
        warning(put("/v1/stream/s?retain=1").json("[1]")).await,
        "unknown query parameters are ignored: retain"
    );
    for target in ["?offset=-1", "?offset=now&live=long-poll&timeout=0", "?offset=-1&live=long-poll"] {
        assert_eq!(warning(get(format!("/v1/stream/s{target}"))).await, "", "{target}");
        let named = warning(get(format!("/v1/stream/s{target}&ofset=3&timout=1"))).await;
        assert_eq!(named, "unknown query parameters are ignored: ofset, timout", "{target}");
    }
    let append = warning(post("/v1/stream/s?crate=1").json("2")).await;
    assert_eq!(append, "unknown query parameters are ignored: crate");
    assert_eq!(warning(get("/pollgate.js?version=3")).await, "");
    // Readers that share the bytes of a response still get their own header fields.
    let tail = gateway.send(get("/v1/stream/s?offset=-1")).await.next_offset();
    let poll = |more: &str| {
        let target = format!("/v1/stream/s?live=long-poll&offset={tail}{more}");
        let address = gateway.address;
        tokio::spawn(async move { Connection::open(address).await.send(get(target)).await.expect(200) })
    };
    let polls = [poll(""), poll("&ofset=3"), poll("")];
    gateway.until_held(3).await;
    gateway.send(post("/v1/stream/s").json("3")).await.expect(204);
    let mut warnings = Vec::new();
    for poll in polls {
        let answer = poll.await.unwrap();
        assert_eq!(answer.text(), "[3]");
        warnings.push(answer.header("stream-warning").to_owned());
    }
    assert_eq!(warnings, ["", "unknown query parameters are ignored: ofset", ""]);
}

#[tokio::test]
async fn the_access_log_has_a_line_for_each_request_with_its_client_and_its_end() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("access.log");
    let mut gateway =
        Gateway::start(&["--access-log", path.to_str().unwrap(), "--limit", "drain_spread=50ms"]).await;
    gateway.send(put("/v1/stream/s").json("[1,2]")).await.expect(201);
    gateway.send(get("/v1/stream/s?offset=-1")).await.expect(200);
    gateway.send(get("/v1/stream/s?live=long-poll&offset=now&timeout=1&client=phone")).await.expect(204);
    let mut events = gateway.connect().await.events("/v1/stream/s?offset=-1&live=sse").await;
    let data = events.next().await.unwrap();
    drop(events);
    until("the reader has left", async || {
        gateway.metric("pollgate_live_connections{form=\"sse\"}").await == 0.0
    })
    .await;
    let mut poll = Raw::open(gateway.address).await;
    poll.get("/v1/stream/s?live=long-poll&offset=now").await.unwrap();
    gateway.until_held(1).await;
    poll.reset();
    gateway.until_held(0).await;
    gateway.ask_admin("/live").await.expect(200);
    gateway.signal("TERM");
    assert!(gateway.ended(crate::world::PATIENCE).await.success());
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> = lines.iter().map(|line| (line["form"].as_str().unwrap(), &line["status"])).collect();
    let (created, found, nothing, reset) = (201.into(), 200.into(), 204.into(), serde_json::Value::Null);
    let expected = [
        ("create", &created),
        ("short-poll", &found),
        ("long-poll", &nothing),
        ("sse", &found),
        ("long-poll", &reset),
    ];
    assert_eq!(seen, expected, "{text}");
    assert_eq!((&lines[1]["method"], &lines[1]["path"]), (&"GET".into(), &"/v1/stream/s?offset=-1".into()));
    assert_eq!(lines[1]["bytes"], "[1,2]".len());
    assert!(lines[1]["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{text}");
    assert_eq!(lines[2]["client"], "phone");
    assert!(lines[2]["held_ms"].as_u64().unwrap() >= 900, "{text}");
    assert!(lines[3]["bytes"].as_u64().unwrap() as usize > data.data.len(), "{text}");
}

#[tokio::test]
async fn the_admin_listener_answers_operators_and_nobody_else() {
    let gateway = Gateway::start(&[]).await;
    assert_eq!(gateway.ask_admin("/live").await.expect(200).text(), "live\n");
    assert_eq!(gateway.ask_admin("/ready").await.expect(200).text(), "ready\n");
    assert_eq!(gateway.ask_admin("/clients").await.expect(200).text(), "[]\n");
    let metrics = gateway.ask_admin("/metrics").await.expect(200);
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    assert!(metrics.text().ends_with("# EOF\n"));
    for stalls in ["pollgate_stall_seconds_count ", "pollgate_stall_longest_seconds "] {
        assert!(metrics.text().contains(stalls), "{stalls}");
    }
    assert!(gateway.longest_stall().await.as_secs() < 60);
    gateway.ask_admin("/v1/stream/s").await.expect(404);
    assert_eq!(gateway.send(get("/metrics")).await.expect(404).problem(), "no-such-path");
}

#[tokio::test]
async fn each_request_leaves_a_line_in_a_log_that_asks_for_it() {
    let gateway = Gateway::start_with(&["--log", "json"], &[("RUST_LOG", "pollgate=debug")]).await;
    gateway.send(put("/v1/stream/s").json("[1]")).await.expect(201);
    gateway.send(get("/v1/stream/s?live=long-poll&offset=now&timeout=0&client=phone")).await.expect(204);
    let line = |form: &str| {
        let text = gateway.log();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.into_iter().find(|line| line["span"]["form"] == form)
    };
    crate::world::until("the poll is logged", async || line("long-poll").is_some()).await;
    let poll = line("long-poll").unwrap();
    assert_eq!((&poll["span"]["stream"], &poll["span"]["client"]), (&"s".into(), &"phone".into()));
    assert_eq!((&poll["fields"]["status"], &poll["fields"]["message"]), (&204.into(), &"answered".into()));
    assert!(poll["fields"]["held_ms"].is_u64());
}

/// Metrics by labels that appear with their first event.
const WITH_FIRST_EVENT: [&str; 2] = ["pollgate_engine_failures_total", "pollgate_wakes_total"];

/// The Grafana dashboard and the alert rules use no metric that the gateway does not have.
#[tokio::test]
async fn the_metrics_of_the_alerts_and_of_the_dashboard_of_grafana_exist() {
    let gateway = Gateway::start(&[]).await;
    let text = gateway.ask_admin("/metrics").await.expect(200).text();
    let known: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let is_word = |one: char| one.is_ascii_alphanumeric() || one == '_';
    let mut found = 0;
    for file in [include_str!("../../packaging/alerts.yml"), include_str!("../../packaging/grafana.json")] {
        for name in file.split(|one| !is_word(one)).filter(|word| word.starts_with("pollgate_")) {
            let has = |metric: &str, kind: &str| {
                let suffixes: &[&str] = match kind {
                    "counter" => &["_total"],
                    "histogram" => &["_bucket", "_sum", "_count"],
                    "info" => &["_info"],
                    _ => &[""],
                };
                name.strip_prefix(metric).is_some_and(|suffix| suffixes.contains(&suffix))
            };
            let is_known = known.iter().any(|(metric, kind)| has(metric, kind));
            assert!(is_known || WITH_FIRST_EVENT.contains(&name), "{name}");
            found += 1;
        }
    }
    assert!(found > 30, "{found}");
}
