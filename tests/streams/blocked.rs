//! Changes of streams while their reader does not read: all are reported in one turn, and the resume token includes them.

use serde_json::json;

use super::ask::Ask;
use super::reader::Reader;
use crate::world::{Form, Gateway, delete, post, put, until};

/// Larger than the buffers of both sockets and of the client.
const LARGE: usize = 4 << 20;

const SENT: &str = "pollgate_messages_total{kind=\"out\"}";

/// 1. A reader of two streams is sent a large message of one of them, and does not read it.
/// 2. Meanwhile the other one is deleted and recreated, which leaves a gap without messages after it.
/// 3. The reader receives the gap in a separate turn, in which the stream is examined twice.
/// 4. A reader that continues with its token does not receive the gap again.
#[tokio::test]
async fn the_resume_token_includes_a_gap_without_messages_after_it() {
    let limits = ["--limit", "socket_send_bytes=16384", "--limit", "body_bytes_max=8388608"];
    let gateway = Gateway::start(&limits).await;
    for form in Form::LIVE {
        let (large, other) = (format!("{form:?}/large"), format!("{form:?}/other"));
        for name in [&large, &other] {
            gateway.send(put(format!("/v1/stream/{name}")).json("[0]")).await.expect(201);
        }
        let ask = Ask::of([large.clone(), other.clone()]);
        let mut reader = Reader::open(&gateway, form, ask.clone()).await;
        assert!(reader.next().await.unwrap().batches.is_empty());
        let sent = gateway.metric(SENT).await;
        let message = format!("\"{}\"", "x".repeat(LARGE));
        gateway.send(post(format!("/v1/stream/{large}")).json(message)).await.expect(204);
        until("it is sent", async || gateway.metric(SENT).await > sent).await;

        gateway.send(delete(format!("/v1/stream/{other}"))).await.expect(204);
        gateway.send(put(format!("/v1/stream/{other}")).json("[]")).await.expect(201);

        assert_eq!(reader.news().await.streams(), [&large], "{form:?}");
        let envelope = reader.news().await;
        assert_eq!(envelope.streams(), [&other], "{form:?}");
        assert_eq!(envelope.batches[0].gap.as_deref(), Some("reason=epoch"), "{form:?}");
        assert!(envelope.up_to_date, "{form:?}: {envelope:?}");

        let again = ask.clone().behind(&reader.resume).poll(&mut gateway.connect().await).await;
        assert!(again.batches.is_empty() && again.up_to_date, "{form:?}: {again:?}");
        gateway.send(post(format!("/v1/stream/{other}")).json("1")).await.expect(204);
        let again = ask.behind(&reader.resume).poll(&mut gateway.connect().await).await;
        assert_eq!((again.streams(), &again.batches[0].data), (vec![other.as_str()], &vec![json!(1)]));
    }
}
