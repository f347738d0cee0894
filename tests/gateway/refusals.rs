//! Invalid and hostile requests: each is refused immediately with a problem document, and changes no state.

mod bodies;
mod framing;
mod memory;
mod names;
mod values;

use std::time::Duration;

use crate::world::{Answer, Gateway, Request, Stopwatch, get, head, put};

/// A complete invalid request is refused immediately: every timeout of the gateway is longer than this.
const AT_ONCE: Duration = Duration::from_secs(1);

const TEXT: &str = "/v1/stream/text";
const JSON: &str = "/v1/stream/json";

/// A gateway with two streams of one message each, which no refused request may change.
struct Fixture {
    gateway: Gateway,
    tails: [String; 2],
}

impl Fixture {
    async fn start() -> Self {
        let gateway = Gateway::start(&[]).await;
        let text = gateway.send(put(TEXT).text("first")).await.expect(201).next_offset();
        let json = gateway.send(put(JSON).json(r#"["first"]"#)).await.expect(201).next_offset();
        Self { gateway, tails: [text, json] }
    }

    /// Sends a request that must be refused with this status and problem type.
    async fn refuses(&self, request: Request, status: u16, kind: &str) -> Answer {
        let mut connection = self.gateway.connect().await;
        let since = Stopwatch::start();
        let answer = connection.send(request.clone()).await;
        let took = since.took();
        assert_eq!(answer.status, status, "{request:?}: {answer:?}");
        assert_eq!(answer.problem(), kind, "{request:?}: {answer:?}");
        assert_eq!(answer.json()["status"], status);
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{answer:?}");
        assert!(took.is_below(AT_ONCE), "{request:?} was refused after {took:?}");
        answer
    }

    /// Sends bytes, one packet for each piece. If hyper cannot parse a request, it answers with a bare status or not at all;
    /// otherwise the gateway sends a problem document. `None`: there was no response.
    async fn refuses_bytes(&self, pieces: &[&[u8]]) -> Option<Answer> {
        let shown = || pieces.concat().escape_ascii().to_string().chars().take(200).collect::<String>();
        let mut raw = self.gateway.connect_raw().await;
        raw.send_in_pieces(pieces).await.unwrap_or_else(|error| panic!("{error}: {}", shown()));
        let since = Stopwatch::start();
        let answer = raw.answer().await.unwrap_or_else(|error| panic!("{error}: {}", shown()));
        let took = since.took();
        assert!(took.is_below(AT_ONCE), "{} was refused after {took:?}", shown());
        if let Some(answer) = &answer {
            assert!(answer.status.is_client_error() || answer.status == 501, "{}: {answer:?}", shown());
            assert!(answer.body.is_empty() || !answer.problem().is_empty());
        }
        answer
    }

    /// Asserts that nothing was created or appended, and that the gateway still serves.
    async fn is_untouched(&self) {
        assert_eq!(self.gateway.metric("pollgate_streams").await, 2.0, "streams");
        for (stream, tail) in [TEXT, JSON].into_iter().zip(&self.tails) {
            assert_eq!(&self.gateway.send(head(stream)).await.expect(200).next_offset(), tail, "{stream}");
        }
        assert_eq!(self.gateway.send(get(TEXT)).await.expect(200).text(), "first");
        assert_eq!(self.gateway.send(get(JSON)).await.expect(200).text(), r#"["first"]"#);
    }
}
