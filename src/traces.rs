//! Traces of messages (`--otlp`): a span for each publish, and one for each delivery, in the trace of the publisher's request
//! (W3C Trace Context). `server/traces.rs` sends them to a collector.
//!
//! Without `--otlp` there are no [`Traces`], and a publish and a delivery cost one look at an empty option more. The log has no trace contexts:
//! those of the last traced messages are in memory (`recent`), so that a message that is delivered much later, or by another gateway, is in
//! no trace.

mod recent;

use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderInjector;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span, SpanExporter};
use parking_lot::Mutex;

use recent::{PublishedMessage, RecentMessages};

/// The header fields of a trace context.
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Records the traces of messages. Finished spans wait in a queue of 2048 (`OTEL_BSP_MAX_QUEUE_SIZE`); those that do not fit are lost, and a
/// warning is logged.
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
    recent: Mutex<RecentMessages>,
}

/// A publish that is traced and under way.
pub struct PublishSpan {
    traces: Arc<Traces>,
    span: Span,
}

/// A request of the gateway that is traced, and whose receiver is told so.
pub struct RequestSpan {
    traces: Arc<Traces>,
    span: Span,
}

/// The trace context of a publisher's request: values of `traceparent` and `tracestate`.
struct ParentFields<'a>(&'a str, &'a str);

impl Extractor for ParentFields<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => Some(self.0),
            TRACESTATE => Some(self.1),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

impl Traces {
    /// Begins to record. A publish with a trace context is traced if its publisher has set the sampled flag. Of the other publishes, the part
    /// `ratio` (0 to 1) is traced. Needs a tokio runtime if the exporter does.
    pub fn new(exporter: impl SpanExporter + 'static, ratio: f64) -> Arc<Self> {
        let name = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "pollgate".to_owned());
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
            .with_resource(Resource::builder().with_service_name(name).build())
            .build();
        let tracer = provider.tracer("pollgate");
        let (propagator, recent) = Default::default();
        Arc::new(Self { provider, tracer, propagator, recent })
    }

    /// Begins the span of a publish. `parent` is the trace context of its request: `traceparent` and `tracestate`. `None`: it is not traced.
    pub fn publish(self: &Arc<Self>, stream: &str, parent: Option<(&str, &str)>) -> Option<PublishSpan> {
        let (parent, state) = parent.unwrap_or_default();
        let parent = self.propagator.extract_with_context(&Context::new(), &ParentFields(parent, state));
        let span = self
            .tracer
            .span_builder("publish")
            .with_kind(SpanKind::Producer)
            .with_attributes(attributes(stream, "send"))
            .start_with_context(&self.tracer, &parent);
        span.is_recording().then(|| PublishSpan { traces: self.clone(), span })
    }

    /// Records that a client got the messages of a stream after the position `from`, up to `to`.
    pub fn delivered(&self, stream: &str, form: &'static str, from: u64, to: u64) {
        let messages = self.recent.lock().between(stream, from, to);
        for message in messages {
            self.begin_delivery(stream, form, message).end();
        }
    }

    /// Begins the delivery, by a request, of the last message of each stream, which is before its tail. Its span is in the trace of the first
    /// of these messages that is traced, and linked to the others. `None`: none of them is.
    pub fn hand_on<'a>(
        self: &Arc<Self>,
        form: &'static str,
        tails: impl Iterator<Item = (&'a str, u64)>,
    ) -> Option<RequestSpan> {
        let mut last =
            tails.filter_map(|(stream, tail)| Some((stream, self.recent.lock().last(stream, tail)?)));
        let (stream, message) = last.next()?;
        let mut span = self.begin_delivery(stream, form, message);
        for (_, other) in last {
            span.add_link(other.context, Vec::new());
        }
        Some(RequestSpan { traces: self.clone(), span })
    }

    /// Begins the trace of a request to the origin of a stream. `None`: it is not traced.
    pub fn poll(self: &Arc<Self>, stream: &str) -> Option<RequestSpan> {
        let span = self
            .tracer
            .span_builder("poll")
            .with_kind(SpanKind::Client)
            .with_attributes(attributes(stream, "receive"))
            .start_with_context(&self.tracer, &Context::new());
        span.is_recording().then(|| RequestSpan { traces: self.clone(), span })
    }

    fn begin_delivery(&self, stream: &str, form: &'static str, message: PublishedMessage) -> Span {
        let mut attributes = attributes(stream, "receive");
        attributes.push(KeyValue::new("pollgate.form", form));
        attributes.push(KeyValue::new("pollgate.position", position(message.end)));
        let parent = Context::new().with_remote_span_context(message.context);
        self.tracer
            .span_builder("deliver")
            .with_kind(SpanKind::Consumer)
            .with_start_time(message.stored_at)
            .with_attributes(attributes)
            .start_with_context(&self.tracer, &parent)
    }

    /// Sends what was recorded, and ends. This blocks for at most `limit`.
    pub fn shut_down(&self, limit: Duration) -> Result<(), OTelSdkError> {
        self.provider.shutdown_with_timeout(limit)
    }
}

impl PublishSpan {
    /// Ends the span of a publish whose messages are stored up to `tail`, in a log with the epoch `epoch`.
    pub fn stored(mut self, stream: &str, epoch: u64, tail: u64) {
        self.span.set_attribute(KeyValue::new("pollgate.position", position(tail)));
        let (context, stored_at) = (self.span.span_context().clone(), opentelemetry::time::now());
        self.span.end_with_timestamp(stored_at);
        let message = PublishedMessage { end: tail, context, stored_at };
        self.traces.recent.lock().push(stream, epoch, message);
    }

    /// Ends the span of a publish that repeated an earlier one.
    pub fn repeated(mut self) {
        self.span.set_attribute(KeyValue::new("pollgate.duplicate", true));
        self.span.end();
    }

    /// Ends the span of a publish that was refused.
    pub fn failed(mut self, why: String) {
        self.span.set_status(Status::error(why));
        self.span.end();
    }
}

impl RequestSpan {
    /// Puts the trace context into the header fields of the request.
    pub fn put(&self, fields: &mut HeaderMap) {
        let context = Context::new().with_remote_span_context(self.span.span_context().clone());
        self.traces.propagator.inject_context(&context, &mut HeaderInjector(fields));
        if fields.get(TRACESTATE).is_some_and(HeaderValue::is_empty) {
            fields.remove(TRACESTATE);
        }
    }

    /// Ends the span. `error` tells why the request failed.
    pub fn end(mut self, error: Option<String>) {
        if let Some(error) = error {
            self.span.set_status(Status::error(error));
        }
        self.span.end();
    }
}

/// The attributes of all spans, by the semantic conventions for messaging.
fn attributes(stream: &str, operation: &'static str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "pollgate"),
        KeyValue::new("messaging.operation.type", operation),
        KeyValue::new("messaging.destination.name", stream.to_owned()),
    ]
}

fn position(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}
