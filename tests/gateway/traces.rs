//! Traces of messages (`--otlp`), as a collector receives them: OTLP over HTTP, in protobuf.

use mqtt_protocol_core::mqtt::packet::{Property, UserProperty};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use prost::Message;
use serde_json::json;

use crate::wakes::{config, start, webhook};
use crate::world::mqtt::{Hello, Mqtt};
use crate::world::provider::Provider;
use crate::world::{Gateway, Origin, WebhookServer, get, post, put};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A gateway that sends its spans soon, and the collector.
struct Traced {
    gateway: Gateway,
    collector: Provider,
    /// Spans that were received and not looked for yet.
    spans: Vec<Span>,
}

impl Traced {
    async fn start(options: &[&str]) -> Self {
        let collector = Provider::start().await;
        let url = format!("http://{}/otlp", collector.address);
        let variables = [
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ];
        let gateway = Gateway::start_with(&[&["--otlp", &url], options].concat(), &variables).await;
        Self { gateway, collector, spans: Vec::new() }
    }

    /// Waits until `count` spans have arrived that `wanted` picks, and takes them.
    async fn spans(&mut self, count: usize, wanted: impl Fn(&Span) -> bool) -> Vec<Span> {
        while self.spans.iter().filter(|span| wanted(span)).count() < count {
            let request = self.collector.next().await;
            assert_eq!(
                [&*request.path, request.header("content-type"), request.header("x-key")],
                ["/otlp/v1/traces", "application/x-protobuf", "secret"]
            );
            let batch = ExportTraceServiceRequest::decode(&*request.body).unwrap();
            for resource in batch.resource_spans {
                let attributes = &resource.resource.as_ref().unwrap().attributes;
                for (key, expected) in [("service.name", "pollgate"), ("deployment.environment.name", "test")]
                {
                    let found = attributes.iter().find(|attribute| attribute.key == key).unwrap();
                    assert_eq!(text(found.value.as_ref().unwrap().value.as_ref()), expected);
                }
                self.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        let (taken, left) = std::mem::take(&mut self.spans).into_iter().partition(wanted);
        self.spans = left;
        taken
    }
}

fn text(value: Option<&any_value::Value>) -> String {
    match value {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    text(found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The `traceparent` of a publisher.
fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

#[tokio::test]
async fn a_publish_and_its_deliveries_in_different_forms_are_one_trace() {
    let mut traced = Traced::start(&[]).await;
    traced.gateway.send(put("/v1/stream/news").json("[]")).await.expect(201);
    let tail = traced.gateway.send(get("/v1/stream/news?offset=now")).await.next_offset();
    let mut events = traced.gateway.connect().await.events("/v1/stream/news?offset=now&live=sse").await;
    let mut poll = traced.gateway.connect().await;
    let poll =
        tokio::spawn(
            async move { poll.send(get(format!("/v1/stream/news?offset={tail}&live=long-poll"))).await },
        );
    events.control().await;
    traced.gateway.until_waiting(2).await;
    let mut subscriber = Mqtt::connect(traced.gateway.mqtt, &Hello::new("reader")).await;
    subscriber.subscribe("news", 0).await;
    let publish =
        post("/v1/stream/news").header("traceparent", traceparent("01")).header("tracestate", "a=1");
    traced.gateway.send(publish.json("[1,2]")).await.expect(204);
    assert_eq!(poll.await.unwrap().text(), "[1,2]");
    events.data().await;
    assert_eq!(subscriber.message().await.payload, b"1");

    let spans = traced.spans(4, |span| hex(&span.trace_id) == TRACE).await;
    let (publishes, deliveries): (Vec<_>, Vec<_>) = spans.iter().partition(|span| span.name == "publish");
    let [publish] = publishes[..] else { panic!("{spans:#?}") };
    assert_eq!((hex(&publish.parent_span_id), &*publish.trace_state), (PARENT.to_owned(), "a=1"));
    assert_eq!(attribute(publish, "messaging.destination.name"), "news");
    let mut forms: Vec<_> = deliveries.iter().map(|span| attribute(span, "pollgate.form")).collect();
    forms.sort();
    assert_eq!(forms, ["long-poll", "mqtt", "sse"]);
    for delivery in deliveries {
        assert_eq!((&*delivery.name, &delivery.parent_span_id), ("deliver", &publish.span_id));
        assert_eq!(delivery.start_time_unix_nano, publish.end_time_unix_nano, "it shows the wait");
        assert!(delivery.end_time_unix_nano >= delivery.start_time_unix_nano);
    }
}

/// The flag of the publisher counts in any case, the ratio without one.
#[tokio::test]
async fn only_what_is_sampled_is_traced() {
    let mut traced = Traced::start(&["--otlp-ratio", "0"]).await;
    let publish = async |gateway: &Gateway, stream: &str, parent: Option<String>| {
        let publish = post(format!("/v1/stream/{stream}?create=1"));
        let publish = match parent {
            Some(parent) => publish.header("traceparent", parent),
            None => publish,
        };
        gateway.send(publish.json("1")).await.expect(204);
    };
    publish(&traced.gateway, "unflagged", Some(traceparent("00"))).await;
    publish(&traced.gateway, "unnamed", None).await;
    publish(&traced.gateway, "malformed", Some("00-0af7-b7ad-01".to_owned())).await;
    publish(&traced.gateway, "flagged", Some(traceparent("01"))).await;
    let spans = traced.spans(1, |_| true).await;
    let streams: Vec<_> = spans.iter().map(|span| attribute(span, "messaging.destination.name")).collect();
    assert_eq!(streams, ["flagged"]);
}

#[tokio::test]
async fn clients_of_mqtt_webhooks_and_origins_are_part_of_traces() {
    let mut traced = Traced::start(&["--poll-origins", "--outbound-allow", "127.0.0.1"]).await;
    let mut server = WebhookServer::start().await;
    let hook = json!({"type": "webhook", "pattern": "events/*", "webhook": {"url": server.url()}});
    let subscription = put("/v1/stream/__ds/subscriptions/jobs").json(hook);
    traced.gateway.send(subscription).await.expect(201);
    let mut publisher = Mqtt::connect(traced.gateway.mqtt, &Hello::new("publisher")).await;
    let property = UserProperty::new("traceparent", traceparent("01")).unwrap();
    publisher.publish_with("events/a", b"1", 1, false, vec![Property::from(property)]).await;
    let told = server.next().await.header("traceparent").to_owned();
    let [_, trace, span, flags] = told.split('-').collect::<Vec<_>>()[..] else { panic!("{told}") };
    assert_eq!((trace, flags), (TRACE, "01"));
    let spans = traced.spans(2, |span| hex(&span.trace_id) == TRACE).await;
    let delivery = spans.iter().find(|span| span.name == "deliver").unwrap();
    assert_eq!(
        (hex(&delivery.span_id), &*attribute(delivery, "pollgate.form")),
        (span.to_owned(), "webhook")
    );

    let (folder, mut pusher) = (tempfile::tempdir().unwrap(), Provider::start().await);
    let mut arguments = config(folder.path(), &webhook("push", &pusher));
    arguments.extend(["--otlp".to_owned(), "http://127.0.0.1:9".to_owned()]);
    let waking = start(&arguments, &[]).await;
    waking.send(put("/v1/stream/news").json("[0]")).await.expect(201);
    let device = json!({"streams": {"news": null}, "channels": [{"app": "push", "credential": "token-1"}]});
    waking.send(put("/v1/devices/phone").json(device)).await.expect(201);
    waking.send(post("/v1/stream/news").header("traceparent", traceparent("01")).json("1")).await.expect(204);
    let told = pusher.next().await.header("traceparent").to_owned();
    assert!(told.contains(TRACE), "{told:?}");

    let origin = Origin::start("[1]").await;
    let creation = put("/v1/stream/feed")
        .header("content-type", "application/json")
        .header("stream-origin", origin.url())
        .header("stream-origin-interval", "1");
    traced.gateway.send(creation).await.expect(201);
    traced.gateway.send(get("/v1/stream/feed?offset=-1&live=long-poll&timeout=50")).await.expect(200);
    let spans = traced.spans(2, |span| attribute(span, "messaging.destination.name") == "feed").await;
    let poll = spans.iter().find(|span| span.name == "poll").unwrap();
    let publish = spans.iter().find(|span| span.name == "publish").unwrap();
    assert_eq!((&publish.trace_id, &publish.parent_span_id), (&poll.trace_id, &poll.span_id));
}

#[tokio::test]
async fn a_refused_publish_is_an_error_and_the_last_spans_are_sent_in_a_drain() {
    let mut traced = Traced::start(&[]).await;
    traced.gateway.send(post("/v1/stream/none").json("1")).await.expect(404);
    let [refused] = &traced.spans(1, |_| true).await[..] else { panic!("one span") };
    assert_eq!(refused.status.as_ref().unwrap().code, StatusCode::Error as i32);
    traced.gateway.send(put("/v1/stream/last").json("[]")).await.expect(201);
    traced.gateway.send(post("/v1/stream/last").json("1")).await.expect(204);
    traced.gateway.signal("TERM");
    let [last] = &traced.spans(1, |_| true).await[..] else { panic!("one span") };
    assert_eq!(attribute(last, "messaging.destination.name"), "last");
}

#[tokio::test]
async fn an_impossible_collector_is_refused_and_a_missing_one_costs_no_message() {
    for (url, ratio) in [("ftp://a", "1"), ("http://192.0.2.1:4318", "1"), ("http://127.0.0.1:1", "2")] {
        let arguments = ["--otlp", url, "--otlp-ratio", ratio];
        assert!(Gateway::start_under(&[], &arguments).await.is_err(), "{url} {ratio}");
    }
    let variables = [("OTEL_BSP_SCHEDULE_DELAY", "1"), ("OTEL_BSP_MAX_QUEUE_SIZE", "1")];
    let gateway = Gateway::start_with(&["--otlp", "http://127.0.0.1:1"], &variables).await;
    let mut connection = gateway.connect().await;
    for _ in 0..200 {
        connection.send(post("/v1/stream/s?create=1").json("1")).await.expect(204);
    }
}
