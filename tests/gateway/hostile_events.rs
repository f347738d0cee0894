//! Messages that look like server-sent events. A reference parser must see exactly the published messages: no event may be
//! added, lost or altered.

mod drawn;
mod ids;
mod picked;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use crate::world::{Connection, Gateway, delete, get, post, put};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Json,
    Binary,
}

impl Kind {
    fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain",
            Self::Json => "application/json",
            Self::Binary => "application/octet-stream",
        }
    }

    /// The expected data of an event for a range of the log.
    ///
    /// Text is the one form that cannot carry everything: each spelling of a line break reads as LF, and what is
    /// not UTF-8 as U+FFFD.
    fn expected(self, stretch: &[u8]) -> String {
        match self {
            Self::Text => String::from_utf8_lossy(stretch).replace("\r\n", "\n").replace('\r', "\n"),
            Self::Json => String::from_utf8(stretch.to_vec()).unwrap(),
            Self::Binary => STANDARD.encode(stretch),
        }
    }

    /// The data of an event, normalized for comparison.
    fn seen(self, data: String) -> String {
        if self == Self::Json { serde_json::to_string(&values(data.as_bytes())).unwrap() } else { data }
    }

    /// The part of the response `all` before its suffix `rest`.
    fn before(self, all: &[u8], rest: &[u8]) -> Vec<u8> {
        if self != Self::Json {
            return all.strip_suffix(rest).expect("the same log").to_vec();
        }
        let (all, rest) = (values(all), values(rest));
        serde_json::to_vec(all.strip_suffix(&rest[..]).expect("the same log")).unwrap()
    }

    /// The log after these appends.
    fn log(self, appends: &[Bytes]) -> Vec<u8> {
        if self != Self::Json {
            return appends.concat();
        }
        let appended = |append: &Bytes| match serde_json::from_slice(append).expect("JSON") {
            Value::Array(values) => values,
            value => vec![value],
        };
        serde_json::to_vec(&appends.iter().flat_map(appended).collect::<Vec<Value>>()).unwrap()
    }
}

fn values(array: &[u8]) -> Vec<Value> {
    serde_json::from_slice(array).expect("a JSON array")
}

/// A stream that is published to and read, and recreated for the next case.
struct Case<'a> {
    gateway: &'a Gateway,
    publisher: Connection,
    kind: Kind,
}

impl<'a> Case<'a> {
    const STREAM: &'static str = "/v1/stream/hostile";

    async fn new(gateway: &'a Gateway, kind: Kind) -> Self {
        Self { gateway, publisher: gateway.connect().await, kind }
    }

    /// Publishes `before`, opens a reader, publishes `behind` while it reads, and closes the stream. Then each
    /// event has to be the stretch of the log between two offsets, from which a short poll reads the rest.
    async fn arrives(&mut self, before: &[Bytes], behind: &[Bytes]) {
        let shown = format!("{:?}: {before:?} then {behind:?}", self.kind);
        let create = put(Self::STREAM).header("content-type", self.kind.content_type());
        self.publisher.send(create).await.expect(201);
        for append in before {
            self.append(append).await;
        }
        let reader = self.gateway.connect().await;
        let mut events = reader.events(format!("{}?offset=-1&live=sse", Self::STREAM)).await;
        for append in behind {
            self.append(append).await;
        }
        let close = post(Self::STREAM).header("stream-closed", "true");
        let tail = self.publisher.send(close).await.expect(204).next_offset();

        let whole = self.read("-1").await;
        assert_eq!(
            self.kind.before(&whole, &self.nothing()),
            self.kind.log(&[before, behind].concat()),
            "{shown}"
        );
        let (mut rest, mut offset, mut stretches) = (whole.clone(), String::new(), Vec::new());
        while let Some(first) = events.next().await {
            let (data, control) = match first.name.as_str() {
                "data" => (Some(first.data), events.next().await.expect("a control event")),
                _ => (None, first),
            };
            assert_eq!(control.name, "control", "{shown}");
            let control: Value = serde_json::from_str(&control.data).expect("JSON");
            offset = control["streamNextOffset"].as_str().expect("an offset").to_owned();
            let rest_behind = self.read(&offset).await;
            let stretch = self.kind.before(&rest, &rest_behind);
            match data {
                Some(data) => assert_eq!(self.kind.seen(data), self.kind.expected(&stretch), "{shown}"),
                None => assert_eq!(rest, rest_behind, "{shown}"),
            }
            stretches.push(String::from_utf8_lossy(&stretch).into_owned());
            rest = rest_behind;
        }
        assert_eq!(offset, tail, "{shown}");
        if self.kind == Kind::Text {
            assert_eq!(stretches.concat(), String::from_utf8_lossy(&whole), "no character is cut: {shown}");
        }
        self.publisher.send(delete(Self::STREAM)).await.expect(204);
    }

    /// Reads from an offset with a short poll.
    async fn read(&mut self, offset: &str) -> Bytes {
        self.publisher.send(get(format!("{}?offset={offset}", Self::STREAM))).await.expect(200).body
    }

    /// Reads at the tail with a short poll.
    fn nothing(&self) -> Bytes {
        Bytes::from(if self.kind == Kind::Json { "[]" } else { "" })
    }

    async fn append(&mut self, message: &Bytes) {
        let append =
            post(Self::STREAM).header("content-type", self.kind.content_type()).body(message.clone());
        self.publisher.send(append).await.expect(204);
    }
}
