//! A browser's `EventSource` reconnects by itself with the id of the last event that it received, always to the same URL.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::world::{Events, Gateway, get, post, put};

/// The state of a browser's subscription: its URL, and the id of the last event.
struct EventSource<'a> {
    gateway: &'a Gateway,
    url: String,
    last_event_id: String,
    connections: usize,
}

impl<'a> EventSource<'a> {
    fn new(gateway: &'a Gateway, url: impl Into<String>) -> Self {
        Self { gateway, url: url.into(), last_event_id: String::new(), connections: 0 }
    }

    async fn connect(&mut self) -> Events {
        self.connections += 1;
        let request = match self.last_event_id.as_str() {
            "" => get(&self.url),
            id => get(&self.url).header("last-event-id", id),
        };
        self.gateway.connect().await.events_of(request).await
    }

    /// Reads until `is_enough`; reconnects whenever a response ends.
    async fn read_until(&mut self, mut take: impl FnMut(&str, &str) -> bool) {
        loop {
            let mut events = self.connect().await;
            while let Some(event) = events.next().await {
                self.last_event_id = events.last_event_id().to_owned();
                if take(&event.name, &event.data) {
                    return;
                }
            }
        }
    }
}

const SHORT_LIFE: &[&str] = &["--limit", "live_life=40ms"];

fn numbers(data: &Value) -> impl Iterator<Item = u64> {
    data.as_array().expect("an array").iter().map(|number| number.as_u64().expect("a number"))
}

/// Appends 0, 1, 2, ... to `streams` streams, round robin.
async fn append(gateway: &Gateway, streams: usize, count: u64) {
    let mut publisher = gateway.connect().await;
    for number in 0..count {
        let stream = number as usize % streams;
        publisher.send(post(format!("/v1/stream/s{stream}?create=1")).json(number)).await.expect(204);
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_reader_of_one_stream_loses_and_repeats_nothing_while_its_connections_end() {
    let gateway = Gateway::start(SHORT_LIFE).await;
    gateway.send(put("/v1/stream/s0").json("")).await.expect(201);
    for offset in ["now", "-1"] {
        let (count, mut seen) = (300, Vec::new());
        let mut source = EventSource::new(&gateway, format!("/v1/stream/s0?offset={offset}&live=sse"));
        let mut is_open = false;
        // The position of `now` is known once the first event has come.
        source.read_until(|_, _| !std::mem::replace(&mut is_open, true)).await;
        let read = source.read_until(|name, data| {
            if name == "data" {
                seen.extend(numbers(&serde_json::from_str(data).expect("JSON")));
            }
            seen.len() as u64 >= count
        });
        tokio::join!(append(&gateway, 1, count), read);
        assert_eq!(seen, (0..count).collect::<Vec<_>>(), "{offset}");
        assert!(source.connections > 3, "{offset}: {} connections", source.connections);
        gateway.send(crate::world::delete("/v1/stream/s0")).await.expect(204);
        gateway.send(put("/v1/stream/s0").json("")).await.expect(201);
    }
}

#[tokio::test]
async fn a_reader_of_many_streams_loses_and_repeats_nothing_while_its_connections_end() {
    let gateway = Gateway::start(SHORT_LIFE).await;
    // The position over a hundred streams is too long to be the id of each event.
    for streams in [3, 100] {
        let query: Vec<_> = (0..streams).map(|stream| format!("stream=s{stream}")).collect();
        let url = format!("/v1/streams?{}&live=sse", query.join("&"));
        let (count, mut seen) = (300, Vec::new());
        let mut source = EventSource::new(&gateway, url);
        source.read_until(|_, _| true).await;
        let read = source.read_until(|_, data| {
            let envelope: Value = serde_json::from_str(data).expect("JSON");
            for batch in envelope["batches"].as_array().expect("batches") {
                seen.extend(numbers(&batch["data"]));
            }
            seen.len() as u64 >= count
        });
        tokio::join!(append(&gateway, streams, count), read);
        seen.sort_unstable();
        assert_eq!(seen, (0..count).collect::<Vec<_>>(), "{streams} streams");
        assert!(source.connections > 3, "{streams} streams: {} connections", source.connections);
    }
}

#[tokio::test]
async fn the_last_event_id_takes_precedence_over_the_url() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").json("[1]")).await.expect(201);
    let behind = gateway.send(post("/v1/stream/s").json("2")).await.expect(204).next_offset();
    gateway.send(post("/v1/stream/s").json("3")).await.expect(204);
    let mut source = EventSource::new(&gateway, "/v1/stream/s?offset=-1&live=sse");
    assert_eq!(source.connect().await.data().await, "[1,2,3]");
    source.last_event_id = behind;
    assert_eq!(source.connect().await.data().await, "[3]");

    let url = "/v1/streams?stream=s&from=earliest&live=sse";
    let mut source = EventSource::new(&gateway, url);
    let mut events = source.connect().await;
    assert_eq!(events.headers["content-type"], "text/event-stream; charset=utf-8");
    assert!(events.next().await.expect("an event").data.contains("[1,2,3]"));
    source.last_event_id = events.last_event_id().to_owned();
    gateway.send(post("/v1/stream/s").json("4")).await.expect(204);
    let mut events = source.connect().await;
    assert!(events.next().await.expect("an event").data.contains("\"data\":[4]"));

    for url in [url, "/v1/stream/s?offset=-1&live=sse"] {
        let answer = gateway.send(get(url).header("last-event-id", "7")).await.expect(400);
        assert!(answer.text().contains("last-event-id"), "{answer:?}");
        // The header field of a browser that has received no event.
        let _open = gateway.connect().await.events_of(get(url).header("last-event-id", "")).await;
    }
}

#[tokio::test]
async fn a_gap_is_told_in_an_event_and_the_end_of_the_stream_ends_the_reconnecting() {
    let gateway = Gateway::start(&[]).await;
    let start = gateway.send(put("/v1/stream/s").header("stream-max-messages", 1).json("[1]")).await;
    gateway.send(post("/v1/stream/s").json("[2,3]")).await.expect(204);
    let mut source = EventSource::new(&gateway, "/v1/stream/s?offset=-1&live=sse");
    source.last_event_id = start.expect(201).next_offset();
    let mut events = source.connect().await;
    assert_eq!(events.control().await["gap"], "reason=trimmed; missed=1");
    source.last_event_id = events.last_event_id().to_owned();
    assert!(events.next().await.is_none());
    let mut events = source.connect().await;
    assert_eq!(events.data().await, "[3]");
    source.last_event_id = events.last_event_id().to_owned();

    gateway.send(post("/v1/stream/s").header("stream-closed", "true")).await.expect(204);
    let again = get(&source.url).header("last-event-id", &source.last_event_id);
    let end = gateway.send(again).await.expect(204);
    assert_eq!((end.header("stream-closed"), end.next_offset()), ("true", source.last_event_id));
    // A reader that has read nothing receives the end as an event.
    let mut events = gateway.connect().await.events("/v1/stream/s?offset=now&live=sse").await;
    assert_eq!(events.control().await["streamClosed"], true);
}

#[tokio::test]
async fn a_client_reconnects_at_once_after_a_planned_end_and_later_after_any_other() {
    let gateway = Gateway::start(&["--limit", "live_life=300ms"]).await;
    gateway.send(put("/v1/stream/s").json("[1]")).await.expect(201);
    let mut events = gateway.connect().await.events("/v1/stream/s?offset=-1&live=sse").await;
    events.data().await;
    assert!(matches!(events.retry(), Some(2000..4000)), "{:?}", events.retry());
    while events.next().await.is_some() {}
    assert!(matches!(events.retry(), Some(..500)), "{:?}", events.retry());
}

/// CR and LF in two appends are one line break, for a reader that receives each append alone and for one that reads later.
#[tokio::test]
async fn a_line_break_that_two_appends_share_is_one() {
    let gateway = Gateway::start(&[]).await;
    gateway.send(put("/v1/stream/s").text("a\r")).await.expect(201);
    let url = "/v1/stream/s?offset=-1&live=sse";
    let mut live = gateway.connect().await.events(url).await;
    assert_eq!(live.data().await, "a");
    let held = live.last_event_id().to_owned();
    live.control().await;
    let mut rest = Vec::new();
    for append in ["\nb\r", "\r", "c\r"] {
        gateway.send(post("/v1/stream/s").text(append)).await.expect(204);
        rest.push(live.data().await);
        live.control().await;
    }
    gateway.send(post("/v1/stream/s").header("stream-closed", "true")).await.expect(204);
    rest.push(live.data().await);
    assert_eq!(rest, ["\nb", "\n", "\nc", "\n"]);
    assert_eq!(gateway.connect().await.events(url).await.data().await, "a\nb\n\nc\n");
    // A reader that resumes between CR and LF.
    let request = get(url).header("last-event-id", held);
    assert_eq!(gateway.connect().await.events_of(request).await.data().await, "\nb\n\nc\n");
}
