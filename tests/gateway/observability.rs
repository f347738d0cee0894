//! What an operator sees: metrics, readiness, the log.

use crate::world::{Gateway, get, post, put};

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
        ("pollgate_requests_total{form=\"Create\",status=\"201\"}", 1.0),
        ("pollgate_requests_total{form=\"ShortPoll\",status=\"200\"}", 1.0),
        ("pollgate_requests_total{form=\"ShortPoll\",status=\"404\"}", 1.0),
        ("pollgate_requests_total{form=\"LongPoll\",status=\"200\"}", 1.0),
        ("pollgate_requests_total{form=\"Append\",status=\"204\"}", 1.0),
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
