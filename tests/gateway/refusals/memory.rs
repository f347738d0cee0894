//! Hostile requests use almost no memory, during and after the attack.

use super::{Fixture, JSON, TEXT};
use crate::world::post;

const MEMORY_BYTES_MAX: u64 = 8 * 1024 * 1024;

#[tokio::test]
async fn large_and_lying_requests_raise_the_memory_by_8_mib_at_most() {
    let fixture = Fixture::start().await;
    let before = fixture.gateway.memory_bytes();
    let raised = || fixture.gateway.memory_bytes().saturating_sub(before);

    let fields: String = (0..100_000).map(|n| format!("field-{n}: {n}\r\n")).collect();
    let many_fields = format!("GET {TEXT} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n");
    for _ in 0..5 {
        fixture.refuses_bytes(&[many_fields.as_bytes()]).await;
    }
    assert!(raised() < MEMORY_BYTES_MAX, "10^5 fields: {} bytes", raised());

    for _ in 0..5 {
        fixture.refuses(post(JSON).json("[".repeat(1_000_000)), 400, "json-depth").await;
    }
    assert!(raised() < MEMORY_BYTES_MAX, "10^6 levels: {} bytes", raised());

    // Concurrently: a gateway that allocated the announced lengths would exceed the limit.
    let mut waiting = Vec::new();
    for length in [1_u64 << 20, 16 << 20, 1 << 63, u64::MAX - 2].repeat(5) {
        let mut raw = fixture.gateway.connect_raw().await;
        let head = format!(
            "POST {TEXT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\nx"
        );
        raw.send(head).await.unwrap();
        waiting.push(raw);
    }
    let refused = waiting.iter_mut().enumerate().filter(|(index, _)| index % 4 >= 2);
    for (_, raw) in refused {
        raw.answer().await.unwrap().expect("an answer");
    }
    assert!(raised() < MEMORY_BYTES_MAX, "lengths: {} bytes", raised());
    drop(waiting);
    fixture.is_untouched().await;
}
