//! Measures the encoding of one server-sent event: for each content type with one small message, with many small ones, and with
//! one large one.
//!
//! `cargo bench --bench encoders`; about half a minute.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pollgate::http::sse_event;
use pollgate::hub::{SharedBatch, Update};
use pollgate::stream::{Batch, CacheCursor, ContentType, Epoch, Offset, Position};

const CONTENT_TYPES: [&str; 3] = ["application/json", "text/plain", "application/octet-stream"];

/// Number of messages in the batch, and bytes of each.
const SIZES: [(usize, usize); 3] = [(1, 100), (100, 100), (1, 32 * 1024)];

fn batch(content_type: &str, messages: usize, message_bytes: usize) -> Update {
    let message = Bytes::from(format!("\"{}\"", "x".repeat(message_bytes - 2)));
    let epoch = Epoch(1 << 60);
    let offset = |position| Offset { epoch, position: Position(position) };
    Update::Batch(SharedBatch::from(Batch {
        content_type: ContentType::parse(content_type).unwrap(),
        pieces: vec![message; messages],
        messages: messages as u64,
        start: offset(0),
        next: offset(messages as u64),
        tail: Position(messages as u64),
        up_to_date: true,
        closed: false,
        epoch,
        lives_for: None,
    }))
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sse event");
    for content_type in CONTENT_TYPES {
        for (messages, message_bytes) in SIZES {
            let update = batch(content_type, messages, message_bytes);
            let size = BenchmarkId::new(content_type, format!("{messages} x {message_bytes} bytes"));
            group.throughput(Throughput::Bytes((messages * message_bytes) as u64));
            group.bench_with_input(size, &update, |bencher, update| {
                bencher.iter(|| sse_event(update, CacheCursor(1_234_567), None));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = encode
}
criterion_main!(benches);
