//! [`Reader`]: reads a stream in any delivery form, batch by batch from an offset.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{sleep, timeout};

use super::PATIENCE;
use super::client::{Answer, Connection, get};
use super::kind::{Kind, lines};
use super::sse::Events;
use super::websocket::{Close, WebSocket};

/// Interval of short polls.
const INTERVAL: Duration = Duration::from_millis(5);

/// A delivery form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    ShortPoll,
    LongPoll,
    Sse,
    Ndjson,
    WebSocket,
}

/// Address and kind of a stream.
#[derive(Debug, Clone)]
pub struct Place {
    pub address: SocketAddr,
    pub path: String,
    pub kind: Kind,
}

/// Messages in the form of [`Kind::log`], and the offset after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub data: Vec<u8>,
    pub next: String,
    pub up_to_date: bool,
    pub closed: bool,
}

/// Why a reader gets no more messages, in any form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub problem: String,
    /// `Stream-Gap`, or empty.
    pub gap: String,
    /// `Stream-Earliest-Offset`, or empty.
    pub earliest: String,
}

/// A reader whose request was accepted. A drop closes its socket without a close frame.
pub struct Reader {
    place: Place,
    form: Form,
    open_form: OpenForm,
    first: Option<Batch>,
    offset: String,
    closed: bool,
}

enum OpenForm {
    Poll(Connection),
    Sse(Events),
    Ndjson { _connection: Connection, body: Incoming, read: Vec<u8> },
    WebSocket(WebSocket),
}

/// An envelope, or the control event of server-sent events with the `data` before it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Control<'a> {
    #[serde(borrow, default)]
    data: Vec<&'a RawValue>,
    stream_next_offset: String,
    #[serde(default)]
    up_to_date: bool,
    #[serde(default)]
    stream_closed: bool,
    gap: Option<String>,
}

impl Form {
    pub const ALL: [Self; 5] = [Self::ShortPoll, Self::LongPoll, Self::Sse, Self::Ndjson, Self::WebSocket];

    /// Forms in which the gateway sends messages by itself.
    pub const LIVE: [Self; 3] = [Self::Sse, Self::Ndjson, Self::WebSocket];

    /// Returns the value of `live`.
    pub fn name(self) -> &'static str {
        match self {
            Self::ShortPoll => "",
            Self::LongPoll => "long-poll",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::WebSocket => "websocket",
        }
    }

    fn query(self) -> String {
        if self == Self::ShortPoll { String::new() } else { format!("&live={}", self.name()) }
    }
}

impl Reader {
    /// Reads from `offset`, and returns after the first batch, which may be empty: every form sends it at once.
    pub async fn open(place: &Place, form: Form, offset: &str) -> Result<Self, Refusal> {
        let target = format!("{}?offset={offset}{}", place.path, form.query());
        let (open_form, first) = match form {
            Form::ShortPoll => Self::open_poll(place, target).await?,
            Form::LongPoll => Self::open_poll(place, target + "&timeout=0").await?,
            Form::WebSocket => (OpenForm::WebSocket(WebSocket::open(place.address, &target).await?), None),
            Form::Sse | Form::Ndjson => {
                let mut connection = Connection::open(place.address).await;
                let begun =
                    timeout(PATIENCE, connection.begin(get(target))).await.expect("an answer in time");
                let (status, headers, body) = begun.expect("an answer");
                if status != 200 {
                    let body = body.collect().await.expect("the whole answer").to_bytes();
                    return Err(Answer { status, headers, body }.into());
                }
                (OpenForm::of(form, connection, headers, body), None)
            }
        };
        let (place, offset) = (place.clone(), offset.to_owned());
        let mut reader = Self { place, form, open_form, first, offset, closed: false };
        if reader.first.is_none() {
            reader.first = reader.receive().await?;
            assert!(reader.first.is_some(), "{form:?} ended before its first batch");
        }
        Ok(reader)
    }

    async fn open_poll(place: &Place, target: String) -> Result<(OpenForm, Option<Batch>), Refusal> {
        let mut connection = Connection::open(place.address).await;
        let first = Batch::of_answer(place.kind, connection.send(get(target)).await)?;
        Ok((OpenForm::Poll(connection), Some(first)))
    }

    /// Returns the offset from which another reader would continue.
    pub fn offset(&self) -> &str {
        &self.offset
    }

    /// Returns the next batch; `None` after the last batch of a closed stream. If the gateway ends a live form, the reader
    /// requests it again, as clients do.
    pub async fn next(&mut self) -> Result<Option<Batch>, Refusal> {
        let batch = match self.first.take() {
            Some(batch) => Some(batch),
            None => self.receive().await?,
        };
        if batch.is_none() && !self.closed {
            *self = Box::pin(Self::open(&self.place, self.form, &self.offset)).await?;
            return Box::pin(self.next()).await;
        }
        if let Some(batch) = &batch {
            self.offset.clone_from(&batch.next);
            self.closed = batch.closed;
        }
        Ok(batch)
    }

    /// Reads as many bytes as `data` has, which must be equal to it.
    #[track_caller]
    pub fn expect<'a>(&'a mut self, data: &'a [u8]) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let mut read = Vec::new();
            while read.len() < data.len() || self.first.is_some() {
                let batch = self.next().await.unwrap_or_else(|refusal| panic!("{caller}: {refusal:?}"));
                read.extend(batch.unwrap_or_else(|| panic!("{caller}: the end")).data);
            }
            let texts = [&read, data].map(String::from_utf8_lossy);
            assert_eq!(texts[0], texts[1], "{caller}: {:?}", self.form);
        }
    }

    /// Reads to the end of a stream that is closed or will be.
    pub async fn rest(&mut self) -> Result<Vec<u8>, Refusal> {
        let mut read = Vec::new();
        while let Some(batch) = self.next().await? {
            read.extend(batch.data);
        }
        Ok(read)
    }

    /// Returns the next batch of the form; `None` at its end.
    async fn receive(&mut self) -> Result<Option<Batch>, Refusal> {
        let kind = self.place.kind;
        match &mut self.open_form {
            OpenForm::Poll(_) if self.closed => Ok(None),
            OpenForm::Poll(connection) => loop {
                let target = format!("{}?offset={}{}", self.place.path, self.offset, self.form.query());
                let batch = Batch::of_answer(kind, connection.send(get(target)).await)?;
                if !batch.data.is_empty() || batch.closed {
                    return Ok(Some(batch));
                }
                sleep(INTERVAL).await;
            },
            OpenForm::Sse(events) => {
                let Some(first) = events.next().await else { return Ok(None) };
                if first.name == "control" {
                    return Batch::of_control(kind, &first.data).map(Some);
                }
                assert_eq!(first.name, "data");
                let control = events.next().await.expect("a control event behind the data");
                let mut batch = Batch::of_control(kind, &control.data)?;
                batch.data = match kind {
                    Kind::Binary => STANDARD.decode(first.data).expect("base64"),
                    Kind::Json | Kind::Text => kind.log(first.data.as_bytes()),
                };
                Ok(Some(batch))
            }
            OpenForm::Ndjson { body, read, .. } => match next_line(body, read).await {
                Some(line) => Batch::of_control(kind, &line).map(Some),
                None => Ok(None),
            },
            OpenForm::WebSocket(socket) => match socket.text().await {
                Ok(envelope) => Batch::of_control(kind, &envelope).map(Some),
                Err(Close(1000 | 1001, _)) => Ok(None),
                Err(close) => panic!("{close:?}"),
            },
        }
    }
}

impl OpenForm {
    fn of(form: Form, connection: Connection, headers: HeaderMap, body: Incoming) -> Self {
        let (content_type, open_form) = if form == Form::Sse {
            ("text/event-stream", Self::Sse(Events::new(connection, headers.clone(), body)))
        } else {
            ("application/x-ndjson", Self::Ndjson { _connection: connection, body, read: Vec::new() })
        };
        assert_eq!(headers.get("content-type").expect("a content type"), content_type);
        open_form
    }
}

/// Returns the next line of a body without its line break; `None` at the end of the body, which must follow a line break.
pub async fn next_line(body: &mut Incoming, read: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            let line = read.drain(..=end).collect::<Vec<_>>();
            return Some(String::from_utf8(line).expect("UTF-8"));
        }
        match timeout(PATIENCE, body.frame()).await.expect("a line in time") {
            Some(frame) => read.extend(frame.expect("an unbroken body").data_ref().expect("data")),
            None => {
                assert!(read.is_empty(), "half a line: {:?}", String::from_utf8_lossy(read));
                return None;
            }
        }
    }
}

impl Batch {
    fn of_answer(kind: Kind, answer: Answer) -> Result<Self, Refusal> {
        if !matches!(answer.status.as_u16(), 200 | 204) {
            return Err(answer.into());
        }
        Ok(Self {
            data: if answer.body.is_empty() { Vec::new() } else { kind.log(&answer.body) },
            next: answer.next_offset(),
            up_to_date: answer.header("stream-up-to-date") == "true",
            closed: answer.header("stream-closed") == "true",
        })
    }

    fn of_control(kind: Kind, json: &str) -> Result<Self, Refusal> {
        let control: Control<'_> = serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json:?}"));
        let strings =
            || control.data.iter().map(|raw| serde_json::from_str::<String>(raw.get()).expect("a string"));
        let data = match kind {
            Kind::Json => lines(control.data.iter().copied()),
            Kind::Text => strings().collect::<String>().into_bytes(),
            Kind::Binary => strings().flat_map(|string| STANDARD.decode(string).expect("base64")).collect(),
        };
        let Control { stream_next_offset: next, up_to_date, stream_closed: closed, gap, .. } = control;
        match gap {
            None => Ok(Self { data, next, up_to_date, closed }),
            Some(gap) => Err(Refusal { status: 410, problem: "gap".into(), gap, earliest: next }),
        }
    }
}

impl From<Answer> for Refusal {
    fn from(answer: Answer) -> Self {
        Self {
            status: answer.status.as_u16(),
            problem: answer.problem(),
            gap: answer.header("stream-gap").into(),
            earliest: answer.header("stream-earliest-offset").into(),
        }
    }
}
